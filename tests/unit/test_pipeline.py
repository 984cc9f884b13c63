"""runbook.pipeline: phases in order, judged by what ran, in a record that is closed however the run ends.

Mostly with a stand-in for papermill; two runs are real ones, on a kernel (runs on nodes: tests/sandbox).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import papermill
import pytest
from local_node import cluster_of

from runbook import errors, phases, pipeline, record, show
from runbook.records.verify import verify
from runbook.transport import broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runbook.pipeline import PhaseRun

KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.RunbookError)
}
v4 = nbformat.v4
VARIABLES = ("RUNBOOK_JOURNAL", "RUNBOOK_KERNEL_LOG")


@pytest.mark.parametrize("name", KINDS)
def test_each_error_has_its_exit_status(name: str) -> None:
    """The exit status of a run is that of the error that ended its notebook."""
    assert pipeline.exit_status(name) == KINDS[name].exit_status


@pytest.mark.parametrize(
    "name", ["ValueError", "DeadKernelError", "CellTimeoutError", "together", "annotations", "", "__doc__"]
)
def test_other_errors_are_a_failure(name: str) -> None:
    """What is no error of ours is 1, whatever it is called."""
    assert pipeline.exit_status(name) == 1


NO_BROKER = broker.Broker(subprocess.Popen.__new__(subprocess.Popen), "/nonexistent/broker")
"""Nobody answers there."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A new record's folder."""
    (tmp_path / "p.yaml").touch()
    return record.new_folder(tmp_path / "records", cluster_of())


@pytest.fixture(autouse=True)
def no_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the lock on the nodes, and for the connections to them."""
    monkeypatch.setattr(pipeline, "_locked", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(broker, "serving", lambda _cluster: contextlib.nullcontext(NO_BROKER))


def run(
    folder: Path,
    *,
    chosen: str = "0-3",
    report: Callable[[PhaseRun], None] = lambda _: None,
    started: Callable[[phases.Phase], None] = lambda _: None,
    sign_key: Path | None = None,
) -> list[PhaseRun]:
    options = pipeline.Options(approve="p0", sign_key=sign_key)
    params_file = folder.parents[2] / "p.yaml"
    return pipeline.run(
        params_file, cluster_of(), phases.select(chosen), folder, options, report=report, started=started
    )


def papermill_goes(monkeypatch: pytest.MonkeyPatch, *ways: Callable[[str, int], None]) -> None:
    """Stands in for papermill: it goes these ways, one a phase."""
    left = list(enumerate(ways))

    def execute(source: Path, output: str, **options: Any) -> None:  # noqa: ANN401
        assert output.startswith("record:/")
        assert source.name == Path(output).name
        params_file = Path(output.removeprefix("record:")).parents[3] / "p.yaml"
        assert options["parameters"] == {"cluster": str(params_file), "approve": "p0"}
        number, way = left.pop(0)
        way(output, number)

    monkeypatch.setattr(papermill, "execute_notebook", execute)


def cell(source: str, count: int | None = None, *outputs: Any, **told: Any) -> Any:  # noqa: ANN401 - nbformat has no types
    """A code cell as papermill leaves it; with a count it ran."""
    at = datetime.now(UTC).isoformat()
    times = {"start_time": at, "end_time": at} if count else {"start_time": None, "end_time": None}
    metadata = {"papermill": {**times, "status": "completed" if count else "pending", "exception": False, **told}}
    return v4.new_code_cell(source, execution_count=count, outputs=list(outputs), metadata=metadata)


def save(output: str, number: int, *cells: Any) -> None:  # noqa: ANN401
    """Save as papermill does, by the handler of the path's scheme."""
    title = v4.new_markdown_cell(f"# {number:02d} · Something")
    papermill.iorw.papermill_io.write(nbformat.writes(v4.new_notebook(cells=[title, *cells])), output)


def error(ename: str, evalue: str) -> Any:  # noqa: ANN401
    return v4.new_output("error", ename=ename, evalue=evalue, traceback=[])


def good(output: str, number: int) -> None:
    save(output, number, cell("x", 1))


def refused(output: str, number: int) -> None:
    save(output, number, cell("x", 1, error("ApprovalRequired", "approval needed"), status="failed"), cell("y"))
    raise papermill.PapermillExecutionError(1, 1, "x", "ApprovalRequired", "approval needed", [])


def died(output: str, number: int) -> None:
    """As papermill 2.7 leaves it: `completed` on the cells that never ran too."""
    first, at = cell("x", 1), datetime.now(UTC).isoformat()
    save(output, number, first, cell("y", status="completed", start_time=at), cell("z", status="completed"))
    raise papermill.exceptions.PapermillException("Kernel died")


def silent(output: str, number: int) -> None:
    save(output, number, cell("x", 1), cell("y"))


def interrupted(output: str, number: int) -> None:
    save(output, number, cell("x", 1), cell("y"))
    raise KeyboardInterrupt


def interrupted_at_once(_output: str, _number: int) -> None:
    raise KeyboardInterrupt


def full(_output: str, _number: int) -> None:
    raise OSError(28, "No space left on device")


ENDINGS = [
    (refused, "ApprovalRequired", 3, "approval needed"),
    (died, "PapermillException", 1, "failed"),
    (silent, "NotExecuted", 1, "failed"),
    (interrupted, "KeyboardInterrupt", 1, "failed"),
    (interrupted_at_once, "KeyboardInterrupt", 1, "failed"),
    (full, "OSError", 1, "failed"),
]


def told(folder: Path) -> Any:  # noqa: ANN401
    return json.loads((folder / "summary.json").read_text())


def assert_closed(folder: Path) -> None:
    """The record is closed: sums hold for sha256sum, and every check of ours does."""
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done
    assert [(row["check"], row["why"]) for row in show.rows(verify([folder])) if not row["ok"]] == []
    assert not [one.name for one in folder.iterdir() if one.name.startswith(".")]


def test_phases_run_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good phases follow each other; each is announced and reported, has its page, and the record is closed."""
    papermill_goes(monkeypatch, good, good, good, good)
    seen: list[object] = []
    runs = run(folder, report=seen.append, started=seen.append)
    assert seen == [one for done in runs for one in (done.phase, done)]
    assert [(one.phase.number, one.ok, one.exit_status, one.ename) for one in runs] == [
        (n, True, 0, "") for n in range(4)
    ]
    assert (told(folder)["outcome"], [row["outcome"] for row in told(folder)["phases"]]) == ("passed", ["passed"] * 4)
    assert all(one.path.with_suffix(".html").is_file() for one in runs)
    assert (folder / "index.html").is_file()
    assert_closed(folder)


@pytest.mark.parametrize(("way", "ename", "status", "outcome"), ENDINGS)
def test_a_run_stops_at_the_first_failure(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[str, int], None],
    ename: str,
    status: int,
    outcome: str,
) -> None:
    """A gate, a dead kernel, Ctrl-C or a full disk: the phase has failed, none after it is begun, the record closed."""
    papermill_goes(monkeypatch, good, way, good)
    runs = run(folder)
    assert [one.ok for one in runs] == [True, False]
    assert (runs[-1].ename, runs[-1].exit_status) == (ename, status)
    assert runs[-1].evalue
    read = told(folder)
    assert read["outcome"] == outcome
    assert [row["outcome"] for row in read["phases"]] == ["passed", outcome, "not begun", "not begun"]
    assert read["phases"][1]["error"] == {"name": ename, "text": runs[-1].evalue}
    assert_closed(folder)


@pytest.mark.parametrize("way", [interrupted_at_once, full])
def test_a_phase_that_failed_before_its_first_save_has_a_notebook(
    folder: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[str, int], None]
) -> None:
    """Every phase that was begun is in the record, with the error in its first cell."""
    papermill_goes(monkeypatch, way)
    (done,) = run(folder)
    executed = record.read(folder / done.phase.notebook)
    assert (executed.ename, executed.never_ran) == (done.ename, executed.cells)


def test_no_cell_is_called_completed_that_never_ran(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a dead kernel the cell that had begun failed, and those after it are pending, whatever papermill says."""
    papermill_goes(monkeypatch, died)
    run(folder)
    cells = nbformat.read(folder / phases.PHASES[0].notebook, as_version=4).cells[1:]
    assert [one.metadata.papermill.status for one in cells] == ["completed", "failed", "pending"]
    assert [[output.evalue for output in one.outputs] for one in cells] == [[], ["Kernel died"], []]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError, errors.LockHeld])
def test_a_run_that_breaks_off_between_phases_is_closed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """What ends a run outside of a notebook goes on to the caller; the record is closed as failed."""
    papermill_goes(monkeypatch, good, good)

    def report(_done: PhaseRun) -> None:
        raise kind("enough")

    with pytest.raises(kind, match="enough"):
        run(folder, report=report)
    assert told(folder)["outcome"] == "failed"
    assert [row["outcome"] for row in told(folder)["phases"]] == ["passed", *["not begun"] * 3]
    assert_closed(folder)


def test_a_run_that_gets_no_lock_leaves_a_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run holds the cluster: no phase is begun, and the record says so."""

    @contextlib.contextmanager
    def held(*_: object) -> Iterator[None]:
        raise errors.LockHeld("another run is at work")
        yield

    monkeypatch.setattr(pipeline, "_locked", held)
    with pytest.raises(errors.LockHeld):
        run(folder)
    assert told(folder)["outcome"] == "failed"
    assert {row["outcome"] for row in told(folder)["phases"]} == {"not begun"}
    assert_closed(folder)


def test_a_key_that_signs_nothing_is_told_after_the_record_is_closed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sign key that is not there is an error; the sums stand all the same."""
    papermill_goes(monkeypatch, good)
    with pytest.raises(errors.RunbookError, match="not signed"):
        run(folder, chosen="0", sign_key=folder.parents[1] / "no-key")
    assert told(folder)["outcome"] == "passed"
    assert_closed(folder)


def test_planted_secrets_are_removed_and_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password of this run and a private key in outputs, and one in an error's text, reach no file of the record."""
    secret = "Tr0ub4dor-and-3"  # noqa: S105 - planted
    key = "-----BEGIN PRIVATE KEY-----\nTUlHSEFnRUFNQk1HQnlxR1NNNDlBZ0VHQ0NxR1NNNDk=\n-----END PRIVATE KEY-----\n"
    monkeypatch.setenv("RUNBOOK_SSH_PASSWORD", secret)

    def leak(output: str, number: int) -> None:
        save(output, number, cell("x", 1, v4.new_output("stream", name="stdout", text=f"pw {secret}\n{key}")))
        raise ValueError(f"refused {secret}")

    papermill_goes(monkeypatch, leak)
    (done,) = run(folder, chosen="0")
    everything = "".join(one.read_text() for one in folder.iterdir())
    assert secret not in everything
    assert "TUlHSEFnRUFNQk1H" not in everything
    assert done.evalue == "refused [secret removed]"
    assert told(folder)["secrets_removed"] >= 3
    assert_closed(folder)


@pytest.mark.parametrize("before", [None, "", "elsewhere"])
@pytest.mark.parametrize("way", [good, interrupted])
def test_the_environment_is_as_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, before: str | None, way: Callable[[str, int], None]
) -> None:
    """Kernels are told where journal and messages go; afterwards the variables are as they were."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        if before is not None:
            monkeypatch.setenv(name, before)
    during: list[str | None] = []

    def look(output: str, number: int) -> None:
        during.extend(os.environ.get(name) for name in VARIABLES)
        way(output, number)

    papermill_goes(monkeypatch, look)
    run(folder, chosen="0")
    assert during == [str(folder / "journal.jsonl"), str(folder / "kernel.log")]
    assert [os.environ.get(name) for name in VARIABLES] == [before, before]


@pytest.mark.parametrize(("text", "kept"), [("", False), ("a message\n", True)])
def test_an_empty_message_file_is_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, *, kept: bool
) -> None:
    """kernel.log is in the record where kernels said something."""

    def talk(output: str, number: int) -> None:
        Path(os.environ["RUNBOOK_KERNEL_LOG"]).write_text(text)
        good(output, number)

    papermill_goes(monkeypatch, talk)
    run(folder, chosen="0")
    assert (folder / "kernel.log").exists() == kept


def notebooks_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *sources: str) -> None:
    """Stands in for the notebook of phase 0: a title, the parameters, these cells."""
    made = tmp_path / "notebooks"
    made.mkdir()
    first: Any = v4.new_code_cell('cluster: str = ""\napprove: bool = False', metadata={"tags": ["parameters"]})
    cells = [v4.new_markdown_cell("# 00 · Something"), first, *map(v4.new_code_cell, sources)]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), made / phases.PHASES[0].notebook)
    monkeypatch.setattr(phases, "notebooks_dir", lambda: made)


@pytest.mark.parametrize(
    ("source", "ename", "counts"),
    [
        ("import os, time; time.sleep(0.3); os._exit(1)", "DeadKernelError", None),
        ("raise ValueError('no')", "ValueError", 3),
    ],
)
def test_a_real_kernel_that_fails(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, ename: str, counts: int | None
) -> None:
    """By papermill itself: the notebook says which cell failed, and that the one after it never ran."""
    notebooks_are(monkeypatch, tmp_path, source, "1 + 1")
    (done,) = run(folder, chosen="0")
    assert (done.ename, done.exit_status) == (ename, 1)
    code = [one for one in nbformat.read(done.path, as_version=4).cells if one.cell_type == "code"]
    bad = next(one for one in code if one.source == source)
    assert bad.metadata.papermill.status == "failed"
    assert bad.outputs[-1].ename == ename
    assert code[-1].metadata.papermill.status == "pending"
    assert code[-1].execution_count is None
    assert counts in (None, bad.execution_count)
    assert told(folder)["outcome"] == "failed"
    assert_closed(folder)


def test_a_real_kernel_that_works(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By papermill itself: parameters arrive, every cell runs, the record holds."""
    notebooks_are(monkeypatch, tmp_path, "assert approve == 'p0' and cluster.endswith('p.yaml')")
    (done,) = run(folder, chosen="0")
    assert (done.ename, done.evalue, done.ok) == ("", "", True)
    assert_closed(folder)
