"""A unit's start: on all its nodes at once, or with one of them a moment ahead of the others."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from runbook import errors, lock_script
from runbook.journal import Pulse
from runbook.plain_text import clean, printable
from runbook.plans.apply import Result
from runbook.plans.rollout import Stop, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runbook.fleet import Fleet, Outcome
    from runbook.params import Node
    from runbook.resources import Change
    from runbook.ssh import Connection

START_TIMEOUT_S = 120
#: The others wait no longer than this for the one that is ahead: what keeps it back does not keep them.
AHEAD_S = 5.0
#: No more of a journal's line than this, and of its end.
_LINE_LENGTH = 300
_LINES = 12
_MOST_TRIES = 8
#: After this a unit has begun to start, and waits for others.
_BEGINS_S = 0.2

#: What goes on beside a start: the word for the others, and twice a second the journal's newest line. None of its
#: programs has the channel's output: it would stay open for the last of them.
_BESIDE = """\
beside() {{
  {tell_begun}
  last=
  while sleep 0.5 >/dev/null; do
    line=$(said | tail -n 1 | cut -c 1-{length})
    [ "$line" = "$last" ] || printf '@line %s\\n' "$line"
    last=$line
  done
}}
# Its newest lines are asked of tail: with --since, journalctl -n gives the oldest ones (systemd 252).
said() {{ journalctl -u {name} --since "$since" --no-pager -o cat; }}
beside 2>/dev/null & beside=$!
trap 'kill "$beside" 2>/dev/null; wait $enabling' EXIT
"""
#: To enable a unit has systemd read all units anew, a tenth of a second in which it starts nothing. One that nothing
#: wants it reads as it starts it: that one is enabled meanwhile.
_ENABLE = """\
fresh= enabling=
enable() {{ systemctl enable --quiet {name}; }}
up() {{ [ -z "$enabling" ] || wait "$enabling" || exit 1; exit 0; }}
case $(systemctl show --no-pager -p ActiveState -p UnitFileState -p NeedDaemonReload {name}) in
  *UnitFileState=enabled*|*NeedDaemonReload=yes*) ;;
  *ActiveState=inactive*) fresh=yes ;;
esac
if [ ! "$fresh" ]; then
  enable || exit 1
  systemctl reset-failed {name} 2>/dev/null
fi
"""
_ENABLE_MEANWHILE = """\
if [ "$fresh" ]; then
  {{ sleep {begins_s} >/dev/null; enable; }} & enabling=$!
fi
"""
_TELL_BEGUN = """\
turn=0
  until {{ {begun}; }} || [ $turn -ge {turns} ]; do turn=$((turn + 1)); sleep 0.02 >/dev/null; done
  echo @follow"""
_RESTART = """\
tries=1
while :; do
  answer=$(timeout {timeout} systemctl restart {name} 2>&1) && up
  {again} || break
  tries=$((tries + 1)); echo @again
  systemctl reset-failed {name} 2>/dev/null  # or systemd refuses the sixth start within 10 s
done
"""
_AGAIN = """\
[ $tries -lt {most} ] && journalctl --sync && \\
    said | tail -n {lines} | grep -qF {words}"""
_WAIT = """\
crashes=0; crashed=
while :; do
  state=$(systemctl show --no-pager -p ActiveState -p SubState -p Job {name})
  # As long as a job waits or runs, `active` may be the old process.
  case "$state" in
    *Job=[1-9]*) ;;
    *ActiveState=active*) up ;;
    *ActiveState=failed*) crashes=2 ;;
    *ActiveState=inactive*) [ -z "$answer" ] || {{ printf '%s\\n' "$answer" >&2; crashes=2; }} ;;
  esac
  case "$state" in *SubState=auto-restart*) [ "$crashed" ] || crashes=$((crashes + 1)); crashed=1;; *) crashed=;; esac
  if [ $crashes -ge 2 ] || [ "$(date +%s)" -ge $end ]; then
    [ $crashes -ge 2 ] || echo "not ready within {timeout} s:" $state >&2
    said | tail -n {lines} >&2
    exit 1
  fi
  sleep 0.1
done
"""


@dataclass(frozen=True)
class Ahead:
    """Which of the nodes that start begins, and what lets the others follow.

    Attributes:
        rank: Orders the nodes: the least begins.
        begun: sh that succeeds on that node as soon as the others may follow.
    """

    rank: Callable[[Node], str]
    begun: str


@dataclass(frozen=True)
class Manner:
    """How units are started, where systemd's start alone is not the whole of it.

    Attributes:
        ahead: Lets one of those that start begin a moment before the others.
        again: What the unit's journal says of a start that failed by bad luck alone: it is tried again at once.
    """

    ahead: Ahead | None = None
    again: str = ""


PLAIN = Manner()


def script(unit: str, verb: str, timeout_s: int, *, begun: str = "", follows: bool = False, again: str = "") -> str:
    """Give the sh that (re)starts a unit and waits until it is active.

    It returns at once when the start fails, with the end of its journal on stderr. While it waits it prints the newest
    line of the unit's journal as `@line TEXT`, whenever there is another one.

    Args:
        unit: Its name.
        verb: start, restart or enable.
        timeout_s: How long it may take until it is active.
        begun: sh; `@follow` is printed once it succeeds, or the start has failed.
        follows: Start it only when a line comes on standard input. An end of the input is the end of who asked for it:
            then nothing is started.
        again: What the journal says of a start that is tried again at once; `@again` is printed before.
    """
    name = quote(unit)
    told = _TELL_BEGUN.format(begun=begun, turns=int(AHEAD_S * 50)) if begun else ""
    beside = _BESIDE.format(name=name, length=_LINE_LENGTH, tell_begun=told)
    # A unit that hangs in `activating` is not helped by start, hence restart. It ends when the job ends: a unit that
    # fails once may be up at its next try (Restart=), which is waited for.
    unlucky = _AGAIN.format(name=name, most=_MOST_TRIES, lines=_LINES, words=quote(again)) if again else "false"
    restart = _RESTART.format(name=name, timeout=timeout_s, again=unlucky)
    return f"""
set -u
{lock_script.own_guard()}
{_ENABLE.format(name=name)}
{"read -r go || exit 1" if follows else ""}
now=$(date '+%s %Y-%m-%d %H:%M:%S')
answer= since=${{now#* }} end=$((${{now%% *}} + {timeout_s}))
{beside}
{_ENABLE_MEANWHILE.format(begins_s=_BEGINS_S)}
{"" if verb == "enable" else restart}
{"echo @follow" if begun else ""}
{_WAIT.format(name=name, timeout=timeout_s, lines=_LINES)}
"""


def at_once(fleet: Fleet, changes: Sequence[Change], manner: Manner = PLAIN, stop: Stop | None = None) -> list[Result]:
    """Start units on all their nodes at once: etcd's first start is ready only when a quorum of members is.

    Args:
        fleet: The nodes.
        changes: What to start, one a node.
        manner: How; the others wait AHEAD_S at most for one that is ahead.
        stop: Keeps those from beginning that have not begun when it is asked.
    """
    stop = stop or Stop()
    chosen = {change.node: change for change in changes}
    nodes = [node for node in fleet.cluster.nodes if node.name in chosen]
    if manner.ahead is None or len(nodes) <= 1:
        outcomes = fleet.each(lambda one: _start(fleet, one, chosen[one.node.name], stop, manner.again), nodes)
    else:
        outcomes = _one_ahead(fleet, nodes, chosen, manner.ahead, stop, manner.again)
    results = []
    for node in nodes:
        outcome, change = outcomes[node.name], chosen[node.name]
        error, remedy = (outcome.error.message, outcome.error.remedy) if outcome.error else ("", "")
        results.append(outcome.value or Result(change, "failed", error, outcome.took_s, remedy))
    return results


def _one_ahead(
    fleet: Fleet, nodes: Sequence[Node], chosen: Mapping[str, Change], ahead: Ahead, stop: Stop, again: str
) -> dict[str, Outcome[Result]]:
    first = min(nodes, key=ahead.rank)
    follow = threading.Event()

    def work(connection: Connection) -> Result:
        change = chosen[connection.node.name]
        if connection.node != first:
            return _start(fleet, connection, change, stop, again, follow)
        try:
            return _start(fleet, connection, change, stop, again, follow, ahead.begun)
        finally:
            follow.set()

    # It is begun first also where there are more nodes than threads.
    return fleet.each(work, sorted(nodes, key=lambda node: node != first))


def _start(
    fleet: Fleet, connection: Connection, change: Change, stop: Stop, again: str = "",
    follow: threading.Event | None = None, begun: str = "",
) -> Result:  # fmt: skip
    """Start one node's unit: once `follow` is set; or, with `begun`, at once, and set it."""
    start, what = time.monotonic(), f"{change.action} {change.resource}"
    feed = () if follow is None or begun else _go(follow)
    sh = script(change.resource, change.action, START_TIMEOUT_S, begun=begun, follows=feed != (), again=again)

    def note() -> None:
        fleet.journal.note(change.node, what, "started")
        fleet.journal.tell(Pulse(change.node, limit_s=START_TIMEOUT_S))

    def heard(line: str) -> None:
        if line.startswith("@line "):
            fleet.journal.tell(Pulse(change.node, line=clean(line.removeprefix("@line "))))
        elif line == "@again":
            fleet.journal.note(change.node, "tried again", detail=again)
        elif line == "@follow" and follow:
            follow.set()

    error, remedy = "", f"`journalctl -u {change.resource}` on the node tells more"
    try:
        done = connection.run(
            sh, what=what, feed=feed, timeout_s=START_TIMEOUT_S + 30, heard=heard, begin=stop.begin(note)
        )
        if done.status:
            error = printable(done.stderr) or f"status {done.status}"
    except Stopped:
        return stop.rest([change])[0]
    except errors.RunbookError as caught:
        error, remedy = caught.message, caught.remedy
    fleet.journal.note(change.node, what, "failed" if error else "done", error)
    took_s = time.monotonic() - start
    return Result(change, "failed", error, took_s, remedy) if error else Result(change, "done", "", took_s)


def _go(follow: threading.Event) -> Iterator[bytes]:
    """The line that lets a node start: when the first has begun, or has been waited for long enough."""
    follow.wait(AHEAD_S)
    yield b"go\n"
