"""A picture of pairs of times: horizontal bars as SVG, readable on light and dark pages."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEFT, _RIGHT, _BAR, _ROW, _TOP, _SCALE = 232, 60, 14, 44, 66, 470
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.quiet { fill: #57606a }
.first { fill: #4f83cc } .second { fill: #8fd3c7 }
.paper { fill: #ffffff } .line { stroke: #d0d7de }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #9198a1 } .paper { fill: #0d1117 } .line { stroke: #30363d }
  .first { fill: #6ea3ec } .second { fill: #3f9c8e }
}
"""


def svg(title: str, names: tuple[str, str], rows: Sequence[tuple[str, float, float]]) -> str:
    """The picture: for each row (label, first, second, both in s) two bars, with their figures."""
    most = max(max(first, second) for _, first, second in rows)
    width, height = _LEFT + _SCALE + _RIGHT, _TOP + _ROW * len(rows) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
        f' aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        f'<text class="title" x="12" y="24">{escape(title)}</text>',
    ]
    for place, (name, kind) in enumerate(zip(names, ("first", "second"), strict=True)):
        x = _LEFT + 110 * place
        parts.append(f'<rect class="{kind}" x="{x}" y="38" width="12" height="12" rx="2"/>')
        parts.append(f'<text class="quiet" x="{x + 18}" y="49">{escape(name)}</text>')
    for number, (label, first, second) in enumerate(rows):
        y = _TOP + _ROW * number
        parts.append(f'<line class="line" x1="12" x2="{width - 12}" y1="{y - 4}" y2="{y - 4}"/>')
        parts.append(f'<text x="12" y="{y + 20}">{escape(label)}</text>')
        for place, (kind, value) in enumerate((("first", first), ("second", second))):
            top, long = y + place * (_BAR + 3), max(1.0, _SCALE * value / most)
            parts.append(f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{long:.1f}" height="{_BAR}" rx="2"/>')
            parts.append(f'<text class="quiet" x="{_LEFT + long + 6:.1f}" y="{top + 12}">{value:.1f}</text>')
    return "\n".join([*parts, "</svg>", ""])
