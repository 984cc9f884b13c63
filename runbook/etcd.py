"""The etcd phases: certificates, units, start, verify. Each function gives a plan (it would change) or a table."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from runbook import binaries, etcd_quorum, node_certs, pki, plan, services, show, versions
from runbook import units as unit_files_of
from runbook.etcd_data import UNIT, MemberData
from runbook.etcd_state import alarms, endpoints, members
from runbook.latency import watch
from runbook.plans.selection import Quorum
from runbook.plans.starting import Manner
from runbook.resources import Directory, File, Resource, User

if TYPE_CHECKING:
    from runbook.fleet import Fleet
    from runbook.params import Cluster, Node

__all__ = ["alarms", "cert_files", "certs", "endpoints", "members", "start", "states", "unit_files", "units", "watch"]


def __dir__() -> list[str]:
    return __all__  # what Tab shows in a notebook


#: A name that all members' certificates are for.
_MEMBERS_NAME = "localhost"


def _owner(cluster: Cluster) -> str:
    return f"{cluster.etcd.user}:{cluster.etcd.user}"


def certs(fleet: Fleet) -> plan.Plan:
    """Plan phase 02: each etcd node's certificate, for server, peer and client use, in `etcd.cert_dir`.

    Its SANs are the node's address, 127.0.0.1, localhost and its name. A pair is issued where it is missing, near its
    end, not of our CA, or not what the params ask for; the CA itself is made once and kept. Keys are made on this side
    when the plan is applied, and shown nowhere.

    Returns:
        The plan: one row a node and file, and one for the CA where there is none yet. Nothing is changed by making it.

    Raises:
        PkiError: the CA can't be used.
        StateError: the state folder belongs to another cluster.
        NodeError: a node can't be reached.

    Next: `await plan.apply()`, then look at `etcd.cert_files(fleet)`.
    """

    def profile(node: Node) -> pki.Profile:
        return pki.Profile(node.name, (node.host, "127.0.0.1", _MEMBERS_NAME, node.name), server=True, client=True)

    cluster = fleet.cluster
    user = User(cluster.etcd.user)
    return node_certs.certificates_plan(
        "etcd certificates", fleet, cluster.etcd_nodes, cluster.etcd.cert_dir, "etcd", profile,
        before=(user,), owner=_owner(cluster),
    )  # fmt: skip


def cert_files(fleet: Fleet) -> show.Table:
    """Show the certificates that are on the etcd nodes. Changes nothing.

    Returns:
        One row a node: node, path, ok, subject, sans, issuer, serial, not_after_days, usage, key_matches,
        chain_verifies, key_sha256 (of the public key), why, remedy.

    Next: where a row is not ok, `etcd.certs(fleet)`.
    """
    return node_certs.table(fleet, fleet.cluster.etcd_nodes, fleet.cluster.etcd.cert_dir, "etcd")


def flags(cluster: Cluster, node: Node) -> dict[str, str]:
    """Etcd's command line for a node, in the form that this version takes (etcd's "Configuration options")."""
    etcd, certs_at = cluster.etcd, cluster.etcd.cert_dir
    peer, client = etcd_quorum.peer_url(node), f"https://{node.host}:2379"
    wanted = {
        "name": node.name,
        "data-dir": etcd.data_dir,
        "wal-dir": etcd.wal_dir,
        "cert-file": f"{certs_at}/etcd.pem",
        "key-file": f"{certs_at}/etcd-key.pem",
        "trusted-ca-file": f"{certs_at}/ca.pem",
        "peer-cert-file": f"{certs_at}/etcd.pem",
        "peer-key-file": f"{certs_at}/etcd-key.pem",
        "peer-trusted-ca-file": f"{certs_at}/ca.pem",
        "peer-client-cert-auth": "true",
        "client-cert-auth": "true",
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        # The tutorial listens on http://127.0.0.1:2379 too, open to every local user; TLS with the same certificate.
        "listen-client-urls": f"{client},https://127.0.0.1:2379",
        "advertise-client-urls": client,
        "initial-cluster-token": etcd.initial_cluster_token,
        "initial-cluster": ",".join(f"{one.name}={etcd_quorum.peer_url(one)}" for one in cluster.etcd_nodes),
        "initial-cluster-state": "new",
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1",
        "max-request-bytes": "33554432",
        "quota-backend-bytes": "6442450944",
        "heartbeat-interval": "250",
        "election-timeout": "2000",
    }
    if versions.etcd_supports("logger", etcd.version):
        wanted["logger"] = "zap"
    if versions.etcd_supports("peer-cert-allowed-hostname", etcd.version):
        # All certificates of members are for this name, and flannel's is not: our CA alone would let it be a peer.
        wanted["peer-cert-allowed-hostname"] = _MEMBERS_NAME
    if versions.etcd_supports("tls-min-version", etcd.version):
        wanted["tls-min-version"] = "TLS1.2"
    if cluster.flannel.rbac:
        # The gateway comes to etcd with the member's own certificate, an administrator's: a client whose certificate
        # has no common name would get its rights (tried with 3.5.21 and 3.6.16, a request without an Accept header).
        wanted["enable-grpc-gateway"] = "false"
    if versions.flannel_api(cluster.flannel.version) == 2 and versions.etcd_v2_flag(etcd.version):  # noqa: PLR2004
        wanted["enable-v2"] = "true"
    return wanted


def units(fleet: Fleet) -> plan.Plan:
    """Plan phase 03: the user, the data and WAL folders (0700) and etcd.service of each etcd node.

    The unit has etcd's flags in the form that this version takes. Nothing is started or restarted: phase 04 does that.

    Returns:
        The plan: one row a node and resource, with the unit's diff. Nothing is changed by making it.

    Raises:
        NodeError: a node can't be reached.

    Next: `await plan.apply()`, then look at `etcd.unit_files(fleet)`.
    """
    cluster = fleet.cluster
    etcd = cluster.etcd
    # etcd makes WAL.tmp beside the WAL folder and renames it, so the parent must be etcd's too.
    parent = posixpath.dirname(etcd.wal_dir)
    names = tuple(posixpath.basename(path) for path in (etcd.data_dir, etcd.wal_dir, f"{etcd.wal_dir}.tmp"))
    writable = sorted({etcd.data_dir, parent})
    writable = [one for one in writable if not any(one != other and one.startswith(f"{other}/") for other in writable)]
    owner = _owner(cluster)
    resources: dict[str, list[Resource]] = {}
    for node in cluster.etcd_nodes:
        text = unit_files_of.render(
            "etcd.service.j2", version=etcd.version, name=node.name, cluster=cluster.name, user=etcd.user,
            data_dir=etcd.data_dir, bin_dir=cluster.bin_dir, flags=flags(cluster, node), writable=writable,
            # etcd before 3.5 stops on arm64 without this; elsewhere it is not looked at.
            environment={"ETCD_UNSUPPORTED_ARCH": "arm64"} if versions.unsupported_arch(etcd.version) else {},
        )  # fmt: skip
        resources[node.name] = [
            User(etcd.user),
            *([Directory(parent, 0o700, owner, may_hold=names)] if parent != etcd.data_dir else []),
            Directory(etcd.data_dir, 0o700, owner),
            Directory(etcd.wal_dir, 0o700, owner),
            File(f"{etcd.unit_dir}/{UNIT}", text),
        ]
    guards = {node.name: MemberData(cluster, node) for node in cluster.etcd_nodes}
    return plan.of_resources("etcd units", fleet, resources, guards=guards)


def unit_files(fleet: Fleet) -> show.Table:
    """Show what `systemd-analyze verify` and `security` say of etcd.service. Changes nothing.

    Returns:
        One row a node: node, unit, ok, exposure (0 is best, 10 worst), path, why, remedy.

    Next: where a row is not ok, `etcd.units(fleet)`; else phase 04, `etcd.start(fleet)`.
    """
    path = f"{fleet.cluster.etcd.unit_dir}/{UNIT}"
    return unit_files_of.files(fleet, fleet.cluster.etcd_nodes, path)


def start(fleet: Fleet) -> plan.Plan:
    """Plan phase 04: start all members at once where they don't run; restart one at a time those that run old files.

    While they elect their leader nothing else is to do: flannel's binaries, flanneld and mk-docker-opts.sh, go to
    `bin_dir` of the flannel nodes then, mode 0755, as `binaries.install` has it of etcd's.

    Of several that start the one that the others ask first begins, some 0.1 s ahead. Old files: the unit, the binary or
    a certificate is newer than the process. Each restarted member is healthy before the next; a restart that would
    leave no quorum is refused.

    Returns:
        The plan: one row a member that is started or restarted, with the files, and one a flannel node and file.
        Nothing is changed by making it.

    Raises:
        ArtifactError: no source has flannel's binaries, or a checksum is wrong.
        NodeError: a node can't be reached.

    Next: `await plan.apply()`, then look at `etcd.states(fleet)`, `binaries.versions(fleet, "flannel")` and
    `etcd.endpoints(fleet)`.
    """
    etcd = fleet.cluster.etcd
    certs_at = etcd.cert_dir
    service = services.Service(
        UNIT,
        (
            f"{etcd.unit_dir}/{UNIT}",
            f"{fleet.cluster.bin_dir}/etcd",
            *(f"{certs_at}/{name}" for name in ("ca.pem", "etcd.pem", "etcd-key.pem")),
        ),
    )
    return services.start_plan(
        "etcd start", fleet, fleet.cluster.etcd_nodes, service,
        may_stop=etcd_quorum.may_stop, healthy=etcd_quorum.wait_healthy,
        quorum=Quorum(tuple(node.name for node in fleet.cluster.etcd_nodes)),
        guard=lambda node: MemberData(fleet.cluster, node), judged=etcd_quorum.with_a_quorum,
        manner=Manner(etcd_quorum.first_member(fleet.cluster)), meanwhile=(binaries.part(fleet, "flannel"),),
    )  # fmt: skip


def states(fleet: Fleet) -> show.Table:
    """Show etcd.service as systemd sees it. Changes nothing.

    Returns:
        One row a node: node, unit, ok, state, since, restarts (since it was started by hand: a figure that grows is a
        member that dies), main_pid, why (with the last journal lines where it does not run), remedy.

    Next: where a row is not ok, mend what its journal says, then `etcd.start(fleet)`; else `etcd.endpoints(fleet)`.
    """
    return services.states(fleet, fleet.cluster.etcd_nodes, UNIT)
