"""runbook.pages.timeline: spans from a journal's steps and a summary's phases, also of a run that broke off."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.journal import Journal, Step
from runbook.pages import timeline
from runbook.pages.timeline import Span

if TYPE_CHECKING:
    from pathlib import Path

BEGUN = timeline._seconds("2026-11-23T03:00:00Z") or 0.0


def phase(number: int, second: int | None, took_s: float | None = None, outcome: str = "passed") -> dict[str, Any]:
    started = None if second is None else f"2026-11-23T03:{second // 60:02d}:{second % 60:02d}Z"
    return {"number": number, "title": f"phase {number}", "outcome": outcome, "started": started, "took_s": took_s}


def step(at: float, node: str, what: str, state: str = "done") -> Step:
    return Step(BEGUN + at, node, what, state)


def told(steps: list[Step], phases: list[dict[str, Any]]) -> list[tuple[int | None, str, str, float, float]]:
    spans = timeline.spans(steps, phases)
    return [(one.phase, one.node, one.step, round(one.start_s, 3), round(one.end_s, 3)) for one in spans]


# ---- phases


def test_phases_follow_each_other() -> None:
    """A phase begins when the one before has ended, within the second that was noted; it is as long as was measured."""
    found = told([], [phase(0, 0, 3.4), phase(1, 3, 2.0), phase(2, 9, 1.0)])
    assert found == [(0, "", "", 0, 3.4), (1, "", "", 3.4, 5.4), (2, "", "", 9, 10.0)]


def test_a_phase_begins_when_it_was_noted_to_the_millisecond() -> None:
    """Its steps lie in it, also where a run takes but seconds."""
    phases = [phase(0, 0, 0.2), phase(1, 0, 1.1)]
    phases[0]["started"], phases[1]["started"] = "2026-11-23T03:00:00.700Z", "2026-11-23T03:00:00.890Z"
    found = told([step(0.895, "n", "apply", "started"), step(1.9, "n", "apply")], phases)
    assert found == [(0, "", "", 0, 0.19), (1, "", "", 0.19, 1.29), (1, "n", "apply", 0.195, 1.2)]


def test_no_phase_reaches_into_the_next() -> None:
    """Where the noted beginnings contradict a length, the beginnings hold."""
    assert told([], [phase(0, 0, 30.0), phase(1, 3, 1.0)]) == [(0, "", "", 0, 3.999), (1, "", "", 3.999, 4.999)]


def test_a_phase_that_was_not_begun_has_no_span() -> None:
    """What did not happen takes no time; without any times there are no spans."""
    assert told([], [phase(0, 0, 1.0), phase(1, None, outcome="not begun")]) == [(0, "", "", 0, 1)]
    assert told([], [phase(0, None, outcome="not begun")]) == []


def test_a_run_that_was_killed_has_its_last_phase() -> None:
    """It lasts from the end of the one before to its last step, and what it had begun as long: nobody noted more."""
    steps = [step(1, "n", "connect"), step(4, "n", "start etcd.service", "started"), step(7, "m", "connect")]
    found = told(steps, [phase(3, 0, 3.0), phase(4, None, outcome="failed"), phase(5, None, outcome="not begun")])
    assert (4, "", "", 3, 7) in found
    assert (4, "n", "start etcd.service", 4, 7) in found
    assert timeline.spans(steps, [phase(3, 0, 3.0), phase(4, None, outcome="failed")])[2].failed


def test_a_record_stepped_through_by_hand_has_its_applies() -> None:
    """Nobody notes when a notebook was opened: there a phase lasts from the beginning of its apply to its end."""
    steps = [
        step(0, "n", "connect"),
        step(60, "", "apply phase 2, plan p0123", "started"),
        step(60, "n", "apply", "started"),
        step(63, "n", "create /x"),
        step(64, "", "apply phase 2"),
    ]
    found = told(steps, [phase(number, None) for number in (0, 1, 2)])
    assert [one for one in found if not one[2]] == [(2, "", "", 60, 64)]
    assert (2, "n", "create /x", 60, 63) in found


# ---- steps


def test_a_step_lasts_from_its_start_to_its_end() -> None:
    """A step that is noted twice has that time; one that is noted once is a moment."""
    steps = [step(1, "n", "connect"), step(2, "n", "start x", "started"), step(5.5, "n", "start x", "failed")]
    assert told(steps, [phase(0, 0, 9.0)])[1:] == [(0, "n", "connect", 1, 1), (0, "n", "start x", 2, 5.5)]
    assert [one.failed for one in timeline.spans(steps, [phase(0, 0, 9.0)])] == [False, False, True]


def test_changes_that_are_noted_together_share_the_time_of_their_apply() -> None:
    """They are noted when all are made: the first has the time since the apply began, which is not told twice."""
    steps = [
        step(1, "n", "apply", "started"),
        step(1, "m", "apply", "started"),
        step(4, "n", "create /a"),
        step(4, "n", "create /b"),
        step(5, "m", "create /a"),
    ]
    assert told(steps, [phase(0, 0, 9.0)])[1:] == [
        (0, "n", "create /a", 1, 4),
        (0, "n", "create /b", 4, 4),
        (0, "m", "create /a", 1, 5),
    ]


def test_steps_of_several_nodes_don_t_mix() -> None:
    """The same step on two nodes at once has two lengths."""
    steps = [step(1, "n", "x", "started"), step(2, "m", "x", "started"), step(3, "n", "x"), step(7, "m", "x")]
    assert told(steps, [phase(0, 0, 9.0)])[1:] == [(0, "n", "x", 1, 3), (0, "m", "x", 2, 7)]


def test_parts_that_go_on_beside_each_other_don_t_mix() -> None:
    """What is made while a unit starts has its own times, from its own beginning."""
    steps = [
        step(1, "n", "start x", "started"),
        dataclasses.replace(step(2, "n", "apply", "started"), part="files"),
        step(3, "n", "start x"),
        dataclasses.replace(step(4, "n", "create /a"), part="files"),
        dataclasses.replace(step(5, "n", "apply"), part="files"),
    ]
    assert told(steps, [phase(0, 0, 9.0)])[1:] == [
        (0, "n", "start x", 1, 3),
        (0, "n", "create /a", 2, 4),
        (0, "n", "apply", 2, 5),
    ]


def test_the_plan_of_an_apply_is_no_part_of_its_name() -> None:
    """`apply TITLE, plan ID` begins and `apply TITLE` ends the same."""
    steps = [step(1, "", "apply etcd units, plan p01", "started"), step(3, "", "apply etcd units")]
    assert told(steps, [phase(0, 0, 9.0)])[1:] == [(0, "", "apply etcd units", 1, 3)]


def test_steps_belong_to_the_phase_of_their_time() -> None:
    """A step before the first phase (the run's lock) has none."""
    steps = [step(-1, "n", "lock"), step(1, "n", "connect"), step(4, "n", "connect")]
    found = told(steps, [phase(0, 0, 2.0), phase(1, 3, 2.0)])
    assert [one[0] for one in found if one[2]] == [None, 0, 1]
    assert found[0][3] == 0, "the run begins with its first step"


@given(
    st.lists(
        st.builds(
            Step,
            at=st.floats(0, 100),
            node=st.sampled_from(["", "n", "m"]),
            step=st.sampled_from(["a", "b", "apply phase 1"]),
            state=st.sampled_from(["started", "done", "failed"]),
        )
    )
)
def test_any_journal_gives_spans_that_end_after_they_begin(steps: list[Step]) -> None:
    """Whatever was noted in whatever order: no span is negative, each end that was noted has one."""
    found = timeline.spans(steps, [phase(0, None), phase(1, None)])
    assert all(0 <= one.start_s <= one.end_s for one in found)
    assert sum(bool(one.step) for one in found) >= sum(one.state != "started" for one in steps)


# ---- reading


def test_a_journal_is_read_as_it_was_written(tmp_path: Path) -> None:
    """What the journal's own writer wrote comes back; none for a file that is not there."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(str(path))
    journal.note("node1", "connect")
    journal.note("", "apply x", "failed", "why")
    assert timeline.read(path) == journal.steps
    assert timeline.read(tmp_path / "none") == []


def test_what_can_be_read_of_a_journal_is_read(tmp_path: Path) -> None:
    """A run that was killed leaves half a line; a newer version leaves fields that this one does not know."""
    path = tmp_path / "journal.jsonl"
    whole = {"at": 1.0, "node": "n", "step": "s", "state": "done"}
    lines = [json.dumps({**whole, "mood": "good"}), "[]", "3", json.dumps({**whole, "at": "x"}), '{"at": 2.0, "no']
    path.write_text("\n".join(lines))
    assert timeline.read(path) == [Step(1.0, "n", "s", "done")]


# ---- words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3905, "1 h 05 min"),
    ],
)
def test_durations_in_words(seconds: float | None, said: str) -> None:
    """A duration has the unit that fits it."""
    assert timeline.duration(seconds) == said


def test_a_span_knows_its_length() -> None:
    """Its end less its start."""
    assert Span(0, "n", "s", 1.5, 4.0).took_s == 2.5
