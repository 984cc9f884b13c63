"""Builds on busy nodes, over a long link, and again and again; figures to docs/reliability.md (`make load`)."""

from __future__ import annotations

import argparse
import gc
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
SANDBOX_TESTS = ROOT / "tests" / "sandbox"
sys.path.insert(0, str(SANDBOX_TESTS))

from clusters import cluster  # noqa: E402 - tests' own modules
from marked import put  # noqa: E402
from practice import NODES, Practice, apply, until, wrong  # noqa: E402

from runbook.sandbox.network import NETNS  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "load"
PORT, DELAY_S = 2222, 0.05
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
        with _far(practice) as (port, known_hosts):
            told = f"SSH over a link of {DELAY_S * 2000:.0f} ms round trip (a TCP proxy on each node)"
            builds[told] = _build(practice, port=port, known_hosts=str(known_hosts))
        rounds = [_round(practice) for _ in range(options.rounds)]
    text = "\n".join([_builds(builds), "", _rounds(rounds)])
    put("load", text)
    print(text)
    return 1 if _leaks(rounds) else 0


def _build(practice: Practice, **ssh: object) -> float:
    """Build on nodes that were never touched, and see that it is whole; how long it took, in seconds."""
    practice.make_virgin()
    params = practice.params(**({"ssh": ssh} if ssh else {}))
    start = time.monotonic()
    with practice.fleet(params) as fleet:
        apply(fleet)
        until(lambda: not wrong(fleet, "05,10-11"), within_s=120)
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


@contextmanager
def _far(practice: Practice) -> Iterator[tuple[int, Path]]:
    """Reach the nodes' sshd by another port, behind a proxy with a delay in each node's network; port, known_hosts."""
    practice.make_virgin()  # as above
    known = practice.folder / "known_hosts_far"
    lines = practice.sandbox.known_hosts.read_text(encoding="ascii").splitlines()
    known.write_text("".join(f"[{line.split()[0]}]:{PORT} {line.split(' ', 1)[1]}\n" for line in lines))
    with ExitStack() as stack:
        for index, node in enumerate(NODES, 1):
            argv = ["ip", "netns", "exec", practice.sandbox.block.namespace(index), sys.executable]
            argv += [str(SANDBOX_TESTS / "slowlink.py"), practice.address(node), str(PORT), "22", str(DELAY_S)]
            proxy = stack.enter_context(subprocess.Popen(argv))
            stack.callback(proxy.kill)
        until(lambda: all(_listens(practice.address(node)) for node in NODES))
        yield PORT, known


def _listens(address: str) -> bool:
    with suppress(OSError), socket.create_connection((address, PORT), timeout=5):
        return True
    return False


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
