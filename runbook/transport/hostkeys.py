"""The nodes' host keys: look at them, and add the ones that the operator accepts to known_hosts."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import paramiko

from runbook import errors, show
from runbook.transport import dial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runbook.params import Cluster, Node


@dataclass(frozen=True)
class HostKey:
    """A node's host key, as it shows it now; state is known, unknown, changed or unreachable."""

    node: str
    name: str
    state: str
    key: paramiko.PKey | None = None
    why: str = ""


def look(cluster: Cluster) -> list[HostKey]:
    """Ask each node for its host key; nobody logs in.

    A node behind a jump host is asked through it, and the jump host's own key has to be known first.
    """

    def one(node: Node) -> HostKey:
        to = dial.target(node, cluster.ssh)
        try:
            key = _offered(to)
        except Exception as error:  # noqa: BLE001 - mapped to ours
            return HostKey(node.name, to.host_key_name, "unreachable", why=dial.translate(error, to).message)
        known = _known(to)
        if known is None:
            return HostKey(node.name, to.host_key_name, "unknown", key)
        # OpenSSH too compares with the known key of the same type only.
        same = known.get(key.get_name())
        return HostKey(node.name, to.host_key_name, "known" if same == key else "changed", key)

    with ThreadPoolExecutor(dial.MAX_CONNECTS_AT_ONCE) as pool:
        return list(pool.map(one, cluster.nodes))


def _offered(to: dial.Target) -> paramiko.PKey:
    sock = dial.open_socket(to)
    with paramiko.Transport(sock) as transport:
        transport.banner_timeout = to.timeout_s
        known = _known(to)
        if known:
            # Ask for the type that is known, so that the same key is shown as at a login.
            options = transport.get_security_options()
            types = [name for name in options.key_types if name in known.keys()]  # noqa: SIM118 - no plain dict
            options.key_types = [*types, *(name for name in options.key_types if name not in types)]
        transport.start_client(timeout=to.timeout_s)
        return transport.get_remote_server_key()


def _known(to: dial.Target) -> dict[str, paramiko.PKey] | None:
    known: dict[str, paramiko.PKey] = {}
    for path in to.known_hosts:
        if path.is_file():
            found = paramiko.HostKeys(str(path)).lookup(to.host_key_name)
            known.update(found or {})
    return known or None


def table(keys: Sequence[HostKey]) -> show.Table:
    """One row a node: node, host (as known_hosts names it), key_type, fingerprint, known, why."""
    rows = [
        {
            "node": key.node,
            "host": key.name,
            "key_type": key.key.get_name() if key.key else "",
            "fingerprint": dial.fingerprint(key.key) if key.key else "",
            "known": key.state,
            "why": key.why,
        }
        for key in keys
    ]
    return show.table(rows, ["node", "host", "key_type", "fingerprint", "known", "why"], "Host keys")


def accept(cluster: Cluster, keys: Sequence[HostKey]) -> None:
    """Append the keys to the params' known_hosts, as ssh itself does; what is there stays.

    Raises:
        StateError: the file can't be written.
    """
    path = cluster.ssh.known_hosts
    lines = "".join(f"{key.name} {key.key.get_name()} {key.key.get_base64()}\n" for key in keys if key.key)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        start = "\n" if path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n") else ""
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(start + lines)
    except OSError as error:
        raise errors.StateError(f"can't be written: {error.strerror}", subject=str(path)) from error
