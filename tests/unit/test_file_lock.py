"""file_lock: one at a time, told that it waits, and not for ever."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runbook import file_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_one_at_a_time(tmp_path: Path) -> None:
    """Whoever comes second does not get it while the first has the file open."""
    with opened(tmp_path / "lock") as first, opened(tmp_path / "lock") as second:
        assert file_lock.take(first, 0)
        assert not file_lock.take(second, 0)


def test_closing_gives_it_to_the_next(tmp_path: Path) -> None:
    """As the end of a process does; the one that waits is told so once, and then has it."""
    told = []
    with opened(tmp_path / "lock") as second:
        first = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        assert file_lock.take(first, 0)

        def waiting() -> None:
            told.append("waiting")
            os.close(first)

        assert file_lock.take(second, 60, waiting=waiting)
    assert told == ["waiting"]


def test_nobody_waits_for_what_is_free(tmp_path: Path) -> None:
    """A lock that nobody has is taken at once, and nothing is told."""
    told: list[str] = []
    with opened(tmp_path / "lock") as one:
        assert file_lock.take(one, 0, waiting=lambda: told.append("waiting"))
    assert told == []
