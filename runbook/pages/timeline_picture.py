"""A run's timeline as a picture: a lane for the phases and one a node, all to one scale."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runbook.pages import timeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runbook.journal import Step
    from runbook.pages.timeline import Span

#: Nothing is drawn narrower than this share of the run, in percent; what lies closer together is one bar.
_NARROW = 0.4
#: A bar narrower than this has no room for its phase's number.
_LABELLED = 2.0
#: About so many marks stand on the scale.
_MARKS = 8
#: So many steps are named in a bar's title, and so many of the longest in words.
_NAMED = 6
_LONGEST = 3
#: Where the phases make up less than this share of the time between first and last, what lies between is left out.
_BUSY = 0.5
_HERE = "here"


@dataclass(frozen=True)
class Bar:
    """A stretch of a lane: its distance from the one before and its width, both in percent of the run."""

    gap: float
    width: float
    title: str
    label: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Lane:
    """A node's bars, or (name "") the phases'; and the time of its steps in words."""

    name: str
    bars: tuple[Bar, ...]
    took_s: float


@dataclass(frozen=True)
class Picture:
    """A run's timeline.

    Attributes:
        lanes: The phases' lane, then this side's and one a node.
        marks: The marks of the scale; empty where time was left out.
        words: What the picture shows, in sentences.
    """

    lanes: tuple[Lane, ...]
    marks: tuple[Bar, ...]
    words: str


def picture(steps: Sequence[Step], phases: Sequence[Mapping[str, Any]]) -> Picture | None:
    """Make the picture; None where nobody noted when anything happened.

    Args:
        steps: The journal's.
        phases: The summary's.
    """
    titles = {phase["number"]: f"{phase['number']:02d} {phase['title']}" for phase in phases}
    spans = timeline.spans(steps, phases)
    whole = [one for one in spans if not one.step]
    if not whole:
        return None
    taken = sum(one.took_s for one in whole)
    gaps = taken < _BUSY * (whole[-1].end_s - whole[0].start_s)
    if gaps:
        spans = _closed_up(spans, whole)
        whole = [one for one in spans if not one.step]
    total = max([one.end_s for one in spans if one.phase is not None] + [0.001])
    marks = () if gaps else tuple(_marks(total))
    lanes = [Lane("", tuple(_phase_bars(whole, titles, total)), taken)]
    done = [one for one in spans if one.step and one.phase is not None]
    for node in sorted({one.node for one in done}, key=_counted):
        own = [one for one in done if one.node == node]
        lanes.append(Lane(node or _HERE, tuple(_bars(own, titles, total)), _covered(own)))
    return Picture(tuple(lanes), marks, " ".join(_words(whole, done, titles, gaps=gaps)))


def _counted(name: str) -> list[tuple[int, str]]:
    """A sort key: node2 before node10, this side before all."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _closed_up(spans: Sequence[Span], whole: Sequence[Span]) -> list[Span]:
    """The phases one after the other, without what lies between: people think, and go for lunch."""
    made = []
    at = 0.0
    for phase in whole:
        for one in spans:
            if one.phase == phase.phase and phase.start_s <= one.start_s <= phase.end_s:
                start = one.start_s - phase.start_s + at
                took = min(one.end_s, phase.end_s) - one.start_s
                made.append(dataclasses.replace(one, start_s=start, end_s=start + took))
        at += phase.took_s
    return made


def _marks(total: float) -> Iterator[Bar]:
    """Marks at 1, 2 or 5 times a power of ten seconds, or at whole minutes."""
    rough = total / _MARKS
    scale = 10 ** math.floor(math.log10(rough))
    nice = [scale * times for times in (1, 2, 5, 10)] if rough < 30 else [60, 120, 300, 600, 1800, 3600, 36000]  # noqa: PLR2004 - half a minute
    every = next((one for one in nice if one >= rough), rough)
    for place in range(math.floor(total / every) + 1):
        at = place * every
        text = f"{at / 60:g} min" if every >= 60 and at else f"{at:g} s"  # noqa: PLR2004 - a minute
        yield Bar(0.0, min(100.0, 100 * every / total, 100 - 100 * at / total), text, text)


def _phase_bars(whole: Sequence[Span], titles: Mapping[int, str], total: float) -> Iterator[Bar]:
    cursor = 0.0
    for one in whole:
        left = max(cursor, 100 * one.start_s / total)
        width = max(100 * one.end_s / total - left, 0.0)
        title = f"{titles.get(one.phase or 0, '')}: {timeline.duration(one.took_s)}{', failed' if one.failed else ''}"
        yield Bar(left - cursor, width, title, f"{one.phase:02d}" if width >= _LABELLED else "", one.failed)
        cursor = left + width


def _bars(own: Sequence[Span], titles: Mapping[int, str], total: float) -> Iterator[Bar]:
    """A node's steps; those of a phase that lie close together are one bar."""
    groups: list[list[Span]] = []
    for one in sorted(own, key=lambda span: (span.start_s, span.end_s)):
        near = groups and 100 * (one.start_s - max(span.end_s for span in groups[-1])) / total < _NARROW
        if near and groups[-1][0].phase == one.phase:
            groups[-1].append(one)
        else:
            groups.append([one])
    cursor = 0.0
    for group in groups:
        left = max(cursor, 100 * group[0].start_s / total)
        width = max(100 * max(one.end_s for one in group) / total - left, _NARROW)
        width = max(0.0, min(width, 100 - left))
        longest = sorted(group, key=lambda one: -one.took_s)[:_NAMED]
        named = [f"{one.step} {timeline.duration(one.took_s)}{', failed' if one.failed else ''}" for one in longest]
        more = [f"and {len(group) - _NAMED} more"] if len(group) > _NAMED else []
        title = f"{titles.get(group[0].phase or 0, '')}: {'; '.join([*named, *more])}"
        yield Bar(left - cursor, width, title, failed=any(one.failed for one in group))
        cursor = left + width


def _covered(own: Sequence[Span]) -> float:
    """The seconds in which at least one of the steps was under way."""
    covered = end = 0.0
    for one in sorted(own, key=lambda span: span.start_s):
        covered += max(0.0, one.end_s - max(one.start_s, end))
        end = max(end, one.end_s)
    return covered


def _words(whole: Sequence[Span], done: Sequence[Span], titles: Mapping[int, str], *, gaps: bool) -> Iterator[str]:
    def named(spans: Sequence[Span]) -> str:
        longest = sorted(spans, key=lambda one: -one.took_s)[:_LONGEST]
        return ", ".join(f"{_name(one, titles)} {timeline.duration(one.took_s)}" for one in longest)

    yield f"Longest phases: {named(whole)}."
    # Nodes do the same at the same time: the slowest of a phase tells it.
    slowest = {one.phase: one for one in sorted(done, key=lambda one: one.took_s) if one.node and one.took_s}
    if steps := list(slowest.values()):
        yield f"Longest steps: {named(steps)}."
    if failed := [one for one in done if one.failed]:
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        yield f"Failed: {', '.join(_name(one, titles) for one in failed[:_NAMED])}{more}."
    if gaps:
        yield "The time between phases is left out."


def _name(span: Span, titles: Mapping[int, str]) -> str:
    return f"{span.node or _HERE} {span.step}" if span.step else titles.get(span.phase or 0, "")
