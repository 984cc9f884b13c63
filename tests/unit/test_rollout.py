"""runbook.plans.rollout: this side first, then all nodes at once, each step noted; ended between steps by Stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from local_node import OWNER, cluster_of, fleet_of, local

from runbook import errors
from runbook.journal import Pulse, Step
from runbook.plans import rollout
from runbook.plans.rollout import Stop, Stopped
from runbook.resources import Change, Payload

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.fleet import Fleet
    from runbook.plans.apply import Result
    from runbook.transport.completed import Completed


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return fleet_of(cluster_of(), tmp_path)


def rolled(fleet: Fleet, *changes: Change, stop: Stop | None = None) -> list[Result]:
    return rollout.everywhere("plan-1", 20)(fleet, changes, stop or Stop())


def told(results: list[Result]) -> list[tuple[str, str, str]]:
    return [(one.change.node, one.result, one.error) for one in results]


def test_a_stop_ends_between_this_side_and_the_nodes(fleet: Fleet) -> None:
    """Pressed while this side's change is made, no node is touched, and every row says who stopped it."""
    stop = Stop()
    ca = Change("ca.pem", "create", "", here=lambda: stop.ask("ada"))
    results = rolled(fleet, ca, Change("x", "create", "", before="true", node="node1"), stop=stop)
    assert told(results) == [("", "done", ""), ("node1", "not done", "not begun: stopped by ada")]
    assert [one.scripts for one in local(fleet).values()] == [[], [], []]


def test_a_stop_ends_between_two_changes_of_this_side(fleet: Fleet) -> None:
    """What comes after the change that runs is not begun."""
    stop = Stop()
    first = Change("a", "create", "", here=lambda: stop.ask("ada"))
    made: list[str] = []
    second = Change("b", "create", "", here=lambda: made.append("b"))
    assert [one.result for one in rolled(fleet, first, second, stop=stop)] == ["done", "not done"]
    assert made == []


def test_a_node_that_was_only_about_to_begin_does_not(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while the connection is made again: nothing is sent, and the journal does not say that it began."""
    stop, node = Stop(), local(fleet)["node1"]
    run = node.run

    def late(*args: Any, **options: Any) -> Completed:  # noqa: ANN401 - handed on
        stop.ask("an interrupt")
        return run(*args, **options)

    monkeypatch.setattr(node, "run", late)
    results = rolled(fleet, Change("x", "create", "", before="true", node="node1"), stop=stop)
    assert told(results) == [("node1", "not done", "not begun: stopped by an interrupt")]
    assert node.scripts == []
    assert fleet.journal.steps == []


def test_a_beginning_is_noted_once() -> None:
    """A connection that hands a script on to another one asks twice."""
    stop, noted = Stop(), [0]
    begin = stop.begin(lambda: noted.append(1))
    begin()
    begin()
    assert noted == [0, 1]
    stop.ask("ada")
    with pytest.raises(Stopped):
        begin()


def test_what_fails_here_ends_it(fleet: Fleet) -> None:
    """Where this side's change fails nothing after it is begun, here or on a node; its remedy is in the row."""

    def fails() -> NoReturn:
        raise errors.PkiError("the folder is open to others", remedy="chmod 700 it")

    results = rolled(
        fleet,
        Change("a", "create", "", here=fails),
        Change("b", "create", "", here=fails),
        Change("x", "create", "", before="true", node="node1"),
    )
    assert [one.result for one in results] == ["failed", "not done", "not done"]
    assert results[0].remedy == "chmod 700 it"
    assert local(fleet)["node1"].scripts == []


def test_a_nodes_steps_and_bytes_are_told(fleet: Fleet, tmp_path: Path) -> None:
    """A node's apply begins and ends in the journal, with the bytes that were sent; pulses tell them meanwhile."""
    data = b"x" * 5000
    payload = Payload(str(tmp_path / "file"), 0o644, OWNER, data)
    heard: list[Step | Pulse] = []
    fleet.journal.listen(heard.append)
    rolled(fleet, Change("file", "create", "missing", payloads=lambda: (payload,), node="node1"))
    steps = [(one.node, one.step, one.state) for one in fleet.journal.steps]
    assert steps == [
        ("node1", "apply", "started"),
        ("node1", "received", "done"),
        ("node1", "create file", "done"),
        ("node1", "apply", "done"),
    ]
    assert [one.sent_bytes for one in fleet.journal.steps] == [None, None, None, 5000]  # once, so that a sum is right
    pulses = [one for one in heard if isinstance(one, Pulse)]
    assert {one.total_bytes for one in pulses} == {5000}
    sent = [one.sent_bytes or 0 for one in pulses]
    assert (sent, sent[-1]) == (sorted(sent), 5000)


def test_a_node_that_sends_nothing_tells_no_bytes(fleet: Fleet) -> None:
    """A folder that is made is no stream."""
    rolled(fleet, Change("x", "create", "", before="true", node="node1"))
    assert [step.sent_bytes for step in fleet.journal.steps] == [None, None, None]
