"""The flannel phases: certificates, network config, units, start. Each function gives a plan or a table."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from runbook import etcdctl, node_certs, pki, plan, services, show
from runbook import units as unit_files_of
from runbook.flannel_config import EtcdKey, same
from runbook.flannel_proof import rights
from runbook.flannel_rights import MemberName, Rights
from runbook.flannel_state import leases, subnets
from runbook.plans import reading
from runbook.plans.starting import Manner
from runbook.resources import Change, Directory, File, Resource
from runbook.topology import topology

if TYPE_CHECKING:
    from runbook.fleet import Fleet
    from runbook.params import Cluster, Node

__all__ = [
    "cert_files", "certs", "config", "config_there", "leases", "rights", "start", "states", "subnets",
    "topology",
    "unit_files", "units",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__  # what Tab shows in a notebook


UNIT = "flanneld.service"
#: Two that start at once may choose the same free subnet by chance; the one that comes second ends with these words
#: (0.18 and later, whose AcquireLease tries again for other races only: pkg/subnet/etcd/local_manager.go).
_SUBNET_TAKEN = "failed to acquire lease: subnet already exists"


def certs(fleet: Fleet) -> plan.Plan:
    """Plan phase 06: each flannel node's client certificate for etcd (client use only, no SANs), with ca.pem.

    A pair is issued where it is missing, near its end, or not of our CA. Keys are made on this side when the plan is
    applied, and shown nowhere.

    Returns:
        The plan: one row a node and file. Nothing is changed by making it.

    Raises:
        PkiError: the CA can't be used.
        NodeError: a node can't be reached.

    Next: `await plan.apply()`, then look at `flannel.cert_files(fleet)`.
    """
    return node_certs.certificates_plan(
        "flannel certificates", fleet, fleet.cluster.flannel_nodes, fleet.cluster.flannel.cert_dir, "flanneld",
        lambda _node: pki.Profile("flanneld", (), server=False, client=True),
    )  # fmt: skip


def cert_files(fleet: Fleet) -> show.Table:
    """Show the certificates that are on the flannel nodes. Changes nothing.

    Returns:
        One row a node: node, path, ok, subject, sans, issuer, serial, not_after_days, usage, key_matches,
        chain_verifies, key_sha256 (of the public key), why, remedy.

    Next: where a row is not ok, `flannel.certs(fleet)`.
    """
    return node_certs.table(fleet, fleet.cluster.flannel_nodes, fleet.cluster.flannel.cert_dir, "flanneld")


def config(fleet: Fleet) -> plan.Plan:
    """Plan phase 07: flannel's network config in etcd, by the v2 or v3 API as the versions ask.

    It is one key, `PREFIX/config`, written only if it is still as the plan saw it. A different one that is there is
    shown as a diff; a change under which a live lease would fall out is refused. flanneld reads it only when it starts.

    With `flannel.rbac` also etcd's users and roles, and its auth, by which flannel's certificate may read below its
    prefix and write its leases, and nothing else; without it auth is turned off where this runbook turned it on.

    Returns:
        The plan: one row for the key, a user, a role or auth that is not right. Nothing is changed by making it.

    Raises:
        NodeError: the etcd node through which it is written can't be reached.

    Next: `await plan.apply()`, then look at `flannel.config_there(fleet)` and `flannel.rights(fleet)`.
    """
    cluster = fleet.cluster
    node = cluster.etcd_nodes[0].name
    key, access = EtcdKey(cluster), Rights(cluster)
    names = {one.name: MemberName(cluster, one) for one in cluster.etcd_nodes if access.wanted}

    def make() -> tuple[list[Change], list[str], int]:
        resources: dict[str, list[Resource]] = {name: [one] for name, one in names.items()}
        resources[node] = [key, access, *resources.get(node, [])]
        found = reading.read(fleet, resources, what="read for flannel config")
        config, users, *_ = found[node]
        changed = key.compare(config)
        silent = changed is not None and changed.refusal
        changes, notes, right = ([], [], 0) if silent else access.changes(users, key.own_keys(config))
        changes = [replace(one, node=node) for one in (changed, *changes) if one]
        named = [(name, one.compare(found[name][-1])) for name, one in names.items()]
        changes += [replace(change, node=name) for name, change in named if change]
        return changes, notes, right + (changed is None) + sum(change is None for _, change in named)

    alone = "it alone writes to etcd, for all nodes: Not now leaves it as it is"
    return plan.Plan("flannel config", fleet, make, whole=alone)


def config_there(fleet: Fleet) -> show.Table:
    """Show the config that is in etcd. Changes nothing.

    Returns:
        One row: path (the key), api, ok (same as wanted), there, wanted, why, remedy.

    Next: where it is not ok, `flannel.config(fleet)`.
    """
    key = EtcdKey(fleet.cluster)
    done = fleet.first(fleet.cluster.etcd_nodes, key.probe_value(), what=f"etcdctl get {key.label}")
    value, error = key.there(dict(line.split("=", 1) for line in done.text.splitlines() if "=" in line))
    wanted = json.dumps(key.wanted(), sort_keys=True)
    ok = value is not None and same(value, wanted)
    why = "" if ok else error or ("there is none" if value is None else "it is not the wanted one")
    row = {"path": key.label, "api": f"v{key.api}", "ok": ok, "there": value, "wanted": wanted, "why": why}
    row["remedy"] = "" if ok else "run phase 07"
    return show.table([row], ["path", "api", "ok", "there", "wanted", "why", "remedy"], "flannel's network config")


def flags(cluster: Cluster, node: Node) -> dict[str, str]:
    """Flanneld's command line for a node (flannel's "Configuration", command line options)."""
    flannel = cluster.flannel
    iface = node.iface or flannel.iface
    return {
        "etcd-cafile": f"{flannel.cert_dir}/ca.pem",
        "etcd-certfile": f"{flannel.cert_dir}/flanneld.pem",
        "etcd-keyfile": f"{flannel.cert_dir}/flanneld-key.pem",
        "etcd-endpoints": ",".join(etcdctl.endpoints(cluster)),
        "etcd-prefix": flannel.etcd_prefix,
        # flanneld takes an interface's name or one of its addresses: the node's own address names the right one.
        "iface": node.host if iface == "auto" else iface,
        "ip-masq": "true",
    }


def units(fleet: Fleet) -> plan.Plan:
    """Plan phase 08: flanneld.service of each flannel node. Nothing is started or restarted: phase 09 does that.

    Returns:
        The plan: one row a node and resource, with the unit's diff. Nothing is changed by making it.

    Raises:
        NodeError: a node can't be reached.

    Next: `await plan.apply()`, then look at `flannel.unit_files(fleet)`.
    """
    cluster = fleet.cluster
    resources: dict[str, list[Resource]] = {}
    for node in cluster.flannel_nodes:
        text = unit_files_of.render(
            "flanneld.service.j2", version=cluster.flannel.version, cluster=cluster.name, bin_dir=cluster.bin_dir,
            flags=flags(cluster, node),
        )  # fmt: skip
        resources[node.name] = [
            Directory(cluster.flannel.unit_dir),
            File(f"{cluster.flannel.unit_dir}/{UNIT}", text),
        ]
    return plan.of_resources("flannel units", fleet, resources)


def unit_files(fleet: Fleet) -> show.Table:
    """Show what `systemd-analyze verify` and `security` say of flanneld.service. Changes nothing.

    Returns:
        One row a node: node, unit, ok, exposure (0 is best, 10 worst), path, why, remedy.

    Next: where a row is not ok, `flannel.units(fleet)`; else phase 09, `flannel.start(fleet)`.
    """
    return unit_files_of.files(fleet, fleet.cluster.flannel_nodes, f"{fleet.cluster.flannel.unit_dir}/{UNIT}")


def start(fleet: Fleet) -> plan.Plan:
    """Plan phase 09: start flanneld where it does not run; restart one at a time those that run old files.

    flanneld then takes its lease and makes flannel.1, routes and iptables rules itself. The kernel goes on forwarding
    while it restarts.

    Returns:
        The plan: one row a node whose flanneld is started or restarted. Nothing is changed by making it.

    Raises:
        NodeError: a node can't be reached.

    Next: `await plan.apply()`, then look at `flannel.states(fleet)` and `flannel.subnets(fleet)`.
    """
    cluster = fleet.cluster
    folder = cluster.flannel.cert_dir
    service = services.Service(
        UNIT,
        (
            f"{cluster.flannel.unit_dir}/{UNIT}",
            f"{cluster.bin_dir}/flanneld",
            *(f"{folder}/{name}" for name in ("ca.pem", "flanneld.pem", "flanneld-key.pem")),
        ),
    )

    def nothing(_fleet: Fleet, _node: Node) -> None:
        """Other nodes don't depend on this one's flanneld: the kernel forwards while it restarts."""

    return services.start_plan(
        "flannel start", fleet, cluster.flannel_nodes, service, may_stop=nothing, healthy=nothing,
        manner=Manner(again=_SUBNET_TAKEN),
    )  # fmt: skip


def states(fleet: Fleet) -> show.Table:
    """Show flanneld.service as systemd sees it. Changes nothing.

    Returns:
        One row a node: node, unit, ok, state, since, restarts, main_pid, why (with the last journal lines where it does
        not run), remedy.

    Next: where a row is not ok, mend what its journal says, then `flannel.start(fleet)`; else `flannel.leases(fleet)`.
    """
    return services.states(fleet, fleet.cluster.flannel_nodes, UNIT)
