"""runbook.diagnosis.case: the cluster as its nodes showed it."""

from __future__ import annotations

from local_node import cluster_of

from runbook.diagnosis.case import Case, initial_cluster_id
from runbook.diagnosis.symptoms import Symptoms

NODES = [{"name": f"node{n}", "host": f"198.18.1.1{n}"} for n in (1, 2, 3)]


def test_a_clusters_id_is_what_etcd_makes_of_it() -> None:
    """Etcd 3.6.16 told `cluster-id` f096004810b574bb of these three members and this token."""
    assert initial_cluster_id(cluster_of(nodes=NODES)) == "f096004810b574bb"
    assert initial_cluster_id(cluster_of(nodes=NODES), token="other") != "f096004810b574bb"  # noqa: S106


def case(**said: dict[str, str]) -> Case:
    """A case of three members that said these things."""
    cluster = cluster_of(nodes=NODES)
    return Case(cluster, {one.name: Symptoms(one, "", said.get(one.name, {})) for one in cluster.nodes}, 0.0)


def status(cluster_id: int, host: str) -> str:
    """Etcdctl's JSON of one endpoint's status, with a line of its log before it."""
    row = f'[{{"Endpoint":"https://{host}:2379","Status":{{"header":{{"cluster_id":{cluster_id},"member_id":1}}}}}}]'
    return '{"level":"warn","msg":"retrying of unary invoker failed"}\n' + row


def test_a_member_is_known_by_whoever_reaches_it() -> None:
    """What one node can't see another may; ids are told in hex, as etcd's log has them."""
    seen = case(node1={"status": status(255, "198.18.1.12")}, node3={"status": status(16, "198.18.1.13")})
    assert seen.cluster_ids == {"node2": "ff", "node3": "10"}


def test_the_clusters_id_is_what_most_members_have() -> None:
    """Two against one; where they are even, the params decide."""
    most = {f"node{n}": {"status": status(1 if n < 3 else 2, f"198.18.1.1{n}")} for n in (1, 2, 3)}
    assert case(**most).cluster_id == "1"
    own = int("f096004810b574bb", 16)
    even = {"node1": {"status": status(7, "198.18.1.11")}, "node2": {"status": status(own, "198.18.1.12")}}
    assert case(**even).cluster_id == "f096004810b574bb"
    assert case().cluster_id == ""


def test_health_is_read_from_json_and_from_the_text_of_3_3() -> None:
    """Both forms name the members that answered a read through the quorum."""
    json_form = '[{"endpoint":"https://198.18.1.11:2379","health":true,"took":"1ms"}]\nError: unhealthy cluster'
    text_form = "https://198.18.1.12:2379 is healthy: successfully committed proposal: took = 1ms"
    assert case(node1={"health": json_form}, node2={"health": text_form}).healthy == {"node1", "node2"}


def test_a_node_that_was_not_asked_is_no_member_to_judge() -> None:
    """Of a node without an answer nothing is known, and nothing is said."""
    cluster = cluster_of(nodes=NODES)
    silent = {one.name: Symptoms(one, "no answer") for one in cluster.nodes}
    seen = Case(cluster, silent, 0.0)
    assert seen.members == []
    assert not seen.store_known
    assert seen.leases == []
