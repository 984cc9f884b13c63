"""Which host keys known_hosts files have for a machine.

paramiko reads the whole file for each connection and compares each of its lines with all before: minutes for 1,000
nodes, and a copy of all keys in each connection. Here a file is read once, and of each machine only its own lines.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paramiko.hostkeys import HostKeyEntry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import paramiko


@dataclass(frozen=True)
class _Line:
    """A line; `hashes` are the salts and HMACs of names that are not told (sshd(8), HashKnownHosts)."""

    text: str
    names: frozenset[bytes]
    hashes: tuple[tuple[bytes, bytes], ...]

    def about(self, name: bytes) -> bool:
        return name in self.names or any(hmac.digest(salt, name, "sha1") == told for salt, told in self.hashes)


def keys(path: Path, name: str) -> Iterator[paramiko.PKey]:
    """The keys that a file has for a machine, by `HOST` or `[HOST]:PORT`; none where there is no such file.

    Raises:
        InvalidHostKey: a line about this machine is no host key.
        OSError: the file can't be read.
    """
    if not path.is_file():
        return
    for line in _read(path, path.stat().st_mtime_ns):
        if line.about(name.encode()) and (entry := HostKeyEntry.from_line(line.text)):
            yield entry.key


@functools.lru_cache(maxsize=16)
def _read(path: Path, _changed_ns: int) -> tuple[_Line, ...]:
    lines = []
    for raw in path.read_bytes().splitlines():
        line = raw.strip()
        if line and not line.startswith(b"#"):
            names = line.split(None, 1)[0].split(b",")
            lines.append(_Line(line.decode("utf-8", "replace"), frozenset(names), tuple(_hashes(names))))
    return tuple(lines)


def _hashes(names: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Salt and HMAC of each hashed name, `|1|SALT|HMAC`; a broken one is no machine's name."""
    for name in names:
        if name.startswith(b"|1|"):
            with contextlib.suppress(ValueError):
                salt, told = name[3:].split(b"|")
                yield base64.b64decode(salt, validate=True), base64.b64decode(told, validate=True)
