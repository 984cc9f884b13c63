"""Past runs: what lies under a records folder, whole or not."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from runbook import errors, show
from runbook.records import chain, summary
from runbook.records.sumfile import SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

COLUMNS = (
    "record",
    "cluster",
    "kind",
    "outcome",
    "started",
    "took_s",
    "phases",
    "changes",
    "operator",
    "signed",
    "continues",
    "why",
)
UNREADABLE = "unreadable"
_SCHEMA = 1


def records(root: Path, cluster: str | None = None) -> show.Table:
    """List past runs, the newest last.

    Args:
        root: The records folder: `ROOT/<cluster>/<record>/`.
        cluster: Only this cluster's; None lists all.

    Returns:
        One row a record: its name, cluster, kind, outcome, start, took_s, phases that passed, changes made, operator,
        whether it has a signature (not whether that is good: `runbook verify` says that), and which record it
        continues. A folder that is no whole record is a row too: outcome `unreadable`, and why.

    Raises:
        RunbookError: the folder can't be read.
    """
    rows = [_row(folder) for folder in folders(root, cluster)]
    count = "1 record" if len(rows) == 1 else f"{len(rows)} records"
    return show.table(rows, COLUMNS, f"{count} under {root}")


def newest(root: Path, cluster: str, kinds: Collection[str] = ("run",)) -> Path | None:
    """The newest readable record of a cluster that is of one of these kinds; None where there is none.

    Raises:
        RunbookError: the folder can't be read.
    """
    for folder in reversed(folders(root, cluster)):
        row = _row(folder)
        if row["outcome"] != UNREADABLE and row["kind"] in kinds:
            return folder
    return None


def folders(root: Path, cluster: str | None = None) -> list[Path]:
    """The folders of the records, oldest first.

    Raises:
        RunbookError: They can't be read.
    """
    try:
        parents = [root / cluster] if cluster is not None else list(_inside(root))
        found = [folder for parent in parents for folder in _inside(parent)]
    except OSError as error:
        raise errors.RunbookError(
            f"can't be read: {error.strerror}", subject=str(error.filename or root), remedy="name another folder"
        ) from error
    return sorted(found, key=lambda folder: (chain.order(folder.name), folder.parent.name))


def _inside(parent: Path) -> Iterator[Path]:
    """The folders in a folder, none where it isn't there; hidden ones are JupyterLab's and editors'."""
    try:
        yield from (one for one in parent.iterdir() if one.is_dir() and not one.name.startswith("."))
    except FileNotFoundError:
        return


def _row(folder: Path) -> dict[str, Any]:
    place = {"record": folder.name, "cluster": folder.parent.name, "signed": (folder / SIGNATURE).is_file()}
    try:
        return place | _told(summary.load(folder))
    except errors.RunbookError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        why = "no summary.json: no run of this version, or it never began" if missing else error.message
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        why = f"its summary.json is none: {type(error).__name__}: {error}"
    return place | {"outcome": UNREADABLE, "why": why}


def _told(read: dict[str, Any]) -> dict[str, Any]:
    if read["schema"] != _SCHEMA:
        return {"outcome": UNREADABLE, "why": f"schema {read['schema']!r}: this version reads {_SCHEMA}"}
    phases = read["phases"]
    changes = [phase["changes"] for phase in phases if phase["changes"] is not None]
    begun = datetime.fromisoformat(read["started"])
    ended = read["ended"]
    return {
        "kind": str(read["kind"]),
        "outcome": str(read["outcome"]),
        "started": read["started"],
        "took_s": (datetime.fromisoformat(ended) - begun).total_seconds() if ended is not None else None,
        "phases": f"{sum(phase['outcome'] == 'passed' for phase in phases)} of {len(phases)}",
        "changes": sum(changes) if changes else None,
        "operator": f"{read['operator']['user']}@{read['operator']['host']}",
        "continues": read["continues"],
    }
