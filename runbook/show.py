"""How tables, plans and progress look, in a notebook, in a terminal and in HTML: the one place that decides.

JupyterLab strips styles, classes and SVG from the output of a notebook that papermill ran, so tables are plain HTML
with inline styles; chips carry their own background, so they read well in light and dark themes; a symbol and a word
stand beside each colour. Everything that comes from params or a node is escaped here.
"""

from __future__ import annotations

import html
import importlib
import itertools
import json
import math
import re
import sys
from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from runbook.plain_text import clean
from runbook.text_table import Drawn, boxed

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    import pandas as pd

    from runbook.frames import Picture as Picture  # noqa: PLC0414 - a name of this module
    from runbook.frames import Table as Table  # noqa: PLC0414 - as above

#: word -> (symbol, text colour, background): contrast at least 4.5:1 each.
CHIPS = {
    "create": ("+", "#116329", "#dafbe1"),
    "start": ("+", "#116329", "#dafbe1"),
    "change": ("~", "#6b4e00", "#fff8c5"),
    "renew": ("~", "#6b4e00", "#fff8c5"),
    "restart": ("↻", "#0a3069", "#ddf4ff"),
    "reload": ("↻", "#0a3069", "#ddf4ff"),
    "enable": ("~", "#6b4e00", "#fff8c5"),
    "disable": ("~", "#6b4e00", "#fff8c5"),
    "none": ("=", "#424a53", "#eaeef2"),
    "done": ("✓", "#116329", "#dafbe1"),
    "ok": ("✓", "#116329", "#dafbe1"),
    "note": ("i", "#0a3069", "#ddf4ff"),
    "warning": ("!", "#6b4e00", "#fff8c5"),
    "failed": ("✗", "#a40e26", "#ffebe9"),
    "not done": ("✗", "#a40e26", "#ffebe9"),
    "left out": ("=", "#424a53", "#eaeef2"),
    "WAITING": ("!", "#6b4e00", "#fff8c5"),
    "running": ("↻", "#0a3069", "#ddf4ff"),
}
_RICH = {"#116329": "green", "#6b4e00": "yellow", "#0a3069": "cyan", "#424a53": "dim", "#a40e26": "red"}
_CELL = "padding:2px 8px;vertical-align:top;text-align:"
#: What is shortened to its two ends: checksums, serials, UUIDs; not a fingerprint (to be compared) or a path.
_ID = re.compile("[0-9a-f]{32,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ENDS = 8
#: A time in two lines is hard to read.
_TIME = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2} ")
#: A table of more columns than this stands on its side in a terminal: a line a column, a column a row.
_WIDE = 10
#: A list longer than this is shown by its length and first entries.
_MANY = 4
#: What a notebook keeps of a table and of a plan for programs.
TABLE_MIME = "application/vnd.runbook.table+json"
#: The metadata of an output whose HTML shows more than the rows that are kept of it.
PICTURE = {"text/html": {"picture": True}}
PLAN_COLUMNS = ("node", "resource", "action", "why", "current", "desired")
PLAN_MIME = "application/vnd.runbook.plan+json"


def __getattr__(name: str) -> object:
    """Give Table and Picture when asked for: pandas takes a second to import, and a run itself makes no table."""
    if name not in ("Table", "Picture"):
        raise AttributeError(f"module 'runbook.show' has no attribute {name!r}")
    return getattr(importlib.import_module("runbook.frames"), name)


def kept(data: Table) -> dict[str, Any]:
    """What a notebook keeps of a table for programs: caption, columns and data as JSON values."""
    values = json.loads(data.to_json(orient="split", index=False, default_handler=str))
    return {"caption": data.caption, **values}


def rows(data: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as mappings by column name."""
    return [{str(name): value for name, value in row.items()} for row in data.to_dict("records")]


def table(rows: Iterable[Mapping[str, Any]], columns: Iterable[str], caption: str = "") -> Table:
    """Make a Table of rows with these columns, in this order; failing rows (`ok` is not true) come first.

    A yes or no that is unknown in some rows is a nullable boolean, so that `endpoints[endpoints.leader]` works.

    Args:
        rows: One mapping a row; a missing key is an empty cell.
        columns: Column names; units are part of a name (`took_ms`).
        caption: What the table shows, in a few words.
    """
    import pandas as pd  # noqa: PLC0415 - only who makes a table waits for it

    from runbook.frames import Table  # noqa: PLC0415

    kept = list(rows)
    made = Table(kept, columns=pd.Index(list(columns)))
    for name in made.columns:
        # pandas would turn whole numbers beside an empty cell into floats.
        values = [row[name] for row in kept if row.get(name) is not None]
        if len(values) < len(kept) and values and all(type(value) is int for value in values):
            made[name] = made[name].astype("Int64")
        elif len(values) < len(kept) and values and all(type(value) is bool for value in values):
            made[name] = made[name].astype("boolean")
    if "ok" in made.columns and len(made):
        made = made.sort_values("ok", kind="stable", ignore_index=True, key=lambda ok: ok.isin([True]))
    made.caption = caption
    return made


def plan_table(headline: str, changes: Iterable[Mapping[str, Any]]) -> Table:
    """A plan's changes as a table; a change on this side has no node."""
    rows = [{**change, "node": change["node"] or "(here)"} for change in changes]
    return table(rows, PLAN_COLUMNS, headline)


def _text(value: object) -> str:
    if value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value)):
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


def chip(word: str, text: str = "") -> str:
    """A word, or another text in its place, with the word's symbol on its colour, as HTML."""
    symbol, colour, background = CHIPS[word]
    style = f"color:{colour};background-color:{background};padding:0 6px;border-radius:6px;white-space:nowrap"
    return f'<span style="{style}">{symbol} {html.escape(clean(text or word))}</span>'


def _numbers(values: Iterable[object]) -> bool:
    """Whether a column holds numbers and nothing else: those stand to the right, under their name."""
    there = [value for value in values if _text(value)]
    return bool(there) and all(isinstance(value, Real) and not isinstance(value, bool) for value in there)


def _cell(column: Hashable, value: object, align: str, *, head: bool) -> str:
    tag, weight = ('th scope="row"', ";font-weight:normal") if head else ("td", "")
    text, whole = _shown(column, value)
    inner = chip(word) if (word := _word(column, value)) else html.escape(text)
    title = f' title="{html.escape(whole)}"' if whole else ""
    style = (
        f"{_CELL}{align};white-space:{'nowrap' if _ID.fullmatch(whole) or _TIME.match(text) else 'pre-wrap'}{weight}"
    )
    return f'<{tag} style="{style}"{title}>{inner}</{tag[:2]}>'


class _Plain(NamedTuple):
    """What is shown of a table: its caption, and the columns that are not empty in every row."""

    caption: str
    columns: list[Hashable]
    rows: list[tuple[Any, ...]]

    def column(self, place: int) -> list[Any]:
        """The values of a column."""
        return [row[place] for row in self.rows]


def _plain(data: pd.DataFrame | Mapping[str, Any]) -> _Plain:
    if isinstance(data, Mapping):
        caption, columns, rows = data["caption"], list(data["columns"]), [tuple(row) for row in data["data"]]
    else:
        caption, columns = getattr(data, "caption", ""), list(data.columns)
        rows = list(zip(*(column.tolist() for _, column in data.items()), strict=True))
    there = [place for place in range(len(columns)) if not rows or any(_text(row[place]) for row in rows)]
    shown = [tuple(row[place] for place in there) for row in rows]
    return _Plain(clean(str(caption or "")), [columns[place] for place in there], shown)


def table_html(data: pd.DataFrame | Mapping[str, Any], below: Sequence[str] = ()) -> str:
    """A table as HTML with inline styles, a caption and header scopes; the first column names the row.

    Args:
        data: The table, or what is kept of it.
        below: HTML that stands under each row, over its whole width; "" for none.
    """
    plain = _plain(data)
    caption = html.escape(plain.caption)
    aligned = ["right" if _numbers(plain.column(place)) else "left" for place in range(len(plain.columns))]
    head = "".join(
        f'<th scope="col" style="{_CELL}{align}">{html.escape(clean(str(name)))}</th>'
        for name, align in zip(plain.columns, aligned, strict=True)
    )
    body = ""
    for row, under in itertools.zip_longest(plain.rows, below, fillvalue=""):
        cells = enumerate(zip(plain.columns, row, aligned, strict=True))
        body += f"<tr>{''.join(_cell(*one, head=place == 0) for place, one in cells)}</tr>"
        body += f'<tr><td colspan="{len(aligned)}" style="{_CELL}left">{under}</td></tr>' if under else ""
    title = f'<caption style="text-align:left;font-weight:bold;padding:4px 8px">{caption}</caption>'
    return f'<table style="border-collapse:collapse">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _drawn(data: pd.DataFrame | Mapping[str, Any]) -> Drawn:
    """What is drawn of a table as text; a wide one of few rows stands on its side."""
    caption, columns, rows = plain = _plain(data)
    turned = len(columns) > _WIDE and len(rows) < _WIDE and len(set(map(str, plain.column(0)))) == len(rows)
    if turned:
        plain = _Plain(caption, [columns[0], *plain.column(0)], list(zip(columns, *rows, strict=True))[1:])
    drawn: list[list[tuple[str, str]]] = []
    for row in plain.rows:
        names = [row[0] if turned and place else name for place, name in enumerate(plain.columns)]
        words = [_word(name, value) for name, value in zip(names, row, strict=True)]
        texts = (_shown(name, value)[0] for name, value in zip(names, row, strict=True))
        chips = [f"{CHIPS[word][0]} {word}" if word else text for text, word in zip(texts, words, strict=True)]
        drawn.append(list(zip(chips, words, strict=True)))
    right = [_numbers(plain.column(place)) for place in range(len(plain.columns))]
    return Drawn(caption, [clean(str(name)) for name in plain.columns], right, drawn)


def terminal_table(data: pd.DataFrame | Mapping[str, Any]) -> RichTable:
    """A table, or what is kept of it, for a terminal; a wide one of few rows stands on its side."""
    drawn = _drawn(data)
    # Text, not strings: rich reads markup and emoji names (`:a:` in an address) out of those.
    made = RichTable(title=Text(drawn.caption), title_justify="left", title_style="bold")
    for name, right in zip(drawn.names, drawn.right, strict=True):
        made.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    for row in drawn.rows:
        made.add_row(*(Text(text, _RICH[CHIPS[word][1]]) if word else Text(text) for text, word in row))
    return made


def console(*, stderr: bool = False) -> Console:
    """The console of the command line; piped into a file a table still needs room: rich would take 80 columns."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, emoji=False, soft_wrap=True, width=None if terminal else 160)


def table_text(data: pd.DataFrame, width: int = 160) -> str:
    """A table as plain text: what a notebook keeps for viewers without HTML."""
    return boxed(_drawn(data), width)


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
    return list(json.loads(data.to_json(orient="records", default_handler=str)))
