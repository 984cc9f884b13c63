"""runbook.latency: members watched through stand-ins for their nodes; lines of etcd 3.6.16's etcdctl."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_node import cluster_of, fleet_of, local

from runbook import errors, latency, show
from runbook.pages.latency_picture import Sample

if TYPE_CHECKING:
    from runbook.fleet import Fleet

HEALTHY = (Path(__file__).parent / "test_etcd_state" / "health.txt").read_text().splitlines()[0]
SICK = "https://198.18.0.13:2379 is unhealthy: failed to commit proposal: context deadline exceeded"


def fleet_with(folder: Path, etcdctl: str) -> Fleet:
    (folder / "etcdctl").write_text(f"#!/bin/sh\n{etcdctl}\n")
    (folder / "etcdctl").chmod(0o755)
    return fleet_of(cluster_of().model_copy(update={"bin_dir": str(folder)}), folder)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples come without a pause."""
    monkeypatch.setattr(latency, "_PAUSE_S", 0.02)
    monkeypatch.setattr(latency, "_UPDATE_S", 0.02)


@pytest.mark.parametrize(
    ("line", "sample"),
    [
        (f"123.45 {HEALTHY} ", Sample(123.45, 8.232487)),
        (f"7.00 {SICK} Error: unhealthy cluster ", Sample(7.0, None, f"{SICK} Error: unhealthy cluster")),
        ("7.00 ", Sample(7.0, None, "etcdctl said nothing")),
        ("7.00 x is healthy: successfully committed proposal: took = soon", Sample(
            7.0, None, "x is healthy: successfully committed proposal: took = soon")),
        ("Last login: yesterday", None),
        ("", None),
    ],
)  # fmt: skip
def test_lines_are_read(line: str, sample: Sample | None) -> None:
    """A line is a time and etcdctl's own words; whatever is not a healthy answer with its time is a failure."""
    assert latency.parse(line) == sample


@given(st.text(max_size=60))
def test_garbage_is_never_a_time(text: str) -> None:
    """Only etcdctl's own sentence makes a latency."""
    sample = latency.parse(f"1.00 {text}")
    assert sample is None or sample.took_ms is None


def test_each_node_asks_its_own_member(tmp_path: Path) -> None:
    """One script a node reads through its own member again and again; a row a member says how long that took."""
    fleet = fleet_with(tmp_path, f'echo "$*" >>{tmp_path}/asked; echo "{HEALTHY}" >&2')
    table = asyncio.run(latency.watch(fleet, 1))
    assert list(table["node"]) == ["node1", "node2", "node3"]
    assert table["ok"].all()
    assert (table["samples"] > 1).all()
    assert set(table["failed"]) == {0}
    assert set(table["p50_ms"]) == set(table["max_ms"]) == {8.232487}
    assert isinstance(table[table["samples"] > 1], show.Table)
    asked = set((tmp_path / "asked").read_text().splitlines())
    assert len(asked) == 3, "the same command each time, one endpoint a node"
    assert all(one.count("https://") == 1 and "--command-timeout=5s" in one for one in asked)
    assert all(len(one.scripts) == 1 for one in local(fleet).values())


def test_a_member_that_fails_comes_first(tmp_path: Path) -> None:
    """Failures are counted, the last one's reason is told, and the remedy; other members' figures stay."""
    fleet = fleet_with(tmp_path, f'case "$*" in *13:2379*) echo "{SICK}"; exit 1;; esac; echo "{HEALTHY}"')
    first, *others = show.rows(asyncio.run(latency.watch(fleet, 1)))
    assert (first["node"], first["ok"], first["failed"]) == ("node3", False, first["samples"])
    assert "context deadline exceeded" in first["why"]
    assert "phase 04" in first["remedy"]
    assert all(row["ok"] for row in others)


def test_a_node_that_is_down_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that can't be reached has no samples, and says why."""
    fleet = fleet_with(tmp_path, f'echo "{HEALTHY}"')

    def down(*_: object, **__: object) -> None:
        raise errors.Unreachable("no route to host", node="node2")

    monkeypatch.setattr(local(fleet)["node2"], "run", down)
    first = show.rows(asyncio.run(latency.watch(fleet, 1)))[0]
    assert (first["node"], first["samples"], first["why"]) == ("node2", 0, "no route to host")


def test_nothing_measured_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no member could be asked there is no table of nothing: each node's cause is told."""
    fleet = fleet_with(tmp_path, "exit 0")
    for name, one in local(fleet).items():

        def down(*_: object, node: str = name, **__: object) -> None:
            raise errors.Unreachable("no route to host", node=node)

        monkeypatch.setattr(one, "run", down)
    with pytest.raises(errors.RunbookError, match="no route to host") as caught:
        asyncio.run(latency.watch(fleet, 1))
    assert "node1" in str(caught.value)
    assert "node3" in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, 3601, float("nan")])
def test_a_time_out_of_range_is_refused(tmp_path: Path, seconds: float) -> None:
    """Nothing runs for no time, or for ever."""
    fleet = fleet_with(tmp_path, "exit 0")
    with pytest.raises(errors.RunbookError, match="no time to watch"):
        asyncio.run(latency.watch(fleet, seconds))
    assert not any(one.scripts for one in local(fleet).values())


def test_an_interrupt_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted, it ends on every node at once, and the answer is what came until then."""
    heard: list[Sample | None] = []
    parse = latency.parse
    fleet = fleet_with(tmp_path, f'echo "{HEALTHY}"')

    async def cell() -> show.Table:
        some, loop = asyncio.Event(), asyncio.get_running_loop()

        def noted(line: str) -> Sample | None:
            heard.append(parse(line))
            if len(heard) == 6:
                loop.call_soon_threadsafe(some.set)
            return heard[-1]

        monkeypatch.setattr(latency, "parse", noted)
        task = asyncio.ensure_future(latency.watch(fleet, 3600))
        await some.wait()
        task.cancel()
        return await task

    table = asyncio.run(cell())
    assert table["samples"].sum() == len(heard)
    assert "interrupted after" in table.caption
    assert table["ok"].any()


class Notebook:
    """Stands in for IPython: notes what is displayed and updated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, live: bool) -> None:
        self.shown: list[dict[str, Any]] = []
        self.updates = 0
        monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: self)
        monkeypatch.setattr("IPython.display.display", self.display)
        monkeypatch.setattr(latency.approval, "person_present", lambda: live)

    def display(self, bundle: dict[str, Any], **options: object) -> Notebook:
        assert options == {"raw": True, "metadata": show.PICTURE, "display_id": True}
        self.shown.append(bundle)
        return self

    def update(self, bundle: dict[str, Any], **options: object) -> None:
        assert options == {"raw": True, "metadata": show.PICTURE}
        self.updates += 1
        self.shown[-1] = bundle


@pytest.mark.parametrize("live", [True, False])
def test_one_output_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, live: bool) -> None:
    """A person sees it grow in one output; without one it is shown once. What stays is the whole picture."""
    notebook = Notebook(monkeypatch, live=live)
    asyncio.run(latency.watch(fleet_with(tmp_path, f'echo "{HEALTHY}"'), 1))
    (bundle,) = notebook.shown
    assert bool(notebook.updates) is live
    assert json.dumps(bundle)
    assert "Latency of etcd&#x27;s members, 1 s" in bundle["text/html"]
    assert "node3" in bundle["text/plain"]
