"""runbook.records.closing: records that their own run did not close."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
import small_records
from local_node import cluster_of

from runbook import errors, phases, record, show
from runbook.jupyter import stepped
from runbook.records import closing, summary
from runbook.records.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.phases import Phase

UNITS, START, VERIFY = (phases.PHASES[number].notebook for number in (3, 4, 5))


def gone() -> int:
    """The id of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(60)
    return process.pid


def killed(root: Path, *, pid: int | None = None, **changed: object) -> Path:
    """A record whose run was killed in phase 4, after its second cell had begun; phase 3 had passed."""
    folder = record.new_folder(root, cluster_of())
    begun = datetime.now(UTC) - timedelta(seconds=15)
    told = summary.begin(cluster_of(), "run", phases.select("3-5")) | changed
    told["started"] = begun.isoformat()
    told["operator"]["pid"] = gone() if pid is None else pid
    told["phases"][0] |= {"outcome": "passed", "started": begun.isoformat()}
    summary.save(folder, told)
    nbformat.write(small_records.notebook(3, begun), folder / UNITS)
    cut: Any = small_records.notebook(4, begun + timedelta(seconds=5), fails_at=2)
    code = [cell for cell in cut.cells if cell.cell_type == "code"]
    code[1].update(execution_count=None, outputs=[])
    code[1].metadata["papermill"].update(status="running", end_time=None, exception=None)
    nbformat.write(cut, folder / START)
    return folder


def stepped_through(root: Path, *, ran: dict[int, int], failed: int | None = None) -> Path:
    """A stepped record: so many code cells of these phases ran; the last one of phase `failed` failed."""
    (root / "p.yaml").touch()
    folder = stepped.prepare(root / "p.yaml", cluster_of(), root / "records")
    for number, count in ran.items():
        path = folder / phases.PHASES[number].notebook
        made = nbformat.read(path, as_version=4)
        code = [cell for cell in made.cells if cell.cell_type == "code"][:count]
        for place, cell in enumerate(code, 1):
            cell.execution_count = place
        if number == failed:
            code[-1].outputs = [nbformat.v4.new_output("error", ename="CheckFailed", evalue="no", traceback=[])]
        nbformat.write(made, path)
    return folder


def cells_of(phase: Phase) -> int:
    made = nbformat.read(phases.notebooks_dir() / phase.notebook, as_version=4)
    return sum(cell.cell_type == "code" for cell in made.cells)


def assert_closed(folder: Path) -> None:
    """The record is closed, and every check of it holds."""
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done
    assert [(row["check"], row["why"]) for row in show.rows(verify([folder])) if not row["ok"]] == []


def state(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


def test_a_killed_run_is_closed_as_failed(tmp_path: Path) -> None:
    """The phase it was in has failed, at the cell that had begun; those after it were not begun; the record holds."""
    folder = killed(tmp_path)
    told = closing.close(folder)
    assert told == json.loads((folder / "summary.json").read_text())
    assert told["outcome"] == "failed"
    assert [row["outcome"] for row in told["phases"]] == ["passed", "failed", "not begun"]
    assert told["phases"][1]["error"]["name"] == "Killed"
    cells = [cell for cell in nbformat.read(folder / START, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.metadata.papermill.status for cell in cells] == ["completed", "failed", "pending"]
    assert (folder / UNITS).with_suffix(".html").is_file()
    assert (folder / "index.html").is_file()
    assert_closed(folder)


def test_a_run_killed_between_phases_is_closed_as_failed(tmp_path: Path) -> None:
    """Though every phase that it began has passed."""
    folder = killed(tmp_path)
    (folder / START).unlink()
    told = closing.close(folder)
    assert (told["outcome"], [row["outcome"] for row in told["phases"]]) == (
        "failed", ["passed", "not begun", "not begun"],
    )  # fmt: skip
    assert_closed(folder)


def test_a_run_that_is_alive_is_left_alone(tmp_path: Path) -> None:
    """Its process lives on this machine: refused with its id, and no file is touched."""
    folder = killed(tmp_path, pid=os.getpid())
    before = state(folder)
    with pytest.raises(errors.RunbookError, match=f"at work still, process {os.getpid()}"):
        closing.close(folder)
    assert state(folder) == before


def test_a_process_of_another_machine_is_not_looked_for_here(tmp_path: Path) -> None:
    """An id that lives here says nothing about a run of another host."""
    folder = killed(tmp_path, operator={"user": "anna", "host": "elsewhere.invalid"}, pid=os.getpid())
    assert closing.close(folder)["outcome"] == "failed"
    assert_closed(folder)


@pytest.mark.parametrize("kind", ["run", "stepped"])
def test_a_record_is_closed_once(tmp_path: Path, kind: str) -> None:
    """A second time is refused, and no file is touched."""
    folder = killed(tmp_path) if kind == "run" else stepped_through(tmp_path, ran={0: 1})
    closing.close(folder)
    before = state(folder)
    with pytest.raises(errors.RunbookError, match="is closed already: failed"):
        closing.close(folder)
    assert state(folder) == before


@pytest.mark.parametrize("outcome", ["failed", "approval needed"])
def test_a_record_that_had_ended_but_could_not_be_sealed_is_closed(tmp_path: Path, outcome: str) -> None:
    """A full disk at the very end leaves an outcome and no sums: closing keeps the outcome, and adds them."""
    folder = killed(tmp_path)
    told = summary.load(folder)
    told["phases"][1]["outcome"] = outcome
    summary.end(told, {"failed": 1, "approval needed": 3}[outcome])
    summary.save(folder, told)
    assert closing.close(folder)["outcome"] == outcome
    assert_closed(folder)


def test_what_is_no_record_is_an_error(tmp_path: Path) -> None:
    """A folder without a summary is named."""
    with pytest.raises(errors.RunbookError, match="is no record"):
        closing.close(tmp_path)


def test_secrets_of_a_killed_run_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password in the outputs of the phase it was in is gone from every file, and counted."""
    secret = "Tr0ub4dor-and-3"  # noqa: S105 - planted
    monkeypatch.setenv("RUNBOOK_SSH_PASSWORD", secret)
    folder = killed(tmp_path)
    made = nbformat.read(folder / START, as_version=4)
    made.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"pw {secret}\n")]
    nbformat.write(made, folder / START)
    assert closing.close(folder)["secrets_removed"] == 1
    assert secret.encode() not in b"".join(state(folder).values())
    assert_closed(folder)


# ---- stepped through by hand


def test_a_stepped_record_keeps_the_notebooks_that_ran(tmp_path: Path) -> None:
    """Untouched notebooks go, and what Lab keeps for itself; where every cell ran the phase has passed."""
    whole = cells_of(phases.PHASES[0])
    folder = stepped_through(tmp_path, ran={0: whole, 3: cells_of(phases.PHASES[3])})
    for name in (".jupyter/labconfig", ".ipynb_checkpoints"):
        (folder / name).mkdir(parents=True)
        (folder / name / "x").touch()
    told = closing.close(folder)
    assert [(row["number"], row["outcome"]) for row in told["phases"]] == [(0, "passed"), (3, "passed")]
    assert told["outcome"] == "passed"
    assert sorted(one.name for one in folder.glob("*.ipynb")) == [phases.PHASES[0].notebook, UNITS, phases.INDEX]
    assert not list(folder.glob(".*"))
    assert_closed(folder)


def test_a_stepped_phase_tells_when_its_cells_ran(tmp_path: Path) -> None:
    """JupyterLab notes it in each cell; a phase of which it is not noted has no times."""
    folder = stepped_through(tmp_path, ran={0: cells_of(phases.PHASES[0]), 3: cells_of(phases.PHASES[3])})
    path = folder / UNITS
    made = nbformat.read(path, as_version=4)
    for second, cell in enumerate(cell for cell in made.cells if cell.cell_type == "code"):
        at = dict.fromkeys(("iopub.execute_input", "shell.execute_reply"), f"2026-11-23T05:30:{second:02d}.25Z")
        cell.metadata["execution"] = at
    nbformat.write(made, path)
    first, last = closing.close(folder)["phases"]
    assert (first["started"], first["took_s"]) == (None, None)
    assert (last["started"], last["took_s"]) == ("2026-11-23T05:30:00.250Z", float(cells_of(phases.PHASES[3]) - 1))


def test_the_index_of_a_stepped_record_is_kept_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no phase and has no page of its own: index.html is the record's; links to it lead there."""
    secret = "Tr0ub4dor-and-3"  # noqa: S105 - planted
    monkeypatch.setenv("RUNBOOK_SSH_PASSWORD", secret)
    folder = stepped_through(tmp_path, ran={0: cells_of(phases.PHASES[0])})
    path = folder / phases.INDEX
    made = nbformat.read(path, as_version=4)
    made.cells[-1].source += secret
    nbformat.write(made, path)
    told = closing.close(folder)
    assert (told["secrets_removed"], [row["number"] for row in told["phases"]]) == (1, [0])
    assert secret not in path.read_text()
    assert made.cells[0].source.splitlines()[0].removeprefix("# ") not in (folder / "index.html").read_text()
    assert_closed(folder)


@pytest.mark.parametrize(
    ("ran", "failed", "ename"), [({0: 1}, None, "NotExecuted"), ({0: 2}, 0, "CheckFailed")]
)  # fmt: skip
def test_a_stepped_record_that_broke_off_has_failed(
    tmp_path: Path, ran: dict[int, int], failed: int | None, ename: str
) -> None:
    """Cells that never ran, or an error among the outputs: the phase has failed, and so has the whole."""
    folder = stepped_through(tmp_path, ran=ran, failed=failed)
    told = closing.close(folder)
    (row,) = told["phases"]
    assert (row["outcome"], row["error"]["name"], told["outcome"]) == ("failed", ename, "failed")
    assert_closed(folder)


def test_a_stepped_record_in_which_nothing_ran_has_not_passed(tmp_path: Path) -> None:
    """A record of nothing shows nothing."""
    folder = stepped_through(tmp_path, ran={})
    told = closing.close(folder)
    assert (told["outcome"], told["phases"]) == ("failed", [])
    assert_closed(folder)
