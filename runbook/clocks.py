"""A node's clock against this machine's: its time lies between a question and the first line of the answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runbook.ssh import Connection


def asked(connection: Connection, script: str, *, what: str, timeout_s: float = 60) -> tuple[str, tuple[float, float]]:
    """Run a script whose first line of output is, or comes with, the node's time.

    Returns:
        What it printed, and the times on this side, in seconds since the epoch, when it was begun and when its first
        line was there.

    Raises:
        RunbookError: the node can't be asked, or the script failed.
    """
    times = [time.time()]

    def heard(_line: str) -> None:
        if len(times) == 1:  # the first line is the node's time
            times.append(time.time())

    text = connection.run(script, what=what, timeout_s=timeout_s, heard=heard).check().text
    return text, (times[0], times[-1] if len(times) > 1 else time.time())


def offset_ms(there: float, begun: float, answered: float) -> float:
    """By how many ms a clock is off at least: a slow link is no clock that is off.

    Args:
        there: The node's time, in seconds since the epoch.
        begun: The time on this side when it was asked.
        answered: The time on this side when its answer was there.
    """
    least, most = there - answered, there - begun
    return 0.0 if least <= 0 <= most else round(min(least, most, key=abs) * 1000, 1)
