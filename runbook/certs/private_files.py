"""Private keys on this side that others could read: refused, as ssh itself refuses them."""

from __future__ import annotations

import stat
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_HEAD_BYTES = 256


def fault(path: Path) -> str:
    """Why a private key may not be used as it lies there; '' for one that is its owner's alone, and for no private key.

    A public key, and a file that is not there or can't be read, are for who uses it to judge.

    Args:
        path: The key file; a symbolic link counts as what it points to.
    """
    try:
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode) or not mode & 0o077:
            return ""
        with path.open("rb") as file:
            private = b"PRIVATE KEY" in file.read(_HEAD_BYTES)
    except OSError:
        return ""
    return f"a private key that others can read or change (mode {mode:04o}), expected 0600" if private else ""


def remedy(path: Path) -> str:
    """The command that mends it."""
    return f"chmod 600 {quote(str(path))}; where others were on this machine, make a new key"
