"""flock(2) with a deadline: where processes of this machine take turns, and the kernel frees what a dead one held."""

from __future__ import annotations

import fcntl
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL_S = 0.02


def take(descriptor: int, wait_s: float, *, waiting: Callable[[], None] | None = None) -> bool:
    """Lock an open file against other processes until it is closed.

    Args:
        descriptor: The open file.
        wait_s: How long another process may keep it, in seconds.
        waiting: Called once, where another process has it.

    Returns:
        Whether it is ours; False when the time has passed.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            if waiting:
                waiting()
                waiting = None
            time.sleep(_POLL_S)
        else:
            return True
