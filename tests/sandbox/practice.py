"""A practice cluster for a module of tests: params for it, the programs as users call them, looks at its nodes."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from runbook import connect, params, phases, record, show, state
from runbook.sandbox.machine import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runbook.fleet import Fleet
    from runbook.sandbox import Sandbox

BIN = Path(sys.executable).parent
"""Where the environment's own `runbook` and `papermill` are."""

NODES = ("node1", "node2", "node3")
UNITS = ("etcd", "flanneld")
_PROGRAM_S = 400
_BUILT = "/opt/k8s /etc/etcd /etc/flanneld /data /usr/local/bin/zstd"
"""What a node that was never touched has not got."""


class Practice:
    """A practice cluster and a folder for what tests leave on this side.

    Args:
        sandbox: The cluster, which is up.
        folder: For params files and records.
    """

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self._numbers = itertools.count(1)

    def params(self, *, approve: bool = False, **overrides: Any) -> Path:  # noqa: ANN401 - plain YAML values
        """Write a params file for three nodes; `overrides` are keys of `cluster`, merged where they are mappings."""
        made = {**self.sandbox.params(3), "approve": approve}
        for key, value in overrides.items():
            old = made["cluster"].get(key)
            made["cluster"][key] = {**old, **value} if isinstance(old, dict) else value
        path = self.folder / f"params-{next(self._numbers)}.yaml"
        path.write_text(yaml.safe_dump(made), encoding="utf-8")
        return path

    def on(self, node: str, command: str) -> str:
        """What a line of shell prints on a node, as root; it must end with 0."""
        return run(*self.sandbox.ssh_command(node, command)).strip()

    def address(self, node: str) -> str:
        """A node's address."""
        return next(row.address for row in self.sandbox.status() if row.node == node)

    def root(self, node: str) -> Path:
        """A node's disk, as this machine sees it while the node runs."""
        return next(row.root for row in self.sandbox.status() if row.node == node)

    def sessions(self, node: str) -> list[int]:
        """The processes on this machine that are root's open SSH sessions on a node."""
        (init,) = [row.init for row in self.sandbox.status() if row.node == node]
        inside, found = Path(f"/proc/{init}/ns/pid").readlink(), []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and (entry / "ns/pid").readlink() == inside:
                    found += [int(entry.name)] if (entry / "cmdline").read_bytes().startswith(b"sshd: root") else []
            except OSError:
                continue  # it ended while we looked
        return found

    @contextmanager
    def fleet(self, path: Path, *, partial: bool = False) -> Iterator[Fleet]:
        """The connections to the nodes of a params file, closed at the end."""
        with closing(connect(path, partial=partial)) as fleet:
            yield fleet

    def cli(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `runbook` as a user does, from a folder of its own."""
        return _program("runbook", *words, cwd=self.folder)

    def papermill(self, notebook: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run plain `papermill` on a notebook of the project, from another folder; its output is `output(notebook)`."""
        return _program("papermill", phases.notebooks_dir() / notebook, self.output(notebook), *words, cwd=self.folder)

    def output(self, notebook: str) -> Path:
        """Where `papermill` leaves an executed notebook."""
        return self.folder / notebook

    def make_virgin(self, nodes: int = 3) -> None:
        """See that the nodes run and have never been touched, and that this side knows no CA of theirs."""
        rows = self.sandbox.up(nodes)
        look = f"ls -d {_BUILT} 2>/dev/null || true; id -un etcd 2>/dev/null || true"
        if touched := [row.node for row in rows if self.on(row.node, look)]:
            self.sandbox.reset(*touched)
        shutil.rmtree(state.state_dir() / "clusters", ignore_errors=True)

    def traces(self) -> dict[str, str]:
        """All files that a phase could touch, with mode, owner, size and change time, and all users, of each node.

        What etcd itself writes is left out: it does so all the time.
        """
        shown = "-path '/data/k8s/etcd/*' -prune -o -printf '%p %m %u %s %C@\\n'"
        look = f"find /etc /opt /usr /srv /data -xdev {shown} 2>/dev/null | sort; getent passwd"
        return {row.node: self.on(row.node, look) for row in self.sandbox.status()}

    def starts(self) -> dict[str, str]:
        """Main process, restarts and start time of our units, of each node."""
        look = f"systemctl show -p MainPID -p NRestarts -p ActiveEnterTimestampMonotonic {' '.join(UNITS)}"
        return {row.node: self.on(row.node, look) for row in self.sandbox.status()}


def _program(name: str, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [str(BIN / name), *map(str, words)]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=_PROGRAM_S, check=False)


def apply(fleet: Fleet, only: str = "") -> dict[str, show.Table]:
    """Plan and apply these phases in order by the library; the results by the phase's name."""
    chosen = [phase for phase in phases.select(only) if phase.plan]
    return {phase.name: asyncio.run(phase.plan(fleet).apply(approve=True)) for phase in chosen if phase.plan}


def wrong(fleet: Fleet, only: str = "") -> list[dict[str, Any]]:
    """The rows of these phases' tables that don't hold."""
    tables = [table for phase in phases.select(only) for table in phase.verify(fleet)]
    assert tables
    return [row for table in tables if "ok" in table.columns for row in show.rows(table) if not row["ok"]]


def table(folder: Path, number: int, caption: str) -> list[dict[str, Any]]:
    """The rows of a table that a record's notebook holds as data, found by the start of its caption."""
    executed = record.read(next(folder.glob(f"{number:02d}_*.ipynb")))
    found = [one for one in executed.tables if one.caption.startswith(caption)]
    assert len(found) == 1, f"{caption}: {[one.caption for one in executed.tables]}"
    return show.rows(found[0])


def mesh(rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """The pairs for which an N x N table of round-trip times, read from a record, has a time."""
    return {
        (row["from"], to)
        for row in rows
        for to, rtt in row.items()
        if to != "from" and isinstance(rtt, float) and rtt > 0
    }


def cluster_of(path: Path) -> params.Cluster:
    """What the params in a file come to."""
    return params.load(path)


def plan_id(text: str) -> str:
    """The id of the plan that waits for approval, as a program's output names it."""
    found = re.search(r"-p approve (\w+)", text)
    assert found, text
    return found[1]


def loads(done: subprocess.CompletedProcess[str]) -> Any:  # noqa: ANN401 - JSON
    """A program's standard output as JSON."""
    return json.loads(done.stdout)


def until(holds: Callable[[], object], within_s: float = 20) -> None:
    """Look again until it holds; fail when the deadline has passed."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(0.02)  # between two looks
