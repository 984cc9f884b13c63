"""Waiting in tests: what is waited for is looked for again, with an end."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WITHIN_S = 60.0
"""Nothing waits as long where all is well."""


def until(holds: Callable[[], object]) -> None:
    """Look again until it holds; `time.sleep` may be another one in a test."""
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {WITHIN_S:g} s"
        select.select([], [], [], 0.01)
