"""records.record_diff and records.notebook_diff: what differs is told, what every run measures anew is not."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import past_run
import pytest

from runbook import show
from runbook.errors import RunbookError
from runbook.records import notebook_diff, record_diff, summary

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = "20261123T021314Z", "20261124T021314Z"


def read(*tables: show.Table, leader: str = "node1", took_ms: float | None = 1.5) -> dict[str, Any]:
    done = [
        past_run.phase_run(1, past_run.binaries(), plan=past_run.PLAN),
        past_run.phase_run(5, past_run.endpoints(leader=leader, took_ms=took_ms)),
        *(past_run.phase_run(11, table) for table in tables),
    ]
    return past_run.told(done=done)


def both(tmp_path: Path, before: dict[str, Any], after: dict[str, Any]) -> tuple[Path, Path]:
    return past_run.past_run(tmp_path, OLD, before), past_run.past_run(tmp_path, NEW, after)


def told(tmp_path: Path, before: dict[str, Any], after: dict[str, Any], **more: bool) -> dict[str, list[list[str]]]:
    """Each section's rows, without empty cells."""
    found = record_diff.diff(*both(tmp_path, before, after), **more)
    return {one.title: [[cell for cell in row.values() if cell is not None] for row in rows(one)] for one in found}


def rows(section: record_diff.Section) -> list[dict[str, Any]]:
    assert section.table is not None
    return show.json_rows(section.table)


def test_nothing_differs(tmp_path: Path) -> None:
    """Two runs of one cluster with other times, round trips and counters differ in nothing, and that is said."""
    before = read(past_run.overlay(0.1, 0.2))
    after = read(past_run.overlay(0.3, 0.4), took_ms=99.0) | {"started": "2026-11-24T02:13:14Z", "continues": OLD}
    after["phases"][1]["took_s"] = 50.0
    old, new = both(tmp_path, before, after)
    assert record_diff.diff(old, new) == []
    nothing = "nothing differs but times and what else every run measures anew"
    assert record_diff.text(old, new) == f"{OLD} -> {NEW}: {nothing}"
    assert record_diff.text(old, old, times=True) == f"{OLD} -> {OLD}: nothing differs"


def test_times_when_asked_for(tmp_path: Path) -> None:
    """Asked for, times and measured values are told too."""
    before, after = read(past_run.overlay(0.1, 0.2)), read(past_run.overlay(0.3, 0.2), took_ms=2.5)
    after["started"], after["phases"][1]["took_s"] = "2026-11-24T02:13:14Z", 50.0
    found = told(tmp_path, before, after, times=True)
    assert ["", "changed", "started", before["started"], after["started"]] in found["run"]
    assert found["phases"] == [["1 binaries", "changed", "took_s", "1.23", "50.0"]]
    assert found["table overlay"] == [["node1", "changed", "node2", "0.1", "0.3"]]
    assert ["https://198.18.0.11:2379", "changed", "took_ms", "1.5", "2.5"] in found["table endpoints"]


def test_a_measured_value_that_went_missing(tmp_path: Path) -> None:
    """A node that answered then and doesn't now is told, though its round trip would not be."""
    found = told(tmp_path, read(past_run.overlay(0.1, 0.2)), read(past_run.overlay(None, 0.4), took_ms=None))
    assert found["table overlay"] == [["node1", "changed", "node2", "0.1", "-"]]
    assert ["https://198.18.0.11:2379", "changed", "took_ms", "1.5", "-"] in found["table endpoints"]


def test_versions_and_binaries(tmp_path: Path) -> None:
    """The tool, a package, etcd and a binary's checksum: each that differs is a row, and no other."""
    before, after = read(), read()
    after["tool"] |= {"version": "9.9.9"}
    after["tool"]["packages"] = {**after["tool"]["packages"], "paramiko": "99"}
    after["versions"] = {"etcd": "3.7.0", "flannel": before["versions"]["flannel"]}
    there = next(one for one in after["binaries"] if one["sha256"])
    there["sha256"] = "f" * 64
    found = told(tmp_path, before, after)
    assert set(found) == {"versions", "binaries"}
    assert [row[2:] for row in found["versions"]] == [
        ["etcd-flannel-runbook", before["tool"]["version"], "9.9.9"],
        ["paramiko", before["tool"]["packages"]["paramiko"], "99"],
        ["etcd", "3.6.16", "3.7.0"],
    ]
    assert found["binaries"] == [["node1 /opt/k8s/bin/etcd", "changed", "sha256", "0" * 64, "f" * 64]]


def test_phases_and_outcome(tmp_path: Path) -> None:
    """A phase that failed, its error, another plan: cells of the phase; the operator is told too."""
    change = past_run.PLAN | {"id": "pffffffffffff", "changes": [{"node": "node1"}]}
    before = past_run.told(done=[past_run.phase_run(3, plan=past_run.PLAN)])
    after = past_run.told(done=[past_run.phase_run(3, plan=change, ename="ApplyFailed")])
    after["operator"] = {"user": "bert", "host": "ops2", "pid": 2}
    found = told(tmp_path, before, after)
    assert found["phases"] == [
        ["3 etcd_units", "changed", "outcome", "passed", "failed"],
        ["3 etcd_units", "changed", "changes", "0", "1"],
        ["3 etcd_units", "changed", "plan", "p0123456789ab", "pffffffffffff"],
        ["3 etcd_units", "changed", "error", "-", "ApplyFailed: node1: it went wrong"],
    ]
    assert [row[2] for row in found["run"]] == ["operator", "outcome"]
    assert found["run"][0][4] == "bert@ops2"


def test_rows_come_and_go(tmp_path: Path) -> None:
    """Rows are held against each other by their key, not by their place: added, removed, changed."""
    before, after = read(), read(leader="node2")
    kept = copy.deepcopy(after["tables"]["endpoints"])
    kept["data"] = [*kept["data"][:0:-1], ["https://198.18.0.19:2379", "node9", True, 1.0, 1, False]]
    after["tables"]["endpoints"] = kept
    found = told(tmp_path, before, after)["table endpoints"]
    assert [row[:2] for row in found] == [
        ["https://198.18.0.11:2379", "removed"],
        ["https://198.18.0.12:2379", "changed"],
        ["https://198.18.0.19:2379", "added"],
    ]
    assert found[1][2:] == ["leader", "false", "true"]
    assert "node node9" in found[2][-1]


def test_rows_with_one_key_twice(tmp_path: Path) -> None:
    """Where the first column doesn't tell rows apart, more columns do."""
    before, after = read(), read()
    table = {"caption": "Leases under /x", "columns": ["lease", "node", "ok"]}
    before["tables"]["leases"] = table | {"data": [["a", "node1", True], ["a", "node2", True]]}
    after["tables"]["leases"] = table | {"data": [["a", "node1", True], ["a", "node2", False]]}
    assert told(tmp_path, before, after) == {"table leases": [["a node2", "changed", "ok", "true", "false"]]}


def test_a_table_that_only_one_has(tmp_path: Path) -> None:
    """A closing table of one run alone is rows added."""
    found = told(tmp_path, read(), read(past_run.overlay(0.1, 0.2)))
    assert [row[:2] for row in found["table overlay"]] == [["node1", "added"], ["node2", "added"]]


def test_params(tmp_path: Path) -> None:
    """Params are a unified diff between the two records; a params file that is gone is told."""
    old, new = both(tmp_path, read(), read())
    text = (new / "params.yaml").read_text()
    (new / "params.yaml").write_text(text.replace("subnet_len: 21", "subnet_len: 22\n    more: \x1b[31mred"))
    (section,) = record_diff.diff(old, new)
    lines = section.text.splitlines()
    assert lines[:2] == [f"--- {OLD}", f"+++ {NEW}"]
    assert [line for line in lines[2:] if line[0] in "+-"] == [
        "-    subnet_len: 21",
        "+    subnet_len: 22",
        "+    more: [31mred",
    ]
    (new / "params.yaml").unlink()
    assert "+# params.yaml can't be read: No such file or directory" in record_diff.text(old, new)


def test_text_holds_all_sections(tmp_path: Path) -> None:
    """As text each section has its title; nothing of the values is cut off."""
    before, after = read(), read()
    after["binaries"][1]["source"] = "a mirror"
    after["versions"] = {"etcd": "3.7.0", "flannel": "0.26.7"}
    text = record_diff.text(*both(tmp_path, before, after))
    assert text.startswith(f"{OLD} -> {NEW}\n\nversions\n")
    assert "3.7.0" in text
    assert "\n\nbinaries\n" in text
    assert "a mirror" in text


@pytest.mark.parametrize("content", [None, b"{", b'{"schema": 1}', b"[]"])
def test_what_is_no_record(tmp_path: Path, content: bytes | None) -> None:
    """A folder without a whole summary is an error that names it."""
    old, new = both(tmp_path, read(), read())
    (new / summary.NAME).unlink()
    if content is not None:
        (new / summary.NAME).write_bytes(content)
    with pytest.raises(RunbookError, match=NEW):
        record_diff.diff(old, new)


# ---- notebooks


def notebooks(tmp_path: Path, before: object, after: object, **more: bool) -> str:
    """What is told of two notebooks of one name; each written by nbformat, with ids and times of its own."""
    made = read()
    old = past_run.past_run(tmp_path, OLD, made, {"03_x.ipynb": before})
    new = past_run.past_run(tmp_path, NEW, made, {"03_x.ipynb": after})
    found = record_diff.diff(old, new, **more)
    assert {one.title for one in found} <= {"notebook 03_x.ipynb"}
    return found[0].text if found else ""


def test_notebooks_of_two_runs(tmp_path: Path) -> None:
    """Ids, execution times, papermill's metadata, tracebacks, measured values and addresses make no difference."""
    before, after = (
        past_run.executed_notebook(
            past_run.endpoints(took_ms=took_ms),
            past_run.overlay(took_ms, 0.1),
            past_run.PLAN,
            f"an object at {id(took_ms):#x}",
            ValueError("wrong"),
            source=f"cluster = '{folder}/params.yaml'",
        )
        for took_ms, folder in ((1.5, f"/a/sandbox/{OLD}"), (2.5, f"/b/sandbox/{NEW}"))
    )
    assert before != after
    assert notebooks(tmp_path, before, after) == ""


def test_notebooks_with_times(tmp_path: Path) -> None:
    """Asked for, measured values in tables are told."""
    before, after = (past_run.executed_notebook(past_run.endpoints(took_ms=one)) for one in (1.5, 2.5))
    text = notebooks(tmp_path, before, after, times=True)
    assert "-  https://198.18.0.11:2379: took_ms 1.5" in text
    assert "+  https://198.18.0.11:2379: took_ms 2.5" in text


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ([past_run.endpoints()], [past_run.endpoints(leader="node2")], "+  https://198.18.0.12:2379: leader True"),
        ([past_run.endpoints()], [past_run.endpoints(took_ms=None)], "-  https://198.18.0.11:2379: took_ms (measured)"),
        ([past_run.PLAN], [past_run.PLAN | {"notes": ["by a mirror"]}], "+  by a mirror"),
        (["the same line\n" * 5 + "older"], ["the same line\n" * 5 + "newer"], "+  newer"),
        ([ValueError("one")], [ValueError("other")], "other"),
        (["text"], [], "-  output:"),
    ],
)
def test_outputs_that_differ(tmp_path: Path, before: list[object], after: list[object], line: str) -> None:
    """A cell of a table, a plan, text and an error that differ are told, each in its own line."""
    text = notebooks(tmp_path, past_run.executed_notebook(*before), past_run.executed_notebook(*after))
    assert line in text
    assert "papermill" not in text


def test_code_that_differs(tmp_path: Path) -> None:
    """Other code is told, and that a cell never ran."""
    before = past_run.executed_notebook(source="# What is applied.\nplan = units(fleet)\napprove = False")
    after = past_run.executed_notebook(
        source="# What is applied.\nplan = units(fleet)\napprove = True\x1b[0m", ran=False
    )
    text = notebooks(tmp_path, before, after)
    assert "-  approve = False" in text
    assert "+  approve = True" in text
    assert "\x1b" not in text
    assert "execution_count" in text


def test_tables_that_are_only_text(tmp_path: Path) -> None:
    """A table drawn in plain text (the fleet's) is compared cell by cell, without its measured columns and widths."""

    def drawn(took_ms: float, why: str) -> object:
        table = show.table([{"node": "node1", "took_ms": took_ms, "why": why}], ("node", "took_ms", "why"), "Nodes")
        return past_run.executed_notebook(show.table_text(table))

    assert notebooks(tmp_path / "a", drawn(1.5, "x"), drawn(1234.5, "x")) == ""
    assert "+  node1 | (measured) | refused" in notebooks(tmp_path / "b", drawn(1.5, "x"), drawn(1.5, "refused"))
    assert "+  node1 | 2.50 | x" in notebooks(tmp_path / "c", drawn(1.5, "x"), drawn(2.5, "x"), times=True)


def test_notebooks_that_only_one_has(tmp_path: Path) -> None:
    """A notebook of one run alone is named; so is one that can't be read."""
    one = past_run.executed_notebook("x")
    old = past_run.past_run(tmp_path, OLD, read(), {"03_x.ipynb": one, "05_x.ipynb": one})
    new = past_run.past_run(tmp_path, NEW, read(), {"04_x.ipynb": one, "05_x.ipynb": one})
    (new / "05_x.ipynb").write_text(json.dumps({"cells": 1}))
    found = dict(notebook_diff.diff(old, new))
    assert found["03_x.ipynb"] == "only in the older run"
    assert found["04_x.ipynb"] == "only in the newer run"
    assert found["05_x.ipynb"].startswith(f"can't be read as a notebook: {new / '05_x.ipynb'}: ")


@pytest.mark.parametrize(
    ("column", "caption", "measured"),
    [
        ("took_ms", "", True),
        ("expires_s", "", True),
        ("raft_index", "", True),
        ("node2", "overlay: rtt_ms", True),
        ("from", "overlay: rtt_ms", False),
        ("node2", "overlay: loss_pct", False),
        ("bytes", "Binaries", False),
        ("raft_term", "", False),
        ("leader", "etcd endpoints", False),
        ("ok", "", False),
    ],
)
def test_what_is_measured(column: str, caption: str, measured: bool) -> None:  # noqa: FBT001 - a value under test
    """Units in a column's name, or in a mesh's caption, say that it was measured; sizes of binaries are not."""
    assert notebook_diff.is_measured(column, caption) is measured
