"""runbook.pages.rendering: pages made in a process beside, and all there at the end whatever became of it."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import TYPE_CHECKING

import nbformat
import pytest
from past_run import told
from waiting import until

from runbook.jupyter import forked
from runbook.pages import rendering
from runbook.records import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

v4 = nbformat.v4
SECRET = "Tr0ub4dor-and-3"  # noqa: S105 - planted


@pytest.fixture
def notebooks(tmp_path: Path) -> list[Path]:
    """Three executed notebooks."""
    made = []
    for number in range(3):
        output = v4.new_output("stream", name="stdout", text=f"notebook {number} {SECRET}")
        cell = v4.new_code_cell("1", execution_count=1, outputs=[output])
        made.append(tmp_path / f"{number:02d}_x.ipynb")
        nbformat.write(v4.new_notebook(cells=[cell]), made[-1])
    return made


def pages(notebooks: list[Path]) -> list[str]:
    return [one.with_suffix(".html").read_text(encoding="utf-8") for one in notebooks]


def assert_made(notebooks: list[Path], redactor: redact.Redactor) -> None:
    for number, page in enumerate(pages(notebooks)):
        assert f"notebook {number} " in page
        assert "</html>" in page
        assert SECRET not in page
    assert redactor.count == len(notebooks)


@pytest.fixture
def fork_server() -> Iterator[None]:
    """This process has a fork server, as that of a run has."""
    forked.begin()
    yield
    forked.end()


def test_pages_are_made_beside(notebooks: list[Path]) -> None:
    """Each page is there after the wait, without secrets, and those are counted; the process is gone."""
    redactor = redact.Redactor([SECRET])
    with rendering.Rendering(redactor) as beside:
        for one in notebooks:
            beside.page(one)
        process = beside._process
        beside.wait()
        assert_made(notebooks, redactor)
        assert beside._process is process
        beside.index(notebooks[0].parent, told(), [])
    assert process
    assert process.returncode == 0
    assert "</html>" in (notebooks[0].parent / "index.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("fork_server")
def test_a_run_forks_that_process(notebooks: list[Path]) -> None:
    """The same pages by a fork of what kernels are forked from; it has another session, and ends with its input."""
    redactor, made = redact.Redactor([SECRET]), []

    def fork(module: str, streams: Mapping[int, int]) -> object:
        made.append(forked.serve(module, streams))
        return made[-1]

    with rendering.Rendering(redactor, fork) as beside:
        for one in notebooks:
            beside.page(one)
        (process,) = made
        assert process
        assert os.getsid(process.pid) == process.pid
        assert beside._process is None
        beside.wait()
        assert_made(notebooks, redactor)
        beside.index(notebooks[0].parent, told(), [])
    until(lambda: process.poll() is not None)
    assert process.returncode == 0


@pytest.mark.usefixtures("fork_server")
def test_a_fork_that_is_killed_costs_nothing_but_time(notebooks: list[Path]) -> None:
    """What it did not come to is made here."""
    redactor, made = redact.Redactor([SECRET]), []
    with rendering.Rendering(redactor, lambda *asked: made.append(forked.serve(*asked)) or made[-1]) as beside:
        beside.page(notebooks[0])
        beside.wait()
        made[0].kill()
        for one in notebooks[1:]:
            beside.page(one)
        beside.wait()
    assert_made(notebooks, redactor)


def test_without_a_fork_server_none_is_started() -> None:
    """Closing a record needs no kernels."""
    forked.end()  # another test of this process may have left one
    assert forked.serve("runbook.pages.rendering", {0: 0, 1: 1}) is None


@pytest.mark.parametrize("when", ["at once", "later", "never began"])
def test_what_the_process_did_not_come_to_is_made_here(
    notebooks: list[Path], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A renderer that was killed, or could not be started, costs nothing but time."""
    redactor = redact.Redactor([SECRET])
    if when == "never began":
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with rendering.Rendering(redactor) as beside:
        beside.page(notebooks[0])
        assert (beside._process is None) == (when == "never began")
        if when == "later":
            beside.wait()
        if beside._process:
            os.kill(beside._process.pid, signal.SIGKILL)
        for one in notebooks[1:]:
            beside.page(one)
        beside.wait()
    assert_made(notebooks, redactor)


def test_a_page_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """The notebook is the record: a page of it that can't be made ends nothing."""
    bad = tmp_path / "00_x.ipynb"
    bad.write_text("{", encoding="utf-8")
    with rendering.Rendering(redact.Redactor()) as beside:
        beside.page(bad)
        beside.wait()
    assert "no page; 00_x.ipynb has all of it" in bad.with_suffix(".html").read_text(encoding="utf-8")


def test_a_page_that_cannot_be_saved_is_an_error(tmp_path: Path) -> None:
    """It is raised here with its number, as if it had been saved here."""
    with rendering.Rendering(redact.Redactor()) as beside:
        beside.page(tmp_path / "missing" / "00_x.ipynb")
        with pytest.raises(OSError, match="missing") as raised:
            beside.wait()
    assert raised.value.errno == errno.ENOENT
