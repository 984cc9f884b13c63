"""runbook.plans.beside: a plan of several parts, read together and made beside each other; a shell as the node."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from local_node import NODES, OWNER, cluster_of, fleet_of, local

from runbook import errors, show
from runbook.plan import Plan
from runbook.plans import beside, reading
from runbook.plans.apply import Result
from runbook.plans.rollout import Stop, everywhere
from runbook.resources import Change, File

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from runbook.fleet import Fleet
    from runbook.plans.beside import Made, Part
    from runbook.resources import Found


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return fleet_of(cluster_of(nodes=NODES[:2]), tmp_path)


def part(
    fleet: Fleet, title: str, *, nodes: Sequence[str] = ("node1", "node2"),
    rollout: Callable[[Fleet, Sequence[Change], Stop], list[Result]] | None = None,
) -> Part:  # fmt: skip
    """One that wants a file of its own on each of these nodes."""
    wanted = {
        name: [File(f"{connection.folder}/{title}", f"{title}\n".encode(), 0o600, OWNER)]
        for name, connection in local(fleet).items()
        if name in nodes
    }

    def judge(found: Mapping[str, Sequence[Found]]) -> Made:
        changes, unchanged = reading.judged(fleet, wanted, found, what=title)
        return changes, [f"{title} is told"], unchanged

    asked = reading.guarded(wanted, {})
    return beside.Part(title, asked, judge, rollout or everywhere(title, 60))


def plan_of(fleet: Fleet, *parts: Part) -> Plan:
    together = beside.Together(fleet, *parts)
    return Plan("both", fleet, together.make, rollout=together.rollout)


def test_all_parts_are_read_in_one_round_trip_and_are_one_plan(fleet: Fleet) -> None:
    """One script a node; each part is judged by its own answers; a node that a part has nothing on is in the others."""
    plan = plan_of(fleet, part(fleet, "one"), part(fleet, "two", nodes=["node2"]))
    assert [len(one.scripts) for one in local(fleet).values()] == [1, 1]
    assert [(one.node, one.resource.rsplit("/", 1)[-1]) for one in plan.changes] == [
        ("node1", "one"), ("node2", "one"), ("node2", "two"),
    ]  # fmt: skip
    assert plan.notes == ["one is told", "two is told"]
    (local(fleet)["node2"].folder / "two").write_text("two\n")
    (local(fleet)["node2"].folder / "two").chmod(0o600)
    other = plan_of(fleet, part(fleet, "one"), part(fleet, "two", nodes=["node2"]))
    assert ([one.node for one in other.changes], other.unchanged) == (["node1", "node2"], 1)
    assert other.id != plan.id


def test_each_part_is_made_and_the_journal_tells_them_apart(fleet: Fleet) -> None:
    """All is there; what is noted of all but the first part names it; a second plan is empty."""
    parts = part(fleet, "one"), part(fleet, "two")
    table = asyncio.run(plan_of(fleet, *parts).apply(True))  # noqa: FBT003 - the notebooks' parameter
    assert set(table["result"]) == {"done"}
    assert [row["resource"].rsplit("/", 1)[-1] for row in show.rows(table)] == ["one", "one", "two", "two"]
    received = [(step.node, step.part) for step in fleet.journal.steps if step.step == "received"]
    assert sorted(received) == [("node1", ""), ("node1", "two"), ("node2", ""), ("node2", "two")]
    assert plan_of(fleet, part(fleet, "one"), part(fleet, "two")).empty


def test_the_first_part_waits_and_the_second_is_made_meanwhile(fleet: Fleet) -> None:
    """What the first is for ends only after the second: neither waits for the other to begin."""
    two_made = threading.Event()

    def waits(_fleet: Fleet, changes: Sequence[Change], _stop: Stop) -> list[Result]:
        return [Result(one, "done" if two_made.wait(30) else "failed", "the other never came") for one in changes]

    def follows(own: Fleet, changes: Sequence[Change], stop: Stop) -> list[Result]:
        made = everywhere("two", 60)(own, changes, stop)
        two_made.set()
        return made

    plan = plan_of(fleet, part(fleet, "one", rollout=waits), part(fleet, "two", rollout=follows))
    assert set(asyncio.run(plan.apply(True))["result"]) == {"done"}  # noqa: FBT003 - as above


def test_one_part_s_failure_hides_nothing_of_the_other(fleet: Fleet) -> None:
    """The first fails on all nodes: the second is made all the same, and the error tells only what was not."""

    def fails(_fleet: Fleet, changes: Sequence[Change], _stop: Stop) -> list[Result]:
        return [Result(one, "failed", "crashed") for one in changes]

    plan = plan_of(fleet, part(fleet, "one", rollout=fails), part(fleet, "two"))
    with pytest.raises(errors.ApplyFailed, match="2 of 4 changes were not made") as told:
        asyncio.run(plan.apply(True))  # noqa: FBT003 - as above
    assert "/two" not in str(told.value)
    assert all((one.folder / "two").read_text() == "two\n" for one in local(fleet).values())


def test_a_part_without_changes_is_not_begun(fleet: Fleet) -> None:
    """Of what a person left out, or what is right already, nothing is made; the other part does not wait for it."""

    def never(*_asked: object) -> list[Result]:
        raise AssertionError("there was nothing to do")

    plan = plan_of(fleet, part(fleet, "one", nodes=["node1"], rollout=never), part(fleet, "two"))
    results = plan.make([one for one in plan.changes if one.node == "node2"], Stop())
    assert [(one.change.node, one.result) for one in results] == [("node2", "done")]
    assert plan.make([], Stop()) == []


def test_a_stop_begins_nothing_of_any_part(fleet: Fleet) -> None:
    """Asked before the first has begun it holds for all parts: each change is told as not begun."""
    plan, stop = plan_of(fleet, part(fleet, "one"), part(fleet, "two")), Stop()
    stop.ask("somebody")
    results = plan.make(plan.changes, stop)
    assert [(one.result, one.error) for one in results] == [("not done", "not begun: stopped by somebody")] * 4
    assert not any((one.folder / name).exists() for one in local(fleet).values() for name in ("one", "two"))
