"""The pages of a record: one a notebook, and the run at a glance.

A page is one file that loads nothing from anywhere and runs no script: opened a year later it looks the same.
"""

from __future__ import annotations

import functools
import html
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from runbook import errors, record, show
from runbook.pages import mesh_picture, page_links, paper, safe_html, timeline, timeline_picture
from runbook.plain_text import clean
from runbook.records import evidence, notebook_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import jinja2

    from runbook.journal import Step

__all__ = ["index", "notebook"]

#: An outcome -> (symbol, text colour, background).
_OUTCOMES = {
    "passed": show.CHIPS["ok"],
    "failed": show.CHIPS["failed"],
    "approval needed": ("!", *show.CHIPS["warning"][1:]),
    "running": ("…", *show.CHIPS["restart"][1:]),
    "not begun": ("·", *show.CHIPS["none"][1:]),
    "never ran": ("·", *show.CHIPS["warning"][1:]),
}
_STEPPED = "stepped"
_KINDS = {"run": "Run", "status": "Status run", _STEPPED: "Run, stepped through in JupyterLab,"}
_APPROVALS = {False: "none given", True: "given for every plan"}
#: All of more nodes than these are called all.
_FEW = 5
#: papermill's tag of the cells in which it notes an error; the page says the same in its header and at the cell.
_ERROR_NOTE = "papermill-error-cell-tag"
_WAITING = {errors.ApprovalRequired.__name__, errors.PlanChanged.__name__}
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


@functools.cache
def _templates() -> jinja2.Environment:
    import jinja2  # noqa: PLC0415

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("runbook", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else "" if value is None else value,
    )
    made.globals.update(chip=_chip, namespace=evidence.NAMESPACE)
    made.filters.update(duration=timeline.duration, when=_when, local=_local, terminal=safe_html.terminal)
    return made


def _chip(outcome: str) -> str:
    """An outcome with its symbol on its colour, as HTML."""
    symbol, colour, background = _OUTCOMES.get(outcome, _OUTCOMES["not begun"])
    style = f"color:{colour};background-color:{background}"
    return f'<span class="chip" style="{style}">{symbol} {html.escape(clean(outcome))}</span>'


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None


def _when(text: object, form: str = "%Y-%m-%d %H:%M:%S UTC") -> str:
    """A time of a record for people; "" where there is none."""
    time = _time(text)
    return time.strftime(form) if time else ""


def _took(started: object, ended: object) -> float | None:
    start, end = _time(started), _time(ended)
    return (end - start).total_seconds() if start and end else None


def _local(name: str) -> str:
    """The address of a file beside the page, whatever its name."""
    return quote(name, safe="/") if safe_html.is_local(name) else "#"


# ---- one notebook


@dataclass(frozen=True)
class _Output:
    """One output: its kind (html, text, stderr, error or image) and what is shown of it, as safe HTML.

    On paper it has another size ("", small, picture), or (rows) another form.
    """

    kind: str
    html: str
    size: str = ""
    paper: str = ""


@dataclass(frozen=True)
class _Cell:
    """One cell: prose, or code with its outcome ("" where it ran) and outputs; html is safe."""

    html: str
    code: bool = False
    number: int | None = None
    label: str = ""
    outcome: str = ""
    took_s: float | None = None
    outputs: tuple[_Output, ...] = ()


def notebook(path: Path) -> str:
    """Render one executed notebook as one HTML page.

    Args:
        path: `<records>/<cluster>/<time>/NN_name.ipynb`, as it was executed.

    Returns:
        The page. Links to notebooks lead to their pages; what a cell's output holds can neither run nor load anything.
    """
    book = notebook_file.read(path)
    executed = record.read(path)
    papermill = book.metadata.get("papermill", {})
    cells = list(_cells(book, page_links.notebooks(path, passed=executed.ok)))
    begun = papermill or any(cell.number for cell in cells)
    outcome = "passed" if executed.ok else _stop(executed.ename) if begun else "not begun"
    cluster = papermill.get("parameters", {}).get("cluster")
    folder = path.resolve().parent
    return _templates().get_template("record.html.j2").render(
        cluster=str(cluster["name"]) if isinstance(cluster, dict) and "name" in cluster else folder.parent.name,
        run=folder.name,
        file=path.name,
        title=_title(book) or path.stem,
        outcome=outcome,
        executed=executed,
        changes=executed.changes,
        started=papermill.get("start_time"),
        ended=papermill.get("end_time"),
        took_s=_took(papermill.get("start_time"), papermill.get("end_time")),
        cells=cells,
    )  # fmt: skip


def _stop(ename: str) -> str:
    """The outcome of what this error stopped."""
    return "approval needed" if ename in _WAITING else "failed"


def _title(book: notebook_file.Node) -> str:
    lines = (line for cell in book.cells if cell.cell_type == "markdown" for line in cell.source.splitlines())
    return next((str(line).removeprefix("# ").strip() for line in lines if line.startswith("# ")), "")


def _cells(book: notebook_file.Node, linked: set[str] | None) -> Iterator[_Cell]:
    markdown, code = safe_html.markdown(), safe_html.code()
    for cell in book.cells:
        tags = cell.metadata.get("tags", ())
        if _ERROR_NOTE in tags:
            continue
        if cell.cell_type == "markdown":
            yield _Cell(page_links.living(markdown(cell.source), linked))
        elif cell.cell_type == "code" and cell.source.strip():
            state = cell.metadata.get("papermill", {})
            names = [output.ename for output in cell.outputs if output.output_type == "error"]
            never = cell.execution_count is None
            yield _Cell(
                code(cell.source.strip("\n")),
                code=True,
                number=cell.execution_count,
                label="parameters of this run" if "injected-parameters" in tags else "",
                outcome=_stop(names[0]) if names else "never ran" if never else "",
                took_s=None if never else _took(state.get("start_time"), state.get("end_time")),
                outputs=tuple(_outputs(cell.outputs)),
            )


def _outputs(outputs: Sequence[notebook_file.Node]) -> Iterator[_Output]:
    for output in outputs:
        if output.output_type == "stream":
            yield _Output("stderr" if output.name == "stderr" else "text", safe_html.terminal(output.text))
        elif output.output_type == "error":
            lines = "\n".join(output.traceback) or f"{output.ename}: {output.evalue}"
            yield _Output("error", safe_html.terminal(lines))
        else:
            yield _shown(output.data, output.metadata)


def _shown(data: Mapping[str, Any], metadata: Mapping[str, Any]) -> _Output:
    if "text/html" in data:
        shown = safe_html.sanitised(data["text/html"])
        if metadata.get("text/html", {}).get("picture"):
            return _Output("html", shown, "picture")
        return _Output("html", shown, *_on_paper(data.get(show.TABLE_MIME, ())))
    for media_type in _PICTURES:
        if media_type in data and (address := safe_html.image(media_type, data[media_type])):
            return _Output("image", address)
    if "text/plain" in data:
        return _Output("text", safe_html.terminal(data["text/plain"]))
    kinds = ", ".join(data) or "no type"
    return _Output("text", safe_html.terminal(f"(an output of {kinds}: see the notebook)"))


def _on_paper(tables: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    size = paper.size(tables)
    return size, "".join(map(paper.rows_html, tables)) if size == "rows" else ""


# ---- the run at a glance


def index(summary: Mapping[str, Any], steps: Sequence[Step] = ()) -> str:
    """Render the run at a glance.

    Args:
        summary: What summary.json holds; also of a run that failed, or still runs.
        steps: What journal.jsonl holds, for the timeline.
    """
    tables = summary["tables"]
    phases = summary["phases"]
    meshes = mesh_picture.pictures(tables)
    return _templates().get_template("index.html.j2").render(
        summary=summary,
        kind=_KINDS.get(summary["kind"], summary["kind"]),
        approval=_approval(summary),
        took_s=_took(summary["started"], summary["ended"]),
        passed=sum(phase["outcome"] == "passed" for phase in phases),
        changes=sum(phase["changes"] or 0 for phase in phases),
        stopped=next((phase for phase in phases if phase["outcome"] in ("failed", "approval needed")), None),
        closing=[(name, tables[name] and _table(tables[name])) for name in ("endpoints", "leases")],
        timeline=timeline_picture.picture(steps, phases if summary["kind"] != _STEPPED else _without_times(phases)),
        mesh=meshes and mesh_picture.as_html(meshes),
        binaries=_binaries(summary["binaries"]),
    )  # fmt: skip


def _approval(summary: Mapping[str, Any]) -> str:
    if summary["kind"] == _STEPPED:
        return "asked for in JupyterLab, plan by plan"
    return _APPROVALS.get(summary["approve"], f"given for plan {summary['approve']}")


def _without_times(phases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Phases whose times are a person's: the timeline shows what was applied, not how long somebody thought."""
    return [{**phase, "started": None} for phase in phases]


def _table(kept: Mapping[str, Any]) -> _Output:
    columns = [str(name) for name in kept["columns"]]
    rows = [dict(zip(columns, row, strict=True)) for row in kept["data"]]
    table = show.table(rows, columns, str(kept["caption"]))
    return _Output("html", clean(show.table_html(table)), *_on_paper([kept]))


def _binaries(rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The binaries, those that are the same on several nodes as one; a node with another one stands out."""
    same: dict[tuple[Any, ...], list[str]] = {}
    names = ("path", "version", "sha256", "source", "compared_with")
    for row in rows:
        same.setdefault(tuple(row[name] for name in names), []).append(str(row["node"]))
    every = len({row["node"] for row in rows})
    found = [
        {
            **dict(zip(names, key, strict=True)),
            "name": PurePosixPath(str(key[0])).name,
            "where": f"all {every} nodes" if len(nodes) == every > _FEW else ", ".join(nodes),
        }
        for key, nodes in same.items()
    ]
    return sorted(found, key=lambda one: (one["name"], str(one["path"])))
