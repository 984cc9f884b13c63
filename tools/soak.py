"""Steady writes for a long time while members restart and `runbook run` runs again; figures to docs/reliability.md."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "sandbox"))

from clusters import cluster  # noqa: E402 - tests' own modules
from marked import put  # noqa: E402
from practice import NODES, Practice, apply, cluster_of, until, wrong  # noqa: E402
from soak import Writer, writing  # noqa: E402

from runbook import etcdctl  # noqa: E402

NAME = "soak"
_UNIT = "/etc/systemd/system/etcd.service"
_HEALTHY_S = 120.0


class Events:
    """What is done to the cluster meanwhile, one after the other.

    Attributes:
        done: How often each was done.
    """

    def __init__(self, practice: Practice, params: Path) -> None:
        self._practice, self._params = practice, params
        self._nodes = itertools.cycle(NODES)
        self.done = {"a member restarted": 0, "a member killed": 0, "`runbook run`, nothing to change": 0,
                     "`runbook run`, a unit changed by hand: three members rolled": 0}  # fmt: skip
        self._turns = itertools.cycle(zip(self.done, (self._restart, self._kill, self._run, self._roll), strict=True))

    def next(self) -> None:
        """Do the next of them, and see that the cluster is healthy again."""
        name, do = next(self._turns)
        do()
        until(self._healthy, within_s=_HEALTHY_S)
        self.done[name] += 1

    def _healthy(self) -> bool:
        command = etcdctl.command(cluster_of(self._params), "endpoint", "health")
        return self._practice.on("node1", f"{command} >/dev/null 2>&1 && echo yes || true") == "yes"

    def _restart(self) -> None:
        self._practice.on(next(self._nodes), "systemctl restart etcd")

    def _kill(self) -> None:
        self._practice.on(next(self._nodes), "systemctl kill -s KILL etcd")

    def _run(self) -> None:
        done = self._practice.cli("run", self._params, "--approve", "--records", self._practice.folder / "records")
        assert done.returncode == 0, done.stdout + done.stderr

    def _roll(self) -> None:
        for node in NODES:
            self._practice.on(node, f"echo '# by hand' >>{_UNIT}")
        self._run()


def main() -> int:
    """Soak; 1 where a write was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=50, help="Writes a second.")
    parser.add_argument("--pause", type=float, default=30, help="Seconds between two events.")
    parser.add_argument("--slot", type=int, default=1)
    options = parser.parse_args()
    with cluster(NAME, options.slot) as sandbox, tempfile.TemporaryDirectory(prefix="soak-") as folder:
        practice = Practice(sandbox, Path(folder))
        params = practice.params()
        with practice.fleet(params) as fleet:
            apply(fleet)
        events, start = Events(practice, params), time.monotonic()
        with writing(practice, cluster_of(params), Path(folder), options.rate) as writer:
            while time.monotonic() - start + options.pause < options.minutes * 60:
                time.sleep(options.pause)
                events.next()
                print(f"{time.monotonic() - start:6.0f} s  {len(writer.acknowledged)} writes", flush=True)
            time.sleep(max(0.0, options.minutes * 60 - (time.monotonic() - start)))
            took_s = time.monotonic() - start
        with practice.fleet(params) as fleet:
            assert wrong(fleet, "05,10-11") == []
    text = table(writer, events, took_s, options.rate)
    put("soak", text)
    print(text)
    return 1 if writer.lost else 0


def table(writer: Writer, events: Events, took_s: float, rate: float) -> str:
    """The figures in Markdown."""
    rows = {
        "duration": f"{took_s / 60:.1f} minutes",
        "writes asked for": f"{rate:g} a second",
        "writes acknowledged": f"{len(writer.acknowledged)}",
        "attempts that failed, tried again at another member": f"{writer.refused}",
        "acknowledged writes lost": f"**{len(writer.lost)}**",
        "p50, p99, longest of a write with its attempts":
            f"{writer.percentile_ms(50):.1f}, {writer.percentile_ms(99):.0f}, {writer.percentile_ms(100):.0f} ms",
        **{f"meanwhile: {name}": f"{count}" for name, count in events.done.items()},
    }  # fmt: skip
    return "\n".join(["| what | figure |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


if __name__ == "__main__":
    sys.exit(main())
