from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from runbook.errors import SandboxError
from runbook.sandbox.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path


def test_a_claim_outlives_the_process(tmp_path: Path) -> None:
    """What is claimed is in the file at once, in order, and readable by its owner only."""
    path = tmp_path / "made.json"
    Ledger(path, "boot-1").claim("netns", "a", exists=False)
    Ledger(path, "boot-1").claim("link", "b", exists=False)
    assert Ledger(path, "boot-1").claims == ("netns a", "link b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_exists_and_was_not_claimed_is_not_ours(tmp_path: Path) -> None:
    """A name alone makes nothing ours."""
    ledger = Ledger(tmp_path / "made.json", "boot-1")
    with pytest.raises(SandboxError, match="rbk0: a link of this name exists already"):
        ledger.claim("link", "rbk0", exists=True)
    assert not ledger.owns("link", "rbk0")


def test_what_was_claimed_may_exist(tmp_path: Path) -> None:
    """A second up finds its own things."""
    ledger = Ledger(tmp_path / "made.json", "boot-1")
    ledger.claim("link", "rbk0", exists=False)
    ledger.claim("link", "rbk0", exists=True)
    assert ledger.claims == ("link rbk0",)


def test_claims_end_with_a_reboot(tmp_path: Path) -> None:
    """After a boot a link of that name is someone else's: ours went with the old kernel."""
    path = tmp_path / "made.json"
    Ledger(path, "boot-1").claim("link", "rbk0", exists=False)
    after = Ledger(path, "boot-2")
    assert after.claims == ()
    with pytest.raises(SandboxError, match="did not make it"):
        after.claim("link", "rbk0", exists=True)


def test_a_release_leaves_the_others(tmp_path: Path) -> None:
    """Names with blanks (a route's) are told apart as wholes."""
    ledger = Ledger(tmp_path / "made.json", "boot-1")
    for kind, name in (("route", "unreachable 198.18.0.0/26"), ("netns", "a"), ("netns", "ab")):
        ledger.claim(kind, name, exists=False)
    ledger.release("netns", "a")
    assert ledger.claims == ("route unreachable 198.18.0.0/26", "netns ab")
    assert ledger.named("route") == ("unreachable 198.18.0.0/26",)
