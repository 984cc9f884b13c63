"""Builds on busy nodes, over a long link, and again and again; figures to docs/reliability.md (`make load`)."""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
SANDBOX_TESTS = ROOT / "tests" / "sandbox"
sys.path.insert(0, str(SANDBOX_TESTS))

from cables import cables  # noqa: E402 - tests' own modules
from clusters import cluster  # noqa: E402 - tests' own modules
from marked import put  # noqa: E402
from practice import NODES, Practice, apply, until, wrong  # noqa: E402

from runbook import mesh, show  # noqa: E402
from runbook.sandbox.network import NETNS  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "load"
DELAY_S, LOSS = 0.05, 0.03
_BUSY = (
    "yes >/dev/null",
    "yes >/dev/null",
    "while :; do dd if=/dev/zero of=/var/tmp/load bs=1M count=64 conv=fsync 2>/dev/null; done",
)
_MB = 1 << 20


def main() -> int:
    """Measure; 1 where something leaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="Builds and teardowns in a row.")
    parser.add_argument("--slot", type=int, default=1)
    options = parser.parse_args()
    with cluster(NAME, options.slot) as sandbox, tempfile.TemporaryDirectory(prefix="load-") as folder:
        practice = Practice(sandbox, Path(folder))
        builds = {"idle nodes, on a link of this machine": _build(practice)}
        with _busy(practice):
            builds["two CPU hogs and a disk writer (dd, fsync) on each node"] = _build(practice)
        practice.make_virgin()
        with cables(practice.sandbox, delay_s=DELAY_S):
            far = f"cables of {DELAY_S * 2000:.0f} ms round trip, {DELAY_S * 4000:.0f} ms between nodes, all packets"
            builds[far] = _build(practice)
        builds[f"cables that lose {LOSS:.0%} of all frames, both ways"], told = _lossy(practice)
        rounds = [_round(practice) for _ in range(options.rounds)]
    text = "\n".join([_builds(builds), "", told, "", _rounds(rounds)])
    put("load", text)
    print(text)
    return 1 if _leaks(rounds) else 0


def _build(practice: Practice, whole: str = "05,10-11") -> float:
    """Build on nodes that were never touched until these phases find it whole; how long it took, in seconds."""
    practice.make_virgin()
    start = time.monotonic()
    with practice.fleet(practice.params()) as fleet:
        apply(fleet)
        until(lambda: not wrong(fleet, whole), within_s=120)
    return time.monotonic() - start


@contextmanager
def _busy(practice: Practice) -> Iterator[None]:
    """Keep CPU and disk of the nodes busy."""
    practice.make_virgin()  # now: it may start them anew
    for node in NODES:
        for number, load in enumerate(_BUSY):
            practice.on(node, f"systemd-run --quiet --unit=load{number} sh -c {load!r}")
    try:
        yield
    finally:
        for node in NODES:
            practice.on(node, f"systemctl stop {' '.join(f'load{number}' for number in range(len(_BUSY)))} || true")


def _lossy(practice: Practice) -> tuple[float, str]:
    """Build over cables that lose; how long it took, and what the mesh then told."""
    practice.make_virgin()
    with cables(practice.sandbox, loss=LOSS):
        took_s = _build(practice, "05,10")
        with practice.fleet(practice.params()) as fleet:
            pings = [row for row in show.rows(mesh.ping(fleet)) if row["node"] != row["to"]]
    lost = {
        network: statistics.mean(row["loss_pct"] for row in pings if row["network"] == network)
        for network in ("underlay", "overlay")
    }
    failing = sum(not row["ok"] for row in pings)
    return took_s, (
        f"Over the cables that lose, a ping passes four: {(1 - (1 - LOSS) ** 4) * 100:.1f} % of them should be lost."
        f" The mesh told {lost['underlay']:.1f} % on plain addresses and {lost['overlay']:.1f} % over the overlay, and"
        f" {failing} of {len(pings)} pairs did not pass."
    )


def _round(practice: Practice) -> dict[str, float]:
    """Up, build, a second `runbook run`, down; what is left of it then."""
    start, before = time.monotonic(), _temporary()
    practice.sandbox.up(3)
    _build(practice)
    done = practice.cli("run", practice.params(), "--approve", "--records", practice.folder / "records")
    assert done.returncode == 0, done.stdout + done.stderr
    practice.sandbox.down()
    took_s = time.monotonic() - start
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    left: dict[str, float] = {
        "processes of the cluster": len(list(_processes(practice.sandbox.folder))),
        "mounts": str(practice.sandbox.folder) in Path("/proc/self/mountinfo").read_text(encoding="utf-8"),
        "network namespaces": sum((NETNS / practice.sandbox.block.namespace(n)).exists() for n in range(1, 4)),
        "folders in the temporary one": len(_temporary() - before),
        "descriptors of this process": len(list(Path("/proc/self/fd").iterdir())),
        "threads of this process": threading.active_count(),
        "memory of this process, MB": int(status.split("VmRSS:")[1].split()[0]) * 1024 / _MB,
    }
    print(f"{took_s:5.0f} s {left}", flush=True)
    return left


def _temporary() -> set[Path]:
    return {path for path in Path(tempfile.gettempdir()).glob("runbook-*") if path.is_dir()}


def _processes(folder: Path) -> Iterator[int]:
    """The processes other than this one that have to do with the cluster: by their environment or arguments."""
    state = str(folder.parents[2]).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if state in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                    yield int(entry.name)
            except OSError:
                continue  # it ended while we looked


def _leaks(rounds: list[dict[str, float]]) -> list[str]:
    """What there is more of after the last round than after the second one; memory by more than 1 MB a round."""
    first, last = rounds[min(1, len(rounds) - 1)], rounds[-1]
    return [name for name in first if last[name] - first[name] > (len(rounds) if "memory" in name else 0)]


def _builds(builds: dict[str, float]) -> str:
    lines = ["| build of three nodes, from nothing to a mesh without loss | took |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {took_s:.0f} s |" for name, took_s in builds.items())])


def _rounds(rounds: list[dict[str, float]]) -> str:
    names = ("first", "second", "last")
    chosen = (rounds[0], rounds[min(1, len(rounds) - 1)], rounds[-1])
    lines = [f"| left after up, build, `runbook run`, down: {len(rounds)} rounds in a row | {' | '.join(names)} |"]
    lines.append("|---|---|---|---|")
    lines += [f"| {name} | {' | '.join(f'{one[name]:.0f}' for one in chosen)} |" for name in rounds[0]]
    leaks = _leaks(rounds)
    return "\n".join([*lines, "", f"Leaks: {', '.join(leaks) or 'none'}."])


if __name__ == "__main__":
    sys.exit(main())
