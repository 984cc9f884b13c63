"""Reaching a practice node by SSH: the command line, and waiting until a node that boots can be used."""

from __future__ import annotations

import shlex
import socket
import time
from typing import TYPE_CHECKING

from runbook.errors import SandboxError
from runbook.sandbox import containers
from runbook.sandbox.machine import attempt

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.sandbox.disk import Disk

_BOOT_DEADLINE_S = 90.0
_LOGIN_DEADLINE_S = 20.0
_CONSOLE_LINES = 15
#: When nspawn must be seen: a process has no command line in the moment in which it becomes another program.
_BEGUN_S = 2.0
_LOOK_EVERY_S = 0.05

_READY = "timeout 10 systemctl is-system-running --wait >&2; systemctl is-system-running; ls /proc/sys/net/bridge"
"""A unit of the operator's (etcd without a quorum) may start for ever: after 10 s the node counts as up."""

_UP_STATES = {"running", "degraded", "starting"}


def command_line(address: str, key_file: Path, known_hosts: Path, command: tuple[str, ...], user: str) -> list[str]:
    """The ssh that runs a command on a node, or a shell; host keys are checked, nobody's ssh_config is read.

    Args:
        address: The node's.
        key_file: The private key.
        known_hosts: The nodes' host keys.
        command: One word is a line for the node's shell; several are a command and its arguments, kept as they are.
        user: root or ops.
    """
    options = {
        "IdentityFile": key_file,
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "PasswordAuthentication": "no",
        "ConnectTimeout": "10",
        "LogLevel": "ERROR",
    }
    words = [word for option, value in options.items() for word in ("-o", f'{option}="{value}"')]
    # ssh joins words by spaces and a shell there splits them again: more than one word means they are words.
    line = shlex.join(command) if command[1:] else "".join(command)
    return ["ssh", "-F", "none", *words, f"{user}@{address}", *(["--", line] if line else [])]


def wait_until_up(disk: Disk, address: str, ssh: list[str]) -> None:
    """Wait until sshd answers with the node's key and systemd has started all; a look each 50 ms.

    Args:
        disk: The node's.
        address: The node's.
        ssh: The command line that logs in, without a command.

    Raises:
        SandboxError: It did not come up in 90 s, or nobody can log in, or its processes ended; with its console.
    """
    started = time.monotonic()
    greeted = 0.0
    said = "no SSH server answers"
    while (now := time.monotonic()) - started < _BOOT_DEADLINE_S:
        if _answers(address):
            greeted = greeted or now
            done = attempt(*ssh, "--", _READY, timeout_s=_BOOT_DEADLINE_S)
            words = done.stdout.split()
            if words and words[0] in _UP_STATES:
                if "bridge-nf-call-iptables" in words:
                    return
                said = "no /proc/sys/net/bridge/bridge-nf-call-iptables in the node (flannel needs br_netfilter)"
            else:
                said = (done.stderr or done.stdout).strip()
            if now - greeted > _LOGIN_DEADLINE_S:
                break
        elif now - started > _BEGUN_S and not containers.find([disk.uuid])[disk.uuid].supervisors:
            said = "systemd-nspawn has ended"
            break
        time.sleep(_LOOK_EVERY_S)
    console = disk.console.read_text(errors="replace") if disk.console.exists() else ""
    raise SandboxError(
        "\n".join(
            (f"not up after {time.monotonic() - started:.0f} s: {said}", *console.splitlines()[-_CONSOLE_LINES:])
        ),
        node=disk.hostname,
        remedy=f"look at {disk.console}, then `runbook sandbox down` and `up`",
    )


def _answers(address: str) -> bool:
    """Whether an SSH server greets; a kernel may accept for a server that is not ready."""
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
