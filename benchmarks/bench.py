"""`make bench`: the same job by every contender, in rounds, and the runbook alone on 3, 8 and 16 nodes.

Leaves the raw figures in benchmarks/results/, and the tables and pictures in docs/.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from runbook.errors import RunbookError
from runbook.sandbox import requirements

import job
import machine
import practice
import report
import rivals
import scale

NODES = 3
_QUIET_LOAD = 0.5
_SETTLE_S = 90.0


class Failed(Exception):
    """A contender ended with another status than 0; with the end of what it printed."""


def say(line: str) -> None:
    """Tell a line of progress, with the time since the start."""
    print(f"bench {time.monotonic() - _STARTED:5.0f} s  {line}", flush=True)


_STARTED = time.monotonic()


def measure(
    nodes: practice.Nodes, contender: rivals.Contender, folder: Path, versions: dict[str, str]
) -> dict[str, Any]:
    """First build on virgin nodes and second run of one contender; each checked, neither check nor reset in the time.

    Returns:
        contender, and for first and second: wall time and CPU time on this side in s, load before; restarted: whether
        the second run started a service anew.
    """
    nodes.make_virgin(NODES)
    made = job.prepare(nodes, folder, NODES, versions)
    row: dict[str, Any] = {"contender": contender.key}
    try:
        for which in ("first", "second"):
            before = {} if which == "first" else job.main_processes(nodes, made)
            row[f"{which}_load"] = machine.load()
            log, cpu, start = folder / f"{which}.log", _cpu_s(), time.perf_counter()
            status = rivals.run(contender, folder, log)
            row[f"{which}_s"] = round(time.perf_counter() - start, 3)
            row[f"{which}_cpu_s"] = round(_cpu_s() - cpu, 2)
            if status:
                said = log.read_text(encoding="utf-8", errors="replace")[-3000:]
                raise Failed(f"{contender.label}, {which} run, ended with {status}:\n{said}")
            job.check(nodes, made)
            if before:
                row["restarted"] = job.main_processes(nodes, made) != before
    finally:
        rivals.clean_up(folder)
    return row


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def settle() -> None:
    """Wait until nothing else keeps the machine busy, but not for long: the load is noted beside each figure anyway."""
    deadline = time.monotonic() + _SETTLE_S
    if machine.load() > _QUIET_LOAD:
        say(f"load average {machine.load()}: waiting up to {_SETTLE_S:.0f} s for the machine to be quiet")
    while machine.load() > _QUIET_LOAD and time.monotonic() < deadline:
        time.sleep(2)


def compare(chosen: list[rivals.Contender], rounds: int, results: Path) -> None:
    """Interleaved rounds: in each one every contender, and each round begins with another one."""
    versions = job.fetch()
    told: dict[str, Any] = {
        "date": machine.today(),
        "machine": machine.described(),
        "versions": {**versions, **rivals.versions()},
        "nodes": NODES,
        "runs": [],
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as work, practice.nodes(NODES) as nodes:
        for number in range(rounds):
            shift = number % len(chosen)
            for place, contender in enumerate([*chosen[shift:], *chosen[:shift]], 1):
                folder = Path(work) / f"{number}-{contender.key}"
                row = {"round": number + 1, **measure(nodes, contender, folder, versions)}
                told["runs"].append(row)
                say(
                    f"round {number + 1} of {rounds}, {place} of {len(chosen)}  {contender.key:<10}"
                    f"{row['first_s']:6.1f} s, again {row['second_s']:5.1f} s   load {row['first_load']:.1f}"
                )
                shutil.rmtree(folder)
                _write(results, told)  # after each: what a run that is interrupted has measured is kept


def _write(path: Path, told: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Read the command line and do what it says; 0, or 1 with the reason on standard error."""
    keys = [one.key for one in rivals.ALL]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender builds the cluster (default 5)")
    parser.add_argument("--only", default=",".join(keys), help=f"of {','.join(keys)}; bash always runs: it is the unit")
    parser.add_argument("--sizes", default="3,8,16", help="how many nodes the runbook alone builds; '' leaves it out")
    parser.add_argument("--no-rivals", action="store_true", help="only the sizes")
    parser.add_argument("--results", type=Path, default=job.HERE / "results", help="where the raw figures go")
    parser.add_argument(
        "--report-only", action="store_true", help="write docs/performance.md anew from the raw figures"
    )
    chosen, outcome = parser.parse_args(), 0
    if not chosen.report_only:
        if os.geteuid():
            print("bench: the practice cluster makes containers and interfaces, so it needs root", file=sys.stderr)
            return 1
        only = [one for one in rivals.ALL if one.key in {"bash", *chosen.only.split(",")}]
        sizes = [int(one) for one in chosen.sizes.split(",") if one]
        try:
            requirements.check_limits(max([NODES, *sizes]))  # before anything is measured
            rivals.setup()
            settle()
            if not chosen.no_rivals:
                compare(only, chosen.rounds, chosen.results / "rivals.json")
            if sizes:
                scale.measure(sizes, chosen.results / "sizes.json", say)
        except (Failed, job.WrongCluster, RunbookError, subprocess.SubprocessError) as error:
            print(f"bench: {error}", file=sys.stderr)
            outcome = 1
    report.write(chosen.results)
    say("figures: benchmarks/results/, report: docs/performance.md")
    return outcome


if __name__ == "__main__":
    # `kill` ends it as Ctrl-C does: the practice cluster is taken down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
