"""The files of a change on their way to a node: one after the other on a script's input, nothing between them.

Binaries go packed and are unpacked as they arrive. All that arrived is summed at once, as it lies there unpacked: to
start a program costs a node a millisecond, and a sum of what lies there says more than one of what went by.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from shlex import quote
from typing import TYPE_CHECKING

from runbook import errors
from runbook.certs.secret import Secret
from runbook.downloads import artifact_cache
from runbook.plans import looking
from runbook.resources import Payload, staging_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runbook.artifacts import Binary

#: What is on its way of a file at once, whatever its size.
_READ = 256 * 1024
#: On fewer bytes sha256sum is done before openssl has started.
_MANY = 1024 * 1024

#: `rb_same NUMBER SHA256 PATH` ends the script where what waits under the number was not summed as this.
_CHECKS = rf"""{looking.SUMS}
rb_lost() {{ printf '%s did not arrive whole\n' "$1" >&2; exit 1; }}
rb_same() {{
  case "$rb_nl$rb_told$rb_nl" in
    *"$rb_nl$2 "?"$1$rb_nl"*) ;;
    *) printf '%s arrived with other bytes than were sent: run again\n' "$3" >&2; exit 1 ;;
  esac
}}"""
#: A file that has the same size and the same time of its last writing before the sum and in its place was not written
#: to in between.
_SUMMED = re.compile(r"@summed ([0-9]+\|[0-9.]+)\|(.+)")
_PLACED = re.compile(r"@placed ([0-9]+\|[0-9.]+)\|([0-9.]+)\|(.+)")


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
    """The sh that takes the stream of these payloads from its input into their staging folders, and checks each."""
    stages: dict[str, list[tuple[int, Payload]]] = {}
    for number, payload in enumerate(payloads):
        stages.setdefault(stage(posixpath.dirname(payload.path), token), []).append((number, payload))
    lines = [_CHECKS, f"install -d -m 700 {' '.join(map(quote, stages))}"]
    for number, payload in enumerate(payloads):
        unpack = "" if isinstance(payload.source, bytes | Secret) else f" | {payload.source.unpack}"
        # head takes exactly what it is told from a pipe. A full disk is told by the program that writes.
        into = f">{quote(staged(number, payload, token))} || rb_lost {quote(payload.path)}"
        lines.append(f"head -c {size(payload)}{unpack} {into}")
    if binaries := _binaries(payloads):
        waiting = " ".join(quote(staged(number, payload, token)) for number, payload, _ in binaries)
        lines.append(f"stat -c '@summed %s|%.9Y|%n' -- {waiting}")
    for folder, files in stages.items():
        # By their numbers alone: a sum program writes an odd path in its own way.
        numbers = " ".join(str(number) for number, _ in files)
        expected = {number: _unpacked(payload.source) for number, payload in files}
        program = "rb_sums" if sum(length for length, _ in expected.values()) >= _MANY else "sha256sum --"
        lines.append(f"rb_told=$(cd {quote(folder)} && {program} {numbers})")
        lines += [f"rb_same {number} {expected[number][1]} {quote(payload.path)}" for number, payload in files]
    return lines


def tell(payloads: Sequence[Payload]) -> list[str]:
    """The sh that tells for `known` how the binaries lie in their places."""
    places = " ".join(quote(payload.path) for _, payload, _ in _binaries(payloads))
    return [f"stat -c '@placed %s|%.9Y|%.9Z|%n' -- {places} 2>/dev/null || true"] if places else []


def known(payloads: Sequence[Payload], token: str, text: str) -> dict[str, looking.Known]:
    """The change time and SHA-256 of the binaries that lie in their places as they were summed, by path.

    Args:
        payloads: What was sent.
        token: Named what was staged.
        text: What the script printed.
    """
    lines = text.splitlines()
    summed = {match[2]: match[1] for line in lines if (match := _SUMMED.fullmatch(line))}
    placed = {match[3]: (match[1], match[2]) for line in lines if (match := _PLACED.fullmatch(line))}
    result = {}
    for number, payload, binary in _binaries(payloads):
        written, ctime = placed.get(payload.path, ("", ""))
        if written and summed.get(staged(number, payload, token)) == written:
            result[payload.path] = ctime, binary.sha256
    return result


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


def _unpacked(source: bytes | Secret | Binary) -> tuple[int, str]:
    """How many bytes a file has on the node, and their SHA-256."""
    if isinstance(source, bytes | Secret):
        return len(_bytes(source)), hashlib.sha256(_bytes(source)).hexdigest()
    return source.size, source.sha256


def _binaries(payloads: Sequence[Payload]) -> list[tuple[int, Payload, Binary]]:
    """Those that are binaries, each with its place in the stream."""
    return [
        (number, payload, payload.source)
        for number, payload in enumerate(payloads)
        if not isinstance(payload.source, bytes | Secret)
    ]


def _packed(binary: Binary) -> Iterator[bytes]:
    try:
        with binary.packed.open("rb") as file:
            while block := file.read(_READ):
                yield block
        # Afterwards, so that what changes meanwhile is found too; the plan's own comparison counts where nothing did.
        artifact_cache.verify_file(binary.packed, binary.packed_sha256)
    except OSError as error:
        raise errors.ArtifactError(
            f"can't be read: {error.strerror}", subject=str(binary.packed), remedy="run this phase again"
        ) from error
    except artifact_cache.NotInCache as error:
        raise errors.ArtifactError(
            f"{error}: it changed while it was sent", subject=str(binary.packed), remedy="run again"
        ) from error
