"""What the nodes do for a lock: sh that looks at it, takes, renews and releases it, and what they answer.

The file has a line a key, so that sh can read it without a JSON program. It is written beside its place and renamed,
and only under flock(1) on its folder, which is looked at again after the wait: the last holder may have removed it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from shlex import quote
from typing import TYPE_CHECKING

from runbook import errors
from runbook.plain_text import clean, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runbook.transport.completed import Completed

#: In a tmpfs: a lock does not outlive the node's boot.
FOLDER = "/run/runbook"
#: By this variable a run tells its kernels which lock is theirs (`guard`).
TOKEN_VARIABLE = "RUNBOOK_LOCK_TOKEN"  # noqa: S105 - a variable's name
#: Names the script that has the node's /run to itself: its timeout(1), and the lock of its run.
BESIDE = "/run/runbook-apply"
#: What no lock has for a token.
_NOTHING = "-"
_SHOWN = 80

#: `rb_lock KEY` sets rb_found to the number or hex digits behind a key, or to nothing, and starts no program for it.
_READ = r"""
rb_lock() {
  rb_found=
  [ -f "$rb_file" ] || return 0
  while IFS= read -r rb_line; do
    case "$rb_line" in "\"$1\": "*,) ;; *) continue ;; esac
    rb_line=${rb_line#*: }
    rb_line=${rb_line%,}
    rb_line=${rb_line#\"}
    rb_line=${rb_line%\"}
    case "$rb_line" in "" | *[!0-9a-f]*) continue ;; esac
    if [ ${#rb_line} -le 40 ]; then rb_found=$rb_line; break; fi
  done 2>/dev/null <"$rb_file" || true
}
"""
_LOOK = """\
rb_file={folder}/lock.json
if [ -e "$rb_file" ]; then echo "held $(date +%s)"; head -c 4096 "$rb_file"; else echo "free $(date +%s)"; fi
"""
_ALONE = """\
set -eu
umask 077
d={folder} rb_file={folder}/lock.json mine={token}
tries=0
while :; do
  {make}
  if {{ command exec 8<"$d"; }} 2>/dev/null; then
    flock -w 10 8 || {{ echo "the folder $d is in use" >&2; exit 1; }}
    if [ "$d" -ef /proc/self/fd/8 ]; then break; fi
  fi
  tries=$((tries + 1))
  [ $tries -lt 100 ] || {{ echo "can't use the folder $d" >&2; exit 1; }}
done
now=$(date +%s)
"""
_TAKE = """\
rb_lock token
there=$rb_found since=$now word=taken
if [ -e "$rb_file" ] && [ "$there" = "$mine" ]; then
  rb_lock since
  word=renewed since=$rb_found
elif [ -e "$rb_file" ]; then
  rb_lock expires
  if [ "$there" != {over} ] || [ "${{rb_found:-0}}" -gt {ended} ]; then
    echo "held $now"
    head -c 4096 "$rb_file"
    exit 0
  fi
fi
printf '{{\\n"token": "%s",\\n"since": %s,\\n"expires": %s,\\n"by": %s,\\n"holder": %s\\n}}\\n' \\
  "$mine" "$since" $((now + {lifetime})) {by} {holder} >"$rb_file.new"
mv -f "$rb_file.new" "$rb_file"
echo "$word $now"
"""
_RELEASE = """\
word=free
rb_lock token
if [ "$rb_found" = "$mine" ]; then
  rm -f "$rb_file" "$rb_file.new"
  word=released
fi
echo "$word $now"
rmdir "$d" 2>/dev/null || true
"""
_GUARD = """\
rb_file={folder}/lock.json
if [ -e "$rb_file" ]; then
  rb_lock token
  rb_token=$rb_found
  rb_lock expires
  if [ "$rb_token" != {token} ] && [ "${{rb_found:-0}}" -gt "$(date +%s)" ]; then
    rb_by=$(sed -n 's/^"by": "\\(.*\\)",$/\\1/p' "$rb_file" 2>/dev/null || true)
    echo "locked by another run: $rb_by, for $((rb_found - $(date +%s))) s more: wait for its end, then run again" >&2
    exit 75
  fi
fi
"""
#: A run that holds the lock ends what an earlier one left waiting for input that no longer comes (its connection was
#: cut off, and no end of it reached the node): it would keep the node's /run until its own deadline.
_ALONE_HERE = """\
exec 9</run
if ! flock -n 9; then
  rb_left= rb_whose=
  read -r rb_left rb_whose 2>/dev/null <{beside} || true
  case "$rb_whose" in
    "" | {no} | {token}) ;;
    *) [ {token} = {no} ] || [ "$(cat "/proc/$rb_left/comm" 2>/dev/null)" != timeout ] || kill "$rb_left" || true ;;
  esac
  flock -w {wait} 9 || {{
    echo 'another run is changing this node now: wait for its end, then run again' >&2
    exit 75
  }}
fi
echo "$PPID {token}" >{beside} || true
"""


@dataclass(frozen=True)
class Found:
    """A lock that is on a node, as its text says who holds it; times are seconds since the epoch there.

    Attributes:
        token: Names it; "" where the file is not one of ours.
        life: The very process that holds it, where its system tells (`lock.life`): a number is given again, this not.
        now: The node's clock when it was read.
        stale: Its lifetime has passed.
    """

    token: str
    user: str
    host: str
    pid: int
    record: str
    since: int
    expires: int
    now: int
    life: str = ""

    @property
    def stale(self) -> bool:
        """Whether its lifetime has passed, by the node's own clock."""
        return self.now >= self.expires

    @property
    def told(self) -> str:
        """Who holds it, for the run that it refuses."""
        return f"{'a stale lock' if self.stale else 'locked'} by {self}"

    def __str__(self) -> str:
        if not self.token:
            return "an unknown holder (the file is not one of ours)"
        left = self.expires - self.now
        ends = f"expired {_time(self.expires)}" if self.stale else f"expires {_time(self.expires)} (in {left} s)"
        return (
            f"{self.user}@{self.host} (process {self.pid}, record {self.record})"
            f" since {_time(self.since)}, {ends}, by the node's clock"
        )


def look(folder: str) -> str:
    """The sh that shows the lock."""
    return _LOOK.format(folder=quote(folder))


def take(
    folder: str,
    token: str,
    holder: Mapping[str, object],
    lifetime_s: int,
    over: Found | None,
    *,
    ended: bool = False,
) -> str:
    """The sh that takes the lock, or renews it where it is ours already.

    Args:
        folder: Where it lies.
        token: Ours.
        holder: Who we are: user, host, pid and record.
        lifetime_s: For how long it is to hold.
        over: The lock that may be taken over: that very one, and only while it is stale.
        ended: Its run is known to have ended: it is taken over before it is stale, too.
    """
    before = _NOTHING if over is None else over.token
    by = json.dumps("{user}@{host} (process {pid}, record {record})".format_map(holder))
    kept = json.dumps(dict(holder))
    limit = '"${rb_found:-0}"' if ended else '"$now"'
    taken = _TAKE.format(over=quote(before), ended=limit, lifetime=lifetime_s, by=quote(by), holder=quote(kept))
    return _alone(folder, token, 'mkdir -p "$d"') + taken


def release(folder: str, token: str) -> str:
    """The sh that removes the lock where it is ours, and its folder."""
    return _alone(folder, token, '[ -d "$d" ] || { echo "free $(date +%s)"; exit 0; }') + _RELEASE


def _alone(folder: str, token: str, make: str) -> str:
    return _READ + _ALONE.format(folder=quote(folder), token=quote(token), make=make)


def guard(token: str, folder: str) -> str:
    """The sh that ends with 75 where another run's lock has not expired."""
    return _READ + _GUARD.format(folder=quote(folder), token=quote(token or _NOTHING))


def own_guard() -> str:
    """The guard for scripts of this process: its run's lock, by TOKEN_VARIABLE, is the only one that lets them pass."""
    return guard(os.environ.get(TOKEN_VARIABLE, ""), FOLDER)


def alone_here() -> str:
    """The sh that keeps a node's /run to itself as long as its process lives, or ends with 75; after the guard."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    return _ALONE_HERE.format(token=quote(token or _NOTHING), no=_NOTHING, beside=BESIDE, wait=5 if token else 0)


def answer(done: Completed) -> tuple[str, Found | None]:
    """What a node said: taken, renewed, released, free or held, and the lock where it is another's.

    Raises:
        CommandFailed: it said neither.
    """
    first, _, rest = done.check("is /run writable and not full?").text.partition("\n")
    word, _, now = first.partition(" ")
    if word not in ("taken", "renewed", "released", "free", "held") or not now.isdecimal():
        raise errors.CommandFailed(
            f"unexpected answer: {printable(done.stdout, 200)}", node=done.node, subject=done.what
        )
    return word, _found(rest, int(now)) if word == "held" else None


def _found(text: str, now: int) -> Found:
    try:
        kept = json.loads(text)
        holder = kept["holder"]
        return Found(
            token=str(kept["token"]),
            user=_shown(holder["user"]),
            host=_shown(holder["host"]),
            pid=int(holder["pid"]),
            record=_shown(holder["record"]),
            since=int(kept["since"]),
            expires=int(kept["expires"]),
            now=now,
            life=_shown(holder.get("life", "")),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return Found("", "", "", 0, "", 0, 0, now)


def _shown(text: object) -> str:
    """A holder's words, fit for a line of ours."""
    return " ".join(clean(str(text)).split())[:_SHOWN]


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds}"
