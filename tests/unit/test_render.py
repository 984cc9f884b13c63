"""runbook.pages.render: a record's pages load nothing, run nothing, hide nothing, and lead to each other."""

from __future__ import annotations

import copy
import json
import re
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jsonschema
import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbformat import v4

from runbook import show
from runbook.journal import Step
from runbook.pages import paper, render, safe_html
from runbook.records import evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbformat import NotebookNode

HERE = Path(__file__).parent
SAMPLES = HERE / "test_render"
SCHEMA = HERE.parents[1] / "docs" / "summary.schema.json"
Json = TypeVar("Json")
SCRIPT = "\x1b[31m<script>alert(1)</script>\x1b]8;;http://evil.example/\x07&\"'"
#: What may lead a browser to another place, and what may run there.
ADDRESSES = {"href", "src", "srcset", "poster", "data", "action", "formaction", "ping", "background", "xlink:href"}
FORBIDDEN = {
    "script",
    "iframe",
    "object",
    "embed",
    "base",
    "form",
    "svg",
    "video",
    "audio",
    "source",
    "template",
    "math",
}
HOSTILE = [
    '<script>fetch("http://evil.example/")</script>',
    '<script src="//evil.example/a.js"></script>',
    '<img src="http://evil.example/a.png" onerror="alert(1)">',
    '<img srcset="http://evil.example/a.png 2x" src="data:image/svg+xml;base64,PHN2Zy8+">',
    '<iframe src="http://evil.example/"></iframe><object data="http://evil.example/"></object>',
    '<p onclick="alert(1)" style="background-color:url(http://evil.example/a)">p</p>',
    '<p style="position:fixed;top:0;background-image:url(//evil.example/a);color:red">p</p>',
    '<meta http-equiv="refresh" content="0;url=http://evil.example/">',
    '<style>@import "http://evil.example/a.css"; body{display:none}</style>',
    '<base href="http://evil.example/">',
    '<svg onload="alert(1)"><image href="http://evil.example/a"/></svg>',
    '<a href="javascript:alert(1)">a</a><a href=" java&#10;script:alert(1)">b</a><a href="data:text/html,x">c</a>',
    '<a href="//evil.example/">a</a><a href="http://evil.example" ping="http://evil.example">b</a>',
    '<a href="/etc/passwd">a</a><a href="\\\\evil.example\\x">b</a><a href="file:///etc">c</a>',
    '<link rel="preconnect" href="http://evil.example/"><link rel="dns-prefetch" href="//evil.example">',
    '<form action="http://evil.example/"><input name="a"><button formaction="//evil.example">b</button></form>',
    '</div></main></body><table background="http://evil.example/a"><td background="//evil.example/a">',
    "<!--[if true]><script>alert(1)</script><![endif]--><noscript><p title='</noscript><script>alert(1)</script>'>",
    '<p id="stopped" class="chip" title="fine">p</p>',
]


class Page(HTMLParser):
    """The tags, attributes and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.styles: list[str] = []
        self.text = ""
        self._style = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = self._style and tag != "style"

    def handle_data(self, data: str) -> None:
        if self._style:
            self.styles.append(data)
        else:
            self.text += data

    def links(self) -> list[str]:
        return [attributes["href"] for tag, attributes in self.tags if tag == "a" and "href" in attributes]


def assert_safe(text: str) -> Page:
    """The page names no other place and nothing in it can run, its policy left aside; and it has that policy."""
    page = Page(text)
    names = [tag for tag, _ in page.tags]
    assert not FORBIDDEN & set(names)
    assert names.count("link") == 1
    assert names.count("style") == 1, "the page's own, nothing else's"
    metas = [attributes for tag, attributes in page.tags if tag == "meta" and "http-equiv" in attributes]
    assert [one["http-equiv"] for one in metas] == ["Content-Security-Policy"]
    rules = dict(rule.strip().partition(" ")[::2] for rule in metas[0]["content"].split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert set(rules) == {"default-src", "style-src", "img-src", "base-uri", "form-action"}
    assert (rules["style-src"], rules["img-src"]) == ("'unsafe-inline'", "data:")
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ADDRESSES & set(attributes):
            address = attributes[name]
            local = re.fullmatch(r"[\w.#%-][\w./#%-]*", address) and "//" not in address
            assert local or re.match(r"data:(,$|image/(png|jpeg|gif|webp);base64,)", address), (tag, name, address)
        assert not re.search(r"url|@import|position|expression", attributes.get("style", ""))
    assert not re.search(r"url\(|@import", "".join(page.styles))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text)
    return page


def code(source: str = "1", *outputs: NotebookNode, number: int | None = 1, **metadata: object) -> NotebookNode:
    return v4.new_code_cell(source, execution_count=number, outputs=list(outputs), metadata=metadata)


def shown(**data: object) -> NotebookNode:
    return v4.new_output("display_data", data)


def html(text: str) -> NotebookNode:
    return shown(**{"text/html": text})


@pytest.fixture
def rendered(tmp_path: Path) -> Callable[..., str]:
    """Writes a notebook of these cells into a record and renders it."""

    def rendered(*cells: NotebookNode, parameters: dict[str, Any] | None = None, begun: bool = True) -> str:
        book = v4.new_notebook(cells=list(cells))
        if begun:
            book.metadata["papermill"] = {
                "parameters": parameters or {},
                "start_time": "2026-11-23T02:13:15.083925+00:00",
                "end_time": "2026-11-23T02:14:18.383364+00:00",
            }
        path = tmp_path / "sandbox" / "20261123T021314Z" / "03_etcd_units.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(book, path)
        return render.notebook(path)

    return rendered


@pytest.fixture(params=["passed", "failed", "sixteen"])
def sample(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


def load(name: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    return made


# ---- a notebook's page


def test_header_says_where_what_and_when(rendered: Callable[..., str]) -> None:
    """Cluster, run, outcome, times and the notebook stand above the first cell; the title is the notebook's."""
    page = assert_safe(rendered(v4.new_markdown_cell("# 03 · Write units"), code()))
    for said in (
        "← sandbox, run 20261123T021314Z",
        "✓ passed",
        "2026-11-23 02:13:15 UTC",
        "02:14:18 UTC",
        "1 min 03 s",
    ):
        assert said in page.text
    assert "03 · Write units · sandbox · passed" in page.text
    assert page.links() == ["index.html", "03_etcd_units.ipynb"]


def test_cluster_by_value_names_itself(rendered: Callable[..., str]) -> None:
    """The params given as a mapping name the cluster; hostile names are text."""
    assert "← prod, run" in Page(rendered(code(), parameters={"cluster": {"name": "prod"}})).text
    page = assert_safe(rendered(code(), parameters={"cluster": {"name": SCRIPT}}))
    assert "<script>alert(1)</script>" in page.text


def test_links_between_phases_lead_to_pages(rendered: Callable[..., str]) -> None:
    """A link to a notebook leads to its page, with its anchor; other local links stay; links that lead out are text."""
    source = "[a](04_etcd_start.ipynb) [b](../x/05_etcd_verify.ipynb#top) [c](README.md) [d](https://etcd.io/x.ipynb)"
    page = assert_safe(rendered(v4.new_markdown_cell(source), code()))
    assert page.links()[2:] == ["04_etcd_start.html", "../x/05_etcd_verify.html#top", "README.md"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_html_is_harmless(rendered: Callable[..., str], hostile: str) -> None:
    """Whatever HTML a cell put out, or a prose cell holds, can neither run nor load; what stands around it stays."""
    page = assert_safe(rendered(v4.new_markdown_cell(hostile + "\n\nbefore"), code("1", html(hostile), html("after"))))
    assert "before" in page.text
    assert "after" in page.text


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.sampled_from([*HOSTILE, "<", ">", '"', "'", "<!--", "-->", "&#x3c;", "<td>", "</p>"]), max_size=6)
)
def test_hostile_html_in_pieces_is_harmless(rendered: Callable[..., str], parts: list[str]) -> None:
    """No combination of such pieces is anything but harmless."""
    assert_safe(rendered(code("1", html("".join(parts)))))


def test_hostile_html_stays_readable(rendered: Callable[..., str]) -> None:
    """What is not let through is shown as text: nothing vanishes from a record."""
    assert '<script>fetch("http://evil.example/")</script>' in Page(rendered(code("1", html(HOSTILE[0])))).text


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("<!-- a note --><blink>b</blink>", "<!-- a note --><blink>b</blink>"),
        ("<PRE>kept</PRE><pref>shown</pref>", "kept<pref>shown</pref>"),
        ("1 < 2 <3 <p title='<i>'>4</p>", "1 < 2 <3 4"),
        ("<math><mi>x</mi></math> <textarea><p>y</textarea>", "<math><mi>x</mi></math> <textarea>y</textarea>"),
    ],
)
def test_tags_that_are_not_let_through_are_text(written: str, seen: str) -> None:
    """Comments, unknown tags and a sign that begins none are read as they were written; known ones in any letters."""
    assert " ".join(Page(safe_html.sanitised(written)).text.split()) == seen


@pytest.mark.parametrize(
    ("style", "kept"),
    [
        ("color:#116329;Padding: 0 6px", "color:#116329;padding:0 6px"),
        ("background-color:rgba(1, 2, 3, .5);font-family:'a b', serif", None),
        ("position:fixed;color:red", "color:red"),
        ("background-color:u\\72l(//evil.example/a);width:1px", "width:1px"),
        ("width:ex/**/pression(alert(1));border:1px solid", "border:1px solid"),
        ("color:red}body{display:none", ""),
        ("font-family:'a;position:fixed;x:'", ""),
        ("width:calc(1px);height:var(--x);margin:attr(y);color:image-set('a')", ""),
    ],
)
def test_styles_dress_their_own_element_only(style: str, kept: str | None) -> None:
    """Of a style what is plain stays; a declaration with escapes, comments, blocks or addresses goes."""
    (_, attributes), *_ = Page(safe_html.sanitised(f'<p style="{style}">p</p>')).tags
    assert attributes.get("style", "") == (style if kept is None else kept)


def test_what_cannot_be_seen_is_left_out() -> None:
    """Control characters and marks that turn text about go, also as references; where our lines may break, they may."""
    assert safe_html.sanitised("a&#8203;b&#x202e;c&#8;\x07\u2066d") == "a\u200bbcd"


def test_other_types_of_output_never_run(rendered: Callable[..., str]) -> None:
    """SVG, JavaScript, LaTeX and what is no picture fall back to text, or are named."""
    page = assert_safe(
        rendered(
            code(
                "1",
                shown(**{"image/svg+xml": "<svg onload='alert(1)'/>", "text/plain": "<Figure>"}),
                shown(**{"application/javascript": "alert(1)"}),
                shown(**{"image/png": '"><script>alert(1)</script>', "text/plain": "a broken picture"}),
                shown(**{"image/png": "iVBORw0KGgo=\n"}),
            )
        )
    )
    for said in ("<Figure>", "application/javascript: see the notebook", "a broken picture"):
        assert said in page.text
    assert [a["src"] for tag, a in page.tags if tag == "img"] == ["data:image/png;base64,iVBORw0KGgo="]


def test_own_tables_diffs_and_chips_are_kept(rendered: Callable[..., str]) -> None:
    """What show makes goes through whole: inline styles, captions, scopes, titles, folded diffs."""
    table = show.table([{"node": "node1", "ok": True, "sha256": "0" * 64}], ["node", "ok", "sha256"], "Nodes")
    folded = f"<details><summary>node1</summary>{show.diff_html('-a <b>' + chr(10) + '+c')}</details>"
    made = rendered(code("1", html(show.table_html(table)), html(folded)))
    attributes = [a for _, a in Page(made).tags]
    styles = [re.sub(r"[\s;]", "", a["style"]) for a in attributes if "style" in a]
    assert "color:#116329background-color:#dafbe1padding:06pxborder-radius:6pxwhite-space:nowrap" in styles
    assert "color:#a40e26background-color:#ffebe9" in styles
    assert [a["scope"] for a in attributes if "scope" in a] == ["col"] * 3 + ["row"]
    assert any(a.get("title") == "0" * 64 for a in attributes)
    assert [tag for tag, _ in Page(made).tags if tag in ("details", "summary", "caption")] == [
        "caption",
        "details",
        "summary",
    ]
    assert "-a <b>" in Page(made).text


def test_terminal_colours_are_kept(rendered: Callable[..., str]) -> None:
    """Streams and tracebacks keep their colours; other control sequences and hostile text do nothing."""
    error = v4.new_output(
        "error", ename="CheckFailed", evalue=SCRIPT, traceback=["\x1b[31mCheckFailed\x1b[39m: " + SCRIPT]
    )
    stream = v4.new_output(
        "stream", name="stderr", text="\x1b[1mbold\x1b[0m \x1b]0;title\x07\x1b[2J\x08after " + SCRIPT
    )
    made = rendered(code("1", stream, error))
    page = assert_safe(made)
    assert '<span class="ansi-bold">bold</span>' in made
    assert '<span class="ansi-red-fg">CheckFailed</span>' in made
    assert "evil.example" not in made
    assert "title" not in Page(made.partition("</header>")[2]).text
    assert page.text.count("<script>alert(1)</script>") == 3


def test_the_cell_that_failed_and_those_that_never_ran(rendered: Callable[..., str]) -> None:
    """Outcome and marks follow what ran, not what metadata claims; papermill's own error notes are left out."""
    error = v4.new_output("error", ename="CheckFailed", evalue="two rows\ndon't hold", traceback=[])
    claimed = {"papermill": {"status": "completed", "start_time": None, "end_time": None}}
    note = v4.new_markdown_cell("An Exception", metadata={"tags": ["papermill-error-cell-tag"]})
    made = rendered(
        note, code("a"), code("b", error, number=2), code("c", number=None, **claimed), code("", number=None)
    )
    page = assert_safe(made)
    assert "✗ failed" in made.partition("</header>")[0]
    assert page.text.count("never ran") == 2, "the count above, and the cell's own"
    assert "1 code cell never ran" in page.text
    assert "An Exception" not in page.text
    assert page.text.count("two rows\ndon't hold") == 2
    assert [a["id"] for _, a in page.tags if "id" in a] == ["stopped"]
    assert "#stopped" in page.links()


@pytest.mark.parametrize("name", ["ApprovalRequired", "PlanChanged"])
def test_a_closed_gate_is_no_failure(rendered: Callable[..., str], name: str) -> None:
    """A phase that waits for approval says so."""
    error = v4.new_output("error", ename=name, evalue="pass -p approve p1", traceback=["x"])
    page = assert_safe(rendered(code("await plan.apply()", error)))
    assert page.text.count("! approval needed") == 2
    assert "✗ failed" not in page.text


def test_a_notebook_that_was_never_run(rendered: Callable[..., str]) -> None:
    """A notebook without a run is not begun; one that papermill began, and of which no cell ran, failed."""
    assert "· not begun" in Page(rendered(code(number=None), begun=False)).text
    assert "✗ failed" in Page(rendered(code(number=None))).text


def test_parameters_of_the_run_are_labelled(rendered: Callable[..., str]) -> None:
    """The cell that papermill put in is told from the notebook's own."""
    assert "parameters of this run" in Page(rendered(code("approve = False", tags=["injected-parameters"]))).text


# ---- tables on paper


def wide(columns: int, text: str = "x" * 12, rows: int = 2) -> dict[str, Any]:
    return {"caption": "A & B", "columns": [f"c{n}" for n in range(columns)], "data": [[text] * columns] * rows}


def test_tables_that_do_not_fit_a_page_are_told_by_rows() -> None:
    """A narrow table stays, a wider one gets small, a wide one a paragraph a row; empty columns count nothing."""
    assert [paper.size([wide(n)]) for n in (3, 8, 20)] == ["fits", "small", "rows"]
    assert paper.size([]) == ""
    assert paper.size([wide(20, "")]) == "fits"
    assert paper.size([wide(3), wide(20)]) == "rows"
    assert paper.size([wide(3, rows=0)]) == "fits"


def test_rows_on_paper_hold_every_value_whole(rendered: Callable[..., str]) -> None:
    """Lists, long words and numbers are whole on paper; nothing of them is markup."""
    table = wide(20)
    table["data"] = [["node1", True, None, ["a" * 40, SCRIPT], 81920, 1.5, *["x" * 12] * 14]]
    table["columns"][1], table["columns"][4] = "ok", "free_bytes"
    page = assert_safe(rendered(code("1", shown(**{show.TABLE_MIME: [table], "text/html": "<table></table>"}))))
    for said in ("A & B", "node1", "✓ ok", "a" * 40, "<script>alert(1)</script>", "81,920", "1.50"):
        assert said in page.text
    assert "c2 " not in page.text


# ---- links and durations


@pytest.mark.parametrize(
    "address", ["a.html", "../20261123T021314Z/index.html", "#top", "a_b-c.ipynb#x", "..", "a%20b"]
)
def test_local_addresses(address: str) -> None:
    """A file beside the page or in another record is local."""
    assert safe_html.is_local(address)


@pytest.mark.parametrize(
    "address", ["//a", "/a", "http:a", "a:b", "a//b", "\\\\a", "a b", "javascript:x", "a?b", "é", "a\n"]
)
def test_addresses_that_are_not_local(address: str) -> None:
    """Anything else is not."""
    assert not safe_html.is_local(address)


# ---- the index


def test_samples_follow_the_schema(sample: dict[str, Any]) -> None:
    """The summaries of these tests are summaries."""
    jsonschema.validate(sample, json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_index_is_safe_and_says_it_all(sample: dict[str, Any]) -> None:
    """Every phase, version, checksum and commit of the summary stands on the page."""
    page = assert_safe(render.index(sample))
    text = " ".join(page.text.split())
    said = [sample["cluster"], sample["outcome"], sample["operator"]["user"], sample["operator"]["host"]]
    said += [f"{name} {version}" for name, version in sample["versions"].items()]
    said += [one[key] for one in sample["binaries"] for key in ("path", "version", "sha256", "source", "compared_with")]
    said += [phase["title"] for phase in sample["phases"]]
    said += [phase["plan"] for phase in sample["phases"] if phase["plan"]]
    said += [" ".join(phase["error"]["text"].split()) for phase in sample["phases"] if phase["error"]]
    said += [sample["params_sha256"], sample["tool"]["version"], f"-n {evidence.NAMESPACE} "]
    assert not [one for one in said if one not in text]


def test_index_links_to_phases_that_began(sample: dict[str, Any]) -> None:
    """A phase that began is linked, one that did not is not; so are the files of a record and the run it continues."""
    links = set(Page(render.index(sample)).links())
    begun = {phase["html"] for phase in sample["phases"] if phase["outcome"] != "not begun"}
    files = {"README.md", "SHA256SUMS", "journal.jsonl", "params.yaml", "summary.json"}
    before = {f"../{sample['continues']}/index.html"} if sample["continues"] else set()
    assert links == begun | files | before


def test_index_of_a_failed_run() -> None:
    """Why and where it stopped comes first; what was not reached is said, not left out."""
    text = Page(render.index(load("failed"))).text
    head = text.partition("Operator")[0]
    assert "Stopped at 04 etcd start" in head
    assert "did not become active" in head
    assert text.count("· not begun") == 7
    assert text.count("did not get there") == 3
    assert "given for plan p" in text


def test_index_of_a_run_that_goes_on_or_has_not_begun() -> None:
    """A summary is a page from the first moment on."""
    summary = load("passed")
    for phase in summary["phases"]:
        empty = dict.fromkeys(("started", "ended", "took_s", "changes", "plan", "error"))
        phase |= {"outcome": "not begun", **empty}
    summary |= {
        "outcome": "running",
        "ended": None,
        "approve": False,
        "binaries": [],
        "tables": dict.fromkeys(summary["tables"]),
    }
    text = assert_safe(render.index(summary)).text
    for said in ("… running", "0 of 12 phases passed", "not ended", "none given"):
        assert said in text


def test_a_phase_after_midnight_has_its_date() -> None:
    """A time alone would be read as the run's own day."""
    summary = load("passed")
    summary["phases"][11]["started"] = "2026-11-24T00:00:05Z"
    text = Page(render.index(summary)).text
    assert "2026-11-24 00:00:05" in text
    assert "2026-11-23 02:13:15" not in text.partition("Phases")[2]


def _hostile(value: Json) -> Json:
    """The same with every free text replaced by a hostile one."""
    if isinstance(value, dict):
        return {key: _hostile(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_hostile(one) for one in value]
    return SCRIPT if isinstance(value, str) else value


def test_everything_of_a_summary_is_text() -> None:
    """Hostile names, errors, versions, addresses and table cells come out as the text they are."""
    summary = _hostile(load("failed"))
    full = _hostile(load("passed"))["tables"]
    for table in full.values():
        table["columns"] = [SCRIPT, *(f"{n}{SCRIPT}" for n in range(len(table["columns"]) - 1))]
    assert_safe(render.index({**summary, "tables": full, "tool": {**summary["tool"], "packages": {SCRIPT: SCRIPT}}}))


def test_a_node_with_another_binary_stands_out() -> None:
    """Equal binaries are one row with their nodes; one that differs has its own."""
    summary = load("sixteen")
    assert Page(render.index(summary)).text.count("all 16 nodes") == 5
    summary["binaries"][0]["sha256"] = "f" * 64
    text = Page(render.index(summary)).text
    assert text.count("all 16 nodes") == 4
    assert "f" * 64 in text


# ---- pictures


def test_pictures_stay_pictures_on_paper(rendered: Callable[..., str]) -> None:
    """Where an output is a picture the rows that it keeps don't take its place on paper."""
    bundle = {show.TABLE_MIME: [wide(20)], "text/html": "<table><td>drawn</td></table>"}
    picture = v4.new_output("display_data", bundle, metadata=show.PICTURE)
    assert 'class="paper"' not in rendered(code("1", picture))
    assert 'class="paper"' in rendered(code("1", shown(**bundle)))


def test_the_index_draws_the_mesh_with_its_losses() -> None:
    """Loss is told where it was kept; a summary of an older run, which lacks it, is drawn all the same."""
    summary = load("passed")
    names = summary["tables"]["overlay"]["columns"][1:]
    assert "▲33%" not in Page(render.index(summary)).text
    data = [[source, *(33.3333 if source != to else 0.0 for to in names)] for source in names]
    summary["tables"]["overlay_loss"] = {"caption": "x", "columns": ["from", *names], "data": data}
    jsonschema.validate(summary, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert assert_safe(render.index(summary)).text.count("▲33%") == len(names) * (len(names) - 1)


def test_the_index_tells_when_what_happened() -> None:
    """The timeline has a lane for the phases and one a node; hostile steps are text; without times there is none."""
    summary = load("passed")
    begun = datetime.fromisoformat(summary["phases"][0]["started"]).timestamp()
    steps = [Step(begun + 0.5, SCRIPT, SCRIPT, "started"), Step(begun + 2, SCRIPT, SCRIPT, "failed", SCRIPT)]
    page = assert_safe(render.index(summary, steps))
    assert "Timeline" in page.text
    assert "Failed: " in page.text
    lanes = [a["class"] for _, a in page.tags if a.get("class", "").startswith("lane")]
    assert lanes == ["lane marks", "lane phase", "lane"]
    for phase in summary["phases"]:
        phase |= {"outcome": "not begun", "started": None, "ended": None, "took_s": None}
    assert "Timeline" not in Page(render.index(summary)).text


def test_outcomes_can_be_read() -> None:
    """Text on the chip of an outcome has a contrast of 4.5:1 at least."""
    for _, colour, background in render._OUTCOMES.values():
        low, high = sorted((luminance(colour), luminance(background)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (colour, background)


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_rendering_changes_no_summary() -> None:
    """A summary is the same after its page was made."""
    summary = load("sixteen")
    before = copy.deepcopy(summary)
    render.index(summary)
    assert summary == before
