"""runbook.phase_list: the phases at a glance, from the records of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from local_node import cluster_of

from runbook import errors, phase_list, phases, show
from runbook.jupyter import stepped
from runbook.records import summary

if TYPE_CHECKING:
    from pathlib import Path

CLUSTER = cluster_of()


def kept(root: Path, name: str, **told: Any) -> Path:  # noqa: ANN401 - any field of a phase
    """A record of phases 3 to 5 by this name; its phase 4 as told."""
    folder = root / CLUSTER.name / name
    folder.mkdir(parents=True)
    made = summary.begin(CLUSTER, "run", phases.select("3-5"))
    made["phases"][1] |= {"outcome": "passed", "started": "2026-11-23T03:04:05Z", "took_s": 4.5, "changes": 3, **told}
    summary.end(made, 0)
    summary.save(folder, made)
    return folder


def row(root: Path, number: int) -> dict[str, Any]:
    return show.rows(phase_list.overview(CLUSTER, root))[number]


def test_without_records_each_phase_has_a_typical_time(tmp_path: Path) -> None:
    """A new user sees all twelve in order, what they take typically, and that none ever ran."""
    table = phase_list.overview(CLUSTER, tmp_path / "none")
    assert [text[:2] for text in table["phase"]] == [f"{number:02d}" for number in range(12)]
    assert list(table["takes_s"]) == list(phase_list.TYPICAL_S)
    assert set(table["measured"]) == {"typical"}
    assert set(table["state"]) == {""}
    assert [row["phase"] for row in show.rows(table) if row["changes_nodes"] == "no"] == [
        "00 preflight", "05 etcd verify", "10 flannel verify", "11 ping mesh",
    ]  # fmt: skip


def test_what_the_newest_record_tells_counts(tmp_path: Path) -> None:
    """Of two records that ran a phase the newer one is shown; a phase that neither ran is as without records."""
    kept(tmp_path, "20261123T030000Z", took_s=9.0, changes=7)
    kept(tmp_path, "20261124T030000Z")
    found = row(tmp_path, 4)
    assert (found["takes_s"], found["measured"], found["changed"], found["state"]) == (4.5, "here", 3, "ok")
    assert (found["when"], found["record"]) == ("2026-11-23 03:04", "20261124T030000Z")
    assert row(tmp_path, 3)["measured"] == "typical"


@pytest.mark.parametrize(("outcome", "state"), [("failed", "failed"), ("approval needed", "warning")])
def test_a_phase_that_stopped_says_so(tmp_path: Path, outcome: str, state: str) -> None:
    """A symbol and a word tell a phase that failed, or waited for approval, from one that passed."""
    kept(tmp_path, "20261123T030000Z", outcome=outcome)
    assert row(tmp_path, 4)["state"] == state


def test_a_run_without_times_leaves_the_time_of_an_older_one(tmp_path: Path) -> None:
    """Stepped through by hand a phase has no time of its own; an older run's still is the best guess."""
    kept(tmp_path, "20261123T030000Z")
    kept(tmp_path, "20261124T030000Z", took_s=None, changes=0)
    found = row(tmp_path, 4)
    assert (found["takes_s"], found["measured"], found["changed"]) == (4.5, "here", 0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"phases": 1}', '{"phases": [{}]}'])
def test_what_is_no_record_is_passed_over(tmp_path: Path, text: str) -> None:
    """A folder that can't be read hides no other."""
    kept(tmp_path, "20261123T030000Z")
    broken = tmp_path / CLUSTER.name / "20261125T030000Z"
    broken.mkdir()
    (broken / summary.NAME).write_text(text)
    assert row(tmp_path, 4)["record"] == "20261123T030000Z"


@pytest.fixture
def open_record(tmp_path: Path) -> Path:
    """A record that is being stepped through."""
    (tmp_path / "p.yaml").touch()
    return stepped.prepare(tmp_path / "p.yaml", CLUSTER, tmp_path / "records")


def ran(folder: Path, number: int, *, cells: int | None = None, error: str = "") -> None:
    """Say in a notebook that its first so many code cells ran, all by default; the last one with this error."""
    path = folder / phases.PHASES[number].notebook
    made = nbformat.read(path, as_version=4)
    code = [cell for cell in made.cells if cell.cell_type == "code"][:cells]
    for place, cell in enumerate(code, 1):
        cell.execution_count = place
    if error:
        code[-1].outputs = [nbformat.v4.new_output("error", ename=error, evalue="no", traceback=[])]
    nbformat.write(made, path)


def test_the_record_that_is_stepped_through_counts_as_it_stands(open_record: Path) -> None:
    """Its summary is written when it is closed: until then its notebooks say what was done, half run ones nothing."""
    ran(open_record, 0)
    ran(open_record, 1, cells=2, error="CheckFailed")
    ran(open_record, 2, cells=1)
    root = open_record.parents[1]
    assert [row(root, number)["state"] for number in range(3)] == ["ok", "failed", ""]
    assert row(root, 0)["record"] == open_record.name


def test_the_records_are_found_from_where_a_notebook_lies(
    open_record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a record's folder those beside it count, in notebooks/ those of the checkout."""
    kept(tmp_path / "records", "20261123T030000Z")
    (tmp_path / "notebooks").mkdir()
    for folder in (open_record, tmp_path / "notebooks", tmp_path):
        monkeypatch.chdir(folder)
        assert show.rows(phase_list.overview(CLUSTER))[4]["record"] == "20261123T030000Z"


def test_params_with_faults_are_an_error(tmp_path: Path) -> None:
    """As everywhere: the faults are told."""
    with pytest.raises(errors.ParamsError):
        phase_list.overview(tmp_path / "none.yaml")


def test_typical_times_are_of_the_phases() -> None:
    """One figure a phase."""
    assert len(phase_list.TYPICAL_S) == len(phases.PHASES)
