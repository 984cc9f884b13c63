"""etcdctl on a node, with the node's own certificate: the only way in which this library talks to etcd."""

from __future__ import annotations

import base64
import json
import re
from shlex import quote
from typing import TYPE_CHECKING, Any

from runbook import versions

if TYPE_CHECKING:
    from runbook.params import Cluster

#: etcdctl's own deadline for one command; its default of 5 s hides a slow leader election.
COMMAND_TIMEOUT = "10s"


def endpoints(cluster: Cluster) -> list[str]:
    """The client URLs of all members."""
    return [f"https://{node.host}:2379" for node in cluster.etcd_nodes]


def command(
    cluster: Cluster, *arguments: str, api: int = 3, to: list[str] | None = None, as_flannel: bool = False
) -> str:
    """Give the sh of one etcdctl call: v3 by default, v2 where flannel below 0.18 keeps its data there.

    It comes with the member's own certificate, or with the node's one for flannel (`as_flannel`). The names of the
    options differ between the two APIs (etcdctl's README, "Global options").
    """
    certs, name = (cluster.flannel.cert_dir, "flanneld") if as_flannel else (cluster.etcd.cert_dir, "etcd")
    files = [f"{certs}/ca.pem", f"{certs}/{name}.pem", f"{certs}/{name}-key.pem"]
    names = ["--cacert", "--cert", "--key"] if api == 3 else ["--ca-file", "--cert-file", "--key-file"]  # noqa: PLR2004
    options = [f"--endpoints={','.join(to or endpoints(cluster))}"]
    options += [f"{name}={path}" for name, path in zip(names, files, strict=True)]
    options.append(f"--command-timeout={COMMAND_TIMEOUT}" if api == 3 else f"--total-timeout={COMMAND_TIMEOUT}")  # noqa: PLR2004
    environment = {"ETCDCTL_API": "2"} if api == 2 else versions.etcdctl_api_variable(cluster.etcd.version)  # noqa: PLR2004
    words = [f"{name}={value}" for name, value in environment.items()]
    return " ".join([*words, *map(quote, [f"{cluster.bin_dir}/etcdctl", *options, *arguments])])


def refused(text: str) -> bool:
    """Whether etcd's auth refused what was asked: who asks is none of its users, or has no right to it."""
    found = r"(?:etcdserver|auth): (?:permission denied|user name not found|user name is empty|user not found)"
    return re.search(found, text) is not None


def as_json(text: str) -> Any:  # noqa: ANN401 - JSON
    """Parse etcdctl's JSON; None for empty output (a v3 get of a missing key prints nothing) and for garbage."""
    try:
        return json.loads(text) if text.strip() else None
    except json.JSONDecodeError:
        return None


def decoded(value: str) -> str:
    """A key or value of v3 JSON, which is base64 in every version."""
    return base64.b64decode(value).decode("utf-8", "replace")
