"""The disk that all practice nodes start from: Debian by debootstrap, made once, kept in the user's cache folder."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from runbook.errors import SandboxError
from runbook.sandbox.machine import attempt, lock, mounts_below, run, unmount_below

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SUITE = "bookworm"
RECIPE = 3
"""Raised whenever what follows changes: nodes that run stay on the base they were made from."""

PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "iproute2", "iputils-ping", "iptables", "nftables",
    "ca-certificates", "kmod", "procps", "sudo", "zstd",
)  # fmt: skip
"""No Python and no curl: the runbook must not come to need them on a node. zstd as on most machines: Debian packs the
initramfs of those that are no containers with it."""

MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "console-getty.service",
    "systemd-logind.service",
)  # fmt: skip
"""Units that only cost a container time."""

_JOURNAL = "[Journal]\nSystemMaxUse=32M\nRuntimeMaxUse=16M\nForwardToSyslog=no\n"
_DEADLINE_S = 1800.0


def path() -> Path:
    """Where the base image is or will be."""
    return user_cache_path("runbook") / "practice" / f"base-{SUITE}-{RECIPE}"


def ensure(tell: Callable[[str], None] = lambda _: None) -> Path:
    """Make the base image unless it is there; of two processes that ask at once, one makes it and one waits.

    Args:
        tell: Called with a line for the operator when something is about to take long.

    Raises:
        SandboxError: debootstrap failed from every mirror; with the last lines of its log.
    """
    base = path()
    if base.is_dir():
        return base
    base.parent.mkdir(parents=True, exist_ok=True)
    with lock(base.parent / "base.lock", wait_s=_DEADLINE_S):
        if base.is_dir():
            return base
        tell(f"making the base image by debootstrap, once (about a minute, 350 MB): {base}")
        beside = base.with_name(f".{base.name}.new")
        try:
            _debootstrap(beside)
            _settle(beside)
            os.sync()  # the name must not outlive a power cut that the files don't
            beside.rename(base)
        finally:
            _discard(beside)
    return base


def _debootstrap(target: Path) -> None:
    """Try apt's mirror first: it is the one this machine is known to reach."""
    environment = _apt_proxy()
    failures = []
    for mirror in (*_apt_mirrors(), None):
        _discard(target)
        argv = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(target)]
        done = attempt(*argv, *([mirror] if mirror else []), env=environment, timeout_s=_DEADLINE_S)
        if done.returncode == 0:
            return
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
        failures.append(f"{mirror or 'the default mirror'}: exit status {done.returncode}: {said}")
    _discard(target)
    raise SandboxError(
        "debootstrap could not make the base image\n" + "\n".join(failures),
        remedy="check that `apt-get update` works here; a mirror or proxy set for apt is used",
    )


def _apt_mirrors() -> tuple[str, ...]:
    """Mirrors that apt is set to use for this suite, security and update archives left out."""
    listing = attempt(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(RELEASE) $(COMPONENT)", "Created-By: Packages"
    ).stdout
    rows = (line.split() for line in listing.splitlines())
    return tuple(dict.fromkeys(row[0] for row in rows if row[1:] == [SUITE, SUITE, "main"]))


def _apt_proxy() -> dict[str, str]:
    """The proxy that apt is set to use: debootstrap fetches by wget, which knows nothing of it."""
    found = {}
    for scheme in ("http", "https"):
        setting = attempt("apt-config", "dump", "--format", "%v", f"Acquire::{scheme}::Proxy").stdout.strip()
        if setting and setting != "DIRECT":
            found[f"{scheme}_proxy"] = setting
    return found


def _settle(root: Path) -> None:
    """What all nodes have in common; keys, names and ids are each node's own."""
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/machine-id").write_text("", encoding="ascii")
    # No name server answers in a practice cluster: an empty file fails at once instead of after a timeout.
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("", encoding="ascii")
    journal = root / "etc/systemd/journald.conf.d/practice.conf"
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_text(_JOURNAL, encoding="ascii")
    for unit in MASKED:
        mask = root / "etc/systemd/system" / unit
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")
    run("chroot", str(root), "/usr/sbin/useradd", "--create-home", "--shell", "/bin/bash", "ops")
    sudoers = root / "etc/sudoers.d/ops"
    sudoers.write_text("ops ALL=(ALL) NOPASSWD: ALL\n", encoding="ascii")
    sudoers.chmod(0o440)
    for packages in (root / "var/cache/apt/archives").glob("*.deb"):
        packages.unlink()


def _discard(folder: Path) -> None:
    """Remove a half-made image; debootstrap mounts proc and sys in it and may have died before unmounting."""
    if not folder.exists():
        return
    unmount_below(folder)
    if mounts_below(folder):
        raise SandboxError("something is still mounted here", subject=str(folder), remedy="unmount it")
    shutil.rmtree(folder)
