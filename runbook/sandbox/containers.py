"""The processes of a practice node: systemd-nspawn and, below it, the node's own init.

Both carry the node's uuid, 128 random bits that we drew, nspawn in its arguments and init in its environment.
So they are found without a pid file, which a killed `up` could not have written and a reboot makes wrong,
and no process is ever killed that is not a node of ours.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runbook.errors import SandboxError
from runbook.sandbox.machine import tool_path

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_KILL_DEADLINE_S = 20.0
_STARTERS = {"systemd-nspawn", "setsid", "sh"}
"""What the process is called that is, or is about to become, nspawn."""


@dataclass
class Processes:
    """What runs of one node."""

    supervisors: list[int] = field(default_factory=list)
    inits: list[int] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Whether the node has both, as it should."""
        return bool(self.supervisors and self.inits)


def find(uuids: Collection[str]) -> dict[str, Processes]:
    """Look once through /proc for the processes of nodes, by the nodes' uuids."""
    found = {uuid: Processes() for uuid in uuids}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (mark := _mark(int(entry.name))):
            role, uuid = mark
            if uuid in found:
                (found[uuid].inits if role == "init" else found[uuid].supervisors).append(int(entry.name))
    return found


def start(
    root: Path, *, uuid: str, machine: str, hostname: str, namespace: Path, groups: Sequence[Path], console: Path
) -> None:
    """Boot a node. Its processes belong to nobody: they outlive this one and don't get its signals.

    Args:
        root: The mounted disk.
        uuid: The mark of its processes.
        machine: The container's name.
        hostname: The node's name.
        namespace: The network namespace.
        groups: Control groups to run it in; none where this machine's systemd gives it one.
        console: The file that takes what it prints.

    Raises:
        SandboxError: It could not be started.
    """
    # The shell enters the groups and becomes nspawn, so that no child is ever elsewhere.
    script = "".join(f"echo $$ >{shlex.quote(str(group))}/cgroup.procs && " for group in groups) + 'exec "$@"'
    argv = [
        "setsid", "--fork", "sh", "-c", script, "sh",
        "systemd-nspawn", "--quiet", "--boot", "--register=no",
        f"--directory={root}", f"--uuid={uuid}", f"--machine={machine}", f"--hostname={hostname}",
        f"--network-namespace-path={namespace}", "--capability=CAP_NET_ADMIN,CAP_NET_RAW",
        "--settings=no", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
    ]  # fmt: skip
    if groups:
        argv.append("--keep-unit")
    # Without this /proc/sys/net is read-only in the node: no other host's is.
    environment = {"PATH": tool_path(), "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
    with console.open("ab") as log:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd="/", check=False
        )
    if done.returncode:
        raise SandboxError(f"setsid ended with {done.returncode}", node=hostname, remedy=f"look at {console}")


def power_off(uuid: str) -> None:
    """Kill a node as a cut power line does: init first (all in its pid namespace dies with it), then nspawn.

    Raises:
        SandboxError: A process is still there after 20 s.
    """
    deadline = time.monotonic() + _KILL_DEADLINE_S
    # Looks twice: setsid hands over to a child, and the list of pids that names it may be older than the child.
    while (found := find([uuid])[uuid]) != Processes() or (found := find([uuid])[uuid]) != Processes():
        if time.monotonic() > deadline:
            raise SandboxError(
                f"processes {[*found.inits, *found.supervisors]} survive SIGKILL",
                remedy="look at them with `ps`; they may wait for a disk",
            )
        for pid in found.inits:
            _kill(pid, ("init", uuid))
        # nspawn ends by itself when init is gone, and tidies up behind it; only a stuck one is killed.
        for pid in found.supervisors:
            _kill(pid, ("nspawn", uuid), grace_s=2.0 if found.inits else 0.0)


def _kill(pid: int, mark: tuple[str, str], grace_s: float = 0.0) -> None:
    """Kill one process, unless its pid has become another's since it was found (the descriptor can't)."""
    with ExitStack() as stack:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        stack.callback(os.close, process)
        poller = select.poll()
        poller.register(process, select.POLLIN)
        if _mark(pid) != mark or poller.poll(int(grace_s * 1000)):
            return
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError:
            return
        poller.poll(5000)


def _mark(pid: int) -> tuple[str, str] | None:
    """("init" or "nspawn", uuid) of a process that carries a uuid as a node's processes do."""
    folder = Path("/proc") / str(pid)
    try:
        argv = _arguments(folder)
        if Path(argv[0]).name in _STARTERS:
            uuids = [word.removeprefix("--uuid=") for word in argv if word.startswith("--uuid=")]
            return ("nspawn", uuids[0]) if uuids else None
        status = (folder / "status").read_text(encoding="utf-8", errors="replace")
        levels = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
        if levels[1:] and levels[-1] == "1":
            for variable in (folder / "environ").read_bytes().decode(errors="replace").split("\0"):
                name, _, value = variable.partition("=")
                if name == "container_uuid":
                    return "init", value
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return None


def _arguments(folder: Path) -> list[str]:
    """A process's arguments; read again in the moment of an exec, when there are none to read."""
    for _ in range(100):
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        # Kernel threads and the dead have none, but no executable either: reading that raises FileNotFoundError.
        if words[0] or not (folder / "exe").readlink():
            break
    return words


def uptime_s(pid: int) -> float:
    """Seconds since a process started; 0 when it is gone."""
    try:
        stat = (Path("/proc") / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    started = int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0]) - started
