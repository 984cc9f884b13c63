"""What is kept of a run: its folder, and what an executed notebook says of itself."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml

from runbook import errors, show
from runbook.records import execution, notebook_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runbook.params import Cluster


def new_folder(root: Path, cluster: Cluster) -> Path:
    """Make `ROOT/<cluster>/<UTC time>/` for one run, with the resolved params in it.

    Raises:
        RunbookError: the folder can't be written.
    """
    try:
        parent = root / cluster.name
        parent.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        for number in range(1, 100):
            folder = parent / (stamp if number == 1 else f"{stamp}-{number}")
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
        (folder / "params.yaml").write_text(params_text(cluster), encoding="utf-8")
    except OSError as error:
        raise errors.RunbookError(
            f"can't be written: {error.strerror}", subject=str(root), remedy="name another folder with --records"
        ) from error
    return folder.resolve()


def params_text(cluster: Cluster) -> str:
    """A record's params.yaml: the resolved settings."""
    return yaml.safe_dump({"cluster": cluster.model_dump(mode="json")}, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class Executed:
    """What an executed notebook says: judged by what ran, never by papermill's own `completed`.

    Attributes:
        ok: Every code cell ran and none failed.
        ename, evalue: The name and text of the error of the cell that failed; "" where none did.
        cells: How many code cells there are.
        never_ran: How many of them have no execution count.
        kept: The tables among the outputs, in order, as they are kept (show.kept).
        plan: The plan's title, id and changes (Plan.as_dict); None where there was no plan.
        began: When its first cell after the parameters began; None where none did.
    """

    ok: bool
    ename: str
    evalue: str
    cells: int
    never_ran: int
    kept: tuple[dict[str, Any], ...]
    plan: dict[str, Any] | None
    began: datetime | None = None

    @property
    def tables(self) -> tuple[show.Table, ...]:
        """The tables among the outputs, in order."""
        return tuple(map(_table, self.kept))

    @property
    def changes(self) -> int | None:
        """How many changes the plan had; None where there was no plan."""
        return len(self.plan["changes"]) if self.plan is not None else None


def read(path: Path) -> Executed:
    """Read an executed notebook."""
    notebook = notebook_file.read(path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    failed = [output for output in outputs if output.output_type == "error"]
    never_ran = sum(cell.get("execution_count") is None for cell in cells)
    plans = [data[show.PLAN_MIME] for data in _data(outputs) if show.PLAN_MIME in data]
    return Executed(
        ok=not failed and not never_ran,
        ename=failed[0].ename if failed else "",
        evalue=failed[0].evalue if failed else "",
        cells=len(cells),
        never_ran=never_ran,
        kept=tuple(one for data in _data(outputs) for one in data.get(show.TABLE_MIME, ())),
        plan=plans[-1] if plans else None,
        began=_began(cells),
    )


def _began(cells: list[Any]) -> datetime | None:
    """When the first cell after the parameters began; those may be set while the phase before still works."""
    times: list[datetime] = []
    for cell in itertools.dropwhile(lambda cell: notebook_file.sets_parameters(cell.metadata), cells):
        with contextlib.suppress(ValueError):  # a notebook may come from anyone
            times += execution.times(cell.get("metadata"))
    return min(times, default=None)


def _data(outputs: list[Any]) -> Iterator[dict[str, Any]]:
    return (output.data for output in outputs if "data" in output)


def _table(kept: dict[str, Any]) -> show.Table:
    import pandas as pd  # noqa: PLC0415 - as above

    made = show.Table(kept["data"], columns=pd.Index(kept["columns"]))
    made.caption = kept["caption"]
    return made


def without(kept: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """What is kept of a table without these columns."""
    places = [place for place, name in enumerate(kept["columns"]) if name not in names]
    columns = [kept["columns"][place] for place in places]
    return {**kept, "columns": columns, "data": [[row[place] for place in places] for row in kept["data"]]}


def journal_path(folder: Path) -> Path:
    """Where the steps of a run are kept as they happen, a JSON object a line."""
    return folder / "journal.jsonl"
