"""runbook.records.notebook_file: the same notebooks as nbformat reads and writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook import phases
from runbook.records import notebook_file

if TYPE_CHECKING:
    from pathlib import Path

v4 = nbformat.v4
TEXT = st.text(alphabet="a\n\r\u2028ü\x00", max_size=12)
SPLIT_OR_NOT = ("text/html", "image/png", "image/svg+xml")
JSON_DATA = {"application/json": ["a", "b"], "application/vnd.x+json": [{"text": ["a\n", "b"]}]}
OUTPUTS = st.one_of(
    TEXT.map(lambda text: v4.new_output("stream", name="stdout", text=text)),
    TEXT.map(lambda text: v4.new_output("display_data", dict.fromkeys(SPLIT_OR_NOT, text) | JSON_DATA)),
    TEXT.map(lambda text: v4.new_output("execute_result", {"text/plain": text}, execution_count=1)),
    TEXT.map(lambda text: v4.new_output("error", ename=text, evalue=text, traceback=[text])),
)
CELLS = st.one_of(
    TEXT.map(lambda text: v4.new_markdown_cell(text, attachments={"a.png": {"image/png": text}})),
    TEXT.map(v4.new_raw_cell),
    st.builds(lambda text, outputs: v4.new_code_cell(text, outputs=outputs), TEXT, st.lists(OUTPUTS, max_size=3)),
)


@given(st.lists(CELLS, max_size=4))
def test_notebooks_are_written_and_read_as_nbformat_does(cells: list[Any]) -> None:
    """The same text comes out, byte by byte, and the same notebook comes back from it; the one given is as it was."""
    book = v4.new_notebook(cells=cells)
    before = json.dumps(book)
    written = notebook_file.writes(book)
    assert written == nbformat.v4.writes(book) + "\n"
    assert notebook_file.reads(written) == nbformat.v4.reads(written)
    assert json.dumps(book) == before


@pytest.mark.parametrize("phase", phases.PHASES, ids=lambda phase: phase.name)
def test_every_phase_is_read_and_written_unchanged(phase: phases.Phase) -> None:
    """Our own notebooks."""
    path = phases.notebooks_dir() / phase.notebook
    ours, theirs = notebook_file.read(path), nbformat.read(path, as_version=4)
    assert ours == theirs
    assert notebook_file.writes(ours) == nbformat.v4.writes(theirs) + "\n"


def test_what_is_true_of_one_machine_only_is_left_out() -> None:
    """A signature and a mark of trust are not read."""
    book = v4.new_notebook(cells=[v4.new_code_cell("1", metadata={"trusted": True})], metadata={"signature": "x"})
    assert notebook_file.reads(json.dumps(book)) == nbformat.v4.reads(json.dumps(book))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": 1}', "null"])
def test_what_is_no_notebook_is_an_error(tmp_path: Path, text: str) -> None:
    """Anything else in a file of that name."""
    (tmp_path / "a.ipynb").write_text(text)
    with pytest.raises(ValueError, match=r"is no notebook|Expecting value"):
        notebook_file.read(tmp_path / "a.ipynb")


def test_values_are_attributes() -> None:
    """A missing one is an AttributeError, so that getattr's default works."""
    assert notebook_file.Node(a=1).a == 1
    assert getattr(notebook_file.Node(), "a", None) is None
