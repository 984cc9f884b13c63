"""The runbook alone on practice clusters of several sizes: time, memory, and how the ping mesh grows."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from runbook import connect, mesh

import job
import machine
import practice
import rivals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_EVERY_S = 0.25
_RUN = next(one for one in rivals.ALL if one.key == "runbook")


class Memory:
    """The greatest memory of a process and all that it started, looked at four times a second.

    Proportional set size (proc(5), smaps_rollup): a page that forked kernels share counts once.
    """

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self.processes = 0
        self._ended = threading.Event()

    def _look(self, process: psutil.Process) -> None:
        total, count = 0, 0
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_full_info().pss
                count += 1
        self.peak_mib = max(self.peak_mib, total / 2**20)
        self.processes = max(self.processes, count)

    @contextlib.contextmanager
    def of(self, pid: int) -> Iterator[None]:
        """Watch a process during the block."""

        def watch() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                while not self._ended.wait(_EVERY_S):
                    self._look(process)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._ended.set()
            watcher.join()


def measure(sizes: list[int], results: Path, say: Callable[[str], None]) -> None:
    """Build, run again and ping on each number of nodes (up to five of them etcd members); raw figures to `results`."""
    versions = job.fetch()
    told: dict[str, Any] = {"date": machine.today(), "machine": machine.described(), "versions": versions, "sizes": []}
    with tempfile.TemporaryDirectory(prefix="bench-") as work, practice.nodes(sizes[0]) as nodes:
        for size in sizes:
            nodes.make_virgin(size)
            made = job.prepare(nodes, Path(work) / str(size), size, versions)
            row: dict[str, Any] = {"nodes": size, "members": len(made.members), "load": machine.load()}
            for which in ("first", "second"):
                row[which] = _run(made)
                job.check(nodes, made)
            row["mesh"] = _mesh(made)
            told["sizes"].append(row)
            first, second = row["first"], row["second"]
            say(
                f"{size:>2} nodes  {first['took_s']:6.1f} s, again {second['took_s']:5.1f} s, "
                f"{first['peak_mib']:.0f} MiB, mesh {row['mesh']['took_s']:.1f} s in {row['mesh']['rounds']} round(s)"
            )
            results.parent.mkdir(exist_ok=True)
            results.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _run(made: job.Job) -> dict[str, Any]:
    """One `runbook run`: time, memory and processes at their greatest, and the time of each phase."""
    memory, start = Memory(), time.perf_counter()
    process = subprocess.Popen(
        _RUN.argv(made.folder), cwd=made.folder, env=os.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    with memory.of(process.pid):
        said = process.communicate(timeout=600)[0]
    took = time.perf_counter() - start
    if process.returncode:
        what = f"{len(made.addresses)} nodes: runbook run ended with {process.returncode}"
        raise job.WrongCluster(f"{what}:\n{said.decode(errors='replace')[-2000:]}")
    record = max((made.folder / "records").glob("*/*/summary.json"), key=lambda path: path.parent.name)
    phases = json.loads(record.read_text(encoding="utf-8"))["phases"]
    return {
        "took_s": round(took, 3),
        "peak_mib": round(memory.peak_mib),
        "processes": memory.processes,
        "phases_s": {one["title"]: one["took_s"] for one in phases},
    }


def _mesh(made: job.Job) -> dict[str, Any]:
    """The ping mesh by the library: pairs, time, and rounds of all nodes at once."""
    rounds = 0
    with closing(connect(made.folder / "params.yaml")) as fleet:
        run = fleet.run

        def counted(*words: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on as they are
            nonlocal rounds
            rounds += options.get("what") == "ping"
            return run(*words, **options)

        fleet.run = counted  # type: ignore[method-assign]
        start = time.perf_counter()
        pings = mesh.ping(fleet)
        took = time.perf_counter() - start
    return {"pairs": len(pings), "ok": bool(pings["ok"].all()), "took_s": round(took, 3), "rounds": rounds}
