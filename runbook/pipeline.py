"""Run the phases in order by papermill, headless; stop at the first that fails; leave a record of each."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runbook import errors, phases, record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runbook.phases import Phase

#: A cell that takes longer than this hangs: the longest wait of its own is a start, 2 minutes a node in a roll.
CELL_TIMEOUT_S = 1800


@dataclass(frozen=True)
class PhaseRun:
    """What came of one phase; ename and evalue are "" and exit_status is 0 where it passed."""

    phase: Phase
    path: Path
    executed: record.Executed
    ename: str
    evalue: str
    exit_status: int
    took_s: float

    @property
    def ok(self) -> bool:
        """Whether every cell ran and none failed."""
        return self.exit_status == 0


def exit_status(ename: str) -> int:
    """The exit status of an error that ended a notebook, by its name; 1 for one that is not ours."""
    kind = getattr(errors, ename, None)
    known = isinstance(kind, type) and issubclass(kind, errors.RunbookError)
    return kind.exit_status if known and kind is not None else 1


def run(
    params_file: Path,
    chosen: Sequence[Phase],
    folder: Path,
    *,
    approve: bool | str,
    report: Callable[[PhaseRun], None],
    started: Callable[[Phase], None] = lambda _phase: None,
) -> list[PhaseRun]:
    """Execute the chosen phases' notebooks in order.

    Args:
        params_file: The params; every notebook gets its path.
        chosen: The phases.
        folder: The record's folder; each executed notebook is saved there, also when it fails.
        approve: What the notebooks get: False, True or a plan's id.
        report: Called after each phase.
        started: Called before each phase.

    Returns:
        One PhaseRun for each phase that was begun; the last one may have failed.
    """
    parameters: dict[str, object] = {"cluster": str(params_file.resolve()), "approve": approve}
    log = folder / "kernel.log"
    os.environ["RUNBOOK_KERNEL_LOG"] = str(log)
    os.environ["RUNBOOK_JOURNAL"] = str(record.journal_path(folder))
    runs: list[PhaseRun] = []
    for phase in chosen:
        started(phase)
        runs.append(_execute(phase, folder, parameters))
        report(runs[-1])
        if not runs[-1].ok:
            break
    if log.is_file() and not log.stat().st_size:
        log.unlink()
    return runs


def _execute(phase: Phase, folder: Path, parameters: dict[str, object]) -> PhaseRun:
    # 2 s of import that `plan` and `status` don't need.
    import papermill  # noqa: PLC0415

    from runbook.kernels import IpcKernelManager  # noqa: PLC0415

    output = folder / phase.notebook
    start = time.monotonic()
    ename = evalue = ""
    try:
        papermill.execute_notebook(
            phases.notebooks_dir() / phase.notebook,
            output,
            parameters=parameters,
            progress_bar=False,
            cwd=folder,
            execution_timeout=CELL_TIMEOUT_S,
            kernel_manager_class=IpcKernelManager,
        )
    except papermill.PapermillExecutionError as error:
        ename, evalue = error.ename, error.evalue
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - a dead kernel, a full disk: the run has failed
        ename, evalue = type(error).__name__, str(error) or "interrupted"
    took = time.monotonic() - start
    executed = record.read(output) if output.is_file() else record.Executed(False, "", "", 0, (), None)  # noqa: FBT003
    ename, evalue = ename or executed.ename, evalue or executed.evalue
    if not executed.ok and not ename:
        ename, evalue = "NotExecuted", f"{executed.never_ran} cells never ran: the kernel died or was stopped"
    return PhaseRun(phase, output, executed, ename, evalue, exit_status(ename) if ename else 0, took)
