"""runbook.jupyter.engine: how papermill executes a notebook of a run; on real kernels."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from runbook.jupyter import engine
from runbook.jupyter.formats import nbformat
from runbook.jupyter.kernels import IpcKernelManager, Kernels
from runbook.records.redact import Redactor
from runbook.records.saving import Behind

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_server_is_left")

_TIMEOUT_S = 60


def notebook(*sources: str) -> Any:  # noqa: ANN401 - nbformat has no types
    """A notebook of code cells; one that begins with # is prose."""
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell(one) if one.startswith("#") else v4.new_code_cell(one) for one in sources]
    return v4.new_notebook(cells=cells, metadata={"papermill": {}})


def executed(nb: Any, kernels: Kernels, folder: Path, *following: str, parameters: int = 0) -> Any:  # noqa: ANN401 - as above
    saves = Behind(Redactor(()))
    path = str(folder / "out.ipynb")
    first = engine.FirstCells(following, parameters)
    return engine.Engine.execute_notebook(
        nb, "", path, kernels=kernels, saves=saves, execution_timeout=_TIMEOUT_S, following=lambda: first
    )


def text(cell: Any) -> str:  # noqa: ANN401 - as above
    return "".join(output.get("text", "") for output in cell.outputs)


def test_what_is_sent_ahead_ends_before_a_cell_that_may_change_nodes() -> None:
    """That one begins when all before it is on the disk; prose and empty cells are not sent."""
    nb = notebook("a", "# prose", "b", "", "c", "await plan.apply(approve)", "d", "e")
    assert list(engine._following(nb, 0)) == ["b", "c"]
    assert list(engine._following(nb, 4)) == []
    assert list(engine._following(nb, 5)) == ["d", "e"]
    nb.cells[7].metadata.tags = ["raises-exception"]
    assert list(engine._following(nb, 5)) == ["d"]


def test_cells_run_in_their_order_each_with_its_own_outputs_and_times(tmp_path: Path) -> None:
    """Though they are sent before it is their turn: the times are the kernel's own."""
    with Kernels(1, tmp_path) as made:
        nb = executed(
            notebook("n = 1; print(n)", "# prose", "n += 1; print(n)", "import time; time.sleep(0.2)", "print(n + 1)"),
            made,
            tmp_path,
        )
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert [text(cell) for cell in code] == ["1\n", "2\n", "", "3\n"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4]
    times = [cell.metadata.papermill for cell in code]
    moments = [datetime.fromisoformat(one[name]) for one in times for name in ("start_time", "end_time")]
    assert moments == sorted(moments)
    assert times[2].duration >= 0.2
    assert nb.metadata.language_info.name == "python"
    assert all(one.duration < 0.2 for one in times if one is not times[2])


def test_nothing_runs_after_a_cell_that_fails(tmp_path: Path) -> None:
    """What was sent ahead of its turn is dropped, and has no outputs and no count."""
    with Kernels(1, tmp_path) as made:
        nb = executed(notebook("1 / 0", "open('ran', 'w')", "open('ran too', 'w')"), made, tmp_path)
    assert [cell.execution_count for cell in nb.cells] == [1, None, None]
    assert nb.cells[0].metadata.papermill.exception
    assert nb.cells[0].outputs[-1].ename == "ZeroDivisionError"
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "ran too").exists()


def test_a_notebooks_first_cells_begin_when_the_one_before_has_gone_well(tmp_path: Path) -> None:
    """Its kernel does not wait for this side; each runs once, after the others, and the notebook's time holds them."""
    sources = "n = 1", "n += 1; open('began', 'w')", "await plan.apply(1)"
    with Kernels(2, tmp_path) as made:
        first = executed(notebook("import time; time.sleep(1)"), made, tmp_path, *sources[:2])
        deadline = time.monotonic() + _TIMEOUT_S
        while not (tmp_path / "began").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        nb = executed(notebook(*sources, "n"), made, tmp_path)
    assert [cell.execution_count for cell in nb.cells] == [1, 2, 3, None]
    assert nb.cells[2].outputs[-1].ename == "NameError"
    began = [one.metadata.papermill.start_time for one in (nb, nb.cells[0])]
    assert first.cells[-1].metadata.papermill.end_time == first.metadata.papermill.end_time < began[0] == began[1]


def test_the_next_kernel_takes_its_parameters_while_a_notebook_works(tmp_path: Path) -> None:
    """They change nothing; the notebook's time begins with the cell after them, whose turn comes when all went well."""
    sources = "n = 1; open('set', 'w')", "n += 1; open('began', 'w')"
    wait = "import pathlib, time\nwhile not pathlib.Path('set').exists(): time.sleep(0.01)\ntime.sleep(0.3)"
    look = "assert not pathlib.Path('began').exists()"
    with Kernels(2, tmp_path) as made:
        first = executed(notebook(wait, look), made, tmp_path, *sources, parameters=1)
        second = notebook(*sources, "n")
        second.cells[0].metadata.tags = ["parameters"]
        nb = executed(second, made, tmp_path)
    assert not first.metadata.papermill.get("exception")
    assert [cell.execution_count for cell in nb.cells] == [1, 2, 3]
    assert nb.cells[2].outputs[-1].data["text/plain"] == "2"
    assert nb.cells[0].metadata.papermill.end_time < first.metadata.papermill.end_time
    assert first.metadata.papermill.end_time < nb.metadata.papermill.start_time


def test_after_a_notebook_that_fails_the_next_one_does_not_begin(tmp_path: Path) -> None:
    """Nor one that can't be read: of that its own turn tells."""

    def unreadable() -> engine.FirstCells:
        raise OSError("no such notebook")

    with Kernels(2, tmp_path) as made:
        executed(notebook("import time; time.sleep(1); 1 / 0"), made, tmp_path, "open('began', 'w')")
        assert made._next
        assert made._next[0].kc
        assert not made._next[0].kc.sent_ahead
        saves = Behind(Redactor(()))
        nb = engine.Engine.execute_notebook(
            notebook("1"), "", str(tmp_path / "b.ipynb"), kernels=made, saves=saves, execution_timeout=_TIMEOUT_S,
            following=unreadable,
        )  # fmt: skip
    assert nb.cells[0].execution_count == 1
    assert not (tmp_path / "began").exists()


def test_the_first_cells_are_those_that_papermill_sends(tmp_path: Path) -> None:
    """With the parameters put in; to the first that may change nodes."""
    nb = notebook("approve = False", "# prose", "plan = 1", "await plan.apply(approve)", "plan")
    nb.cells[0].metadata.tags = ["parameters"]
    nb.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(nb, tmp_path / "a.ipynb")
    engine.register()
    first = engine.first_cells(tmp_path / "a.ipynb", {"approve": True})
    assert (first.sources[0], first.sources[2:]) == ("approve = False", ["plan = 1"])
    assert "approve = True" in first.sources[1]
    assert first.parameters == 2


def test_another_cell_than_was_sent_is_not_taken_for_it(tmp_path: Path) -> None:
    """That would be a fault of ours; the record would have one cell's outputs under another."""
    with Kernels(1, tmp_path) as made, made.next() as manager:
        assert manager.kc
        manager.kc.send_ahead(["1"])
        with pytest.raises(ValueError, match="another cell"):
            manager.kc.execute("2")


def test_of_a_kernel_that_ends_as_a_cell_begins_no_more_is_said_than_is_known(tmp_path: Path) -> None:
    """Its last messages may be lost: then the cell that has no answer is named, and that it may have been the next."""
    with Kernels(1, tmp_path) as made, pytest.raises(RuntimeError, match="Kernel died") as told:
        executed(notebook("1", "import os; os._exit(1)", "2"), made, tmp_path)
    assert type(told.value).__name__ == "DeadKernelError"
    assert str(told.value) in ("Kernel died", "Kernel died, in this cell or as it went on to the next one")


def test_a_kernel_that_can_not_be_started_is_told_by_its_own_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notebook before it, during which it was to start, goes to its end; one that nobody waits for is no error."""
    start = IpcKernelManager.start_kernel
    started = []

    async def first_only(self: IpcKernelManager, cwd: str) -> None:
        started.append(self)
        if len(started) > 1:
            raise OSError("no more processes")
        await start(self, cwd=cwd)

    monkeypatch.setattr(IpcKernelManager, "start_kernel", first_only)
    with Kernels(3, tmp_path) as made:
        assert text(executed(notebook("print(1)"), made, tmp_path).cells[0]) == "1\n"
        assert len(started) == 2
        with pytest.raises(OSError, match="no more processes"):
            executed(notebook("print(2)"), made, tmp_path)
        made.begin()
    assert len(started) == 3


def test_no_more_kernels_than_were_wanted(tmp_path: Path) -> None:
    """A run knows its notebooks; one more is a fault of ours, and told."""
    with Kernels(0, tmp_path) as made, pytest.raises(RuntimeError, match="all are used"), made.next():
        pass
