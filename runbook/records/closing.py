"""Close a record that its own run did not close: one that was stepped through by hand, or whose run was killed."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook import errors, phases, pipeline, record
from runbook.records import execution, redact, saving, sumfile, summary

if TYPE_CHECKING:
    from runbook.phases import Phase


def close(folder: Path, *, sign_key: Path | None = None) -> dict[str, Any]:
    """Say what ran, render it, and seal the record as a run's own end does.

    Returns:
        Its summary.

    Raises:
        RunbookError: it is no record, it is closed already, or its run is still at work.
    """
    told = summary.load(folder)
    _refuse(folder, told)
    words = [told["cluster"], told["operator"]["user"]]
    redactor = redact.Redactor(redact.known_secrets(os.environ), words=words)
    with pipeline.recording(folder, told, redactor, sign_key) as pages:
        for name in (".jupyter", ".ipynb_checkpoints"):
            shutil.rmtree(folder / name, ignore_errors=True)
        worst = 0 if told["kind"] == "stepped" else 1
        for phase in phases.PHASES:
            path = folder / phase.notebook
            if path.is_file():
                worst = max(worst, _settle(told, phase, path, redactor))
                if path.is_file():
                    pages.page(path)
        if (index := folder / phases.INDEX).is_file():
            handler = saving.Handler(redactor)
            handler.write(handler.read(str(index)), str(index))
        if told["kind"] == "stepped":
            told["phases"] = [row for row in told["phases"] if row["outcome"] != "not begun"]
        if told["outcome"] == "running":
            # A record of nothing shows nothing: it has not passed.
            summary.end(told, worst if told["phases"] else 1)
    return told


def _refuse(folder: Path, told: dict[str, Any]) -> None:
    # Not by its outcome: a run whose disk was full has one, and was told to be closed by this.
    if (folder / sumfile.SUMS).exists():
        raise errors.RunbookError(f"is closed already: {told['outcome']}", subject=str(folder))
    operator = told["operator"]
    alive = operator.get("host") == socket.gethostname() and Path(f"/proc/{operator.get('pid')}").exists()
    if told["kind"] != "stepped" and alive:
        raise errors.RunbookError(
            f"its run is at work still, process {operator.get('pid')}", subject=str(folder), remedy="wait for its end"
        )


def _settle(told: dict[str, Any], phase: Phase, path: Path, redactor: redact.Redactor) -> int:
    """Note what a phase's notebook says, where the run did not come to it; returns the exit status it stands for."""
    row = next((one for one in told["phases"] if one["number"] == phase.number), None)
    if row is None or row["outcome"] != "not begun":
        return 0
    handler = saving.Handler(redactor)
    if told["kind"] != "stepped":
        saving.mark_failed(path, "Killed", "the run was killed before this phase came to an end", redactor)
    handler.write(handler.read(str(path)), str(path))
    executed = record.read(path)
    if told["kind"] == "stepped" and executed.never_ran == executed.cells:
        path.unlink()
        return 0
    status = pipeline.exit_status(executed.ename) if executed.ename else int(not executed.ok)
    evalue = executed.evalue or (f"{executed.never_ran} cells never ran" if status else "")
    ename = executed.ename or ("NotExecuted" if status else "")
    summary.add(told, pipeline.PhaseRun(phase, path, executed, ename, evalue, status, 0.0), timed=False)
    if told["kind"] == "stepped":
        row.update(_times(path))
    return status


def _times(path: Path) -> dict[str, Any]:
    """From when to when its cells ran, as far as JupyterLab has noted it; a person's thinking time is in it."""
    times = [at for cell in execution.notebook(path).cells for at in cell.times]
    if not times:
        return {}
    first, last = min(times), max(times)
    took_s = round((last - first).total_seconds(), 2)
    return {"started": summary.moment(first), "ended": summary.moment(last), "took_s": took_s}
