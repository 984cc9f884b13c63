"""The twelve phases at a glance, for the index notebook: what each takes, and what it did last time."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook import params, phases, record, show
from runbook.records import execution, record_list, summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runbook.phases import Phase

_COLUMNS = ["phase", "changes_nodes", "takes_s", "measured", "state", "changed", "when", "record"]
#: Seconds a phase, for three nodes on one machine with the binaries in the cache; without them phase 01 takes minutes.
TYPICAL_S = (0.5, 3.0, 0.5, 0.5, 3.0, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 0.5)
#: A phase that none of so many records tells of counts as one that never ran.
_LOOK_BACK = 100
_STATES = {"passed": "ok", "failed": "failed", "approval needed": "warning"}


def overview(cluster: str | Path | Mapping[str, object] | params.Cluster, records: Path | None = None) -> show.Table:
    """Show the phases of a cluster: what each did the last time that it ran. No node is asked, nothing is changed.

    Args:
        cluster: A params file, or the settings themselves.
        records: The folder of all records; by default the one that this notebook lies in, or `records` of the checkout.

    Returns:
        One row a phase, in order: phase, changes_nodes, takes_s (how long it took the last time, in seconds,
        or what it typically takes), measured (`here` or `typical`), state (ok, warning for one that waited for
        approval, failed; empty where it never ran), changed (how many changes its plan had), when (UTC), record (the
        record's name).

    Raises:
        ParamsError: the params can't be used.
        RunbookError: the records can't be read.
    """
    name = params.load(cluster).name
    last: dict[int, dict[str, Any]] = {}
    took: dict[int, float] = {}
    for row in _told(records or _records(), name):
        last.setdefault(row["number"], row)
        if row["took_s"] is not None:
            took.setdefault(row["number"], row["took_s"])
        if len(last) == len(took) == len(phases.PHASES):
            break
    rows = [_row(phase, last.get(phase.number, {}), took.get(phase.number)) for phase in phases.PHASES]
    return show.table(rows, _COLUMNS, f"{name}: the phases, and what each did last time")


def _records() -> Path:
    """A record's notebooks lie two folders below it; those of the checkout beside it."""
    here = Path.cwd()
    if (here / summary.NAME).is_file():
        return here.parents[1]
    return next((one for one in (here / "records", here.parent / "records") if one.is_dir()), here / "records")


def _told(root: Path, cluster: str) -> Iterator[dict[str, Any]]:
    """What records tell of their phases, the newest record first; what can't be read tells nothing."""
    for folder in islice(reversed(record_list.folders(root, cluster)), _LOOK_BACK):
        try:
            told = execution.loaded(folder / summary.NAME)
            for row in execution.phases(told):
                if row["outcome"] in _STATES:
                    # How long a person took says nothing of the next time.
                    took_s = row["took_s"] if told["kind"] != "stepped" else None
                    yield {key: row[key] for key in ("number", "outcome", "changes")} | {
                        "took_s": took_s, "when": row["started"] or told["started"], "record": folder.name,
                    }  # fmt: skip
                elif (told["kind"], told["outcome"]) == ("stepped", "running"):
                    yield from _stepping(folder, row, told)
        except (KeyError, TypeError, ValueError, OSError):
            continue


def _stepping(folder: Path, row: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a notebook of a record that is stepped through says by itself, as it was last saved."""
    path = folder / str(row["notebook"])
    executed = record.read(path) if path.is_file() else None
    if executed is None or executed.never_ran == executed.cells or (executed.never_ran and not executed.ename):
        return
    outcome = "failed" if executed.ename else "passed"
    found = {"number": row["number"], "outcome": outcome, "took_s": None, "changes": executed.changes}
    yield found | {"when": told["started"], "record": folder.name}


def _row(phase: Phase, last: Mapping[str, Any], took_s: float | None) -> dict[str, Any]:
    return {
        "phase": f"{phase.number:02d} {phase.title}",
        "changes_nodes": "yes" if phase.plan else "no",
        "takes_s": TYPICAL_S[phase.number] if took_s is None else took_s,
        "measured": "typical" if took_s is None else "here",
        "state": _STATES.get(str(last.get("outcome")), ""),
        "changed": last.get("changes"),
        "when": str(last.get("when", ""))[:16].replace("T", " "),
        "record": last.get("record", ""),
    }
