"""pages.timeline_picture: lanes and bars to one scale, none beyond it; what took longest and what failed in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_timeline import phase, step

from runbook.pages import timeline_picture

if TYPE_CHECKING:
    from runbook.pages.timeline_picture import Picture


def made(steps: list[Any], phases: list[dict[str, Any]]) -> Picture:
    drawn = timeline_picture.picture(steps, phases)
    assert drawn
    return drawn


RUN = [phase(0, 0, 4.0), phase(1, 4, 6.0, "failed")]
STEPS = [
    step(1, "node2", "connect"),
    step(5, "node2", "apply", "started"),
    step(5, "node10", "apply", "started"),
    step(6, "node10", "create /a"),
    step(9, "node2", "create /a", "failed"),
]


def test_without_times_there_is_no_picture() -> None:
    """A run of which nobody noted when anything happened is not drawn."""
    assert timeline_picture.picture([], [phase(0, None)]) is None


def test_a_lane_for_the_phases_and_one_a_node() -> None:
    """Bars have their place and width in percent of the run; nodes stand in the order of their numbers."""
    drawn = made(STEPS, RUN)
    assert [lane.name for lane in drawn.lanes] == ["", "node2", "node10"]
    phases, node2, node10 = drawn.lanes
    assert [(bar.label, bar.gap, bar.width, bar.failed) for bar in phases.bars] == [
        ("00", 0, pytest.approx(40), False),
        ("01", 0, pytest.approx(60), True),
    ]
    assert [round(bar.gap + bar.width) for bar in node10.bars] == [60]
    assert (node2.bars[1].width, node2.bars[1].failed) == (pytest.approx(40), True)
    assert (node2.took_s, node10.took_s) == (4, 1)
    assert node2.bars[1].title == "01 phase 1: create /a 4.0 s, failed"


def test_words_say_what_took_longest_and_what_failed() -> None:
    """Who sees no picture reads the longest phases and steps, and each failure."""
    assert made(STEPS, RUN).words == (
        "Longest phases: 01 phase 1 6.0 s, 00 phase 0 4.0 s. "
        "Longest steps: node2 create /a 4.0 s. Failed: node2 create /a."
    )


def test_what_lies_close_together_is_one_bar() -> None:
    """Twenty changes at once are one bar that names the longest of them and counts the rest."""
    steps = [
        step(5, "n", "apply", "started"),
        *(step(6 + number / 1000, "n", f"create /{number}") for number in range(20)),
    ]
    (bar,) = made(steps, RUN).lanes[1].bars
    assert bar.title.startswith("01 phase 1: create /0 1.0 s; ")
    assert bar.title.endswith("and 14 more")


def test_this_side_has_its_lane() -> None:
    """What is done here and not on a node is told apart."""
    steps = [step(5, "", "apply x, plan p", "started"), step(6, "n", "a"), step(8, "", "apply x")]
    assert [lane.name for lane in made(steps, RUN).lanes] == ["", "here", "n"]


@pytest.mark.parametrize(
    ("took_s", "marks"),
    [
        (0.4, "0.1 s"),
        (9.0, "2 s"),
        (48.0, "10 s"),
        (100, "20 s"),
        (600, "2 min"),
        (7000, "30 min"),
        (10**6, "2083.33 min"),
    ],
)
def test_marks_are_round(took_s: float, marks: str) -> None:
    """A scale has a few marks at round times."""
    drawn = made([], [phase(0, 0, took_s)])
    assert drawn.marks[0].label == "0 s"
    assert drawn.marks[1].label == marks
    assert 2 <= len(drawn.marks) <= 13
    assert sum(mark.width for mark in drawn.marks) == pytest.approx(100)


def test_thinking_takes_no_room() -> None:
    """Of a record stepped through by hand the hours between the applies are left out, and it says so."""
    steps = [
        step(0, "", "apply phase 0, plan p", "started"),
        step(2, "n", "create /a"),
        step(4, "", "apply phase 0"),
        step(3600, "", "apply phase 1, plan p", "started"),
        step(3604, "", "apply phase 1"),
    ]
    drawn = made(steps, [phase(0, None), phase(1, None)])
    assert [(round(bar.gap), round(bar.width)) for bar in drawn.lanes[0].bars] == [(0, 50), (0, 50)]
    assert drawn.marks == ()
    assert drawn.words.endswith("The time between phases is left out.")


@given(
    steps=st.lists(
        st.builds(
            step,
            at=st.floats(-5, 60),
            node=st.sampled_from(["", "n", "m"]),
            what=st.sampled_from(["a", "b", "apply phase 1"]),
            state=st.sampled_from(["started", "done", "failed"]),
        )
    ),
    seconds=st.lists(st.integers(0, 40), min_size=1, max_size=4).map(sorted),
    took_s=st.floats(0, 50),
)
def test_no_bar_reaches_beyond_its_lane(steps: list[Any], seconds: list[int], took_s: float) -> None:
    """Whatever was noted: gaps and widths are not negative and sum up to at most the whole."""
    drawn = made(steps, [phase(number, second, took_s) for number, second in enumerate(seconds)])
    for lane in drawn.lanes:
        assert all(bar.gap >= 0 and bar.width >= 0 for bar in lane.bars)
        assert sum(bar.gap + bar.width for bar in lane.bars) <= 100.001
