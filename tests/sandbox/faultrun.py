"""One run of phases in a process of its own, as a kernel makes it: it can be stopped at a step, and hit there."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import sys
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runbook import binaries, connect, errors, etcd, flannel, lock, lock_script, mesh, phases, preflight, show
from runbook.journal import Step

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from runbook.fleet import Fleet
    from runbook.journal import Pulse

#: What a run imports, so that the process that is forked for it has it already.
AHEAD = (binaries, etcd, flannel, mesh, preflight)
MESH_WITHIN_S = 60.0


@dataclass(frozen=True)
class Stop:
    """The step at which a run says that it is there, and waits to be told what happens.

    Attributes:
        node: The node of the step, "" for this side.
        step: Matches the step's words from their beginning.
        state: Its state.
    """

    node: str
    step: str
    state: str


class _Trip:
    """Listens to a journal; at the first step that it waits for it says so, and then does what it is told."""

    def __init__(self, at: Stop, parent: Connection) -> None:
        self._at, self._parent = at, parent
        self._lock = threading.Lock()

    def hear(self, told: Step | Pulse) -> None:
        if not isinstance(told, Step) or (told.node, told.state) != (self._at.node, self._at.state):
            return
        if not re.match(self._at.step, told.step) or not self._lock.acquire(blocking=False):
            return
        self._parent.send(("at", f"{told.node} {told.step} {told.state}".strip()))
        if self._parent.recv() == "error":
            raise OSError(errno.ENOSPC, "No space left on device", "journal.jsonl")


def run(params: Path, only: str, at: Stop | None, log: Path, parent: Connection) -> None:
    """Apply these phases under the cluster's lock; the last message to the parent is ("end", what came of it).

    Args:
        params: The params file.
        only: The phases, as for `--phases`.
        at: Where to stop and ask; None runs through.
        log: Gets what is printed; the journal is beside it.
        parent: The other end of the pipe.
    """
    # As the command line does it; a shell's background jobs begin with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["RUNBOOK_JOURNAL"] = str(log.with_suffix(".jsonl"))
    try:
        told = _run(params, only, at, parent)
    except (errors.RunbookError, OSError, KeyboardInterrupt) as error:
        told = {"error": type(error).__name__, "words": str(error)}
    parent.send(("end", told))
    if "error" in told:
        sys.exit(1)


def _run(params: Path, only: str, at: Stop | None, parent: Connection) -> dict[str, Any]:
    changes: dict[str, int] = {}
    with closing(connect(params)) as fleet:
        if at:
            fleet.journal.listen(_Trip(at, parent).hear)
        with lock.held(fleet, record="sweep") as ours:
            os.environ[lock_script.TOKEN_VARIABLE] = ours.token
            for phase in phases.select(only):
                if phase.plan:
                    table = asyncio.run(phase.plan(fleet).apply(approve=True))
                    changes[f"{phase.number:02d}"] = len(table)
        return {"changes": changes, **({} if at else _looks(fleet))}


def _looks(fleet: Fleet) -> dict[str, Any]:
    """How many endpoints are healthy, leases hold and pairs are reached, and the rows that don't hold."""
    tables = {
        "endpoints": etcd.endpoints(fleet),
        "leases": flannel.leases(fleet),
        "pairs": mesh.ping(fleet, within_s=MESH_WITHIN_S),
    }
    rows = {name: show.rows(table) for name, table in tables.items()}
    wrong = [f"{name}: {row['node']}: {row['why']}" for name, some in rows.items() for row in some if not row["ok"]]
    return {**{name: sum(bool(row["ok"]) for row in some) for name, some in rows.items()}, "wrong": wrong}
