"""The ping mesh as heatmaps, overlay and underlay: the same picture in a notebook, in a record's index and as text.

Cells are coloured by round-trip time; each has it as text, with the loss below it where there was any. All styles are
inline: JupyterLab strips anything else from the output of a notebook that papermill ran.
"""

from __future__ import annotations

import html
import io
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from runbook import show
from runbook.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
_LOSSY = ("#5c3d00", "#ffdf5d")
_DEAD = ("#ffffff", "#8b0a1e")
#: So many silent or lossy pairs are named in words.
_NAMED = 8
#: A mesh of more nodes has numbers for its columns, and stands above the other one, not beside it.
_FEW = 6
_ALL_LOST = 100
_NETWORKS = ("overlay", "underlay")
_INTRO = (
    "Round-trip time in ms of a ping from the node of the row to the node of the column; ▲ and the percentage that was"
    " lost, where any was. Overlay: the addresses that flannel gives. Underlay: the nodes' own."
)


@dataclass(frozen=True)
class Cell:
    """One pair: its text (of up to two lines), its colours and the whole of it in words; `dead` if nothing answered."""

    text: str
    title: str
    colour: str
    background: str
    dead: bool = False

    @property
    def style(self) -> str:
        """The inline style of its colours."""
        return f"color:{self.colour};background-color:{self.background}"


@dataclass(frozen=True)
class Picture:
    """One network's mesh.

    Attributes:
        name: overlay or underlay.
        names: The nodes that were pinged, in the columns' order.
        rows: A pinging node and its cells each.
        words: What the picture shows, in a sentence or two.
    """

    name: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    words: str


class Heatmaps:
    """Both networks' heatmaps, as a notebook shows them; the tables behind them are kept for programs."""

    def __init__(self, tables: Mapping[str, show.Table]) -> None:
        """Take tables N x N: `overlay` and `underlay` in ms, `overlay_loss` and `underlay_loss` in percent."""
        self.tables = dict(tables)

    def pictures(self) -> list[Picture]:
        """The pictures, of the networks that there are tables of."""
        return pictures({name: show.kept(one) for name, one in self.tables.items()})

    def _repr_html_(self) -> str:
        return as_html(self.pictures())

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        kept = [show.kept(one) for one in self.tables.values()]
        shown = {"text/html": self._repr_html_(), "text/plain": repr(self)}
        return {show.TABLE_MIME: kept, **shown}, show.PICTURE

    def __repr__(self) -> str:
        return as_text(self.pictures())


def pictures(tables: Mapping[str, Any]) -> list[Picture]:
    """Make the pictures of a summary's closing tables.

    Args:
        tables: `overlay`, `underlay` and, where kept, `overlay_loss`, `underlay_loss`; one that is None is left out.
    """
    return [picture(name, tables[name], tables.get(f"{name}_loss")) for name in _NETWORKS if tables.get(name)]


def picture(name: str, table: Mapping[str, Any], loss: Mapping[str, Any] | None = None) -> Picture:
    """Make the picture of one network.

    Args:
        name: overlay or underlay.
        table: Columns `from` and one a node, round-trip times in ms, null for no answer.
        loss: The same in percent; None where it was not kept.
    """
    names = tuple(str(one) for one in table["columns"][1:])
    grid, lost = _grid(table), _grid(loss) if loss else {}
    rows = tuple(
        (source, tuple(_cell(source, to, grid[source, to], lost.get((source, to))) for to in names))
        for source in (str(row[0]) for row in table["data"])
    )
    return Picture(name, names, rows, " ".join(_words(grid, lost)))


def legend() -> Iterator[Cell]:
    """The steps, each with its bounds in ms, and the looks of loss."""
    for (bound, background), (before, _) in zip(STEPS, ((0.0, ""), *STEPS), strict=False):
        text = f"≤ {bound:g}" if math.isfinite(bound) else f"> {before:g}"
        yield Cell(text, f"{text} ms", _INK, background)
    yield Cell("▲ some lost", "some pings were lost", *_LOSSY)
    yield Cell("✗ no answer", "no answer", *_DEAD, dead=True)


def _grid(table: Mapping[str, Any]) -> dict[tuple[str, str], float | None]:
    names = [str(one) for one in table["columns"][1:]]
    return {
        (str(row[0]), to): _number(value) for row in table["data"] for to, value in zip(names, row[1:], strict=True)
    }


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _cell(source: str, target: str, rtt: float | None, loss: float | None) -> Cell:
    pair = f"{source} → {target}"
    if rtt is None:
        return Cell("✗" if loss is None else f"✗ {loss:.0f}%", f"{pair}: no answer", *_DEAD, dead=True)
    own = source == target
    digits = 2 if rtt < 10 else 1 if rtt < 100 else 0  # noqa: PLR2004 - three digits are enough
    text = "—" if own else f"{rtt:.{digits}f}"
    title = f"{source}: its own address" if own else f"{pair}: {rtt:g} ms"
    if loss:
        return Cell(f"{text}\n▲{loss:.0f}%", f"{title}, {loss:.0f}% lost", *_LOSSY)
    if own:
        return Cell(text, title, *_OWN)
    return Cell(text, title, _INK, next(colour for bound, colour in STEPS if rtt <= bound))


def _words(grid: Mapping[tuple[str, str], float | None], lost: Mapping[tuple[str, str], float | None]) -> Iterator[str]:
    def named(pairs: Sequence[str]) -> str:
        more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
        return f"{', '.join(pairs[:_NAMED])}{more}"

    dead = [f"{source} → {to}" for (source, to), value in grid.items() if value is None]
    times = {pair: rtt for pair, rtt in grid.items() if rtt is not None and pair[0] != pair[1]}
    lossy = [f"{a} → {b} {loss:.0f}%" for (a, b), loss in lost.items() if loss and loss < _ALL_LOST]
    if dead:
        yield f"No answer from {len(dead)} of {len(dead) + len(times)} pairs: {named(dead)}."
    if lossy:
        yield f"{len(lossy)} {'loses' if len(lossy) == 1 else 'lose'} some: {named(lossy)}."
    if times:
        (source, to), slowest = max(times.items(), key=lambda item: item[1])
        every = "Every pair answers" if not dead else f"{len(times)} answer"
        median = statistics.median(times.values())
        yield f"{every}: median {median:.2f} ms, slowest {source} → {to} with {slowest:.2f} ms."


# ---- drawn


def as_html(drawn: Sequence[Picture]) -> str:
    """The pictures with a legend above and words below each; beside each other where there is room."""
    look = "padding:1px 9px;margin:0 3px 0 0;border-radius:4px;white-space:nowrap"
    # A space of no width: there a narrow screen may break the line.
    steps = "&#8203;".join(f'<span style="{one.style};{look}">{_safe(one.text)}</span>' for one in legend())
    figures = [_figure(one) for one in drawn]
    cell = '<td style="vertical-align:top;text-align:left;padding:0 32px 8px 0;background-color:transparent">'
    row = '<tr style="background-color:transparent">'  # JupyterLab would stripe and light them
    if any(len(one.names) > _FEW for one in drawn):
        body = "".join(f"{row}{cell}{one}</td></tr>" for one in figures)
    else:
        body = f"{row}{''.join(f'{cell}{one}</td>' for one in figures)}</tr>"
    return (
        f'<p style="margin:4px 0">{_INTRO}</p><p style="margin:4px 0;line-height:1.8">ms {steps}</p>'
        f'<table style="margin:0;border-collapse:collapse"><tbody>{body}</tbody></table>'
    )


def _figure(one: Picture) -> str:
    large = len(one.names) > _FEW
    wide = 35 if large else 66
    # A fixed width: a cell with a loss would widen its column.
    box = f"padding:{'4px 1px' if large else '6px 4px'};text-align:center"
    head = "".join(
        f'<th scope="col" style="{box};width:{wide}px;min-width:{wide}px;vertical-align:bottom;font-weight:600"'
        f' title="{_safe(name)}">{number if large else _safe(name)}</th>'
        for number, name in enumerate(one.names, 1)
    )
    left = "padding:2px 8px 2px 0;text-align:left;white-space:nowrap;font-weight:600;vertical-align:middle"
    rows = []
    for number, (name, cells) in enumerate(one.rows, 1):
        numbered = f"{number} {_safe(name)}" if large else _safe(name)
        drawn = "".join(_pair(cell, box, small=large) for cell in cells)
        rows.append(
            f'<tr style="background-color:transparent"><th scope="row" style="{left}">{numbered}</th>{drawn}</tr>'
        )
    corner = f'<th scope="col" style="{left};vertical-align:bottom;font-weight:400">'
    caption = "text-align:left;font-weight:bold;padding:4px 0"
    return (
        f'<table style="margin:0;border-collapse:separate;border-spacing:2px;font-size:{11 if large else 13}px">'
        f'<caption style="{caption};font-size:14px">{_safe(one.name)}</caption>'
        f"<thead><tr>{corner}from ↓ to →</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f'<p style="margin:4px 0 12px 2px">{_safe(one.words)}</p>'
    )


def _pair(cell: Cell, box: str, *, small: bool) -> str:
    text = _safe(cell.text)
    style = f"{box};{cell.style}"
    if cell.dead or "\n" in cell.text:
        style += ";font-weight:700" + (";font-size:9px;white-space:nowrap" if small else "")
        text = text.replace("✗ ", "✗") if small else text
    return f'<td style="{style}" title="{_safe(cell.title)}">{text.replace(chr(10), "<br>")}</td>'


def _safe(text: str) -> str:
    return html.escape(clean(text))


def as_text(drawn: Sequence[Picture], width: int = 160) -> str:
    """The pictures as plain text, each with its words below it."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None, legacy_windows=False, force_jupyter=False)
    for one in drawn:
        large = len(one.names) > _FEW
        made = RichTable(title=Text(f"{clean(one.name)}, ms"), title_justify="left", padding=(0, 0 if large else 1))
        made.add_column(Text("from ↓ to →"))
        for number, name in enumerate(one.names, 1):
            made.add_column(Text(str(number) if large else clean(name)), justify="right", overflow="fold")
        for number, (name, cells) in enumerate(one.rows, 1):
            shown = [cell.text.replace("✗ ", "✗\n") if large else cell.text.replace("\n", " ") for cell in cells]
            made.add_row(Text(f"{number} {clean(name)}" if large else clean(name)), *map(Text, shown))
        console.print(made)
        console.print(Text(clean(one.words)))
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())
