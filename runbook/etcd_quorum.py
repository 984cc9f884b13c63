"""How etcd's members start and restart without losing the quorum: who begins, who may stop, and until when to wait."""

from __future__ import annotations

import time
from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING

from runbook import errors, etcdctl, show
from runbook.etcd_data import UNIT
from runbook.etcd_state import endpoints
from runbook.plans.starting import Ahead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runbook.fleet import Fleet
    from runbook.params import Cluster, Node
    from runbook.resources import Change

_HEALTH_TIMEOUT_S = 60


def peer_url(node: Node) -> str:
    """Where its peers reach a member."""
    return f"https://{node.host}:2380"


def first_member(cluster: Cluster) -> Ahead:
    """Who begins a common start, and when the others may follow: what etcd does else costs a second or two.

    Before a member without data makes its WAL it asks the others whether they know the cluster already: in the order of
    their peer URLs, up to the first that answers, and for a second each (server/etcdserver/cluster_util.go,
    isMemberBootstrapped, getRemotePeerURLs; the same in 3.5 and 3.6). Members that begin together listen, and don't
    answer yet. So the one that all ask first begins: nobody listens, so it is refused at once, and it answers the
    others when they ask. One with data asks nobody.
    """
    return Ahead(rank=peer_url, begun=f'set -- {quote(cluster.etcd.wal_dir)}/*.wal; [ -e "$1" ]')


def with_a_quorum(fleet: Fleet, changes: Sequence[Change]) -> list[Change]:
    """Refuse the restarts of a plan where the members that answer, or are started before, are no majority without one.

    It is looked at again before each of them (`may_stop`): this is for the plan to be refused as a whole.
    """
    count, restarted = len(fleet.cluster.etcd_nodes), [one for one in changes if one.action == "restart"]
    if not restarted or count == 1:
        return list(changes)
    healthy = {str(row["node"]) for row in show.rows(endpoints(fleet)) if row["ok"]}
    up = healthy | {change.node for change in changes if change.action == "start"}

    def refusal(change: Change) -> str:
        others, need = len(up - {change.node}), count // 2 + 1
        if change not in restarted or others >= need:
            return change.refusal
        return (
            f"while it restarts, {others} of {count} members would be up, and a quorum needs {need}: bring the others"
            " up first (phase 05 shows them). Where the quorum is lost already, stop etcd on all members: then they are"
            " started at once"
        )

    return [replace(change, refusal=refusal(change)) for change in changes]


def may_stop(fleet: Fleet, node: Node) -> None:
    """Refuse to stop a member when the others would be no majority without it."""
    table = endpoints(fleet)
    others = sum(row["ok"] for row in show.rows(table) if row["node"] != node.name)
    need = len(fleet.cluster.etcd_nodes) // 2 + 1
    if len(fleet.cluster.etcd_nodes) > 1 and others < need:
        raise errors.PlanRefused(
            f"restarting it would leave {others} healthy members, a quorum needs {need}",
            node=node.name,
            subject=UNIT,
            remedy="bring the other members up first (phase 05 shows them), then run again",
        )


def wait_healthy(fleet: Fleet, node: Node) -> None:
    """Wait until a member that was restarted answers reads through the quorum, and the whole cluster knows it."""
    health = etcdctl.command(fleet.cluster, "endpoint", "health")
    deadline = time.monotonic() + _HEALTH_TIMEOUT_S
    while True:
        done = fleet.run(health, what="etcdctl endpoint health", nodes=[node])[node.name]
        if done.value is not None and done.value.status == 0:
            fleet.journal.note(node.name, "healthy")
            return
        if time.monotonic() > deadline:
            said = done.value.stderr.decode("utf-8", "replace")[-300:] if done.value else str(done.error)
            raise errors.CommandFailed(
                f"not every endpoint is healthy {_HEALTH_TIMEOUT_S} s after its restart: {said}",
                node=node.name,
                subject=UNIT,
                remedy=f"`journalctl -u {UNIT}` on the node; the other members were left as they are",
            )
        time.sleep(0.2)
