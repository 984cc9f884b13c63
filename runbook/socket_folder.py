"""Private folders for Unix sockets, with names that are short enough: a socket's address has 107 bytes (unix(7))."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_MOST = 107


def has_room(folder: str, longest: int) -> bool:
    """Whether sockets whose own names have that many bytes at most can be in this folder."""
    return len(os.fsencode(folder)) + 1 + longest <= _MOST


def make(prefix: str, longest: int) -> str:
    """Make a folder that only this user can open; in /tmp where the usual place has too long a name.

    Args:
        prefix: How its name begins.
        longest: How many bytes the longest name of a socket in it has.
    """
    folder = tempfile.mkdtemp(prefix=prefix)
    if not has_room(folder, longest):
        Path(folder).rmdir()
        folder = tempfile.mkdtemp(prefix=prefix, dir="/tmp")
    return folder
