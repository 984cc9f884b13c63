"""runbook.phases: the twelve phases, and which of them a list names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook import errors, phases

if TYPE_CHECKING:
    from pathlib import Path


def numbers(text: str) -> list[int]:
    return [phase.number for phase in phases.select(text)]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", list(range(12))), ("0", [0]), ("00", [0]), ("03-05,11", [3, 4, 5, 11]), ("11, 3 ,3", [3, 11]),
        ("5-5", [5]), ("2-4,3-5", [2, 3, 4, 5]),
    ],
)  # fmt: skip
def test_lists_and_ranges(text: str, chosen: list[int]) -> None:
    """Numbers and ranges, each phase once and in order, however they are written; nothing is all."""
    assert numbers(text) == chosen


@pytest.mark.parametrize(
    "text", ["x", "-", "1-", "-1", "1-2-3", "1,,2", ",", "3 4", "12", "5-3", "0-12", "1.5", "\u00b2", "\u0663"]
)
def test_what_is_no_phase_is_refused(text: str) -> None:
    """Anything else is an error of the command line, exit status 2, and names what was written."""
    with pytest.raises(errors.UsageError, match="--phases") as caught:
        phases.select(text)
    assert caught.value.exit_status == 2


@given(st.text(max_size=10) | st.from_regex(r"[0-9,\- ]{0,8}", fullmatch=True))
def test_any_text_is_a_list_or_refused(text: str) -> None:
    """Whatever is written, it names phases in order or is refused."""
    try:
        chosen = numbers(text)
    except errors.UsageError:
        return
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(12))


def test_phases_are_numbered_and_have_their_notebooks() -> None:
    """The twelve phases are in order, and each has its notebook."""
    assert [phase.number for phase in phases.PHASES] == list(range(12))
    assert len({phase.name for phase in phases.PHASES}) == 12
    folder = phases.notebooks_dir()
    there = sorted(path.name for path in folder.glob("*.ipynb"))
    assert [*(phase.notebook for phase in phases.PHASES), phases.INDEX] == there


def test_the_page_on_errors_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies in docs/ of a checkout, and beside the notebooks where this was installed as a wheel."""
    assert phases.errors_page() == phases.notebooks_dir().parent / "docs" / "troubleshooting.md"
    assert phases.errors_page().is_file()
    (tmp_path / "troubleshooting.md").touch()
    monkeypatch.setattr(phases, "notebooks_dir", lambda: tmp_path)
    assert phases.errors_page() == tmp_path / "troubleshooting.md"


def test_phases_that_change_nothing_have_no_plan() -> None:
    """Preflight and the verify phases only look."""
    looks = [phase.name for phase in phases.PHASES if phase.plan is None]
    assert looks == ["preflight", "etcd_verify", "flannel_verify", "ping_mesh"]
