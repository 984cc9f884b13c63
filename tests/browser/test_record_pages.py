"""A record's pages in a real Chromium: what they ask for, whether they can be read, in light, in dark and on paper."""

from __future__ import annotations

import itertools
import json
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import nbformat
import pytest
from nbformat import v4
from reading import TEXTS, contrast, luminance

from runbook import mesh, params, show, topology
from runbook.journal import Step
from runbook.pages import latency_picture, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbformat import NotebookNode
    from playwright.sync_api import Browser, Page

    Scheme = Literal["light", "dark"]

pytestmark = pytest.mark.xdist_group("browser")
SAMPLES = Path(__file__).parents[1] / "unit" / "test_render"
INDEXES = ["passed", "failed", "sixteen"]
PHASES = ["00_preflight", "03_etcd_units", "11_ping_mesh"]
PAGES = [f"{name}/index.html" for name in INDEXES] + [f"passed/{name}.html" for name in PHASES]
#: A4 less the margins that a page leaves, at 96 pixels an inch.
PAPER = {"width": 688, "height": 1000}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
HOSTILE = """
<script>window.ran = 1; fetch("URL/script")</script><script src="URL/source"></script>
<img src="URL/img" onerror="window.ran = 1"><p style="background:url(URL/style)" onclick="window.ran = 1">p</p>
<style>@import "URL/import"; body {background: url(URL/css)} </style>
<style>@font-face {font-family: f; src: url(URL/font)} * {font-family: f}</style>
<iframe src="URL/iframe"></iframe><object data="URL/object"></object><embed src="URL/embed">
<link rel="stylesheet" href="URL/sheet"><link rel="prefetch" href="URL/prefetch">
<video src="URL/video" autoplay></video>
<svg onload="window.ran = 1"><image href="URL/svg"/></svg>
"""
LEAVING = '<meta http-equiv="refresh" content="0;url=URL/refresh"><base href="URL/">'


def notebook(path: Path, *cells: NotebookNode) -> None:
    book = v4.new_notebook(cells=list(cells))
    times = {"start_time": "2026-11-23T02:13:15+00:00", "end_time": "2026-11-23T02:13:18+00:00"}
    book.metadata["papermill"] = {"parameters": {}, **times}
    nbformat.write(book, path)
    path.with_suffix(".html").write_text(render.notebook(path), encoding="utf-8")


def output(table: show.Table) -> NotebookNode:
    return v4.new_output("execute_result", table._repr_mimebundle_(), execution_count=1)


def picture(drawn: str) -> NotebookNode:
    return v4.new_output("display_data", {"text/html": drawn}, metadata=show.PICTURE)


def pings(count: int) -> show.Table:
    """A mesh of so many nodes in which everything happens: all steps of time, loss, silence."""
    names = [f"rack1-node{number}" for number in range(1, count + 1)]
    rows = []
    for network in ("overlay", "underlay"):
        for place, (source, to) in enumerate(itertools.product(names, names)):
            rtt, loss = 0.02 * 3 ** (place % 8), 33.3333 if place % 7 == 5 else 0.0
            if network == "overlay" and to == names[1] and source != to:
                rtt, loss = None, 100.0
            rows.append({"node": source, "to": to, "network": network, "rtt_ms": rtt, "loss_pct": loss})
    return show.table(rows, ["node", "to", "network", "rtt_ms", "loss_pct"])


def pictures(folder: Path) -> None:
    """What draws a picture in a notebook, each with something that is wrong."""
    outputs = []
    for count in (3, 16):
        bundle, metadata = mesh.beside(pings(count))._repr_mimebundle_()
        outputs.append(v4.new_output("execute_result", bundle, metadata=metadata, execution_count=1))
    nodes = [
        {"name": f"node{n}", "host": f"10.0.0.{n}", "roles": ["etcd", "flannel"] if n <= 3 else ["flannel"]}
        for n in range(1, 17)
    ]
    cluster = params.load({"name": "c", "nodes": nodes})
    good = {"ok": True, "why": "", "lease": "172.30.136.0/21", "device": "172.30.136.0", "mtu": 1450, "etcd": ""}
    rows = [{"node": one.name, "host": one.host, **good} for one in cluster.nodes]
    rows[0] |= {"etcd": "leader"}
    rows[1] |= {"etcd": "unknown"}
    rows[2] |= {"etcd": "unhealthy", "ok": False, "why": "does not answer"}
    rows[5] |= {"lease": "", "device": "", "ok": False, "why": "no lease; no flannel.1"}
    outputs.append(picture(topology.drawn(cluster, rows, "Topology")))
    watched = [
        latency_picture.Watched(
            node,
            "",
            [latency_picture.Sample(float(n), None if n % 50 == 7 else 1.0 + n % 13, "deadline") for n in range(120)],
        )
        for node in ("node1", "node2", "node3")
    ]
    outputs.append(picture(latency_picture.as_html(watched, "60 s")))
    cells = [v4.new_code_cell("picture", execution_count=1, outputs=outputs)]
    notebook(folder / "11_ping_mesh.ipynb", v4.new_markdown_cell("# 11 · Pictures"), *cells)


def steps(summary: dict[str, Any]) -> list[Step]:
    """A journal of this run: an apply on each of three nodes in each phase with a plan."""
    made = []
    for phase in summary["phases"]:
        begun = datetime.fromisoformat(phase["started"]).timestamp() if phase["plan"] else None
        for node in ("", "node1", "node2") if begun else ():
            made.append(Step(begun + 0.1, node, "apply", "started"))
            made.append(Step(begun + 0.8, node, "create /x", "failed" if phase["error"] else "done"))
    return made


def preflight(folder: Path) -> None:
    columns = [f"column_{number}" for number in range(18)]
    facts = [{"node": f"node{n}", **dict.fromkeys(columns, f"a value of {n}")} for n in (1, 2, 3)]
    checks = [{"node": "node1", "ok": ok, "state": "ok" if ok else "warning", "why": "on eth0"} for ok in (True, False)]
    notebook(
        folder / "00_preflight.ipynb",
        v4.new_markdown_cell(
            "# 00 · Look\n\n## Verify\n\n**Bold**, `code`, [next](03_etcd_units.ipynb)\n\n|a|b|\n|---|---|\n|c|d|"
        ),
        v4.new_code_cell(
            'from runbook import connect  # why\n\nfleet = connect("params.yaml", partial=True, number=1)',
            execution_count=1,
            outputs=[
                output(show.table(facts, ["node", *columns], "Facts")),
                output(show.table(checks, ["node", "ok", "state", "why"], "Checks")),
                v4.new_output(
                    "stream", name="stdout", text="plain \x1b[31mred \x1b[32mgreen \x1b[33myellow \x1b[34mblue"
                ),
                v4.new_output("stream", name="stderr", text="\x1b[35mmagenta \x1b[36mcyan \x1b[90mgrey " + "long" * 99),
            ],
        ),
    )


def units(folder: Path) -> None:
    plan = show.plan_table(
        "etcd units: 1 to change. Plan p91a5a2c8b13f.",
        [{"node": "node1", "resource": "/etc/systemd/system/etcd.service", "action": "change", "why": "other content"}],
    )
    diff = show.diff_html("--- now\n+++ wanted\n@@ -1 +1 @@\n-# edited by hand\n+[Install]")
    folded = {"text/html": f"{show.table_html(plan)}<details><summary>diff</summary>{diff}</details>"}
    error = v4.new_output(
        "error", ename="CheckFailed", evalue="a row does not hold", traceback=["\x1b[31mCheckFailed\x1b[39m: why"]
    )
    notebook(
        folder / "03_etcd_units.ipynb",
        v4.new_markdown_cell("# 03 · Write etcd's units"),
        v4.new_code_cell("plan", execution_count=1, outputs=[v4.new_output("display_data", folded)]),
        v4.new_code_cell("await plan.apply(approve)", execution_count=2, outputs=[error]),
        v4.new_code_cell("expect(1)"),
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three indexes, and three phase pages beside one of them."""
    root = tmp_path_factory.mktemp("records")
    for name in INDEXES:
        (root / name).mkdir()
        summary = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
        if name == "sixteen":
            tables = mesh.beside(pings(16)).tables.items()
            summary["tables"] |= {key: show.kept(one) for key, one in tables}
        (root / name / "index.html").write_text(render.index(summary, steps(summary)), encoding="utf-8")
    for page in (preflight, units, pictures):
        page(root / "passed")
    return root


class Opened:
    """A page and all that it asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path) -> Page:
        self.page.goto(path.as_uri())
        return self.page


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Opened]:
    """A new page without a network."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    yield Opened(context.new_page())
    context.close()


class _Listener(ThreadingHTTPServer):
    hits: list[str]


class _Answer(BaseHTTPRequestHandler):
    server: _Listener

    def do_GET(self) -> None:
        self.server.hits.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def listener() -> Iterator[_Listener]:
    """A server on loopback that notes what is asked of it."""
    server = _Listener(("127.0.0.1", 0), _Answer)
    server.hits = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def hits(chromium: Browser, path: Path, server: _Listener) -> tuple[list[str], object, str]:
    """What reached the server when this page was opened, whether a script ran, and where the browser then was."""
    context = chromium.new_context()
    page = context.new_page()
    # A refresh without delay begins when the page has loaded: idle comes after it.
    page.goto(path.as_uri(), wait_until="networkidle")
    ran, where = page.evaluate("window.ran"), page.url
    context.close()
    return sorted(server.hits), ran, where


def url(server: _Listener) -> str:
    return f"http://127.0.0.1:{server.server_port}"


# ---- loading and running


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_asks_for_nothing_but_itself(opened: Opened, records: Path, path: str, scheme: Scheme) -> None:
    """With the network off a page opens whole, and the only thing asked for is its own file."""
    opened.page.emulate_media(color_scheme=scheme)
    page = opened.open(records / path)
    page.wait_for_load_state("networkidle")
    assert opened.requests == [(records / path).as_uri()]
    assert page.locator("h1").count() == 1


def test_links_lead_from_the_index_to_a_phase_and_on(opened: Opened, records: Path) -> None:
    """The index opens a phase's page, that one the next, and the way back."""
    page = opened.open(records / "passed" / "index.html")
    page.get_by_role("link", name="preflight").click()
    page.get_by_role("link", name="next").click()
    assert page.title().startswith("03 · Write etcd's units")
    page.get_by_role("link", name="Go to the cell").click()
    page.locator("nav a").click()
    assert page.url.endswith("/index.html")
    assert all(request.startswith("file://") for request in opened.requests)


def test_the_listener_hears_a_page_that_loads(chromium: Browser, listener: _Listener, tmp_path: Path) -> None:
    """The same HTML on a bare page runs and loads: so silence below means something."""
    path = tmp_path / "bare.html"
    path.write_text(f"<!DOCTYPE html><body>{HOSTILE}".replace("URL", url(listener)), encoding="utf-8")
    heard, ran, _ = hits(chromium, path, listener)
    assert ran == 1
    assert {"/script", "/source", "/img", "/iframe", "/sheet", "/import", "/style"} <= set(heard)


def test_hostile_outputs_neither_run_nor_load(chromium: Browser, listener: _Listener, tmp_path: Path) -> None:
    """An output that would run, load or lead away does nothing."""
    hostile = (HOSTILE + LEAVING).replace("URL", url(listener))
    shown = v4.new_output("display_data", {"text/html": hostile})
    path = tmp_path / "00_preflight.ipynb"
    notebook(path, v4.new_markdown_cell(hostile), v4.new_code_cell("1", execution_count=1, outputs=[shown]))
    page = path.with_suffix(".html")
    assert hits(chromium, page, listener) == ([], None, page.as_uri())


def test_the_policy_alone_holds(chromium: Browser, listener: _Listener, records: Path, tmp_path: Path) -> None:
    """What got past the sanitiser would still meet the page's policy."""
    text = (records / "passed" / "00_preflight.html").read_text(encoding="utf-8")
    assert "<body>" in text
    page = tmp_path / "past.html"
    page.write_text(text.replace("<body>", f"<body>{HOSTILE}".replace("URL", url(listener))), encoding="utf-8")
    heard, ran, _ = hits(chromium, page, listener)
    assert heard == []
    assert ran is None


# ---- reading


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(opened: Opened, records: Path, path: str, scheme: Scheme) -> None:
    """Each text on a page has a contrast of 4.5:1 at least; a page follows the reader's scheme; nothing is cut off."""
    opened.page.emulate_media(color_scheme=scheme)
    page = opened.open(records / path)
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    texts = page.evaluate(TEXTS)
    assert len(texts) > 20
    assert [(*text, contrast(*text[1:])) for text in texts if contrast(*text[1:]) < 4.5] == []
    body = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert body > 0.9 if scheme == "light" else body < 0.05
    assert page.evaluate(OVERFLOW) == 0


@pytest.mark.parametrize("path", PAGES)
def test_on_paper(opened: Opened, records: Path, path: str) -> None:
    """On paper, also from a dark desktop: dark on light, diffs unfolded, wide tables told by rows, nothing cut off."""
    opened.page.set_viewport_size(PAPER)
    page = opened.open(records / path)
    page.emulate_media(media="print", color_scheme="dark")
    texts = page.evaluate(TEXTS)
    assert [text for text in texts if contrast(*text[1:]) < 4.5] == []
    assert [text for text in texts if luminance(text[2]) < 0.2] == []
    assert page.evaluate(OVERFLOW) == 0
    words = {text for text, _, _ in texts}
    if path.endswith("03_etcd_units.html"):
        assert "-# edited by hand" in words
    if path.endswith("00_preflight.html"):
        assert page.locator(".paper .row").count() == 3
        assert page.locator(".rows table").is_hidden()
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF-")


def test_pictures_keep_their_colours(opened: Opened, records: Path) -> None:
    """A record's page lets through of a picture what was drawn: its cells, bars and boxes have their colours."""
    page = opened.open(records / "passed" / "11_ping_mesh.html")
    drawn = page.locator("main").evaluate(
        """main => [...main.querySelectorAll('*')].map(one => getComputedStyle(one).backgroundColor)"""
    )
    dead, lossy, bar, leader, overlay = (
        "rgb(139, 10, 30)", "rgb(255, 223, 93)", "rgb(33, 139, 255)", "rgb(17, 99, 41)", "rgb(221, 244, 255)",
    )  # fmt: skip
    assert drawn.count(dead) == (3 - 1) + (16 - 1) + 2, "each silent pair and two legends"
    assert drawn.count(leader) == 1
    assert drawn.count(overlay) == 4 + 15, "a band a line of nodes, a lease a box but one"
    assert drawn.count(bar) == 3 * 117
    assert lossy in drawn


def test_a_timeline_has_its_bars_in_place(opened: Opened, records: Path) -> None:
    """Bars lie under the phase that they belong to, and none is beyond its lane."""
    page = opened.open(records / "failed" / "index.html")
    lanes = page.locator(".timeline .lane:not(.marks)").evaluate_all(
        """all => all.map(lane => [lane, ...lane.children].map(one => {
             const box = one.getBoundingClientRect(); return [box.left, box.right]; }))"""
    )
    phases, *nodes = [[tuple(box) for box in lane] for lane in lanes]
    assert len(nodes) == 3
    for lane, *bars in (phases, *nodes):
        assert bars
        assert all(lane[0] - 0.5 <= left <= right <= lane[1] + 0.5 for left, right in bars)
    for _, *bars in nodes:
        assert all(any(left <= bar[0] + 1 and bar[1] - 1 <= right for left, right in phases[1:]) for bar in bars)
    assert page.locator(".timeline .failed").count() >= 1


def test_a_phone_scrolls_tables_not_the_page(opened: Opened, records: Path) -> None:
    """On a narrow screen wide tables scroll inside their frame."""
    opened.page.set_viewport_size({"width": 420, "height": 800})
    for path in PAGES:
        assert opened.open(records / path).evaluate(OVERFLOW) == 0, path
