"""How tables, plans and progress look, in a notebook, in a terminal and in HTML: the one place that decides.

JupyterLab strips styles, classes and SVG from the output of a notebook that papermill ran, so tables are plain HTML
with inline styles; chips carry their own background, so they read well in light and dark themes; a symbol and a word
stand beside each colour. Everything that comes from params or a node is escaped here.
"""

from __future__ import annotations

import html
import io
import json
import re
import sys
from numbers import Integral
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from runbook.ssh import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

#: word -> (symbol, text colour, background): contrast at least 4.5:1 each.
CHIPS = {
    "create": ("+", "#116329", "#dafbe1"),
    "start": ("+", "#116329", "#dafbe1"),
    "change": ("~", "#6b4e00", "#fff8c5"),
    "renew": ("~", "#6b4e00", "#fff8c5"),
    "restart": ("↻", "#0a3069", "#ddf4ff"),
    "reload": ("↻", "#0a3069", "#ddf4ff"),
    "enable": ("~", "#6b4e00", "#fff8c5"),
    "none": ("=", "#424a53", "#eaeef2"),
    "done": ("✓", "#116329", "#dafbe1"),
    "ok": ("✓", "#116329", "#dafbe1"),
    "warning": ("!", "#6b4e00", "#fff8c5"),
    "failed": ("✗", "#a40e26", "#ffebe9"),
    "not done": ("✗", "#a40e26", "#ffebe9"),
}
_RICH = {"#116329": "green", "#6b4e00": "yellow", "#0a3069": "cyan", "#424a53": "dim", "#a40e26": "red"}
_CELL = "padding:2px 8px;vertical-align:top;text-align:"
#: What is shortened to its two ends: checksums and serials. A fingerprint is there to be compared, a path to be read.
_ID = re.compile("[0-9a-f]{32,}")
_ENDS = 8
#: A table of more columns than this stands on its side in a terminal: a line a column, a column a row.
_WIDE = 10
#: A list longer than this is shown by its length and first entries.
_MANY = 4
#: What a notebook keeps of a table and of a plan for programs.
TABLE_MIME = "application/vnd.runbook.table+json"
PLAN_COLUMNS = ("node", "resource", "action", "why", "current", "desired")
PLAN_MIME = "application/vnd.runbook.plan+json"


class Table(pd.DataFrame):
    """A DataFrame that shows itself our way; filtering and slicing it gives a Table again."""

    _metadata = ["caption"]  # noqa: RUF012 - pandas' own protocol
    caption: str = ""

    @property
    def _constructor(self) -> Callable[..., Table]:
        return Table

    def _repr_html_(self) -> str:
        return table_html(self)

    def _repr_mimebundle_(self, **_options: object) -> dict[str, Any]:
        # The data itself goes into the record too: a summary reads numbers, not HTML.
        return {TABLE_MIME: [kept(self)], "text/html": table_html(self), "text/plain": table_text(self)}

    def __repr__(self) -> str:
        return table_text(self)


class Beside:
    """Tables that are shown beside each other."""

    def __init__(self, *tables: Table) -> None:
        self.tables = tables

    def _repr_mimebundle_(self, **_options: object) -> dict[str, Any]:
        cells = "".join(f'<td style="vertical-align:top">{table_html(one)}</td>' for one in self.tables)
        shown = {"text/html": f"<table><tr>{cells}</tr></table>", "text/plain": repr(self)}
        return {TABLE_MIME: [kept(one) for one in self.tables], **shown}

    def __repr__(self) -> str:
        return "\n".join(map(table_text, self.tables))


def kept(data: Table) -> dict[str, Any]:
    """What a notebook keeps of a table for programs: caption, columns and data as JSON values."""
    values = json.loads(data.to_json(orient="split", index=False, default_handler=str))
    return {"caption": data.caption, **values}


def rows(data: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as mappings by column name."""
    return [{str(name): value for name, value in row.items()} for row in data.to_dict("records")]


def table(rows: Iterable[Mapping[str, Any]], columns: Iterable[str], caption: str = "") -> Table:
    """Make a Table of rows with these columns, in this order; failing rows (`ok` is false) come first.

    Args:
        rows: One mapping a row; a missing key is an empty cell.
        columns: Column names; units are part of a name (`took_ms`).
        caption: What the table shows, in a few words.
    """
    kept = list(rows)
    made = Table(kept, columns=pd.Index(list(columns)))
    for name in made.columns:
        # pandas would turn whole numbers beside an empty cell into floats.
        values = [row[name] for row in kept if row.get(name) is not None]
        if len(values) < len(kept) and values and all(type(value) is int for value in values):
            made[name] = made[name].astype("Int64")
    if "ok" in made.columns and len(made):
        made = made.sort_values("ok", kind="stable", ignore_index=True)
    made.caption = caption
    return made


def plan_table(headline: str, changes: Iterable[Mapping[str, Any]]) -> Table:
    """A plan's changes as a table; a change on this side has no node."""
    rows = [{**change, "node": change["node"] or "(here)"} for change in changes]
    return table(rows, PLAN_COLUMNS, headline)


def _text(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and pd.isna(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"  # noqa: PLR2004 - three digits are enough
    if isinstance(value, list | tuple):
        many = len(value) > _MANY
        named = ", ".join(map(_text, value[:2] if many else value))
        return f"{len(value)}: {named}, …" if many else named
    return clean(str(value))


def _shown(column: Hashable, value: object) -> tuple[str, str]:
    """A cell's text, and the whole of it where that was shortened ('' otherwise)."""
    if isinstance(value, Integral) and str(column).endswith("bytes"):
        return f"{value:,}", ""
    text = _text(value)
    if isinstance(value, list | tuple) and len(value) > _MANY:
        return text, clean(", ".join(map(str, value)))
    if _ID.fullmatch(text):
        return f"{text[:_ENDS]}…{text[-_ENDS:]}", text
    return text, ""


def _word(column: Hashable, value: object) -> str:
    """The chip's word of a cell, or '' where the cell is plain text."""
    if column == "ok":
        return "ok" if value is True or str(value) == "True" else "failed"
    return str(value) if column in ("action", "result", "state") and str(value) in CHIPS else ""


def chip(word: str) -> str:
    """A word with its symbol on its colour, as HTML."""
    symbol, colour, background = CHIPS[word]
    style = f"color:{colour};background-color:{background};padding:0 6px;border-radius:6px;white-space:nowrap"
    return f'<span style="{style}">{symbol} {html.escape(word)}</span>'


def _cell(column: Hashable, value: object) -> str:
    if word := _word(column, value):
        return f'<td style="{_CELL}left">{chip(word)}</td>'
    text, whole = _shown(column, value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    title = f' title="{html.escape(whole)}"' if whole else ""
    style = f"{_CELL}{'right' if number else 'left'};white-space:pre-wrap"
    return f'<td style="{style}"{title}>{html.escape(text)}</td>'


def _filled(data: pd.DataFrame) -> pd.DataFrame:
    """The table without the columns that are empty in every row; the data itself keeps them."""
    empty = [name for name in data.columns if all(_text(value) == "" for value in data[name])]
    return data.drop(columns=empty) if len(data) else data


def table_html(data: pd.DataFrame) -> str:
    """A table as HTML with inline styles, a caption and header scopes."""
    caption = html.escape(clean(getattr(data, "caption", "") or ""))
    data = _filled(data)
    head = "".join(f'<th scope="col" style="{_CELL}left">{html.escape(clean(str(name)))}</th>' for name in data.columns)
    body = "".join(
        "<tr>" + "".join(_cell(name, value) for name, value in zip(data.columns, row, strict=True)) + "</tr>"
        for row in data.itertuples(index=False, name=None)
    )
    title = f'<caption style="text-align:left;font-weight:bold;padding:4px 8px">{caption}</caption>'
    return f'<table style="border-collapse:collapse">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def terminal_table(data: pd.DataFrame) -> RichTable:
    """A table for a terminal; a wide one of few rows stands on its side."""
    # Text, not strings: rich reads markup and emoji names (`:a:` in an address) out of those.
    caption = Text(clean(getattr(data, "caption", "") or ""))
    data = _filled(data)
    turned = len(data.columns) > _WIDE and len(data) < _WIDE and bool(data.iloc[:, 0].is_unique)
    if turned:
        data = data.astype(object).set_index(data.columns[0]).T.reset_index(names=str(data.columns[0]))
    made = RichTable(title=caption, title_justify="left", title_style="bold")
    for name in data.columns:
        made.add_column(
            Text(clean(str(name))), justify="right" if data[name].dtype.kind in "if" else "left", overflow="fold"
        )
    for row in data.itertuples(index=False, name=None):
        cells: list[Text] = []
        for name, value in zip(data.columns, row, strict=True):
            column = row[0] if turned and name != data.columns[0] else name
            if word := _word(column, value):
                symbol, colour, _ = CHIPS[word]
                cells.append(Text(f"{symbol} {word}", _RICH[colour]))
            else:
                cells.append(Text(_shown(column, value)[0]))
        made.add_row(*cells)
    return made


def console(*, stderr: bool = False) -> Console:
    """The console of the command line; piped into a file a table still needs room: rich would take 80 columns."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, emoji=False, soft_wrap=True, width=None if terminal else 160)


def table_text(data: pd.DataFrame, width: int = 160) -> str:
    """A table as plain text: what a notebook keeps for viewers without HTML."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, legacy_windows=False, force_jupyter=False).print(
        terminal_table(data)
    )
    return buffer.getvalue().rstrip()


def diff_html(diff: str) -> str:
    """A unified diff as HTML: lines added and removed carry a sign and a colour."""
    colours = {"+": CHIPS["create"], "-": CHIPS["failed"], "@": CHIPS["restart"]}
    lines = []
    for line in diff.splitlines():
        _, colour, background = colours.get(line[:1], ("", "inherit", "transparent"))
        lines.append(f'<span style="color:{colour};background-color:{background}">{html.escape(clean(line))}</span>')
    return '<pre style="margin:4px 0 8px 16px;line-height:1.3">' + "\n".join(lines) + "</pre>"


def display(shown: object) -> None:
    """Show something where there is a notebook to show it in; elsewhere the caller has the value."""
    from IPython.core.getipython import get_ipython  # noqa: PLC0415 - the command line need not load IPython

    if get_ipython() is not None:
        from IPython.display import display as ipython_display  # noqa: PLC0415

        ipython_display(shown)  # type: ignore[no-untyped-call]  # IPython has no types here


def notes_html(notes: Iterable[str], word: str = "warning") -> str:
    """Notes beside a table, a chip and a line each."""
    return "".join(f"<p>{chip(word)} {html.escape(clean(note))}</p>" for note in notes)


def json_rows(data: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as JSON values: no NaN, no numpy types."""
    made: list[dict[str, Any]] = json.loads(data.to_json(orient="records", default_handler=str))
    return made
