"""runbook.records.run_profile: where time went, from a record."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import nbformat
import pytest
from past_run import told

from runbook import phases
from runbook.records import run_profile, summary

if TYPE_CHECKING:
    from pathlib import Path

v4 = nbformat.v4
BEGAN = datetime(2026, 11, 23, 4, 0, 0, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A record of phase 04, which took 5 s: a cell of 1 s, one of 3 s; node2 took longest."""
    row = summary._phase(phases.PHASES[4]) | {"outcome": "passed", "started": "2026-11-23T04:00:00Z", "took_s": 5.0}
    made = told() | {"phases": [row, summary._phase(phases.PHASES[5])]}
    (tmp_path / summary.NAME).write_text(json.dumps(made), encoding="utf-8")
    cells = []
    for source, start, end in (("fleet = 1\nfleet", 0.5, 1.5), ("await plan.apply()", 1.5, 4.5), ("never", None, None)):
        times = {"start_time": start, "end_time": end}
        at = {name: s if s is None else (BEGAN + timedelta(seconds=s)).isoformat() for name, s in times.items()}
        cells.append(v4.new_code_cell(source, metadata={"papermill": at}))
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / phases.PHASES[4].notebook)
    steps = [(2.0, "node1", "started"), (2.0, "node2", "started"), (3.0, "node1", "done"), (4.25, "node2", "done")]
    lines = [
        {"at": BEGAN.timestamp() + at, "node": node, "step": "start etcd", "state": state, "detail": ""}
        for at, node, state in steps
    ]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path


def test_a_phases_time_is_its_cells_and_what_is_around_them(folder: Path) -> None:
    """One row a phase that was begun; the node whose steps took longest is named."""
    by_phase, _ = run_profile.tables(folder)
    assert by_phase["columns"] == ["phase", "took_s", "cells_s", "around_s", "slowest", "steps_s"]
    assert by_phase["data"] == [["04 etcd start", 5.0, 4.0, 1.0, "node2", pytest.approx(2.25)]]


def test_the_slowest_come_first(folder: Path) -> None:
    """Cells by their last line, and steps by their node."""
    _, slowest = run_profile.tables(folder)
    assert [row[1:3] for row in slowest["data"]] == [
        ["", "cell: await plan.apply()"],
        ["node2", "start etcd"],
        ["", "cell: fleet"],
        ["node1", "start etcd"],
    ]
