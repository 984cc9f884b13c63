"""runbook.record: a run's folder, and what an executed notebook says of itself."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
import yaml
from local_node import cluster_of

from runbook import errors, params, record, show

if TYPE_CHECKING:
    from pathlib import Path

v4 = nbformat.v4
TABLE = show.table(
    [{"node": "node1", "ok": False, "term": 2}, {"node": "node2", "ok": True}], ["node", "ok", "term"], "T"
)


def saved(folder: Path, *cells: Any) -> Path:  # noqa: ANN401 - nbformat has no types
    path = folder / "executed.ipynb"
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), *cells]), path)
    return path


def cell(count: int | None, *outputs: Any, status: str = "completed", source: str = "x") -> Any:  # noqa: ANN401
    """A code cell as papermill saves it, which calls cells completed that never ran."""
    return v4.new_code_cell(
        source, execution_count=count, outputs=list(outputs), metadata={"papermill": {"status": status}}
    )


def shown(**bundle: object) -> Any:  # noqa: ANN401
    return v4.new_output("execute_result", data=bundle, execution_count=1)


def plan_output(*changes: dict[str, str]) -> Any:  # noqa: ANN401
    return v4.new_output(
        "display_data", data={show.PLAN_MIME: {"title": "etcd units", "id": "p0", "changes": list(changes)}}
    )


def test_a_notebook_that_ran(tmp_path: Path) -> None:
    """Every cell ran and none failed: it is good, and its tables are there again as tables."""
    output = v4.new_output("execute_result", data=TABLE._repr_mimebundle_(), execution_count=2)
    executed = record.read(saved(tmp_path, cell(1), cell(2, output), cell(None, source="  ")))
    assert (executed.ok, executed.ename, executed.never_ran, executed.cells) == (True, "", 0, 2)
    assert executed.changes is None
    (table,) = executed.tables
    assert (table.caption, list(table["node"]), list(table["ok"])) == ("T", ["node1", "node2"], [False, True])
    assert isinstance(table, show.Table)


def test_when_a_notebook_began(tmp_path: Path) -> None:
    """Its first cell's time, whichever of papermill's forms it has; what is none is passed over."""
    cells = [cell(1), cell(2), cell(3)]
    for one, at in zip(cells, ("soon", "2026-11-23T05:30:02.5", "2026-11-23T05:30:01.25+00:00"), strict=True):
        one.metadata["papermill"]["start_time"] = at
    assert record.read(saved(tmp_path, *cells)).began == datetime(2026, 11, 23, 5, 30, 1, 250_000, UTC)
    assert record.read(saved(tmp_path, cell(1))).began is None
    cells[2].metadata["tags"] = ["injected-parameters"]
    ahead = record.read(saved(tmp_path, cells[2], *cells[:2]))
    assert ahead.began == datetime(2026, 11, 23, 5, 30, 2, 500_000, UTC), "parameters are set while another works"


def test_a_notebook_that_failed(tmp_path: Path) -> None:
    """The error of the cell that failed is told; the cells after it never ran, whatever papermill calls them."""
    error = v4.new_output("error", ename="Unreachable", evalue="node1: no answer", traceback=[])
    executed = record.read(saved(tmp_path, cell(1), cell(2, error, status="failed"), cell(None)))
    assert (executed.ok, executed.ename, executed.evalue, executed.never_ran) == (
        False,
        "Unreachable",
        "node1: no answer",
        1,
    )


def test_cells_that_never_ran_are_no_success(tmp_path: Path) -> None:
    """A dead kernel leaves no error and says completed: what has no execution count did not run."""
    executed = record.read(saved(tmp_path, cell(1), cell(None)))
    assert (executed.ok, executed.ename, executed.never_ran) == (False, "", 1)
    assert not record.read(saved(tmp_path, cell(None), cell(None))).ok


def test_a_plan_is_counted(tmp_path: Path) -> None:
    """The changes of the last plan that was shown; an empty plan has none, which is not the same as no plan."""
    assert record.read(saved(tmp_path, cell(1, plan_output({"node": "a"}), plan_output({}, {})))).changes == 2
    assert record.read(saved(tmp_path, cell(1, plan_output()))).changes == 0
    assert record.read(saved(tmp_path, cell(1, v4.new_output("stream", text="x")))).changes is None


def test_a_run_has_its_folder(tmp_path: Path) -> None:
    """A folder a run by cluster and UTC time, a second one in the same second beside it, with the params resolved."""
    cluster = cluster_of()
    first, second = record.new_folder(tmp_path, cluster), record.new_folder(tmp_path, cluster)
    assert first != second
    assert first.parent == second.parent == tmp_path / "c"
    assert first.name[8] == "T"
    text = yaml.safe_load((first / "params.yaml").read_text())
    assert params.load(text["cluster"]) == cluster
    assert stat.S_ISDIR(second.stat().st_mode)
    assert record.journal_path(first).parent == first


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The error has the path, the reason and the option."""
    (tmp_path / "file").touch()
    with pytest.raises(errors.RunbookError, match="--records"):
        record.new_folder(tmp_path / "file", cluster_of())
