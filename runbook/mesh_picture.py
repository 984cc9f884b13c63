"""The ping mesh as a picture: a table whose cells are coloured by round-trip time, and what it shows in words."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_INK = "#0b1f33"
#: Up to this round-trip time in ms, this background: steps of half a decade, so pictures of two runs compare.
STEPS = (
    (0.1, "#f1f7fe"),
    (0.3, "#dceafb"),
    (1.0, "#c3dcf8"),
    (3.0, "#a5caf4"),
    (10.0, "#85b6ee"),
    (30.0, "#66a1e6"),
    (math.inf, "#4a8cdb"),
)
_OWN = ("#424a53", "#eaeef2")
_DEAD = ("#ffffff", "#8b0a1e")
#: So many silent pairs are named in words.
_NAMED = 8


@dataclass(frozen=True)
class Cell:
    """One pair: its text, colours, and the whole of it in words; `dead` where there was no answer."""

    text: str
    title: str
    colour: str
    background: str
    dead: bool = False

    @property
    def style(self) -> str:
        """The inline style."""
        return f"color:{self.colour};background-color:{self.background}"


@dataclass(frozen=True)
class Picture:
    """One network's mesh.

    Attributes:
        name: overlay or underlay.
        names: The nodes that were pinged, in the columns' order.
        rows: A pinging node and its cells each.
        words: What the picture shows, in a sentence.
    """

    name: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    words: str


def legend() -> Iterator[Cell]:
    """The steps, each with its bounds in ms."""
    for (bound, background), (before, _) in zip(STEPS, ((0.0, ""), *STEPS), strict=False):
        text = f"≤ {bound:g}" if math.isfinite(bound) else f"> {before:g}"
        yield Cell(text, f"{text} ms", _INK, background)
    yield Cell("✗", "no answer", *_DEAD, dead=True)


def _rtt(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _cell(source: str, target: str, value: object) -> Cell:
    rtt = _rtt(value)
    if rtt is None:
        return Cell("✗", f"{source} → {target}: no answer", *_DEAD, dead=True)
    if source == target:
        return Cell("—", f"{source}: its own address", *_OWN)
    background = next(colour for bound, colour in STEPS if rtt <= bound)
    digits = 2 if rtt < 10 else 1 if rtt < 100 else 0  # noqa: PLR2004 - three digits are enough
    return Cell(f"{rtt:.{digits}f}", f"{source} → {target}: {rtt:g} ms", _INK, background)


def picture(name: str, table: Mapping[str, Any]) -> Picture:
    """Make the picture of one network.

    Args:
        name: overlay or underlay.
        table: A closing table of a summary: columns `from` and one a node, round-trip times in ms, null for no answer.
    """
    names = tuple(str(one) for one in table["columns"][1:])
    grid = {(str(row[0]), to): value for row in table["data"] for to, value in zip(names, row[1:], strict=True)}
    rows = tuple(
        (source, tuple(_cell(source, to, grid[source, to]) for to in names))
        for source in (str(row[0]) for row in table["data"])
    )
    dead = [pair for pair, value in grid.items() if _rtt(value) is None]
    times = {pair: rtt for pair, value in grid.items() if (rtt := _rtt(value)) is not None and pair[0] != pair[1]}
    words = []
    if dead:
        named = ", ".join(f"{source} → {to}" for source, to in dead[:_NAMED])
        more = f" and {len(dead) - _NAMED} more" if len(dead) > _NAMED else ""
        words.append(f"No answer from {len(dead)} of {len(dead) + len(times)} pairs: {named}{more}.")
    if times:
        (source, to), slowest = max(times.items(), key=lambda item: item[1])
        median = statistics.median(times.values())
        every = "Every pair answers" if not dead else f"{len(times)} answer"
        words.append(f"{every}: median {median:.2f} ms, slowest {source} → {to} with {slowest:.2f} ms.")
    return Picture(name, names, rows, " ".join(words))
