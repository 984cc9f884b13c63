"""A control group for each practice node, where this machine's own systemd can't give it one.

systemd-nspawn with --keep-unit puts the node below its own group: nodes started from one shell would share
one tree, and each would count, wait for and try to kill the others' services.
"""

from __future__ import annotations

import time
from pathlib import Path

from runbook.errors import SandboxError

_REMOVE_DEADLINE_S = 10.0


def folders(machine: str) -> list[Path]:
    """Where a node's group is, or would be, in each hierarchy that systemd uses (its named one, and version 2).

    None where nspawn can ask this machine's systemd for a scope, which also outlives the login session.

    Args:
        machine: The container's name.
    """
    if _has_system_manager():
        return []
    own = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    found = []
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, mount_point, kind, options = line.split(" ")[:4]
        hierarchy = "name=systemd" if kind == "cgroup" and "name=systemd" in options.split(",") else ""
        if hierarchy in own and (hierarchy or kind == "cgroup2"):
            found.append(Path(mount_point) / own[hierarchy].strip("/") / machine)
    return found


def remove(folder: Path) -> None:
    """Remove a group and the groups that the node made in it; its processes are dead, or about to be.

    Raises:
        SandboxError: Something still runs in it after 10 s.
    """
    deadline = time.monotonic() + _REMOVE_DEADLINE_S
    while folder.exists():
        below = sorted((path for path in folder.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
        try:
            for group in (*below, folder):
                group.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            if time.monotonic() > deadline:
                raise SandboxError("processes still run in this control group", subject=str(folder)) from error
            time.sleep(0.02)


def _has_system_manager() -> bool:
    return Path("/run/systemd/system").is_dir() and Path("/run/dbus/system_bus_socket").exists()
