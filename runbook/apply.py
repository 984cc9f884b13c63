"""Make a node's changes in one round trip: one tar stream and one script.

Files are staged beside their place (same file system), checksummed, given mode and owner, synced and only then
renamed: at no moment is a half file under its final name, or a key readable by others. A script that ends early, for
whatever reason, removes what it staged; what a power cut leaves is removed by the next run.
"""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
import time
from dataclasses import dataclass, replace
from shlex import quote
from typing import TYPE_CHECKING

from runbook import errors, lock_script
from runbook.resources import Change, Payload, staging_folder
from runbook.secret import Secret
from runbook.ssh import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runbook.ssh import Completed, Connection

_READ = 1 << 20
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Result:
    """What came of a change: result is done, failed or not done; error says why."""

    change: Change
    result: str
    error: str = ""
    took_s: float = 0.0


_SCRIPT = """\
set -eu
umask 077
# One run at a time changes a node; the lock goes with this process, whatever ends it.
{guard}
exec 9</run
flock -n 9 || {{ echo 'another run is changing this node now: wait for its end, then run again' >&2; exit 75; }}
clean() {{ rm -rf {staging}; }}
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
    folders = sorted({posixpath.dirname(payload.path) for _, payload in files})
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
        receive = [f"install -d -m 700 {quote(_stage(folder, token))}" for folder in folders]
        receive += ["tar -x -f - -C / --no-same-owner", "echo '@step received'"]
        receive += [f"gzip -d {quote(_staged(item, token))}.gz" for item in enumerate(files) if _packed(item[1][1])]
        sums = [f"{_sha256(payload)}  {_staged((n, (i, payload)), token)}" for n, (i, payload) in enumerate(files)]
        receive += ["sha256sum -c --quiet >&2 <<'RUNBOOK_SUMS'", *sums, "RUNBOOK_SUMS"]
    for n, (index, payload) in enumerate(files):
        staged = quote(_staged((n, (index, payload)), token))
        receive += [f"chown {quote(payload.owner)} {staged}", f"chmod {payload.mode:o} {staged}"]
        rename.append(f"mv -f -T {staged} {quote(payload.path)}")
        last = all(other != index for other, _ in files[n + 1 :])
        if last and not changes[index].after:
            rename.append(f"echo '@done {index}'")
    if files:
        receive.append("sync " + " ".join(quote(_staged(item, token)) for item in enumerate(files)))
    stages = " ".join(quote(_stage(folder, token)) for folder in folders) or "''"
    leftovers = [f"rm -rf {quote(folder)}/.runbook-*" for folder in folders]
    parts = {"before": before, "receive": receive, "rename": rename, "after": after, "leftovers": leftovers}
    guard = lock_script.own_guard()
    return _SCRIPT.format(guard=guard, staging=stages, **{name: "\n".join(lines) for name, lines in parts.items()})


def _stage(folder: str, token: str) -> str:
    return staging_folder(posixpath.join(folder, "x"), token)


def _staged(item: tuple[int, tuple[int, Payload]], token: str) -> str:
    number, (_, payload) = item
    return posixpath.join(staging_folder(payload.path, token), str(number))


def _packed(payload: Payload) -> bool:
    return not isinstance(payload.source, bytes | Secret)


def _sha256(payload: Payload) -> str:
    source = payload.source
    if isinstance(source, bytes | Secret):
        return hashlib.sha256(source if isinstance(source, bytes) else source.reveal()).hexdigest()
    return source.sha256


def stream(files: Sequence[tuple[int, Payload]], token: str) -> Iterator[bytes]:
    """The tar stream of the payloads: small files as they are, binaries packed and read from disk piece by piece."""
    for item in enumerate(files):
        payload = item[1][1]
        name = _staged(item, token).lstrip("/")
        source = payload.source
        if isinstance(source, bytes | Secret):
            data = source if isinstance(source, bytes) else source.reveal()
            yield _header(name, len(data)) + data + _padding(len(data))
            continue
        yield _header(name + ".gz", source.packed_size)
        sent = 0
        try:
            with source.packed.open("rb") as file:
                while block := file.read(_READ):
                    sent += len(block)
                    yield block
        except OSError as error:
            raise errors.ArtifactError(
                f"can't be read: {error.strerror}", subject=str(source.packed), remedy="run phase 01 again"
            ) from error
        if sent != source.packed_size:
            raise errors.ArtifactError(
                f"has {sent} bytes, expected {source.packed_size}: it changed while it was sent",
                subject=str(source.packed),
                remedy="run again",
            )
        yield _padding(sent)
    yield bytes(2 * _BLOCK)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def apply_on(connection: Connection, changes: Sequence[Change], token: str, timeout_s: float) -> list[Result]:
    """Make the changes of one node; one Result a change, in order, whatever happened on the way."""
    start = time.monotonic()
    files = [(index, payload) for index, change in enumerate(changes) for payload in change.payloads()]
    feed = stream(files, token) if files else ()
    done: Completed | None = None
    try:
        done = connection.run(script(changes, files, token), what="apply", feed=feed, timeout_s=timeout_s)
        error = "" if done.status == 0 else printable(done.stderr) or f"status {done.status}"
        if "Wrote only" in error:  # tar's words for a short write, which is a full disk or quota
            error = f"No space left on device: {error}"
    except errors.RunbookError as caught:
        error = caught.message
    took = time.monotonic() - start
    made = {
        line.removeprefix("@done ") for line in (done.text.splitlines() if done else []) if line.startswith("@done")
    }
    results = []
    for index, change in enumerate(changes):
        if str(index) in made:
            results.append(Result(change, "done", "", took))
        else:
            # What stopped the script belongs to the first change that it did not finish.
            first = not any(result.result == "failed" for result in results)
            results.append(Result(change, "failed" if first else "not done", error if first else "", took))
    return results


def not_done(changes: Sequence[Change], why: str = "") -> list[Result]:
    """Results of changes that were never begun."""
    return [Result(replace(change), "not done", why) for change in changes]
