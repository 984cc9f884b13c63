"""A table as plain text in a box, as wide as its text or as the page: what a notebook keeps for viewers without HTML.

As rich draws it, which is made for colours and terminals and takes ten times as long; a notebook has many tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len, chop_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: A column is not made narrower than this.
_LEAST = 4


class Drawn(NamedTuple):
    """A table of texts, which may have lines.

    Attributes:
        caption: Stands above it; "" for none.
        names: The columns' names.
        right: Which columns stand to the right.
        rows: Each cell's text, and the word of its chip ("" for none).
    """

    caption: str
    names: list[str]
    right: list[bool]
    rows: list[list[tuple[str, str]]]


def boxed(table: Drawn, width: int) -> str:
    """Draw a table in that many characters' room; texts that are too long for it are broken."""
    if not table.names:
        return table.caption
    rows = [[text for text, _ in row] for row in table.rows]
    widths = _widths([table.names, *rows], width - 3 * len(table.names) - 1)
    head = _lines(table.names, widths, table.right, "┃")
    body = [line for row in rows for line in _lines(row, widths, table.right, "│")]
    rules = ["━" * (one + 2) for one in widths]
    thin = ["─" * (one + 2) for one in widths]
    drawn = [f"┏{'┳'.join(rules)}┓", *head, f"┡{'╇'.join(rules)}┩", *body, f"└{'┴'.join(thin)}┘"]
    return "\n".join([table.caption, *drawn] if table.caption else drawn)


def _widths(rows: Iterable[Sequence[str]], room: int) -> list[int]:
    """The columns' widths: those of their texts, the widest made narrower until all have room."""
    lines = [[line for text in column for line in text.split("\n")] for column in zip(*rows, strict=True)]
    widths = [max(map(cell_len, column)) for column in lines]
    while sum(widths) > room and max(widths) > _LEAST:
        widest = max(widths)
        second = max((one for one in widths if one < widest), default=_LEAST)
        at = [place for place, one in enumerate(widths) if one == widest]
        narrower = max(second, _LEAST, widest - -(-(sum(widths) - room) // len(at)))
        for place in at:
            widths[place] = narrower
    return widths


def _lines(row: Sequence[str], widths: Sequence[int], right: Sequence[bool], side: str) -> Iterator[str]:
    """The lines of a row."""
    cells = [_folded(text, width) for text, width in zip(row, widths, strict=True)]
    for number in range(max(map(len, cells))):
        parts = []
        for cell, width, to_right in zip(cells, widths, right, strict=True):
            text = cell[number] if number < len(cell) else ""
            gap = " " * (width - cell_len(text))
            parts.append(f" {gap}{text} " if to_right else f" {text}{gap} ")
        yield f"{side}{side.join(parts)}{side}"


def _folded(text: str, width: int) -> list[str]:
    """The lines of a text, broken between words, or in a word that is longer than a line."""
    folded: list[str] = []
    for line in text.split("\n"):
        if cell_len(line) <= width:
            folded.append(line)
            continue
        current = ""
        for word in line.split(" "):
            if current and cell_len(current) + 1 + cell_len(word) <= width:
                current += f" {word}"
                continue
            folded += [current] if current else []
            *full, current = chop_cells(word, width) or [""]
            folded += full
        folded.append(current)
    return folded
