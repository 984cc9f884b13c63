"""runbook.pages.page_links: a page of a record leads to pages that are there."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from local_node import cluster_of

from runbook import phases, record
from runbook.jupyter import stepped
from runbook.pages import page_links, render
from runbook.records import closing, summary

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [phase.notebook.removesuffix(".ipynb") for phase in phases.PHASES]


def record_of(folder: Path, kind: str = "run", chosen: str = "") -> Path:
    summary.save(folder, summary.begin(cluster_of(), kind, phases.select(chosen)))
    return folder


def test_a_run_that_broke_off_leads_backwards_only(tmp_path: Path) -> None:
    """No phase after the one that failed will have a page; after one that passed the next begins."""
    record_of(tmp_path)
    assert page_links.notebooks(tmp_path / f"{NAMES[3]}.ipynb", passed=False) == set(NAMES[:4])
    assert page_links.notebooks(tmp_path / f"{NAMES[3]}.ipynb", passed=True) == set(NAMES)


def test_phases_that_a_run_leaves_out_are_not_led_to(tmp_path: Path) -> None:
    """Of `--phases 3,5` no page leads to 04."""
    record_of(tmp_path, chosen="3,5")
    assert page_links.notebooks(tmp_path / f"{NAMES[3]}.ipynb", passed=True) == {NAMES[3], NAMES[5]}


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"phases": [{}], "kind": "run"}'])
def test_without_a_summary_any_page_may_be_there(tmp_path: Path, text: str | None) -> None:
    """A notebook that is rendered by itself keeps its links."""
    if text is not None:
        (tmp_path / summary.NAME).write_text(text)
    assert page_links.notebooks(tmp_path / f"{NAMES[3]}.ipynb", passed=True) is None
    assert page_links.living('<a href="04_x.html">x</a>', None) == '<a href="04_x.html">x</a>'


def test_what_leads_nowhere_stands_as_text() -> None:
    """Links to pages that are missing, and to files outside of the record, lose their link and keep their words."""
    html = (
        '<p><a href="index.html">Index</a> <a href="03_a.html#b">a <em>b</em></a> <a href="04_c.html">c</a>'
        ' <a href="../docs/troubleshooting.md#x">d</a> <a href="troubleshooting.md#x">e</a></p>'
    )
    assert page_links.living(html, {"03_a"}) == (
        '<p><a href="index.html">Index</a> <a href="03_a.html#b">a <em>b</em></a> c'
        ' d <a href="troubleshooting.md#x">e</a></p>'
    )


def executed(path: Path) -> None:
    """Say in a notebook that each of its cells ran."""
    made = nbformat.read(path, as_version=4)
    for place, cell in enumerate((one for one in made.cells if one.cell_type == "code"), 1):
        cell.execution_count = place
    nbformat.write(made, path)


def dead_links(folder: Path) -> list[str]:
    pages = [(page, page.read_text()) for page in folder.glob("*.html")]
    found = [(page.name, href) for page, text in pages for href in re.findall(r'<a href="([^"#]+)', text)]
    return [f"{page}: {href}" for page, href in found if "://" not in href and not (folder / href).exists()]


def test_no_page_of_a_record_has_a_dead_link(tmp_path: Path) -> None:
    """Neither where it was stepped through in part, nor where its run stopped at its second phase."""
    (tmp_path / "p.yaml").touch()
    walked = stepped.prepare(tmp_path / "p.yaml", cluster_of(), tmp_path / "records")
    for number in (2, 3, 7):
        executed(walked / phases.PHASES[number].notebook)
    record.journal_path(walked).touch()
    closing.close(walked)
    assert dead_links(walked) == []

    run = tmp_path / "run"
    run.mkdir()
    record_of(run, chosen="2-5")
    for number in (2, 3):
        book: Any = nbformat.read(phases.notebooks_dir() / phases.PHASES[number].notebook, as_version=4)
        path = run / phases.PHASES[number].notebook
        nbformat.write(book, path)
        executed(path)
        if number == 3:
            told = json.loads(path.read_text())
            code = [cell for cell in told["cells"] if cell["cell_type"] == "code"]
            code[-1]["outputs"] = [{"output_type": "error", "ename": "E", "evalue": "", "traceback": []}]
            path.write_text(json.dumps(told))
        path.with_suffix(".html").write_text(render.notebook(path))
    (run / "index.html").touch()
    assert dead_links(run) == []
    assert '<a href="02_etcd_certs.html">' in (run / "03_etcd_units.html").read_text()
