"""runbook.fleet: the same work on all nodes, one outcome a node."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from local_node import NODES, cluster_of, fleet_of, local

from runbook import errors, fleet
from runbook.fleet import Fleet
from runbook.ssh import SshConnection

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.ssh import Connection

CLUSTER = cluster_of()


@pytest.fixture
def nodes(tmp_path: Path) -> Fleet:
    return fleet_of(CLUSTER, tmp_path)


def test_every_node_has_an_outcome_in_order(nodes: Fleet) -> None:
    """Whatever befalls a node, the others have their values, in the order of the params."""

    def work(connection: Connection) -> str:
        if connection.node.name == "node2":
            raise errors.Unreachable("no answer", node="node2")
        return connection.node.host

    outcomes = nodes.each(work)
    assert [(name, one.value, one.error is None) for name, one in outcomes.items()] == [
        ("node1", "198.18.0.11", True),
        ("node2", None, False),
        ("node3", "198.18.0.13", True),
    ]
    assert [(step.node, step.state) for step in nodes.journal.steps] == [("node2", "failed")]


def test_nodes_work_at_once(nodes: Fleet) -> None:
    """All nodes work at the same time: each waits here for the others."""
    together = threading.Barrier(3)
    assert {one.value for one in nodes.each(lambda _connection: together.wait(5)).values()} == {0, 1, 2}


def test_a_script_can_differ_by_node(nodes: Fleet) -> None:
    """A script may be made for each node; its status is a value, not an error."""
    outcomes = nodes.run(lambda node: f"echo {node.name}; exit 3", what="try", nodes=CLUSTER.nodes[:2])
    assert [(one.value.text, one.value.status) for one in outcomes.values() if one.value] == [
        ("node1\n", 3), ("node2\n", 3),
    ]  # fmt: skip
    assert nodes.each(lambda _connection: 1, []) == {}


def test_the_first_node_that_can_be_reached_answers(nodes: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is down is passed over; where all are, each is named."""

    def down(*_: object, **__: object) -> None:
        raise errors.Unreachable("no answer", node="x")

    monkeypatch.setattr(local(nodes)["node1"], "run", down)
    assert nodes.first(CLUSTER.nodes, "exit 4", what="try").node == "node2"
    for connection in local(nodes).values():
        monkeypatch.setattr(connection, "run", down)
    with pytest.raises(errors.Unreachable, match="3 nodes"):
        nodes.first(CLUSTER.nodes, "true", what="try")


def test_a_command_that_failed_is_not_tried_elsewhere(nodes: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline that passed on a node that answers is the answer."""

    def late(*_: object, **__: object) -> None:
        raise errors.CommandFailed("did not end within 60 s", node="node1")

    monkeypatch.setattr(local(nodes)["node1"], "run", late)
    with pytest.raises(errors.CommandFailed, match="did not end"):
        nodes.first(CLUSTER.nodes, "true", what="try")


def test_values_need_every_node(nodes: Fleet) -> None:
    """`values` gives all values, or one error with all that failed; an empty or false value is one."""
    assert fleet.values(nodes.each(lambda _connection: 0)) == {"node1": 0, "node2": 0, "node3": 0}

    def work(connection: Connection) -> int:
        raise errors.LoginRefused("no", node=connection.node.name)

    with pytest.raises(errors.LoginRefused, match="3 nodes:\nnode1: no\nnode2: no\nnode3: no"):
        fleet.values(nodes.each(work))


def test_the_table_has_a_row_a_node(nodes: Fleet) -> None:
    """As a cell's last expression a fleet shows each node with its roles; warnings of the params stand below."""
    nodes.open()
    assert list(nodes.table()["node"]) == ["node1", "node2", "node3"]
    assert nodes.table()["ok"].all()
    even = Fleet(cluster_of(nodes=NODES[:2]), {})
    assert "warning: cluster.nodes: 2 etcd members survive" in repr(even)
    assert "take an odd number" in str(even._repr_mimebundle_()["text/html"])


def fake_logins(monkeypatch: pytest.MonkeyPatch, down: set[str]) -> list[str]:
    """Stands in for logins: these nodes are down; returns whom was hung up on."""
    closed: list[str] = []

    def open_(connection: SshConnection) -> None:
        if connection.node.name in down:
            raise errors.Unreachable("no answer", node=connection.node.name)

    monkeypatch.setattr(SshConnection, "open", open_)
    monkeypatch.setattr(SshConnection, "close", lambda connection: closed.append(connection.node.name))
    return closed


def test_connect_needs_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """All nodes that can't be reached are named at once, and the others are hung up on."""
    closed = fake_logins(monkeypatch, {"node1", "node3"})
    with pytest.raises(errors.Unreachable, match="2 nodes:\nnode1: no answer\nnode3: no answer"):
        fleet.connect(CLUSTER)
    assert sorted(closed) == ["node1", "node2", "node3"]


def test_a_partial_fleet_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a look some nodes are enough; with none there is nothing to look at."""
    fake_logins(monkeypatch, {"node1"})
    table = fleet.connect(CLUSTER, partial=True).table()
    assert (table["node"][0], table["ok"][0], table["why"][0]) == ("node1", False, "no answer")
    fake_logins(monkeypatch, {"node1", "node2", "node3"})
    with pytest.raises(errors.Unreachable):
        fleet.connect(CLUSTER, partial=True)


def test_faults_of_params_come_before_any_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """With bad params no node is touched."""
    monkeypatch.setattr(SshConnection, "open", lambda _connection: pytest.fail("a node was touched"))
    with pytest.raises(errors.ParamsError):
        fleet.connect({"name": "c", "nodes": []})


def test_many_nodes_may_each_have_a_connection() -> None:
    """A limit of 1,024 open files is raised for more nodes; it is never lowered, and never above what is allowed."""
    script = (
        "import resource; from runbook import fleet; limit = resource.RLIMIT_NOFILE;"
        "resource.setrlimit(limit, (1024, 3000)); fleet.allow_descriptors(100); few = resource.getrlimit(limit)[0];"
        "fleet.allow_descriptors(1000); many = resource.getrlimit(limit)[0];"
        "fleet.allow_descriptors(9000); print(few, many, resource.getrlimit(limit))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1024 1512 (3000, 3000)\n"
