"""Stepping through in a real JupyterLab and Chromium, on a practice cluster: what a person sees, presses, keeps."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import nbformat
import pytest
from lab import APPLY, DARK, LIGHT, Book, Lab, opened
from practice import NODES, Practice, mesh, table, until
from reading import TEXTS, contrast

from runbook import phases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Cell
    from nbformat import NotebookNode
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-7")]

INDEX = "index.ipynb"
UNITS, START, CERTS = "03_etcd_units.ipynb", "04_etcd_start.ipynb", "06_flannel_certs.ipynb"
RESTART = "restart etcd.service"
UNIT = "/etc/systemd/system/etcd.service"
CERT_DIR = "/etc/flanneld/cert"
GATES = [phase.notebook for phase in phases.PHASES if phase.plan]
PAIRS = set(itertools.product(NODES, NODES))
UTC = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
WIDGET = "application/vnd.jupyter.widget-view+json"
#: What JupyterLab and nbconvert say where a widget has no model.
BROKEN = re.compile(r"Error displaying widget|model not found|VBox\(|HBox\(|Output\(\)")
#: Tables without a caption or with a header cell that does not say what it heads; what only lays tables out is none.
UNTOLD = """(within) => [...within.querySelectorAll('table:not(:has(table))')].filter((table) => {
  const heads = [...table.querySelectorAll('th')];
  return !table.caption?.textContent.trim() || !heads.length || heads.some((one) => !one.scope);
}).map((table) => table.outerHTML.slice(0, 200))"""


class Walk(NamedTuple):
    """A cluster built by hand in JupyterLab.

    Attributes:
        waits: What the code cells were when each notebook's gate waited.
        asked: What the page said then.
        fixed: The boxes that could not be unticked then.
        record: A copy of the record as it was at the end.
        params: The cluster's params.
    """

    waits: dict[str, list[Cell]]
    asked: dict[str, str]
    fixed: dict[str, list[bool]]
    record: Path
    params: Path


@pytest.fixture(scope="module")
def params(practice: Practice) -> Path:
    return practice.params()


@pytest.fixture(scope="module")
def lab(practice: Practice, chromium: Browser, params: Path) -> Iterator[Lab]:
    """JupyterLab on a record of the practice cluster, its index in front."""
    with opened(chromium, params, practice.folder / "records", practice.folder / "jupyter") as made:
        yield made


@pytest.fixture(scope="module")
def walk(practice: Practice, lab: Lab, params: Path) -> Walk:
    """The whole build: from the index by links from one notebook to the next, Apply pressed where it asks."""
    practice.make_virgin()
    assert lab.front() == INDEX
    book, waits, asked, fixed = Book(lab, INDEX), {}, {}, {}
    for phase in phases.PHASES:
        book = book.follow(phase.notebook)
        book.run_all()
        if phase.plan:
            waits[phase.notebook] = book.until_asked()
            asked[phase.notebook] = book.output().inner_text()
            fixed[phase.notebook] = [box.is_disabled() for box in book.output().get_by_role("checkbox").all()]
            book.press("Apply")
        went(book)
        book.save()
    copy = practice.folder / "copied" / practice.sandbox.block.name / lab.server.record.name
    shutil.copytree(lab.server.record, copy)
    return Walk(waits, asked, fixed, copy, params)


def went(book: Book) -> list[Cell]:
    """Wait until nothing runs: every cell has run then, none with an error."""
    cells = book.until_idle()
    assert all(cell.count and not cell.failed for cell in cells), f"{book.path}: {cells}\n{book.panel.inner_text()}"
    return cells


def later(cells: list[Cell]) -> list[Cell]:
    """The code cells after the gate."""
    (gate,) = [number for number, cell in enumerate(cells) if APPLY in cell.source]
    assert cells[gate + 1 :]
    return cells[gate + 1 :]


def kept(notebook: NotebookNode) -> list[NotebookNode]:
    """What a notebook on disk keeps under the cell of the gate."""
    (cell,) = [one for one in notebook.cells if one.cell_type == "code" and APPLY in one.source]
    return list(cell.outputs)


def html_of(outputs: list[NotebookNode]) -> str:
    return "\n".join(one.data.get("text/html", "") for one in outputs if "data" in one)


def edited(practice: Practice) -> set[str]:
    """The nodes whose unit somebody has edited by hand."""
    return {node for node in NODES if "# by hand" in practice.on(node, f"tail -n 1 {UNIT}")}


@pytest.fixture
def units(practice: Practice, lab: Lab, walk: Walk) -> Iterator[Book]:  # noqa: ARG001 - the cluster is built
    """Phase 03 in front, each node's unit edited by hand: three changes, and nothing of what runs is touched."""
    for node in NODES:
        practice.on(node, f"grep -q '^# by hand' {UNIT} || echo '# by hand' >>{UNIT}")
    book = lab.book(UNITS)
    yield book
    if any(cell.running for cell in lab.book(UNITS).cells()):  # a test that failed must not leave the next one waiting
        book.interrupt()
        book.until_idle()


# ---- the whole build


def test_pressing_apply_builds_the_cluster(walk: Walk) -> None:
    """From the index to the last notebook by links and Apply alone; the last one shows a ping between every pair."""
    assert list(walk.waits) == GATES
    assert mesh(table(walk.record, 11, "overlay: rtt_ms")) == PAIRS
    assert mesh(table(walk.record, 11, "underlay: rtt_ms")) == PAIRS
    assert all(row["ok"] for row in table(walk.record, 5, "etcd endpoints"))


def test_run_all_waits_at_each_gate(walk: Walk) -> None:
    """While it waits the page says so; what comes before has run, nothing after it."""
    for name, cells in walk.waits.items():
        before = cells[: -len(later(cells)) - 1]
        assert all(cell.count for cell in before), name
        assert not any(cell.count for cell in later(cells)), name
        assert "WAITING" in walk.asked[name], name


def test_the_record_closes_and_holds(practice: Practice, walk: Walk) -> None:
    """`runbook close` says passed and twelve phases; `runbook verify` finds nothing; the pages tell who pressed."""
    closed = practice.cli("close", walk.record)
    assert closed.returncode == 0, closed.stdout + closed.stderr
    assert "closed: passed, 12 phases" in closed.stdout
    verified = practice.cli("verify", walk.record)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    for name in GATES:
        page = (walk.record / name).with_suffix(".html").read_text(encoding="utf-8")
        assert re.search(rf"Applied by \w+, {UTC}", page), name
        assert not BROKEN.search(page), name


def test_a_notebook_keeps_what_can_be_read_without_a_kernel(walk: Walk) -> None:
    """On disk: headline, who pressed and when, a result a change; no widget, and a handful of outputs."""
    for name in GATES:
        notebook = nbformat.read(walk.record / name, as_version=4)
        outputs = kept(notebook)
        assert len(outputs) <= 4, name
        everything = json.dumps(notebook)
        assert WIDGET not in everything, name
        assert "widgets" not in notebook.metadata, name
        shown = html_of(outputs)
        assert re.search(rf"Applied by \w+, {UTC}", shown), name
        assert "done" in shown, name
        assert "WAITING" not in everything, name


def test_every_text_and_table_can_be_read(lab: Lab, walk: Walk) -> None:  # noqa: ARG001 - all notebooks have run
    """In both themes our outputs have a contrast of 4.5:1; each table has a caption and says what its headers head."""
    poor, untold = [], []
    for theme in (DARK, LIGHT):
        lab.theme(theme)
        for name in (INDEX, *(phase.notebook for phase in phases.PHASES)):
            book = lab.book(name)
            outputs = book.panel.locator(".jp-OutputArea-output")
            outputs.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
            texts = outputs.evaluate_all(f"(all) => all.flatMap((one) => ({TEXTS})(one))")
            assert texts or name == INDEX, name
            poor += [(theme, name, *text) for text in texts if contrast(*text[1:]) < 4.5]
            untold += [(name, one) for one in outputs.evaluate_all(f"(all) => all.flatMap((one) => ({UNTOLD})(one))")]
    assert poor == []
    assert untold == []


# ---- the gate


def test_a_gate_can_be_read_while_it_waits(lab: Lab, units: Book) -> None:
    """Its texts, boxes and buttons have a contrast of 4.5:1 in both themes."""
    units.run_all()
    units.until_asked()
    for theme in (DARK, LIGHT):
        lab.theme(theme)
        texts = units.output().evaluate(TEXTS)
        assert {"WAITING", "Apply", "Not now", "node3"} <= {word for text, *_ in texts for word in (text, text[2:])}
        assert [(theme, *text) for text in texts if contrast(*text[1:]) < 4.5] == []
    units.press("Not now")
    units.until_idle()


def test_not_now_changes_nothing(practice: Practice, units: Book) -> None:
    """Not now: no file of a node has changed, later cells have not run, and the notebook says who said so."""
    before = practice.traces()
    units.run_all()
    units.until_asked()
    units.press("Not now")
    cells = units.until_idle()
    assert practice.traces() == before
    assert not any(cell.count for cell in later(cells))
    shown = html_of(kept(units.save()))
    assert re.search(r"Not now: .*nothing was changed", shown)
    assert "Applied" not in shown


def test_an_interrupt_changes_nothing(practice: Practice, units: Book) -> None:
    """The kernel can be interrupted while a cell waits; nothing has changed then, and the page says so."""
    units.run_all()
    units.until_asked()
    units.interrupt()
    cells = units.until_idle()
    assert edited(practice) == set(NODES)
    assert not any(cell.count for cell in later(cells))
    assert re.search(rf"Interrupted, {UTC}: nothing was changed", html_of(kept(units.save())))


def test_a_node_left_out_is_found_by_the_next_run(practice: Practice, units: Book) -> None:
    """Only the other nodes change; with a new kernel the next plan is the rest, and the one after that is empty."""
    units.run_all()
    units.until_asked()
    units.output().get_by_label("node3", exact=True).uncheck()
    units.press("Apply")
    units.until_idle()
    assert edited(practice) == {"node3"}
    assert re.search(r"node3.*left out", html_of(kept(units.save())), re.DOTALL)
    units.restart_kernel()
    units.run_all()
    units.until_asked()
    assert "node3" in units.output("etcd.units").inner_text()
    assert "node1" not in units.output("etcd.units").inner_text()
    units.press("Apply")
    went(units)
    assert edited(practice) == set()
    units.restart_kernel()
    units.run_all()
    went(units)
    assert "nothing to change" in units.output("etcd.units").inner_text()


def test_a_first_start_takes_every_member(walk: Walk) -> None:
    """Where a node may be left out its box can be unticked; not for etcd's first start, and the page says why."""
    assert walk.fixed[UNITS] == [False] * 3
    assert walk.fixed[START] == [True] * 3
    assert walk.asked[START].count("can't be left out: a member of the first start") == 3


def test_the_table_can_be_of_one_node(units: Book) -> None:
    """`Show` leaves one node's rows in the table of the plan."""
    units.run_all()
    units.until_asked()
    nodes = units.output().locator("tbody tr > :first-child")
    assert nodes.all_inner_texts() == ["node1, node2, node3"]
    units.output().get_by_label("Show").select_option("node2")
    nodes.get_by_text("node2", exact=True).wait_for()
    assert nodes.all_inner_texts() == ["node2"]
    units.press("Not now")
    units.until_idle()


def test_stop_lets_nothing_more_begin(practice: Practice, lab: Lab, units: Book) -> None:
    """Pressed while etcd is restarted member by member: what has begun is finished, the others run on as they did."""
    units.through()
    before, told = practice.starts(), len(steps(lab))
    book = lab.book(START)
    book.run_all()
    book.until_asked()
    book.press("Apply")
    until(lambda: ("node1", RESTART, "started") in steps(lab)[told:])
    book.press("Stop after this step")
    cells = book.until_idle()
    assert not any(cell.count for cell in later(cells))
    after = practice.starts()
    assert [before[node] == after[node] for node in NODES] == [False, True, True]
    assert re.search(rf"Stopped by \w+, {UTC}: 2 of 3 changes not begun", html_of(kept(book.save())))


@contextmanager
def full_disk(practice: Practice, node: str) -> Iterator[str]:
    """A full file system of 1 MiB where a node's flannel certificate is; gives the file that fills it."""
    ballast = f"{CERT_DIR}/ballast"
    practice.on(node, f"mount -t tmpfs -o size=1m,mode=755 tmpfs {CERT_DIR}")
    try:
        practice.on(node, f"head -c 2m /dev/zero 2>/dev/null >{ballast} || true")
        yield ballast
    finally:
        practice.on(node, f"umount {CERT_DIR}")


def test_try_again_makes_only_what_is_missing(practice: Practice, lab: Lab, walk: Walk) -> None:  # noqa: ARG001 - built
    """A node's disk is full: the page tells node, cause and remedy; once that is mended, Try again does the rest."""
    serials = f"stat -c %i {CERT_DIR}/flanneld.pem"
    practice.on("node1", f"rm {CERT_DIR}/flanneld*.pem")
    with full_disk(practice, "node2") as ballast:
        book = lab.book(CERTS)
        book.run_all()
        book.until_asked()
        book.press("Apply")
        book.until_asked("Try again")
        said = book.output().inner_text()
        assert "node2" in said
        assert "No space left on device" in said
        first = practice.on("node1", serials)
        practice.on("node2", f"rm {ballast}")
        book.press("Try again")
        went(book)
        assert practice.on("node1", serials) == first
        assert practice.on("node2", f"ls {CERT_DIR}")
        shown = html_of(kept(book.save()))
        assert re.search(rf"Applied by \w+, {UTC}", shown)
        assert "No space left on device" in shown


def test_a_reloaded_page_applies_nothing_twice(practice: Practice, lab: Lab, units: Book) -> None:
    """Reloaded while it waited: the old button only says that the cell is to be run again; run again, it applies."""
    units.run_all()
    units.until_asked()
    units.save()
    units = lab.reload(UNITS, kernel=False)
    before = applied(lab)
    units.press("Apply")
    units.output().get_by_text("run this cell again").first.wait_for()
    units.until_idle()
    assert applied(lab) == before
    assert edited(practice) == set(NODES)
    units.run_all()
    units.until_asked()
    units.press("Apply")
    went(units)
    assert edited(practice) == set()
    assert applied(lab) == before + 1


def test_a_page_reloaded_while_it_applies_restarts_nothing_twice(practice: Practice, lab: Lab, units: Book) -> None:
    """The cell goes on in the kernel, and all of it is in the journal; run again, it waits, and finds nothing to do."""
    units.through()
    before, told = practice.starts(), len(steps(lab))
    book = lab.book(START)
    book.run_all()
    book.until_asked()
    book.press("Apply")
    until(lambda: ("node1", RESTART, "started") in steps(lab)[told:])
    assert "After a reload of this page it goes on" in book.output().inner_text()
    book = lab.reload(START, kernel=False)
    assert steps(lab)[told:].count(("node3", RESTART, "done")) == 0  # it is still under way
    book.cell().locator(".jp-InputArea-editor").click()
    book.run_here()
    cells = book.until_idle()
    assert not any(cell.failed for cell in cells)
    assert "nothing to change" in book.output().inner_text()
    done = [(node, step, state) for node in NODES for step, state in ((RESTART, "started"), (RESTART, "done"))]
    assert [one for one in steps(lab)[told:] if one[1] == RESTART] == done
    after = practice.starts()
    assert all(before[node] != after[node] for node in NODES)
    book.run_all()
    went(book)
    assert "nothing to change" in book.output("etcd.start").inner_text()
    assert practice.starts() == after
    assert [one for one in steps(lab)[told:] if one[1] == RESTART] == done


def steps(lab: Lab) -> list[tuple[str, str, str]]:
    """What the record's journal tells: node, step and state."""
    lines = (lab.server.record / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    return [(one["node"], one["step"], one["state"]) for one in map(json.loads, lines)]


def applied(lab: Lab) -> int:
    """How many plans were applied, as the record's journal tells."""
    return sum(step.startswith("apply ") and state == "done" for _, step, state in steps(lab))


def test_without_a_kernel_the_result_is_there(lab: Lab, walk: Walk) -> None:  # noqa: ARG001 - all notebooks have run
    """Opened again, without a kernel and as a stranger's file: headline, result, who and when; no word of a widget."""
    name = "08_flannel_units.ipynb"
    book = lab.book(name)
    notebook = book.save()
    kept(notebook)[0].metadata["from"] = "elsewhere"  # Jupyter trusts outputs that it has signed itself
    nbformat.write(notebook, lab.server.record / name)
    book.shut_kernel_down()
    book = lab.reload(name, kernel=False)
    book.output().get_by_text("flannel units").first.wait_for()  # Lab draws what comes into view a moment later
    said = book.output().inner_text()
    assert re.search(rf"Applied by \w+, {UTC}", said)
    assert book.output().get_by_role("row").count() > 3
    assert not BROKEN.search(book.panel.inner_text())
    assert "WAITING" not in said


@pytest.mark.parametrize("approve", [True, False])
@pytest.mark.usefixtures("units")
def test_the_same_notebook_by_papermill(practice: Practice, walk: Walk, *, approve: bool) -> None:
    """Approved it applies, else it ends with `approval needed`; no widget, a handful of outputs, never a wait."""
    done = practice.papermill(UNITS, "-f", walk.params, "-p", "approve", str(approve))
    outputs = kept(nbformat.read(practice.output(UNITS), as_version=4))
    assert not any(WIDGET in one.get("data", {}) for one in outputs)
    assert 1 <= len(outputs) <= 4
    if approve:
        assert done.returncode == 0, done.stderr
        assert edited(practice) == set()
    else:
        assert done.returncode != 0
        assert "approval needed, nothing was changed" in done.stderr
        assert edited(practice) == set(NODES)


def test_the_keyboard_alone_is_enough(practice: Practice, units: Book) -> None:
    """Shift+Enter to the gate, Tab to a button, which shows that it has the focus; Enter or Space presses it."""
    keys = units.page.keyboard
    units.panel.locator(".jp-MarkdownCell").first.click()
    keys.press("Escape")
    while APPLY not in units.active():
        keys.press("Shift+Enter")
    units.run_here()
    units.until_asked()
    units.tab_to("Not now")
    keys.press("Enter")
    units.until_idle()
    assert edited(practice) == set(NODES)
    keys.press("Tab")  # the button is gone; what comes after it is in this cell still
    assert APPLY in units.active()
    units.run_here()
    units.until_asked()
    units.tab_to("Apply")
    keys.press("Space")
    units.until_idle()
    assert edited(practice) == set()
