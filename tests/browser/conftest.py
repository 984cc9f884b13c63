"""Debian's Chromium, driven by Playwright; and the practice clusters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from clusters import binaries, practice
from playwright.sync_api import Browser, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["binaries", "chromium", "practice"]

_CHROMIUM = Path("/usr/bin/chromium")
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
_FLAGS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def chromium(prerequisite: Callable[[str], NoReturn]) -> Iterator[Browser]:
    """One Chromium for a module. While it runs, this thread has an event loop: `asyncio.run` needs another thread."""
    if not _CHROMIUM.exists():
        prerequisite(f"{_CHROMIUM} (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()
