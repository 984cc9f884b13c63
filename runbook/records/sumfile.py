"""What a record's sums cover, and how its files are read: they may come from anyone, so nothing is trusted.

A record's SHA256SUMS is sha256sum's own format, over every file in the folder but itself and its signature.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

SUMS: Final = "SHA256SUMS"
SIGNATURE: Final = "SHA256SUMS.sig"
#: More than these is not a record but a trap: bytes of a file, of one that is read whole, of sums; number of files.
MOST_HASHED, MOST_READ, MOST_SUMS, MOST_FILES = 1 << 30, 32 << 20, 4 << 20, 10_000
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def parse(sums: str) -> tuple[dict[str, str], list[str]]:
    """A SHA256SUMS as sums by name, and what is wrong with its lines; a name that leads outside is not among the sums.

    Stricter than sha256sum, which passes over comments and malformed lines: a record has none.
    """
    found: dict[str, str] = {}
    faults = []
    lines = sums.split("\n")
    if lines.pop():
        faults.append("its last line is cut off")
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            faults.append(f"line {number} is no sum and name")
        elif not is_plain(match[2]):
            faults.append(f"line {number} names a path outside the record, or an odd one, refused: {match[2][:100]!r}")
        elif match[2] in found:
            faults.append(f"line {number} names {match[2]} again")
        else:
            found[match[2]] = match[1]
    return found, faults


def is_plain(name: str) -> bool:
    """Whether a relative path stays inside and reads the same for sha256sum (to which `-` is its stdin) as for us."""
    inner = not {"", ".", ".."} & set(name.split("/"))
    return inner and name != "-" and name.isprintable() and "\\" not in name


def inside(folder: Path) -> dict[str, bool]:
    """Everything in a folder, at any depth, but folders: its path in it, and whether it is a regular file.

    Raises:
        OSError: it can't be read, or holds too much.
    """
    found: dict[str, bool] = {}
    waiting = [str(folder)]
    seen = 0
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > MOST_FILES:
                    raise OSError(errno.EFBIG, f"holds more than {MOST_FILES} files", str(folder))
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    found[os.path.relpath(entry.path, folder)] = entry.is_file(follow_symlinks=False)
    return found


@contextlib.contextmanager
def _opened(path: Path, most: int) -> Iterator[BufferedReader]:
    """A regular file of bounded size: a link is not followed, and a FIFO never waited on."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"has {status.st_size} bytes, more than {most}", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def content(path: Path, most: int = MOST_READ) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: it is a link, a special file, or too big.
    """
    with _opened(path, most) as file:
        return file.read(most)


def text(path: Path) -> str | None:
    """The text of a small regular file; None where it can't be read as that."""
    try:
        return content(path, MOST_SUMS).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def sha256(path: Path, *, settle: bool = False) -> str:
    """The SHA-256 of a regular file, in hex; `settle` has it on the disk first.

    Raises:
        OSError: it is a link, a special file, or too big.
    """
    with _opened(path, MOST_HASHED) as file:
        if settle:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
