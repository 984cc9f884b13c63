"""The files of a change on their way to a node: one after the other on a script's input, nothing between them.

Each is summed on this side as it is read, and on the node as it arrives: no file is read twice anywhere. Binaries go
packed, and are unpacked as they arrive; what was summed is what went over the line, and the CRC and length that gzip
and zstd put into it hold for what came out of it.
"""

from __future__ import annotations

import hashlib
import posixpath
from shlex import quote
from typing import TYPE_CHECKING

from runbook import errors
from runbook.certs.secret import Secret
from runbook.resources import Payload, staging_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runbook.artifacts import Binary

#: What is on its way of a file at once, whatever its size.
_READ = 256 * 1024

#: `rb_sum SIZE` prints the SHA-256 of so many bytes on standard input.
_SUM = r"""
rb_sum() {
  # On many bytes openssl, where a node has it, takes a third of sha256sum's time.
  if [ "$1" -ge 1048576 ] && openssl dgst -sha256 -r </dev/null >/dev/null 2>&1; then openssl dgst -sha256 -r
  else sha256sum; fi | cut -c1-64
}
"""
#: head takes exactly what it is told from a pipe; tee gives it to the sum and, by the pipe at 4, to what unpacks it,
#: the status of which is that of the assignment: a full disk ends the script (set -e) with its words.
_TAKE = f"""{_SUM}
rb_take() {{
  rb_told=$({{ {{ head -c "$2" | tee /dev/fd/4 | rb_sum "$2" >&3; }} 4>&1 | $5 >"$1"; }} 3>&1)
  [ "$rb_told" = "$3" ] || {{ echo "$4 arrived with other bytes than were sent: run again" >&2; exit 1; }}
}}"""


def stage(folder: str, token: str) -> str:
    """The staging folder for the files of `folder`."""
    return staging_folder(posixpath.join(folder, "x"), token)


def staged(number: int, payload: Payload, token: str) -> str:
    """Where a payload waits for its rename; `number` is its place in the stream."""
    return posixpath.join(staging_folder(payload.path, token), str(number))


def size(payload: Payload) -> int:
    """How many bytes of it go over the line."""
    source = payload.source
    return len(_bytes(source)) if isinstance(source, bytes | Secret) else source.packed_size


def receive(payloads: Sequence[Payload], token: str) -> list[str]:
    """The sh that takes the stream of these payloads from its input into their staging folders, each checked."""
    folders = sorted({posixpath.dirname(payload.path) for payload in payloads})
    lines = [_TAKE, *(f"install -d -m 700 {quote(stage(folder, token))}" for folder in folders)]
    for number, payload in enumerate(payloads):
        source = payload.source
        if isinstance(source, bytes | Secret):
            sha256, unpack = hashlib.sha256(_bytes(source)).hexdigest(), "cat"
        else:
            sha256, unpack = source.packed_sha256, source.unpack
        words = [quote(staged(number, payload, token)), str(size(payload)), sha256, quote(payload.path), quote(unpack)]
        lines.append(f"rb_take {' '.join(words)}")
    return lines


def stream(payloads: Sequence[Payload]) -> Iterator[bytes]:
    """The bytes of the payloads: small files as they are, binaries packed and read from disk piece by piece.

    Raises:
        ArtifactError: a packed binary can't be read, or is not what it was when its release was put in the cache.
    """
    for payload in payloads:
        if isinstance(payload.source, bytes | Secret):
            yield _bytes(payload.source)
        else:
            yield from _packed(payload.source)


def _bytes(source: bytes | Secret) -> bytes:
    return source if isinstance(source, bytes) else source.reveal()


def _packed(binary: Binary) -> Iterator[bytes]:
    total = hashlib.sha256()
    try:
        with binary.packed.open("rb") as file:
            while block := file.read(_READ):
                total.update(block)
                yield block
    except OSError as error:
        raise errors.ArtifactError(
            f"can't be read: {error.strerror}", subject=str(binary.packed), remedy="run phase 01 again"
        ) from error
    if total.hexdigest() != binary.packed_sha256:
        raise errors.ArtifactError(
            f"has the SHA-256 {total.hexdigest()}, expected {binary.packed_sha256}: it changed while it was sent",
            subject=str(binary.packed),
            remedy="run again",
        )
