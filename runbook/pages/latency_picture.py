"""The latency of etcd's members as a picture: a strip of bars a member, the same as text; and as a table."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runbook import show
from runbook.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS = ["endpoint", "node", "ok", "samples", "failed", "min_ms", "p50_ms", "p99_ms", "max_ms", "why", "remedy"]
#: So many bars; of more samples the slowest of several is shown.
_BARS = 120
_HIGH_PX = 28
_BLOCKS = "▁▂▃▄▅▆▇█"
#: It is seen on light and on dark.
_BAR = "#218bff"
REMEDY = "phase 04 shows its state and journal; phase 05 what the cluster says of it"


@dataclass(frozen=True)
class Sample:
    """One read: the node's uptime in seconds, milliseconds (None where it failed), and why it failed."""

    at_s: float
    took_ms: float | None
    why: str = ""


@dataclass
class Watched:
    """One member while it is watched: its samples so far, and why no more come where none do."""

    node: str
    endpoint: str
    samples: list[Sample] = field(default_factory=list)
    why: str = ""


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile: a value that was measured, never one between two."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def table(watched: Sequence[Watched], said: str) -> show.Table:
    """What was measured as a table, a row a member."""
    rows = []
    for one in watched:
        times = [sample.took_ms for sample in one.samples if sample.took_ms is not None]
        failed = [sample for sample in one.samples if sample.took_ms is None]
        why = one.why or (f"{len(failed)} of {len(one.samples)} failed: {failed[-1].why}" if failed else "")
        why = why or ("" if one.samples else "no sample came")
        row: dict[str, Any] = {"endpoint": one.endpoint, "node": one.node, "ok": not why}
        row |= {"samples": len(one.samples), "failed": len(failed), "why": why, "remedy": REMEDY if why else ""}
        if times:
            row |= {"min_ms": min(times), "p50_ms": quantile(times, 0.5), "p99_ms": quantile(times, 0.99)}
            row["max_ms"] = max(times)
        rows.append(row)
    return show.table(rows, _COLUMNS, f"Latency of etcd's members, {said}")


# ---- drawn


def _bars(samples: Sequence[Sample]) -> list[Sample]:
    """At most so many samples as there are bars: of neighbours the failed one, else the slowest."""
    wide = max(1, -(-len(samples) // _BARS))
    groups = [samples[place : place + wide] for place in range(0, len(samples), wide)]
    return [max(group, key=lambda one: math.inf if one.took_ms is None else one.took_ms) for group in groups]


def as_html(watched: Sequence[Watched], said: str) -> str:
    """The picture: a strip of bars a member, all to one scale, its figures beside it; a failed read is a red ✗."""
    data = table(watched, said)
    rows = {str(row["node"]): row for row in show.rows(data)}
    top = max((one.took_ms or 0 for member in watched for one in member.samples), default=0) or 1
    columns = ("min_ms", "p50_ms", "p99_ms", "max_ms", "failed")
    cell = "padding:3px 8px;text-align:{};vertical-align:bottom;white-space:nowrap"
    head = "".join(f'<th scope="col" style="{cell.format("right")}">{name}</th>' for name in columns)
    body = []
    for member in watched:
        row = rows[member.node]
        figures = "".join(f'<td style="{cell.format("right")}">{_figure(row[name])}</td>' for name in columns)
        why = f"<div>{show.chip('failed', row['why'][:120])}</div>" if row["why"] else ""
        name = html.escape(clean(member.node))
        left = f'<th scope="row" style="{cell.format("left")}">{name}</th>'
        body.append(
            f'<tr style="background-color:transparent">{left}{figures}'
            f'<td style="{cell.format("left")};line-height:1;min-width:484px">{_strip(member.samples, top)}{why}</td>'
            "</tr>"
        )
    title = f"{html.escape(data.caption)}; bars to {top:,.1f} ms, ✗ a read that failed"
    return (
        '<table style="margin:0;border-collapse:collapse">'
        f'<caption style="text-align:left;font-weight:bold;padding:4px 8px">{title}</caption><thead><tr>'
        f'<th scope="col" style="{cell.format("left")}">node</th>{head}'
        f'<th scope="col" style="{cell.format("left")}">reads, in order</th></tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def _figure(value: object) -> str:
    if not isinstance(value, int | float) or math.isnan(value):
        return ""
    return str(value) if isinstance(value, int) else f"{value:,.1f}"


def _strip(samples: Sequence[Sample], top: float) -> str:
    cells = []
    for one in _bars(samples):
        if one.took_ms is None:
            _, ink, ground = show.CHIPS["failed"]
            look = f"color:{ink};background-color:{ground};font-size:9px;font-weight:700"
            cells.append(f'<td style="padding:0;vertical-align:bottom;{look}" title="{html.escape(one.why)}">✗</td>')
            continue
        high = max(2, round(_HIGH_PX * one.took_ms / top))
        bar = f'<div style="width:3px;height:{high}px;background-color:{_BAR};margin:0"></div>'
        style = "padding:0 1px 0 0;vertical-align:bottom"
        cells.append(f'<td style="{style}" title="{one.took_ms:.1f} ms">{bar}</td>')
    line = f'<tr style="background-color:transparent">{"".join(cells)}</tr>'
    return f'<table style="margin:0;border-collapse:collapse;height:{_HIGH_PX}px"><tbody>{line}</tbody></table>'


def as_text(watched: Sequence[Watched], said: str) -> str:
    """The same as text: a block a read, ✗ where it failed, and the table."""
    top = max((one.took_ms or 0 for member in watched for one in member.samples), default=0) or 1
    wide = max(len(member.node) for member in watched)
    lines = []
    for member in watched:
        blocks = (
            "✗" if one.took_ms is None else _BLOCKS[min(len(_BLOCKS) - 1, math.floor(one.took_ms / top * len(_BLOCKS)))]
            for one in _bars(member.samples)
        )
        lines.append(f"{clean(member.node):<{wide}} {''.join(blocks)}")
    return "\n".join([*lines, show.table_text(table(watched, said))])
