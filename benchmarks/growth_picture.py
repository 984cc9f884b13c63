"""The picture of growth: times and memory against the number of nodes, as SVG, readable on light and dark pages."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH, _HEIGHT, _TOP, _PANEL, _PLOT = 760, 360, 78, 300, 220
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 } .quiet { fill: #57606a } .paper { fill: #ffffff }
.line { stroke: #d0d7de } polyline { fill: none; stroke-width: 2 } circle { stroke: none }
.a { stroke: #4f83cc; fill: #4f83cc } .b { stroke: #2a9d8f; fill: #2a9d8f } .c { stroke: #b35900; fill: #b35900 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #9198a1 } .paper { fill: #0d1117 } .line { stroke: #30363d }
  .a { stroke: #6ea3ec; fill: #6ea3ec } .b { stroke: #4fc3b3; fill: #4fc3b3 } .c { stroke: #f0a860; fill: #f0a860 }
}
"""
_TIMES = (("connect_s", "connect", "a"), ("run_s", "run a script", "b"), ("plan_s", "read for a plan", "c"))
_REST = (("threads", "threads", "a"), ("feed16_mib", "memory, MiB", "b"))


def svg(told: dict[str, Any]) -> str:
    """The picture of what growth.py measured."""
    rows: list[dict[str, Any]] = told["sizes"]
    title = f"Simulated nodes that answer after {told['latency_ms']:g} ms"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<text class="title" x="12" y="24">{escape(title)}</text>',
        *_panel(rows, _TIMES, 40, "seconds"),
        *_panel(rows, _REST, 420, "one process"),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _panel(rows: Sequence[dict[str, Any]], lines: Sequence[tuple[str, str, str]], left: int, heading: str) -> list[str]:
    values = [row[key] for row in rows for key, _, _ in lines]
    low, high = math.log10(min(values) / 1.5), math.log10(max(values) * 1.5)
    first, last = math.log10(rows[0]["nodes"]), math.log10(rows[-1]["nodes"])

    def place(nodes: float, value: float) -> tuple[float, float]:
        x = left + _PANEL * (math.log10(nodes) - first) / ((last - first) or 1)
        return x, _TOP + _PLOT * (1 - (math.log10(value) - low) / (high - low))

    parts = [f'<text class="quiet" x="{left}" y="46">{escape(heading)}, both axes logarithmic</text>']
    for row in rows:
        x, _ = place(row["nodes"], 10**low)
        parts.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_TOP + _PLOT}"/>')
        parts.append(
            f'<text class="quiet" x="{x:.1f}" y="{_TOP + _PLOT + 18}" text-anchor="middle">{row["nodes"]:,}</text>'
        )
    for number, (key, label, kind) in enumerate(lines):
        points = [place(row["nodes"], row[key]) for row in rows]
        parts.append(
            f'<polyline class="{kind}" style="fill:none" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
        )
        for (x, y), row in zip(points, rows, strict=True):
            parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
            anchor = "start" if row is rows[0] else "end" if row is rows[-1] else "middle"
            below = 18 if row[key] == min(row[one] for one, _, _ in lines) else -8  # labels of close lines do not meet
            shown = f"{row[key]:.0f}" if row[key] >= 10 else f"{row[key]:.2g}"
            parts.append(f'<text class="quiet" x="{x:.1f}" y="{y + below:.1f}" text-anchor="{anchor}">{shown}</text>')
        x = left + 105 * number
        parts.append(f'<circle class="{kind}" cx="{x + 4}" cy="{_TOP + _PLOT + 40}" r="4"/>')
        parts.append(f'<text class="quiet" x="{x + 12}" y="{_TOP + _PLOT + 44}" font-size="11">{escape(label)}</text>')
    return parts
