"""The end of a process that need not be a child of ours."""

from __future__ import annotations

import contextlib
import os
import select
import time

_LOOK_S = 0.01


def descriptor(pid: int) -> int | None:
    """A descriptor that can be read when the process has ended; None where the system has no such thing."""
    if not hasattr(os, "pidfd_open"):
        return None
    with contextlib.suppress(OSError):
        return os.pidfd_open(pid)
    return None


def wait(pid: int, most_s: float) -> None:
    """Wait for a process's end, or for a hundredth of a second where the system can't tell of it."""
    end = descriptor(pid)
    if end is None:
        time.sleep(min(_LOOK_S, most_s))
        return
    try:
        select.select([end], [], [], most_s)
    finally:
        os.close(end)
