"""What this machine must have for a practice cluster: looked at before anything is made, told all at once."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runbook.errors import SandboxError
from runbook.sandbox.disk import mount_overlay
from runbook.sandbox.machine import attempt, tool_path, unmount_below
from runbook.sandbox.network import NETNS

if TYPE_CHECKING:
    from runbook.sandbox.addressing import Block
    from runbook.sandbox.ledger import Ledger

TOOLS = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "setsid": "util-linux",
    "mount": "mount",
}
"""Each tool that is called, and the Debian package it is in."""

PROC = Path("/proc")
INSTANCES = Path("sys/fs/inotify/max_user_instances")
"""How many inotify instances a user may have, below PROC; Debian's default is 128."""
EACH = 6
"""What a node's systemd and journald take of them as root, measured as 5, and one while it boots."""

_BRIDGE_SYSCTLS = Path("/proc/sys/net/bridge")


def check_tools() -> None:
    """Refuse without root or without a tool.

    Raises:
        SandboxError: With the Debian packages that are missing.
    """
    if os.geteuid() != 0:
        raise SandboxError("a practice cluster needs root", remedy="run it as root, e.g. by `sudo -i`")
    missing = [tool for tool in TOOLS if not shutil.which(tool, path=tool_path())]
    if missing:
        packages = " ".join(sorted({TOOLS[tool] for tool in missing}))
        raise SandboxError(f"{', '.join(missing)} not found", remedy=f"apt-get install {packages}")


def check_limits(nodes: int, proc: Path = PROC) -> None:
    """Refuse more nodes than the kernel gives root inotify instances for: systemd would not come up on the last ones.

    Args:
        nodes: How many are to be started.
        proc: Where the kernel tells.

    Raises:
        SandboxError: They don't suffice; with what is there, in use and needed.
    """
    limit, used = int((proc / INSTANCES).read_text(encoding="ascii")), _inotify_in_use(proc)
    if used + nodes * EACH > limit:
        raise SandboxError(
            f"{nodes} nodes need {nodes * EACH} inotify instances of root's, and {used} of {limit} are in use",
            subject="fs.inotify.max_user_instances",
            remedy=f"sysctl -w fs.inotify.max_user_instances={max(512, 2 * (used + nodes * EACH))}, fewer nodes, or"
            " `runbook sandbox down` of another cluster",
        )


def _inotify_in_use(proc: Path) -> int:
    """How many this user has, which is root: nodes have no user namespace of their own, so they count too."""
    used = 0
    for process in proc.glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked
            if process.stat().st_uid == os.geteuid():
                used += sum(str(file.readlink()) == "anon_inode:inotify" for file in (process / "fd").iterdir())
    return used


def check_kernel(block: Block, ledger: Ledger, scratch: Path) -> None:
    """Try what nodes will need of the kernel: a vxlan link, bridge netfilter, an overlay where the disks will be.

    Args:
        block: Names the throwaway namespace.
        ledger: Where that namespace is written down.
        scratch: A folder that is made and removed, beside the nodes' disks.

    Raises:
        SandboxError: One of them is missing.
    """
    _try_links(block, ledger)
    _need_bridge_netfilter()
    _try_overlay(scratch)


def _try_links(block: Block, ledger: Ledger) -> None:
    namespace = f"{block.link}-{block.name}-probe"
    ledger.claim("netns", namespace, exists=(NETNS / namespace).exists())
    if (NETNS / namespace).exists():
        attempt("ip", "netns", "delete", namespace)
    try:
        made = attempt("ip", "netns", "add", namespace)
        if made.returncode:
            raise SandboxError(
                f"no network namespace can be made: {made.stderr.strip()}",
                remedy="this needs a machine of its own: a virtual machine, not an unprivileged container",
            )
        for kind, argv in {
            "bridge": ("type", "bridge"),
            "veth": ("type", "veth", "peer", "name", "probe9"),
            "vxlan": ("type", "vxlan", "id", "1", "dstport", "8472"),
        }.items():
            tried = attempt("ip", "-n", namespace, "link", "add", f"probe-{kind}", *argv)
            if tried.returncode:
                raise SandboxError(
                    f"this kernel makes no {kind} links: {tried.stderr.strip()}",
                    remedy=f"boot a Debian kernel (linux-image-amd64), or load the module: modprobe {kind}",
                )
    finally:
        attempt("ip", "netns", "delete", namespace)
        ledger.release("netns", namespace)


def _need_bridge_netfilter() -> None:
    """Flannel looks for bridge-nf-call-iptables, and ends where it is missing."""
    if _BRIDGE_SYSCTLS.is_dir():
        return
    loaded = attempt("modprobe", "br_netfilter")
    if not _BRIDGE_SYSCTLS.is_dir():
        raise SandboxError(
            f"the kernel module br_netfilter can't be loaded: {loaded.stderr.strip()}",
            remedy="boot a Debian kernel (linux-image-amd64), then: modprobe br_netfilter",
        )
    # Loaded for the nodes' sake: this machine's own bridges go on as before.
    for switch in _BRIDGE_SYSCTLS.glob("bridge-nf-call-*"):
        switch.write_text("0\n", encoding="ascii")


def _try_overlay(scratch: Path) -> None:
    _clear(scratch)
    for part in ("lower", "upper", "work", "root"):
        (scratch / part).mkdir(parents=True)
    try:
        mount_overlay(scratch / "lower", scratch)
    except SandboxError as error:
        if "comma" in error.message:
            raise
        attempt("modprobe", "overlay")
        if "\toverlay\n" not in Path("/proc/filesystems").read_text(encoding="ascii"):
            raise SandboxError(
                "this kernel has no overlayfs", remedy="boot a Debian kernel (linux-image-amd64)"
            ) from error
        raise SandboxError(
            f"no overlay can be mounted here (itself on an overlay, as in a container?): {error.message}",
            subject=str(scratch.parent),
            remedy="set XDG_STATE_HOME to a folder on a plain disk (ext4, xfs) or on tmpfs",
        ) from error
    finally:
        _clear(scratch)


def _clear(scratch: Path) -> None:
    unmount_below(scratch)
    if scratch.exists():
        shutil.rmtree(scratch)
