"""summary.json: a run for programs; written anew after each phase, so that it is true at every moment.

Its shape is in docs/summary.schema.json.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import socket
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any

from runbook import errors
from runbook.records import saving

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from runbook.params import Cluster
    from runbook.phases import Phase
    from runbook.pipeline import PhaseRun

NAME = "summary.json"
DISTRIBUTION = "etcd-flannel-runbook"
#: What a run stood on, besides Python: named with their versions in every record.
_PACKAGES = ("paramiko", "cryptography", "papermill", "nbclient", "nbconvert", "ipykernel", "jupyter_client", "pandas")
#: Which table of which phase is a closing table: key in the summary, phase, start of the caption.
_CLOSING = {
    "endpoints": (5, "etcd endpoints"),
    "leases": (10, "Leases under"),
    "overlay": (11, "overlay: rtt_ms"),
    "underlay": (11, "underlay: rtt_ms"),
    "overlay_loss": (11, "overlay: loss_pct"),
    "underlay_loss": (11, "underlay: loss_pct"),
}
#: The phases whose tables tell of binaries: etcd's and flannel's.
_BINARIES = (1, 4)
_BINARY_COLUMNS = ("node", "path", "version", "sha256", "source", "compared_with")


def stamp(at: datetime) -> str:
    """A time as records have it: UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now() -> str:
    """The time as records have it."""
    return stamp(datetime.now(UTC))


def moment(at: datetime) -> str:
    """When a phase began or ended: UTC, to the millisecond, so that its steps in the journal lie within."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def params_sha256(cluster: Cluster) -> str:
    """A hash of the resolved params: two runs with the same hash were asked for the same cluster."""
    return hashlib.sha256(json.dumps(cluster.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def tool() -> dict[str, Any]:
    """This tool's version and those of what it runs on."""
    return {
        "name": DISTRIBUTION,
        "version": metadata.version(DISTRIBUTION),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
    }


def begin(
    cluster: Cluster, kind: str, chosen: Sequence[Phase], *, approve: bool | str = False, continues: str | None = None
) -> dict[str, Any]:
    """The summary of a run that is about to begin."""
    return {
        "schema": 1,
        "tool": tool(),
        "kind": kind,
        "cluster": cluster.name,
        "operator": {"user": getpass.getuser(), "host": socket.gethostname(), "pid": os.getpid()},
        "approve": approve,
        "started": now(),
        "ended": None,
        "outcome": "running",
        "continues": continues,
        "params_sha256": params_sha256(cluster),
        "versions": {"etcd": cluster.etcd.version, "flannel": cluster.flannel.version},
        "binaries": [],
        "phases": [_phase(phase) for phase in chosen],
        "tables": dict.fromkeys(_CLOSING),
        "secrets_removed": 0,
    }


def _phase(phase: Phase) -> dict[str, Any]:
    begun = dict.fromkeys(("started", "ended", "took_s", "changes", "plan", "error"))
    names = {"notebook": phase.notebook, "html": phase.notebook.replace(".ipynb", ".html")}
    shared = {"number": phase.number, "name": phase.name, "title": phase.title, "outcome": "not begun"}
    return {**shared, **begun, **names}


def add(summary: dict[str, Any], done: PhaseRun, *, timed: bool) -> None:
    """Note what came of a phase that has just ended, and its closing tables; where not `timed`, not when it was."""
    ended = datetime.now(UTC)
    started = ended - timedelta(seconds=done.took_s)
    # Its first cells may have begun before: when the notebook before had gone well.
    started = min(started, done.executed.began or started)
    row = next(one for one in summary["phases"] if one["number"] == done.phase.number)
    plan = done.executed.plan
    row |= {
        "outcome": outcome(done.exit_status),
        "started": moment(started) if timed else None,
        "ended": moment(ended) if timed else None,
        "took_s": round((ended - started).total_seconds(), 2) if timed else None,
        "changes": done.executed.changes,
        "plan": plan["id"] if plan else None,
        "error": {"name": done.ename, "text": done.evalue} if done.ename else None,
    }
    add_tables(summary, done.phase, done.executed.kept)


def add_tables(summary: dict[str, Any], phase: Phase, tables: Iterable[Mapping[str, Any]]) -> None:
    """Note the closing tables and the binaries among a phase's tables."""
    for table in tables:
        for key, (number, caption) in _CLOSING.items():
            if phase.number == number and table["caption"].startswith(caption):
                summary["tables"][key] = table
        if phase.number in _BINARIES and table["caption"].startswith("Binaries in"):
            rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
            told = [{name: row.get(name) for name in _BINARY_COLUMNS} for row in rows]
            again = {(row["node"], row["path"]) for row in told}
            before = [row for row in summary["binaries"] if (row["node"], row["path"]) not in again]
            summary["binaries"] = before + told


def outcome(exit_status: int) -> str:
    """A phase's or run's outcome in a word or two."""
    if exit_status == errors.ApprovalRequired.exit_status:
        return "approval needed"
    return "failed" if exit_status else "passed"


def end(summary: dict[str, Any], exit_status: int) -> None:
    """Note the end of the run."""
    summary |= {"ended": now(), "outcome": outcome(exit_status)}


def save(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write it whole."""
    saving.write(folder / NAME, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


def load(folder: Path) -> dict[str, Any]:
    """Read a record's summary.

    Raises:
        RunbookError: there is none, or it can't be read.
    """
    try:
        read: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise errors.RunbookError(f"is no record: {error}", subject=str(folder / NAME)) from error
    return read
