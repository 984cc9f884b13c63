"""runbook.plans.applying: a plan while it is applied, and what came of it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, NoReturn

import pytest
from local_node import cluster_of

from runbook import errors
from runbook.fleet import Fleet
from runbook.plan import Plan
from runbook.plans import applying
from runbook.plans.apply import Result, not_done
from runbook.plans.rollout import Stop
from runbook.resources import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runbook.plans.progress import Progress

CHANGES = [Change("/x", "create", "missing", node=f"node{n}") for n in (1, 2)]


def plan_of(rollout: Callable[[Fleet, Sequence[Change], Stop], list[Result]]) -> Plan:
    return Plan("units", Fleet(cluster_of(), {}), lambda: (list(CHANGES), [], 0), rollout=rollout)


def done(_fleet: Fleet, changes: Sequence[Change], _stop: Stop) -> list[Result]:
    return [Result(change, "done") for change in changes]


def test_work_beside_the_loop_is_looked_at() -> None:
    """The work runs in a thread while the cell looks; its value comes back."""
    seen, looked = threading.Event(), []

    def look() -> None:
        looked.append(threading.current_thread())
        seen.set()

    def work() -> str:
        assert seen.wait(20)
        return threading.current_thread().name

    assert asyncio.run(applying.beside(work, look)) != threading.current_thread().name
    assert set(looked) == {threading.current_thread()}


def test_an_error_of_the_work_is_the_cells() -> None:
    """What the thread raises is raised where it is waited for."""

    def work() -> NoReturn:
        raise errors.PkiError("no CA")

    with pytest.raises(errors.PkiError, match="no CA"):
        asyncio.run(applying.beside(work))


def test_the_journal_has_the_approval_and_the_end() -> None:
    """Who approved it is noted before anything begins, and how much was made after it."""
    plan = plan_of(done)
    seen: list[Progress] = []
    asyncio.run(applying.run(plan, CHANGES, "approved by ada@here", look=seen.append))
    assert [(one.step, one.state, one.detail) for one in plan.fleet.journal.steps] == [
        (f"apply units, plan {plan.id}", "started", "approved by ada@here"),
        ("apply units", "done", "2 of 2"),
    ]
    assert seen


def test_a_stop_is_in_the_journal() -> None:
    """What was stopped is told with who did."""
    stop = Stop()
    stop.ask("ada")
    plan = plan_of(lambda _fleet, changes, stop: stop.rest(changes))
    results = asyncio.run(applying.run(plan, CHANGES, "", stop=stop))
    assert plan.fleet.journal.steps[-1].detail == "0 of 2; stopped by ada"
    fault = applying.fault(plan, results)
    assert fault is not None
    assert "node1 /x: not begun: stopped by ada" in fault.message
    assert fault.remedy.startswith("run this again")


def test_an_interrupt_lets_nothing_further_begin() -> None:
    """A cell that is interrupted asks the rollout to stop, notes it, and closes the connections."""
    begun, ended = threading.Event(), threading.Event()
    stops: list[Stop] = []

    def rollout(_fleet: Fleet, changes: Sequence[Change], stop: Stop) -> list[Result]:
        stops.append(stop)
        begun.set()
        assert ended.wait(20)
        return stop.rest(changes)

    plan = plan_of(rollout)

    async def interrupted() -> None:
        task = asyncio.ensure_future(applying.run(plan, CHANGES, ""))
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stops[0].asked
        ended.set()

    asyncio.run(interrupted())
    assert plan.fleet.journal.steps[-1].detail == "interrupted"


def test_left_out_nodes_have_rows() -> None:
    """The results tell what was left out, beside what was made."""
    table = applying.table(plan_of(done), [Result(CHANGES[0], "done", took_s=1.0)], CHANGES[1:])
    assert table.caption == "units: 1 of 1 changes made; 1 left out"
    assert list(table["result"]) == ["done", "left out"]


def test_failures_have_cause_and_remedy() -> None:
    """What failed is a row with its cause and what to do; what only was not begun is counted."""
    results = [Result(CHANGES[0], "failed", "no space left", remedy="free some"), *not_done(CHANGES[1:])]
    table = applying.failures(plan_of(done), results)
    assert table.caption == "units: 2 of 2 changes were not made"
    assert table.to_dict("records") == [
        {"node": "node1", "resource": "/x", "result": "failed", "cause": "no space left", "remedy": "free some"}
    ]


def test_without_a_failure_there_is_no_fault() -> None:
    """All made is no error."""
    assert applying.fault(plan_of(done), [Result(CHANGES[0], "done")]) is None
