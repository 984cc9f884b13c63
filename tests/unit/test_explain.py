"""runbook.diagnosis.explain: an error with its causes; the looking never hides the error, nor holds it up for long."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import pytest
from local_node import cluster_of, fleet_of

from runbook import diagnose, errors, expect, fleet, show
from runbook.diagnosis import explain
from runbook.plans.apply import Result
from runbook.resources import Change

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbook.fleet import Fleet

ROW = {
    "node": "node2", "cause": "the disk is full", "ok": False, "why": "0 MiB free", "remedy": "free space",
    "section": "disk-full",
}  # fmt: skip


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet that is open, as a notebook has one."""
    made = fleet_of(cluster_of(), tmp_path)
    made.open()
    yield made
    made.close()


def finds(monkeypatch: pytest.MonkeyPatch, *rows: dict[str, object]) -> None:
    """Let every diagnosis find these rows."""
    monkeypatch.setattr(diagnose, "diagnose", lambda _fleet: show.table(rows, diagnose.COLUMNS))


def failed(node: str = "node2") -> Result:
    """A start that failed."""
    return Result(Change("etcd.service", "start", "x", node=node), "failed", "line 1\nline 2\nline 3\nline 4", 1.0, "r")


def test_a_check_that_fails_tells_the_causes(opened: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows come first, then cause and remedy of what a look at the nodes found."""
    finds(monkeypatch, ROW)
    table = show.table([{"node": "node2", "ok": False, "why": "no answer"}], ["node", "ok", "why"])
    with pytest.raises(errors.CheckFailed) as caught:
        expect(table, "all is well")
    assert "node2: no answer\ncause: node2: the disk is full: 0 MiB free\n    -> free space" in str(caught.value)
    assert opened in fleet.opened()


def test_a_diagnosis_that_fails_hides_nothing(opened: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first error stands as it is."""

    def broken(_fleet: Fleet) -> NoReturn:
        raise RuntimeError("broken")

    monkeypatch.setattr(diagnose, "diagnose", broken)
    assert explain.causes(opened) == []
    assert explain.failed_starts(opened, [failed()]) == [failed()]


def test_a_diagnosis_that_hangs_is_not_waited_for(opened: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the limit the error is told without a cause."""
    go_on = threading.Event()
    monkeypatch.setattr(explain, "_LIMIT_S", 0.01)
    monkeypatch.setattr(diagnose, "diagnose", lambda _fleet: go_on.wait())
    assert explain.causes(opened) == []
    go_on.set()


def test_nothing_is_looked_for_where_nothing_failed(opened: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts that are done stay as they are, without a look."""
    monkeypatch.setattr(diagnose, "diagnose", lambda _fleet: pytest.fail("it looked"))
    done = [Result(Change("etcd.service", "start", "x", node="node1"), "done")]
    assert explain.failed_starts(opened, done) == done


def test_a_failed_start_tells_its_own_nodes_causes(opened: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other nodes' causes nothing; the cluster's count for every node; of the journal the end is left."""
    other = {**ROW, "node": "node1", "cause": "other"}
    finds(monkeypatch, ROW, other, {**ROW, "node": "(cluster)", "cause": "no quorum"})
    (result,) = explain.failed_starts(opened, [failed()])
    assert result.error == ("the disk is full: 0 MiB free\nno quorum: 0 MiB free\nline 2\nline 3\nline 4")
    assert result.remedy == "free space; free space"


@pytest.mark.parametrize("own", ["bind: address already in use", ""])
def test_the_units_own_last_words_are_told(opened: Fleet, monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    """What systemd says of every start that failed is told only where the unit itself said nothing."""
    finds(monkeypatch, ROW)
    by_systemd = [
        "Starting etcd.service - etcd.", "etcd.service: Main process exited, code=exited, status=1/FAILURE",
        "etcd.service: Failed with result 'exit-code'.", "Failed to start etcd.service - etcd.",
    ]  # fmt: skip
    said = "\n".join([by_systemd[0], *([own] if own else []), *by_systemd[1:]])
    (result,) = explain.failed_starts(opened, [replace(failed(), error=said)])
    assert result.error.splitlines()[1:] == ([own] if own else by_systemd[1:])


def test_what_is_not_built_yet_explains_nothing(opened: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """While etcd is started, that flanneld is not there is no cause."""
    finds(monkeypatch, {**ROW, "cause": "flanneld is not installed"})
    assert explain.causes(opened) == []


def test_many_causes_are_counted() -> None:
    """The message stays readable: six, and where to see the rest."""
    told = explain.lines([{**ROW, "node": f"node{n}"} for n in range(8)])  # type: ignore[dict-item]
    assert len(told) == 7
    assert told[-1] == "and 2 more: `runbook diagnose PARAMS`"


def test_the_fleet_must_be_the_tables(opened: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of other nodes is not explained; nor one whose nodes are in two clusters."""
    finds(monkeypatch, ROW)
    assert explain.failed_check({"node9"}) == []
    assert explain.failed_check(set()) == []
    assert len(explain.failed_check({"node1", "node2"})) == 1
    (tmp_path / "other").mkdir()
    other = fleet_of(cluster_of(etcd={"version": "3.5.21"}), tmp_path / "other")
    other.open()
    assert explain.failed_check({"node1", "node2"}) == []
    other.close()
    assert len(explain.failed_check({"node1", "node2"})) == 1
    opened.close()
    assert explain.failed_check({"node1", "node2"}) == []
