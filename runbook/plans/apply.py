"""Make a node's changes in one round trip: one script, and the files on its input.

Files are staged beside their place (same file system), checksummed, given owner and mode, synced and only then
renamed: at no moment is a half file under its final name, or a key readable by others. A script that ends early, for
whatever reason, removes what it staged; what a power cut leaves is removed by the next run.
"""

from __future__ import annotations

import posixpath
import time
from dataclasses import dataclass, replace
from shlex import quote
from typing import TYPE_CHECKING

from runbook import errors, lock_script
from runbook.plain_text import printable
from runbook.plans import stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from runbook.plans.looking import Known
    from runbook.resources import Change, Payload
    from runbook.ssh import Connection
    from runbook.transport.completed import Completed


@dataclass(frozen=True)
class Result:
    """What came of a change: result is done, failed, not done or left out; error says why, remedy what to do."""

    change: Change
    result: str
    error: str = ""
    took_s: float = 0.0
    remedy: str = ""


_SCRIPT = """\
set -eu
umask 077
# One run at a time changes a node; the lock goes with this process, whatever ends it.
{guard}
clean() {{ rm -rf {staging} {beside}; }}
trap clean EXIT
trap 'exit 1' HUP INT TERM PIPE
{leftovers}
{before}
{receive}
{rename}
{after}
"""


def script(changes: Sequence[Change], files: Sequence[tuple[int, Payload]], token: str) -> str:
    """The sh that makes these changes; `files` are the payloads with the index of their change.

    It prints `@done INDEX` for each change that is made whole.
    """
    payloads = [payload for _, payload in files]
    folders = sorted({posixpath.dirname(payload.path) for payload in payloads})
    with_files = {index for index, _ in files}
    before, rename, after, receive = [], [], [], []
    for index, change in enumerate(changes):
        if change.before:
            before.append(change.before)
        if index not in with_files and not change.after:
            before.append(f"echo '@done {index}'")
        if change.after:
            after += [change.after, f"echo '@done {index}'"]
    if files:
        receive = [*stream.receive(payloads, token), "echo '@step received'"]
    owners: dict[str, list[str]] = {}
    modes: dict[int, list[str]] = {}
    for n, (index, payload) in enumerate(files):
        staged = quote(stream.staged(n, payload, token))
        owners.setdefault(payload.owner, []).append(staged)
        modes.setdefault(payload.mode, []).append(staged)
        rename.append(f"mv -f -T {staged} {quote(payload.path)}")
        last = all(other != index for other, _ in files[n + 1 :])
        if last and not changes[index].after:
            rename.append(f"echo '@done {index}'")
    # Before it has its owner nothing is opened to others.
    receive += [f"chown {quote(owner)} {' '.join(waiting)}" for owner, waiting in owners.items()]
    receive += [f"chmod {mode:o} {' '.join(waiting)}" for mode, waiting in modes.items()]
    if files:
        receive.append(f"sync {' '.join(waiting for of_owner in owners.values() for waiting in of_owner)}")
    rename += stream.tell(payloads)
    stages = " ".join(quote(stream.stage(folder, token)) for folder in folders) or "''"
    # A folder in which nothing was left, which is the rule, takes no program.
    left = " ".join(f"{quote(folder)}/.runbook-*" for folder in folders)
    remove = 'if [ -e "$rb" ] || [ -L "$rb" ]; then rm -rf "$rb"; fi'
    leftovers = [f"for rb in {left}; do {remove}; done"] if folders else []
    parts = {"before": before, "receive": receive, "rename": rename, "after": after, "leftovers": leftovers}
    guard, beside = lock_script.own_guard() + lock_script.alone_here(), lock_script.BESIDE
    return _SCRIPT.format(
        guard=guard, beside=beside, staging=stages, **{name: "\n".join(lines) for name, lines in parts.items()}
    )


def _counted(
    feed: Iterable[bytes], files: Sequence[tuple[int, Payload]], told: Callable[[int, int], None]
) -> Iterator[bytes]:
    """The same blocks, telling how many bytes of the payloads have been taken."""
    total, sent = sum(stream.size(payload) for _, payload in files), 0
    for block in feed:
        yield block
        sent += len(block)
        # A file that grew meanwhile is told by its sum; nobody wants to read of 101 %.
        told(min(sent, total), total)


def apply_on(
    connection: Connection,
    changes: Sequence[Change],
    token: str,
    timeout_s: float,
    *,
    told: Callable[[int, int], None] | None = None,
    step: Callable[[str], None] | None = None,
    begin: Callable[[], None] | None = None,
    summed: Callable[[str, Known], None] | None = None,
) -> list[Result]:
    """Make the changes of one node; one Result a change, in order, whatever happened on the way.

    Args:
        connection: The node's.
        changes: Its changes.
        token: Names what is staged.
        timeout_s: How long all of it may take, in seconds.
        told: Gets the bytes sent so far and the bytes there are to send.
        step: Gets each step inside (`received`) when the node says that it is done.
        begin: Called before anything is sent; see SshConnection.run.
        summed: Gets the path of each binary that was put in its place, and what is known of it from then on.
    """
    start = time.monotonic()
    done: Completed | None = None
    remedy = ""

    def heard(line: str) -> None:
        if step and line.startswith("@step "):
            step(line.removeprefix("@step "))

    try:
        files = [(index, payload) for index, change in enumerate(changes) for payload in change.payloads()]
        payloads = [payload for _, payload in files]
        feed = stream.stream(payloads) if files else ()
        if told and files:
            feed = _counted(feed, files, told)
        sh = script(changes, files, token)
        done = connection.run(sh, what="apply", feed=feed, timeout_s=timeout_s, heard=heard, begin=begin)
        error = "" if done.status == 0 else printable(done.stderr) or f"status {done.status}"
        if "No space left on device" in error:
            remedy = "free space there (`df -h` on the node tells which file system is full)"
        if summed:
            for path, known in stream.known(payloads, token, done.text).items():
                summed(path, known)
    except errors.RunbookError as caught:
        error, remedy = caught.message, caught.remedy
    return _results(changes, done.text if done else "", error, remedy, time.monotonic() - start)


def _results(changes: Sequence[Change], text: str, error: str, remedy: str, took_s: float) -> list[Result]:
    """What came of each change by what the script printed."""
    made = {line.removeprefix("@done ") for line in text.splitlines() if line.startswith("@done")}
    results: list[Result] = []
    for index, change in enumerate(changes):
        if str(index) in made:
            results.append(Result(change, "done", "", took_s))
        else:
            # What stopped the script belongs to the first change that it did not finish.
            first = not any(result.result == "failed" for result in results)
            results.append(
                Result(change, "failed", error, took_s, remedy) if first else Result(change, "not done", "", took_s)
            )
    return results


def not_done(changes: Sequence[Change], why: str = "") -> list[Result]:
    """Results of changes that were never begun."""
    return [Result(replace(change), "not done", why) for change in changes]
