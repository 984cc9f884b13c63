"""The whole cluster as its nodes showed it: who serves, what etcd holds; the facts that causes are found in.

Every etcd node was asked on its own, and about all others: what one can't see another may.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runbook import etcdctl, flannel_state, versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runbook.diagnosis.symptoms import Symptoms
    from runbook.params import Cluster, Node

#: Which node a cause is of that is no single node's.
CLUSTER = "(cluster)"
HERE = "(here)"
#: What a cause is about: a node as a machine, its etcd, its flanneld, its part of the overlay, etcd as a whole, and
#: who has more rights in it than the params allow.
NODE, ETCD, FLANNELD, OVERLAY, STORE, RIGHTS = "node", "etcd", "flanneld", "overlay", "store", "rights"
#: A cause is what made it; a state is only seen; a consequence is told only where nothing explains it.
ROOT, STATE, CONSEQUENCE = 0, 1, 2


@dataclass(frozen=True)
class Cause:
    """One thing that is wrong.

    Attributes:
        node: The node's name, or (cluster), or (here) for this side.
        cause: What it is, in a few words.
        why: What was found and what was expected.
        remedy: What to do.
        section: The section of docs/troubleshooting.md.
        about: node, etcd, flanneld, overlay, store or rights.
        rank: ROOT, STATE or CONSEQUENCE.
        unless: The (about, node) pairs that explain it: it is not told beside a cause of a lower rank about one.
    """

    node: str
    cause: str
    why: str
    remedy: str
    section: str
    about: str
    rank: int = ROOT
    unless: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Case:
    """All nodes' symptoms.

    Attributes:
        cluster: The params.
        nodes: The symptoms by the node's name, in the order of the params.
        now: The time on this side, in seconds since the epoch.
        ca: The CA's certificate on this side, None where there is none (someone else built the cluster).
    """

    cluster: Cluster
    nodes: Mapping[str, Symptoms]
    now: float
    ca: bytes | None = None

    def of(self, nodes: Iterable[Node]) -> list[Symptoms]:
        """The symptoms of those of these nodes that could be asked."""
        found = [self.nodes[node.name] for node in nodes]
        return [one for one in found if not one.error]

    @cached_property
    def members(self) -> list[Symptoms]:
        """The etcd nodes that could be asked."""
        return self.of(self.cluster.etcd_nodes)

    @cached_property
    def hosts(self) -> list[Symptoms]:
        """The flannel nodes that could be asked."""
        return self.of(self.cluster.flannel_nodes)

    # ---- etcd

    @cached_property
    def status(self) -> dict[str, dict[str, Any]]:
        """Each member's own status by the node's name; a member that none of the nodes reaches has none."""
        hosts = {f"https://{node.host}:2379": node.name for node in self.cluster.etcd_nodes}
        found: dict[str, dict[str, Any]] = {}
        for one in self.members:
            for row in one.json("status") or []:
                name = hosts.get(row.get("Endpoint", ""), "")
                if name and (name not in found or one.node.name == name):
                    found[name] = row.get("Status") or {}
        return found

    @cached_property
    def healthy(self) -> set[str]:
        """The members that answered a read through the quorum."""
        hosts = {f"https://{node.host}:2379": node.name for node in self.cluster.etcd_nodes}
        said = "\n".join(one.said.get("health", "") for one in self.members)
        rows = [row for one in self.members for row in one.json("health") or [] if isinstance(row, dict)]
        endpoints = {row.get("endpoint") for row in rows if row.get("health") is True}
        return {name for endpoint, name in hosts.items() if endpoint in endpoints or f"{endpoint} is healthy" in said}

    @property
    def quorum(self) -> int:
        """How many members must serve."""
        return len(self.cluster.etcd_nodes) // 2 + 1

    @cached_property
    def cluster_ids(self) -> dict[str, str]:
        """The cluster's id (hex) that each member has: as it answers, or as its journal names it where it does not."""
        found = {}
        for one in self.members:
            name = one.node.name
            answered = self.status.get(name, {}).get("header", {}).get("cluster_id")
            logged = one.said.get("cluster_id", "").strip()
            if answered:
                found[name] = f"{int(answered):x}"
            elif logged and not one.etcd.active and any(f"{logged}" in line for line in one.etcd.journal):
                found[name] = logged.lstrip("0")
        return found

    @cached_property
    def cluster_id(self) -> str:
        """The id that most members have, or, where they are even, what the params come to; '' where none is known."""
        counts = Counter(self.cluster_ids.values()).most_common()
        own = initial_cluster_id(self.cluster)
        if not counts:
            return ""
        best = [one for one, count in counts if count == counts[0][1]]
        return own if own in best else best[0]

    # ---- what etcd holds for flannel

    @cached_property
    def _serving(self) -> Symptoms | None:
        """A node whose own member belongs to the cluster and gave its keys."""
        same = [one for one in self.members if self.cluster_ids.get(one.node.name) == self.cluster_id]
        return next((one for one in same if one.json("v3")), None)

    @property
    def store_known(self) -> bool:
        """Whether a member told its keys by the API that this flannel speaks."""
        if self.api == 2 and self._serving:  # noqa: PLR2004 - etcd's API versions
            return bool(self.v2_keys) or "Key not found" in self._serving.said.get("v2", "")
        return self._serving is not None

    @cached_property
    def v3_keys(self) -> dict[str, str]:
        """Flannel's keys by API 3."""
        found = self._serving.json("v3") if self._serving else None
        kvs = (found or {}).get("kvs") or []
        return {etcdctl.decoded(kv["key"]): etcdctl.decoded(kv.get("value", "")) for kv in kvs}

    @cached_property
    def v2_keys(self) -> dict[str, str]:
        """Flannel's keys by API 2; none where etcd does not speak it."""
        text = self._serving.said.get("v2", "") if self._serving else ""
        # etcdctl's own errors stand beside the JSON lines.
        rows = [etcdctl.as_json(line) for line in re.findall(r"^\{.*\}$", text, re.MULTILINE)]
        nodes = [(row or {}).get("node") or {} for row in rows if isinstance(row, dict)]
        return {node["key"]: node.get("value", "") for node in nodes if "key" in node}

    def configs_elsewhere(self, api: int) -> list[str]:
        """Other keys that end with /config, by this API."""
        text = self._serving.said.get(f"v{api}_configs", "") if self._serving else ""
        own = f"{self.cluster.flannel.etcd_prefix}/config"
        return [line for line in text.splitlines() if line.startswith("/") and line != own]

    @cached_property
    def api(self) -> int:
        """The API that this flannel speaks: 2 or 3, by the version on most nodes, or else by the params."""
        found = [re.search(r"v?(\d+\.\d+\.\d+)", one.said.get("flanneld_version", "")) for one in self.hosts]
        counts = Counter(match[1] for match in found if match)
        version = counts.most_common(1)[0][0] if counts else self.cluster.flannel.version
        return versions.flannel_api(version)

    @property
    def keys(self) -> dict[str, str]:
        """Flannel's keys by the API that it speaks."""
        return self.v2_keys if self.api == 2 else self.v3_keys  # noqa: PLR2004 - etcd's API versions

    @cached_property
    def leases(self) -> list[dict[str, Any]]:
        """flannel_state's rows of the leases there are."""
        folder = f"{self.cluster.flannel.etcd_prefix}/subnets/"
        found: Sequence[tuple[str, str, float | None]]
        found = [(key, value, None) for key, value in self.keys.items() if key.startswith(folder)]
        rows = flannel_state.lease_rows(self.cluster, found)
        return [row for row in rows if row.get("lease") and row.get("public_ip")]


def initial_cluster_id(cluster: Cluster, token: str = "") -> str:
    """The id (hex) of a cluster that was bootstrapped from these params: etcd's membership.NewMember and genID.

    A member's id is the start of the SHA-1 of its peer URL and the token, the cluster's that of the members' ids.
    """
    token = token or cluster.etcd.initial_cluster_token
    ids = sorted(
        hashlib.sha1(f"https://{node.host}:2380{token}".encode(), usedforsecurity=False).digest()[:8]
        for node in cluster.etcd_nodes
    )
    return hashlib.sha1(b"".join(ids), usedforsecurity=False).digest()[:8].hex().lstrip("0")
