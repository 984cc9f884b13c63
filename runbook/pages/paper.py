"""Tables on paper, where nothing scrolls and no title pops up: as they are, in small print, or a paragraph a row."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

from runbook import show
from runbook.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Characters across an A4 page that a table has at its usual and at its small size.
_USUAL, _SMALL = 98, 122
#: A cell's padding in characters.
_PADDING = 2.5
#: show shortens a longer word to this; it shows so many entries of a list.
_LONG, _SHORT, _ENTRIES = 31, 17, 2


def size(tables: Iterable[Mapping[str, Any]]) -> str:
    """How these tables go on paper: as they are ("fits"), "small", or "rows" where too wide; "" where there is none."""
    widest = max(map(_width, tables), default=None)
    if widest is None:
        return ""
    return "fits" if widest <= _USUAL else "small" if widest <= _SMALL else "rows"


def rows_html(table: Mapping[str, Any]) -> str:
    """A table as a paragraph a row; each value whole, empty ones left out."""
    columns = [str(name) for name in table["columns"]]
    made = [f'<p class="caption">{html.escape(clean(str(table["caption"])))}</p>']
    for row in table["data"]:
        first, *rest = zip(columns, row, strict=True)
        named = [f"<strong>{_value(*first)}</strong>"]
        named += [
            f'<span class="pair"><span class="quiet">{html.escape(clean(name))}</span> {_value(name, value)}</span>'
            for name, value in rest
            if _text(value)
        ]
        made.append(f'<p class="row">{" ".join(named)}</p>')
    return "".join(made)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return clean(str(value))


def _value(name: str, value: object) -> str:
    if name == "ok":
        return show.chip("ok" if value is True else "failed")
    if isinstance(value, int) and name.endswith("bytes"):
        return f"{value:,}"
    return html.escape(_text(value))


def _width(table: Mapping[str, Any]) -> float:
    """The narrowest that a table can be, in characters: each column's longest word, and the padding."""
    shown = [column for column in zip(table["columns"], *table["data"], strict=True) if any(map(_text, column[1:]))]
    return sum(max(map(_longest, column)) + _PADDING for column in shown)


def _longest(value: object) -> int:
    text = _text(value[:_ENTRIES] if isinstance(value, list | tuple) else value)
    if len(text) > _LONG and " " not in text:
        return _SHORT
    return max(map(len, re.split(r"(?<=[\s/-])", text)))
