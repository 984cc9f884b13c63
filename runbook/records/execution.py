"""What a record tells of its run, held against itself: which cells ran, in which order, and what the summary claims.

papermill's `completed` is no proof (2.7 writes it on cells that never ran when the kernel died); an execution count is.
Records may come from anyone: what is read here is garbage until it has the expected shape.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import dropwhile, pairwise
from typing import TYPE_CHECKING, Any, Final

from runbook.records import chain, notebook_file, sumfile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

NOTEBOOK: Final = re.compile(r"([0-9]{2})_\w+\.ipynb")
OUTCOMES: Final = ("passed", "failed", "approval needed")
_TITLE = re.compile(r"# ([0-9]{2}) · ")
#: A folder is named moments before its run begins.
_NAMING = timedelta(minutes=5)


@dataclass(frozen=True)
class Cell:
    """A code cell that is not blank.

    Attributes:
        place: Which code cell of its notebook it is, from 1.
        count: Its execution count; None where it never ran.
        failed: It has an error among its outputs, or papermill says so.
        status: papermill's word for it; "" where there is none.
        times: Its start and end, as far as they are told.
        parameters: It only sets parameters: it is tagged so, as papermill knows such cells.
    """

    place: int
    count: int | None
    failed: bool
    status: str
    times: tuple[datetime, ...]
    parameters: bool = False


@dataclass(frozen=True)
class Notebook:
    """What an executed notebook tells: its file name, the number in its own title ("" for none), its code cells."""

    name: str
    title: str
    cells: tuple[Cell, ...]

    @property
    def ran(self) -> list[Cell]:
        """The cells that ran."""
        return [cell for cell in self.cells if cell.count is not None]

    @property
    def work(self) -> list[Cell]:
        """The cells after the parameters that it begins with."""
        return list(dropwhile(lambda cell: cell.parameters, self.cells))


def loaded(path: Path) -> dict[str, Any]:
    """A JSON object from a file that may hold anything.

    Raises:
        ValueError: it holds no JSON object.
        OSError: it can't be read, or is too big.
    """
    try:
        read = json.loads(sumfile.content(path))
    except RecursionError as error:
        raise ValueError("JSON nested too deep") from error
    if not isinstance(read, dict):
        raise ValueError("is no JSON object")  # noqa: TRY004 - a fault of the file, not of a caller
    return read


def notebook(path: Path) -> Notebook:
    """Read an executed notebook.

    Raises:
        ValueError: it is none.
        OSError: it can't be read, or is too big.
    """
    cells = loaded(path).get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise ValueError("is no notebook: it has no cells")
    texts = [_source(cell) for cell in cells if cell.get("cell_type") == "markdown"]
    heading = next((text for text in texts if text.startswith("# ")), "")
    title = _TITLE.match(heading)
    code = [cell for cell in cells if cell.get("cell_type") == "code" and _source(cell).strip()]
    return Notebook(
        path.name, title[1] if title else "", tuple(_cell(place, cell) for place, cell in enumerate(code, 1))
    )


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source")
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _cell(place: int, cell: dict[str, Any]) -> Cell:
    count = cell.get("execution_count")
    if count is not None and type(count) is not int:
        raise ValueError(f"code cell {place} has an execution count that is no number")
    metadata = _dict(cell.get("metadata"))
    told = _dict(metadata.get("papermill"))
    outputs = cell.get("outputs")
    errors = [one for one in outputs if _dict(one).get("output_type") == "error"] if isinstance(outputs, list) else []
    return Cell(
        place=place,
        count=count,
        failed=bool(errors) or told.get("status") == "failed" or told.get("exception") is True,
        status=str(told.get("status") or ""),
        times=times(metadata),
        parameters=notebook_file.sets_parameters(metadata),
    )


def times(metadata: object) -> tuple[datetime, ...]:
    """A cell's start and end, as papermill or else JupyterLab noted them there; ValueError where one is no time."""
    told, lab = (_dict(_dict(metadata).get(name)) for name in ("papermill", "execution"))
    pair = [told.get("start_time"), told.get("end_time")]
    if pair == [None, None]:
        pair = [lab.get("iopub.execute_input"), lab.get("shell.execute_reply")]
    return tuple(time(one) for one in pair if one is not None)


def time(told: object) -> datetime:
    """A time as records have it; one without a zone is UTC.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(told, str):
        raise ValueError("has a time that is no text")  # noqa: TRY004 - a fault of the file, not of a caller
    made = datetime.fromisoformat(told)
    return made if made.tzinfo else made.replace(tzinfo=UTC)


def phases(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The phases in a summary.

    Raises:
        ValueError: they are no list of objects.
    """
    told = summary.get("phases")
    if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
        raise ValueError("summary.json lists no phases")
    return told


def not_executed(notebooks: Sequence[Notebook], summary: Mapping[str, Any]) -> list[str]:
    """Cells that did not run although their phase counts as passed, or ran although one before them failed or didn't.

    A notebook that the summary doesn't list counts as passed.
    """
    outcomes = {str(one.get("notebook")): one.get("outcome") for one in phases(summary)} if summary else {}
    return [fault for one in notebooks for fault in _cells_not_executed(one, outcomes.get(one.name, "passed"))]


def _cells_not_executed(one: Notebook, outcome: object) -> Iterator[str]:
    stopped = ""
    for cell in one.cells:
        here = f"{one.name}: code cell {cell.place}"
        if cell.count is None and cell.status == "completed":
            yield f"{here} says completed, but never ran"
        elif cell.failed and cell.status == "completed":
            yield f"{here} says completed, but failed"
        elif cell.count is None and outcome == "passed":
            yield f"{here} never ran"
        elif cell.count is not None and stopped:
            yield f"{here} ran after {stopped}"
        if not stopped and cell.failed:
            stopped = f"cell {cell.place} had failed"
        elif not stopped and cell.count is None:
            stopped = f"cell {cell.place}, which never ran"
    if outcome == "passed" and not one.ran:
        yield f"{one.name}: no code cell ran at all"


def contradictions(
    summary: Mapping[str, Any], notebooks: Sequence[Notebook], there: Collection[str], folder: str
) -> list[str]:
    """What the summary claims that the record doesn't bear out.

    Args:
        summary: The record's summary.
        notebooks: The notebooks that could be read.
        there: The names of the record's files.
        folder: The name of the record's folder.
    """
    listed = phases(summary)
    outcome = summary.get("outcome")
    faults = []
    if summary.get("schema") != 1:
        faults.append(f"its schema is {summary.get('schema')!r}; 1 is known here")
    if outcome not in OUTCOMES:
        faults.append(f"the run's outcome is {outcome!r}, in a record that is closed")
    read = {one.name: one for one in notebooks}
    for phase in listed:
        faults += _phase(phase, read.get(str(phase.get("notebook"))), there)
    if outcome == "passed":
        rest = [f"{one.get('notebook')} as {one.get('outcome')!r}" for one in listed if one.get("outcome") != "passed"]
        faults += [f"it says that the run passed, and lists {', '.join(rest[:4])}"] if rest else []
        faults += [] if listed else ["it says that the run passed, and lists no phase"]
    known = {str(one.get("notebook")) for one in listed}
    unlisted = sorted(name for name in there if NOTEBOOK.fullmatch(name) and name not in known)
    faults += [f"{name} is of no phase that it lists" for name in unlisted]
    numbers = [str(one.get("number")).zfill(2) for one in listed]
    if any(later <= sooner for sooner, later in pairwise(numbers)):
        faults.append(f"its phases stand in the order {', '.join(numbers)}")
    return faults + _misnamed(summary, folder)


def _phase(phase: dict[str, Any], found: Notebook | None, there: Collection[str]) -> Iterator[str]:
    outcome, name, page = phase.get("outcome"), str(phase.get("notebook")), phase.get("html")
    if name != f"{str(phase.get('number')).zfill(2)}_{phase.get('name')}.ipynb":
        yield f"phase {phase.get('number')} {phase.get('name')} has the notebook {name}"
    if outcome not in (*OUTCOMES, "not begun"):
        yield f"{name} has the outcome {outcome!r}"
    if outcome != "not begun" and name not in there:
        yield f"{name} is listed as {outcome}, but missing"
    if outcome == "passed" and page is not None and str(page) not in there:
        yield f"{page} is listed, but missing"
    if found is None:
        return
    failed = [cell.place for cell in found.cells if cell.failed]
    if outcome == "passed" and failed:
        yield f"{name} is listed as passed, but its code cell {failed[0]} failed"
    if outcome == "not begun" and found.ran:
        yield f"{name} is listed as not begun, but cells of it ran"
    if outcome in ("failed", "approval needed") and not failed and len(found.ran) == len(found.cells):
        yield f"{name} is listed as {outcome}, but each of its cells ran and none failed"


def _misnamed(summary: Mapping[str, Any], folder: str) -> list[str]:
    """A folder is named for when its run began; no sum covers that name."""
    match = chain.NAME.fullmatch(folder)
    if match is None:
        return []
    named = datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    started = time(summary.get("started"))
    return [f"its run began at {started.isoformat()}: the folder was renamed"] if abs(named - started) > _NAMING else []
