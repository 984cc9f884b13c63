"""runbook.records.saving: files whole or not at all; notebooks without secrets and without false claims."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.records import redact, saving

if TYPE_CHECKING:
    from collections.abc import Callable

v4 = nbformat.v4
STATES = st.lists(
    st.tuples(st.sampled_from(["completed", "pending", "failed", "running"]), st.booleans()), min_size=1, max_size=6
)


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def notebook(*states: tuple[str, bool]) -> Any:  # noqa: ANN401 - nbformat has no types
    """Code cells, each with papermill's status and whether it began."""
    cells = []
    for status, began in states:
        told = {"status": status, "start_time": "2026-11-23T02:13:14+00:00" if began else None}
        cells.append(v4.new_code_cell("x", metadata={"papermill": told}))
    return v4.new_notebook(cells=[v4.new_markdown_cell("# 00 · x"), *cells])


def read(path: Path) -> list[Any]:
    return [one for one in nbformat.read(path, as_version=4).cells if one.cell_type == "code"]


# ---- write


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_is_written_whole(tmp_path: Path, before: str | None) -> None:
    """The text is there, readable for others, in the place of what was there; nothing else is left."""
    path = tmp_path / "a.json"
    if before is not None:
        path.write_text(before)
    saving.write(path, "new · ü\n")
    assert path.read_bytes() == "new · ü\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(tmp_path) == ["a.json"]


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("fails", [full, interrupted])
@pytest.mark.parametrize("where", [(os, "fsync"), (Path, "replace"), (Path, "chmod")])
def test_a_write_that_fails_leaves_the_previous_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[object, str],
    fails: Callable[..., None],
    before: str | None,
) -> None:
    """Full disk or Ctrl-C at any step: the file is as it was, no temporary one is left, and the error goes on."""
    path = tmp_path / "a.json"
    if before is not None:
        path.write_text(before)
    monkeypatch.setattr(*where, fails)
    with pytest.raises((OSError, KeyboardInterrupt)):
        saving.write(path, "new")
    assert names(tmp_path) == ([] if before is None else ["a.json"])
    assert before is None or path.read_text() == before


def test_text_that_cannot_be_encoded_leaves_the_previous_file(tmp_path: Path) -> None:
    """Half of a character ends the write before anything is replaced."""
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        saving.write(path, "new \ud800")
    assert (path.read_text(), names(tmp_path)) == ("old", ["a.json"])


# ---- papermill's handler


@given(STATES)
def test_no_cell_is_saved_as_completed_that_never_began(
    tmp_path_factory: pytest.TempPathFactory, states: list[tuple[str, bool]]
) -> None:
    """`completed` without a start becomes `pending`; every other status stays."""
    path = tmp_path_factory.mktemp("saved") / "a.ipynb"
    saving.Handler(redact.Redactor()).write(nbformat.writes(notebook(*states)), f"record:{path}")
    expected = ["pending" if status == "completed" and not began else status for status, began in states]
    assert [cell.metadata.papermill.status for cell in read(path)] == expected


def test_a_notebook_is_saved_without_secrets(tmp_path: Path) -> None:
    """A secret in an output is removed before it reaches the disk, and counted."""
    made = notebook(("completed", True))
    made.cells[1].outputs = [v4.new_output("stream", name="stdout", text="pw Tr0ub4dor-and-3\n")]
    redactor = redact.Redactor(["Tr0ub4dor-and-3"])
    saving.Handler(redactor).write(nbformat.writes(made), f"record:{tmp_path}/a.ipynb")
    assert read(tmp_path / "a.ipynb")[0].outputs[0].text == f"pw {redact.MARK}\n"
    assert redactor.count == 1


def test_behind_the_run_the_newest_state_is_on_the_disk_after_waiting(tmp_path: Path) -> None:
    """Saves follow each other in a thread; waiting gives the last one."""
    saves = saving.Behind(redact.Redactor())
    for count in range(1, 6):
        saves.write(nbformat.writes(notebook(*[("completed", True)] * count)), f"record:{tmp_path}/a.ipynb")
    saves.wait()
    saves.wait()
    assert len(read(tmp_path / "a.ipynb")) == 5


def test_behind_the_run_a_save_that_fails_is_told_and_made_again(tmp_path: Path) -> None:
    """A folder that is not there: the wait says so; once it is, the same state is saved."""
    saves, text = saving.Behind(redact.Redactor()), nbformat.writes(notebook(("completed", True)))
    path = tmp_path / "later" / "a.ipynb"
    saves.write(text, f"record:{path}")
    with pytest.raises(OSError, match="later"):
        saves.wait()
    path.parent.mkdir()
    saves.write(text, f"record:{path}")
    saves.wait()
    assert len(read(path)) == 1


def test_while_cells_are_at_work_the_newest_state_is_kept(tmp_path: Path) -> None:
    """States too are kept without secrets and false claims: the newest of those that wait; the last save follows."""
    redactor = redact.Redactor(["Tr0ub4dor-and-3"])
    saves, path = saving.Behind(redactor), tmp_path / "a.ipynb"
    made = notebook(("completed", True), ("completed", False))
    made.cells[1].outputs = [v4.new_output("stream", name="stdout", text="pw Tr0ub4dor-and-3\n")]
    for count in range(1, 9):
        made.cells[1].execution_count = count
        saves.keep(made, f"record:{path}")
    saves.wait()
    first, second = read(path)
    assert (first.execution_count, first.outputs[0].text) == (8, f"pw {redact.MARK}\n")
    assert second.metadata.papermill.status == "pending"
    saves.write(nbformat.writes(made), f"record:{path}")
    saves.wait()
    assert path.read_text(encoding="utf-8") == nbformat.v4.writes(nbformat.read(path, as_version=4)) + "\n"


def test_paths_have_the_scheme_or_not(tmp_path: Path) -> None:
    """The other calls of papermill work on record: paths, and on plain ones."""
    handler = saving.Handler(redact.Redactor())
    (tmp_path / "a").write_text("ü", encoding="utf-8")
    for scheme in ("", saving.SCHEME):
        assert handler.read(f"{scheme}{tmp_path}/a") == "ü"
        assert handler.listdir(f"{scheme}{tmp_path}") == [f"{tmp_path}/a"]
        assert handler.pretty_path(f"{scheme}{tmp_path}/a") == f"{tmp_path}/a"


# ---- which cell failed


@given(STATES)
def test_the_last_cell_that_began_is_the_one_that_failed(
    tmp_path_factory: pytest.TempPathFactory, states: list[tuple[str, bool]]
) -> None:
    """It alone gets the error and the status; where none began it is the first."""
    path = tmp_path_factory.mktemp("failed") / "a.ipynb"
    nbformat.write(notebook(*states), path)
    saving.mark_failed(path, "DeadKernelError", "Kernel died", redact.Redactor())
    bad = max((place for place, (_, began) in enumerate(states) if began), default=0)
    cells = read(path)
    assert [place for place, cell in enumerate(cells) if cell.outputs] == [bad]
    assert cells[bad].outputs[0].ename == "DeadKernelError"
    assert cells[bad].metadata.papermill.status == "failed"
    assert nbformat.read(path, as_version=4).metadata.papermill.exception is True


def test_an_error_that_stands_there_is_kept(tmp_path: Path) -> None:
    """A notebook that tells its error already is left as it is."""
    made = notebook(("failed", True), ("pending", False))
    made.cells[1].outputs = [v4.new_output("error", ename="CheckFailed", evalue="no", traceback=[])]
    nbformat.write(made, tmp_path / "a.ipynb")
    before = (tmp_path / "a.ipynb").read_bytes()
    saving.mark_failed(tmp_path / "a.ipynb", "Killed", "", redact.Redactor())
    assert (tmp_path / "a.ipynb").read_bytes() == before


def test_an_interrupted_cell_is_not_called_completed(tmp_path: Path) -> None:
    """A kernel that was interrupted tells its error itself, and papermill calls that cell completed: it has failed."""
    book = notebook(("completed", True), ("completed", True))
    book.cells[2].outputs = [v4.new_output("error", ename="KeyboardInterrupt", evalue="", traceback=[])]
    nbformat.write(book, tmp_path / "a.ipynb")
    saving.mark_failed(tmp_path / "a.ipynb", "KeyboardInterrupt", "interrupted", redact.Redactor())
    assert [cell.metadata.papermill.status for cell in read(tmp_path / "a.ipynb")] == ["completed", "failed"]


def test_a_notebook_without_code_has_no_cell_that_failed(tmp_path: Path) -> None:
    """There is nothing to mark, and nothing breaks."""
    nbformat.write(notebook(), tmp_path / "a.ipynb")
    saving.mark_failed(tmp_path / "a.ipynb", "Killed", "", redact.Redactor())
    assert read(tmp_path / "a.ipynb") == []
