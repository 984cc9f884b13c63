"""Whether a record's notebooks and cells stand in the order in which they ran: by counts, times and titles."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from runbook.records import execution

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

#: Times in older summaries are cut to the second.
_ROUNDING: Final = timedelta(seconds=2)


def out_of_order(notebooks: Sequence[execution.Notebook], summary: Mapping[str, Any]) -> list[str]:
    """What says that notebooks or cells do not stand in the order in which they ran.

    Args:
        notebooks: In the order of their names.
        summary: The record's summary; may be empty. A run by papermill counts its cells 1, 2, 3 and has times for each;
            a person in JupyterLab may have run a cell twice, and need not keep times.
    """
    headless = summary.get("kind") != "stepped"
    faults = [fault for one in notebooks for fault in _counts(one, headless=headless)]
    latest: datetime | None = None
    holder = ""
    for one in notebooks:
        if headless and any(not cell.times for cell in one.ran):
            faults.append(f"{one.name}: cells that ran tell no time")
        times = [at for cell in one.cells for at in cell.times]
        # Parameters may be set while the notebook before still works: they change nothing.
        begun = next((at for cell in one.work for at in cell.times), None)
        if begun and latest and begun < latest:
            faults.append(f"{one.name} ran before {holder} had ended")
        if any(later < sooner for sooner, later in pairwise(times)):
            faults.append(f"{one.name}: the times of its cells go backwards")
        if times:
            latest, holder = max([*times, latest] if latest else times), one.name
    return faults + _outside(notebooks, summary)


def _counts(one: execution.Notebook, *, headless: bool) -> Iterator[str]:
    number = one.name[:2]
    if not one.title:
        yield f"{one.name} has no title with its number (# {number} · …)"
    elif one.title != number:
        yield f"{one.name} is notebook {one.title} by its own title: swapped or renamed"
    counts = [cell.count for cell in one.ran if cell.count is not None]
    if any(later <= sooner for sooner, later in pairwise(counts)):
        yield f"{one.name}: its code cells ran in the order {counts}, not from top to bottom"
    elif headless and counts != list(range(1, len(counts) + 1)):
        yield f"{one.name}: cells are gone: those here ran as {counts}"


def _outside(notebooks: Sequence[execution.Notebook], summary: Mapping[str, Any]) -> list[str]:
    """Notebooks with times that are not within the run: another run's."""
    limits = [summary.get("started"), summary.get("ended")]
    started, ended = (execution.time(one) if one is not None else None for one in limits)
    faults = []
    for one in notebooks:
        times = [at for cell in one.cells for at in cell.times]
        if times and started and min(times) < started - _ROUNDING:
            faults.append(f"{one.name} ran before this run began: another run's?")
        if times and ended and max(times) > ended + _ROUNDING:
            faults.append(f"{one.name} ran after this run had ended: another run's?")
    return faults
