"""When a run did what, by phase and node: spans from the journal's steps and the summary's phases."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from runbook.journal import Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_FIELDS = frozenset(field.name for field in dataclasses.fields(Step))
#: A summary's times are to the millisecond; before 0.2 they were to the second, rounded down.
_WHOLE_SECONDS = 0.999
_MINUTE, _HOUR = 60, 3600


@dataclass(frozen=True)
class Span:
    """A stretch of a run.

    Attributes:
        phase: The phase's number; None for what came before the first one.
        node: The node's name; "" for this side.
        step: What was done; "" for the phase as a whole.
        start_s, end_s: Seconds since the run began; the same for a step of which only the end was noted.
        failed: Whether it failed.
    """

    phase: int | None
    node: str
    step: str
    start_s: float
    end_s: float
    failed: bool = False

    @property
    def took_s(self) -> float:
        """How long it took, in seconds."""
        return self.end_s - self.start_s


def duration(seconds: float | None) -> str:
    """A duration for people: 0.4 s, 12 s, 3 min 05 s, 1 h 02 min."""
    if seconds is None:
        return ""
    if seconds < 9.95:  # noqa: PLR2004 - one decimal below ten seconds
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"


def read(path: Path) -> list[Step]:
    """Read a journal; none for a file that is not there, and what can be read of one that breaks off in a line."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    steps = []
    for line in lines:
        try:
            told = json.loads(line)
            steps.append(Step(**{name: value for name, value in told.items() if name in _FIELDS}))
        except (ValueError, TypeError, AttributeError):
            continue
    return [one for one in steps if isinstance(one.at, int | float)]


def spans(steps: Iterable[Step], phases: Sequence[Mapping[str, Any]]) -> list[Span]:
    """Tell how long each phase took, and in it each step of each node.

    A step that was noted at its start and at its end has that time. Steps that are noted together when a node's work is
    over (an apply's changes) share the time since that work was noted as started: the first of them has it. A step of
    which only the end was noted is a moment. A step that never ended lasts to the end of its phase, or of the journal.

    Args:
        steps: The journal's.
        phases: The summary's: number, outcome, started (UTC), took_s.

    Returns:
        By phase: first the phase itself, then its steps in the order of their ends. A run that broke off has a phase
        that did not end; it lasts as long as its steps.
    """
    noted = sorted(steps, key=lambda one: one.at)
    whole = _phases(noted, phases)
    if not whole and not noted:
        return []
    began = min([one.start_s for one in whole] + [one.at for one in noted[:1]])
    made: list[Span] = []
    bounds = [None, *whole]
    for place, phase in enumerate(bounds):
        start = phase.start_s if phase else float("-inf")
        end = whole[place].start_s if place < len(whole) else float("inf")
        own = [one for one in noted if start <= one.at < end]
        if phase:
            made.append(phase)
        last = max([phase.end_s if phase else began, *(one.at for one in own)])
        made += _steps(own, phase.phase if phase else None, last)
    return [dataclasses.replace(one, start_s=one.start_s - began, end_s=one.end_s - began) for one in made]


def _phases(noted: Sequence[Step], phases: Sequence[Mapping[str, Any]]) -> list[Span]:
    """The phases in seconds since the epoch; of an old record their beginnings are known to the second only."""
    found: list[Span] = []
    for phase in phases:
        failed = phase["outcome"] == "failed"
        begun = _seconds(phase.get("started"))
        before = found[-1].end_s if found else 0.0
        if begun is not None:
            start = min(max(before, begun), begun + (0 if "." in str(phase["started"]) else _WHOLE_SECONDS))
            if before > start:
                found[-1] = dataclasses.replace(found[-1], end_s=start)
            found.append(Span(phase["number"], "", "", start, start + float(phase.get("took_s") or 0), failed))
        elif phase["outcome"] != "not begun" and found and noted and noted[-1].at > before:
            # The run was killed in it: nobody noted when it began, but it did when the one before had ended.
            found.append(Span(phase["number"], "", "", before, noted[-1].at, failed))
    return found or _applied(noted, phases)


def _applied(noted: Sequence[Step], phases: Sequence[Mapping[str, Any]]) -> list[Span]:
    """The phases of a record that was stepped through by hand: from the beginning of a plan's apply to its end."""
    numbers = {f"apply {phase['title']}": phase["number"] for phase in phases}
    found: list[Span] = []
    for one in noted:
        number = None if one.node else numbers.get(_name(one))
        if number is None:
            continue
        if one.state == "started":
            found.append(Span(number, "", "", one.at, one.at))
        elif found and found[-1].phase == number:
            found[-1] = dataclasses.replace(found[-1], end_s=one.at, failed=one.state == "failed")
    return found


def _name(step: Step) -> str:
    """A step's name: "apply TITLE, plan ID" is started, "apply TITLE" is done."""
    return step.step.partition(", plan ")[0]


def _seconds(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _steps(noted: Sequence[Step], phase: int | None, last: float) -> list[Span]:
    """The steps of one phase; `last` is its end."""
    made: list[Span] = []
    #: By node and by what it is a part of, which goes on beside; and by step.
    started: dict[tuple[tuple[str, str], str], float] = {}
    latest: dict[tuple[str, str], float] = {}
    for one in noted:
        where, name = (one.node, one.part), _name(one)
        if one.state == "started":
            started[where, name] = one.at
        else:
            at_work = any(place == where for place, _ in started)
            since = latest.get(where, one.at) if at_work else one.at
            begun = started.pop((where, name), since)
            made.append(Span(phase, one.node, name, begun, one.at, one.state == "failed"))
        latest[where] = one.at
    for ((node, _), step), at in started.items():
        # Work that was started and then told by its parts is not told twice.
        if not any(one.node == node and one.start_s >= at for one in made):
            made.append(Span(phase, node, step, at, max(last, at)))
    return made
