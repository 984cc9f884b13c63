"""The notebooks as files: one shape for all twelve, nothing run left in them, links that lead somewhere."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = [
    "00_preflight",
    "01_binaries",
    "02_etcd_certs",
    "03_etcd_units",
    "04_etcd_start",
    "05_etcd_verify",
    "06_flannel_certs",
    "07_flannel_config",
    "08_flannel_units",
    "09_flannel_start",
    "10_flannel_verify",
    "11_ping_mesh",
]
CHANGES_NOTHING = {"00_preflight", "05_etcd_verify", "10_flannel_verify", "11_ping_mesh"}
HEADINGS = ["What it changes", "Undo", "Parameters", "Plan", "Apply", "Verify", "If it fails", "Next"]
MAX_CODE_LINES = 12
BANNED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.AsyncFor, ast.While)

INDEX = "index"
#: What each phase says in its first cell, besides what it does: enough to follow the tutorial without it.
TUTORIAL = ["**Why", "**By hand**", "```bash"]

every_notebook = pytest.mark.parametrize("name", NAMES)
every_file = pytest.mark.parametrize("name", [INDEX, *NAMES])


@cache
def notebook(name: str) -> dict[str, Any]:
    """A notebook as it lies on the disk: plain JSON, nothing mended by a reader."""
    path = FOLDER / f"{name}.ipynb"
    assert path.is_file(), f"notebooks/{path.name} is missing"
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def source(cell: dict[str, Any]) -> str:
    """A cell's text; nbformat allows a list of lines as well as one string."""
    return "".join(cell["source"])


def cells(name: str, kind: str) -> list[dict[str, Any]]:
    """The code or markdown cells of a notebook, in order."""
    return [cell for cell in notebook(name)["cells"] if cell["cell_type"] == kind]


def headings(text: str) -> list[tuple[int, str]]:
    """Level and words of each heading in a markdown text, fenced code left out."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [(len(marks), words) for marks, words in re.findall(r"^(#{1,6}) +(.+?) *$", prose, flags=re.MULTILINE)]


def links(text: str) -> list[str]:
    """Relative link targets in a markdown text, without their anchors."""
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", text)
    return [target for target in targets if "://" not in target and not target.startswith("mailto:")]


def test_the_twelve_phases_and_no_stray_file() -> None:
    """notebooks/ holds exactly the twelve phases, named and numbered as the tutorial goes, and the index."""
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == [*NAMES, INDEX]


@every_file
def test_valid_format_with_cell_ids(name: str) -> None:
    """Each is valid nbformat 4.5 for the python3 kernel, and every cell has an id of its own."""
    found = notebook(name)
    nbformat.validate(nbformat.from_dict(found))  # type: ignore[no-untyped-call]
    ids = [cell.get("id") for cell in found["cells"]]
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    assert found["metadata"]["kernelspec"]["name"] == "python3"
    assert all(ids)
    assert len(set(ids)) == len(ids)


@every_file
def test_nothing_of_a_run_is_in_git(name: str) -> None:
    """No output, execution count, injected cell or papermill metadata is left in a notebook."""
    found = notebook(name)
    assert "papermill" not in found["metadata"]
    assert "widgets" not in found["metadata"]
    for cell in found["cells"]:
        assert not {"papermill", "execution"} & set(cell["metadata"]), cell["id"]
        assert "injected-parameters" not in cell["metadata"].get("tags", []), cell["id"]
    for cell in cells(name, "code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None), cell["id"]


@every_file
def test_one_parameters_cell_before_other_code(name: str) -> None:
    """One cell is tagged `parameters`, and it is the first code cell: papermill injects after it."""
    tagged = [cell for cell in notebook(name)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    assert [cell["id"] for cell in tagged] == [cells(name, "code")[0]["id"]]


@every_notebook
def test_papermill_finds_both_parameters(name: str) -> None:
    """Papermill's own inspection finds cluster and approve, each with a type, a safe default and a help text."""
    notebook(name)  # a missing file fails by its name, not by papermill's error
    found = papermill.inspect_notebook(str(FOLDER / f"{name}.ipynb"))
    assert list(found) == ["cluster", "approve"]
    assert ast.literal_eval(found["cluster"]["default"]) == "../params/sandbox.yaml"
    assert ast.literal_eval(found["approve"]["default"]) is False
    for parameter in found.values():
        assert parameter["inferred_type_name"] not in {"", "None"}, parameter
        assert parameter["help"].strip(), parameter


@every_notebook
def test_title_is_the_only_first_level_heading(name: str) -> None:
    """The first cell is the title, the only `#` heading, and it has the phase's number."""
    found = headings("\n\n".join(source(cell) for cell in cells(name, "markdown")))
    first = notebook(name)["cells"][0]
    assert first["cell_type"] == "markdown"
    assert headings(source(first))[:1] == [words for words in found if words[0] == 1]
    assert re.search(rf"\b{name[:2]}\b", headings(source(first))[0][1])


@every_notebook
def test_sections_are_in_the_fixed_order(name: str) -> None:
    """`##` headings are the same words in the same order; a phase that only looks has no plan and nothing to apply."""
    text = "\n\n".join(source(cell) for cell in cells(name, "markdown"))
    wanted = [words for words in HEADINGS if words not in {"Plan", "Apply"} or name not in CHANGES_NOTHING]
    assert [words for level, words in headings(text) if level == 2] == wanted


@every_file
def test_code_cells_are_short_and_plain(name: str) -> None:
    """A code cell is Python of 12 lines at most without functions, classes or loops: those belong to the library."""
    assert cells(name, "code")
    for cell in cells(name, "code"):
        code = source(cell)
        assert 0 < len(code.splitlines()) <= MAX_CODE_LINES, cell["id"]
        tree = ast.parse(code, f"notebooks/{name}.ipynb {cell['id']}")
        assert [type(node).__name__ for node in ast.walk(tree) if isinstance(node, BANNED)] == [], cell["id"]


@every_file
def test_relative_links_resolve(name: str) -> None:
    """Every relative link leads to a file that is there."""
    found = [link for cell in cells(name, "markdown") for link in links(source(cell))]
    assert [link for link in found if not (FOLDER / link).exists()] == []


@every_file
def test_anchors_resolve(name: str) -> None:
    """Every link to a section leads to a heading that is there."""
    text = "\n\n".join(source(cell) for cell in cells(name, "markdown"))
    dead = []
    for target, anchor in re.findall(r"\]\(([^)\s#]*)#([^)\s]+)\)", text):
        page = (FOLDER / target).read_text(encoding="utf-8")
        if anchor not in {words.replace(" ", "-") for _, words in headings(page)}:
            dead.append(f"{target}#{anchor}")
    assert dead == []


@pytest.mark.parametrize("place", range(len(NAMES)))
def test_each_links_to_its_neighbours_and_the_index(place: int) -> None:
    """At its top and at its end each notebook links to the one before it, the index, and the one after it, in order."""
    near = [*NAMES[max(0, place - 1) : place], INDEX, *NAMES[place + 1 : place + 2]]
    texts = [source(cell) for cell in cells(NAMES[place], "markdown")]
    for text in (texts[0], texts[-1]):
        assert [link for link in links(text) if link.endswith(".ipynb")] == [f"{name}.ipynb" for name in near]


@every_notebook
def test_each_links_to_the_page_on_errors(name: str) -> None:
    """What to do if it fails leads to the sections of the page on errors that fit the phase."""
    section = "\n".join(source(cell) for cell in cells(name, "markdown")).partition("## If it fails")[2]
    assert len(re.findall(r"\]\(\.\./docs/troubleshooting\.md#", section)) >= 2


@every_notebook
def test_each_is_the_tutorial(name: str) -> None:
    """The first cell says why the step exists and what one would type by hand; the last one what good looks like."""
    texts = [source(cell) for cell in cells(name, "markdown")]
    assert [words for words in TUTORIAL if words not in texts[0]] == []
    assert "\nGood: " in texts[-1]


@every_notebook
def test_a_phase_that_changes_something_speaks_of_the_buttons(name: str) -> None:
    """Before the cell that waits, each button is named; nothing is typed any more."""
    text = "\n\n".join(source(cell) for cell in cells(name, "markdown"))
    section = text.partition("## Apply")[2].partition("## Verify")[0]
    buttons = ["`Apply`", "`Not now`", "`Stop after this step`", "`Try again`", "Untick"]
    assert [button for button in buttons if button not in section] == ([] if name not in CHANGES_NOTHING else buttons)
    assert "type `yes`" not in text


def test_the_index_leads_everywhere() -> None:
    """The index links to every phase in order, says which of them change nodes, and shows the records' table."""
    table = next(source(cell) for cell in cells(INDEX, "markdown") if "| notebook |" in source(cell))
    rows = re.findall(r"^\| \[(\d\d) · [^\]]+\]\((\w+)\.ipynb\) \| (.+) \| (.+) \|$", table, flags=re.MULTILINE)
    assert [(number, name) for number, name, *_ in rows] == [(name[:2], name) for name in NAMES]
    assert {name for _, name, _, changes in rows if changes == "no"} == CHANGES_NOTHING
    assert source(cells(INDEX, "code")[-1]) == "from runbook import overview\n\noverview(cluster)"
