"""What is going on while a plan is applied, a line a node and part: the one thing that listens to the journal."""

from __future__ import annotations

import contextlib
import html
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from runbook import show
from runbook.journal import GATE, Pulse, Step
from runbook.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Callable

_MB = 1_000_000
#: Fewer bytes than this are sent before anybody has read a bar.
_BAR_BYTES = 1_000_000
#: How much of a journal's line is shown; its whole is the title.
_SAID = 100
_CELL = "padding:2px 8px;vertical-align:top;text-align:left"


@dataclass
class _Line:
    """A node's line: its step, since when it runs and when it ended, and how far it is."""

    began: float
    step: str = ""
    state: str = "running"
    ended: float | None = None
    sent_bytes: int = 0
    total_bytes: int = 0
    limit_s: float = 0
    limit_began: float = 0
    said: str = ""


class _Row(NamedTuple):
    """What is shown of a line, as plain text; `done` of `total` is its bar, none where that is 0."""

    name: str
    state: str
    step: str
    took: str
    done: float
    total: float
    words: str
    said: str


class Progress:
    """The nodes' lines, kept from the journal's steps and pulses.

    Args:
        title: What is applied.
        clock: Gives the time in seconds.
    """

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._clock = clock
        #: By node, and by what it is a part of.
        self._lines: dict[tuple[str, str], _Line] = {}
        self._lock = threading.Lock()
        self._failed = False
        self._began = clock()

    def hear(self, told: Step | Pulse) -> None:
        """Take a step or a pulse; safe from any thread, shown at the next look."""
        if isinstance(told, Step) and told.step.startswith(GATE):
            return  # what was pressed is shown by the gate
        with self._lock:
            line = self._lines.setdefault((told.node, told.part), _Line(self._clock()))
            if isinstance(told, Step):
                self._step(line, told)
            else:
                self._pulse(line, told)

    def _step(self, line: _Line, step: Step) -> None:
        self._failed |= step.state == "failed"
        line.step = step.step
        line.limit_s, line.said = 0, step.detail if step.state == "failed" else ""
        line.state = {"started": "running"}.get(step.state, step.state)
        # A step of a step ends while the node goes on: its time stands still only until the next one.
        line.ended = None if step.state == "started" else self._clock()

    def _pulse(self, line: _Line, pulse: Pulse) -> None:
        line.ended = None
        line.state = "running"
        if pulse.sent_bytes is not None:
            line.sent_bytes, line.total_bytes = pulse.sent_bytes, pulse.total_bytes or 0
        if pulse.limit_s is not None:
            line.limit_s, line.limit_began = pulse.limit_s, self._clock()
        line.said = pulse.line or line.said

    def _rows(self) -> list[_Row]:
        """A row a node, and one for what goes on beside there."""
        with self._lock:
            return [
                _Row(
                    clean(": ".join(filter(None, [node or "(here)", part]))), line.state, clean(line.step),
                    f"{self._took(line):.0f} s", *self._bar(line), clean(line.said),
                )
                for (node, part), line in sorted(self._lines.items())
            ]  # fmt: skip

    def _took(self, line: _Line) -> float:
        return (line.ended if line.ended is not None else self._clock()) - line.began

    def _bar(self, line: _Line) -> tuple[float, float, str]:
        """How much of how much, and that in words; ("" where there is no bar)."""
        if line.state == "running" and line.limit_s:
            waited = min(self._clock() - line.limit_began, line.limit_s)
            return waited, line.limit_s, f"waits {waited:.0f} s of at most {line.limit_s:.0f} s"
        if line.total_bytes >= _BAR_BYTES:
            done, total = line.sent_bytes / _MB, line.total_bytes / _MB
            return done, total, f"{done:.1f} of {total:.1f} MB sent"
        return 0, 0, f"{line.sent_bytes:,} bytes sent" if line.sent_bytes else ""

    def as_html(self) -> str:
        """The lines as a table with a bar for what takes long; '' before the first."""
        lines = self._rows()
        rows, saying = "", any(line.said for line in lines)
        for line in lines:
            size = f'max="{line.total:.1f}" value="{line.done:.1f}"'
            bar = f'<progress {size} style="width:120px"></progress> ' if line.total else ""
            title = f' title="{html.escape(line.said)}"' if _short(line.said) != line.said else ""
            cells = [
                f'<th scope="row" style="{_CELL};font-weight:normal">{html.escape(line.name)}</th>',
                f'<td style="{_CELL}">{show.chip(line.state if line.state in show.CHIPS else "running")}</td>',
                f'<td style="{_CELL}">{html.escape(line.step)}</td>',
                f'<td style="{_CELL};white-space:nowrap">{bar}{html.escape(line.words)}</td>',
                f'<td style="{_CELL};text-align:right;white-space:nowrap">{line.took}</td>',
            ]
            if saying:
                shown = f"<code>{html.escape(_short(line.said))}</code>" if line.said else ""
                cells.append(f'<td style="{_CELL}"{title}>{shown}</td>')
            rows += f"<tr>{''.join(cells)}</tr>"
        if not rows:
            return ""
        names = ["node", "state", "step", "how far", "time", *(["last said"] if saying else [])]
        head = "".join(f'<th scope="col" style="{_CELL}">{name}</th>' for name in names)
        caption = f'<caption style="{_CELL};font-weight:bold">{html.escape(clean(self._title))}: applying</caption>'
        table = f"{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
        return f'<table style="border-collapse:collapse">{table}</table>'

    def as_text(self) -> str:
        """The lines as text; '' before the first."""
        return "\n".join(
            "  ".join(filter(None, [line.name, line.state, line.step, line.words, line.took, _short(line.said)]))
            for line in self._rows()
        )

    def end(self, how: str = "") -> str:
        """The one line that stays: how it ended (`stopped after`; by default what the steps tell), and the time."""
        how = how or ("failed after" if self._failed else "applied in")
        return f"{self._title}: {how} {self._clock() - self._began:.1f} s"


def _short(said: str) -> str:
    """A line of a journal or an error, short enough for a column; a log in JSON by its message."""
    with contextlib.suppress(ValueError, AttributeError):
        said = str(json.loads(said).get("msg", said))
    line = " ".join(said.split())
    return line if len(line) <= _SAID else f"{line[: _SAID - 1]}…"
