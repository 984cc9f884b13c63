"""The nodes that the contenders build on: a practice cluster whose nodes have Python too, as Ansible needs."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import platformdirs
from runbook import state
from runbook.sandbox import Sandbox, base_image
from runbook.sandbox.machine import lock, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "bench"
SLOT = 3
_OTHER_RUN_S = 1800.0
_PYTHON = "python3"
_AT_ONCE = 4


def _with_python() -> None:
    """Let the base image be one with Python: made once by debootstrap, and kept beside the one without."""
    if _PYTHON not in base_image.PACKAGES:
        plain = base_image.path()
        base_image.PACKAGES = (*base_image.PACKAGES, _PYTHON)
        base_image.path = lambda: plain.with_name(f"{plain.name}-{_PYTHON}")


class Nodes:
    """The nodes of the benchmark's practice cluster.

    Args:
        sandbox: The cluster; it is up.
        home: Its state folder, which is also the runbook's while the contenders run.
    """

    def __init__(self, sandbox: Sandbox, home: Path) -> None:
        self.sandbox = sandbox
        self.home = home

    def addresses(self) -> dict[str, str]:
        """The address of each node, by its name, in order."""
        return {row.node: row.address for row in self.sandbox.status()}

    def on(self, node: str, command: str) -> str:
        """What a line of shell prints on a node, as root; it must end with 0."""
        return run(*self.sandbox.ssh_command(node, command)).strip()

    def make_virgin(self, count: int) -> None:
        """Give `count` nodes the base image's disk, boot them, and forget every CA that this side has for them."""
        there = [row.node for row in self.sandbox.status()]
        # A few at a time: sixteen systemds that boot at once on two cores can pass the deadline of each.
        for first in range(0, len(there), _AT_ONCE):
            self.sandbox.reset(*there[first : first + _AT_ONCE])
        for most in range(_AT_ONCE, count + _AT_ONCE, _AT_ONCE):
            self.sandbox.up(min(most, count))
        shutil.rmtree(state.state_dir() / "clusters", ignore_errors=True)
        os.sync()  # what the contender before has written must not be on this one's time


@contextmanager
def nodes(count: int) -> Iterator[Nodes]:
    """Have `count` nodes up in slot 3 for the block; nothing of them is left behind, not even by a run that was killed.

    XDG_STATE_HOME names the cluster's own state folder meanwhile, in this process and those that it starts.
    """
    _with_python()
    home = platformdirs.user_state_path("runbook-benchmarks")
    before = os.environ.get("XDG_STATE_HOME")
    # The tests' clusters in this slot hold this lock, so the two take turns.
    other = platformdirs.user_state_path("runbook-tests") / f"test-cluster-{SLOT}.lock"
    with lock(other, wait_s=_OTHER_RUN_S), lock(home.with_suffix(".lock"), wait_s=_OTHER_RUN_S):
        os.environ["XDG_STATE_HOME"] = str(home)
        sandbox = Sandbox(NAME, SLOT, tell=lambda line: print(line, flush=True))
        try:
            sandbox.down()
            sandbox.up(count)
            yield Nodes(sandbox, home)
        finally:
            sandbox.down()
            shutil.rmtree(home, ignore_errors=True)
            os.environ.pop("XDG_STATE_HOME")
            if before is not None:
                os.environ["XDG_STATE_HOME"] = before
