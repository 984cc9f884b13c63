"""One Chromium for a module, and the practice clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest
from chromium import CHROMIUM, launched
from clusters import binaries, practice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

__all__ = ["binaries", "chromium", "practice"]


@pytest.fixture(scope="module")
def chromium(prerequisite: Callable[[str], NoReturn]) -> Iterator[Browser]:
    """Debian's Chromium, from a module's first test that asks for it to its last."""
    if not CHROMIUM.exists():
        prerequisite(f"{CHROMIUM} (apt-get install chromium)")
    with launched() as browser:
        yield browser
