"""runbook.diagnose: what real nodes showed with a fault on them, and the causes that are found in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import seen_nodes
from local_node import cluster_of, fleet_of, local
from seen_nodes import HEALTHY, seen

from runbook import diagnose, show
from runbook.diagnosis import case
from runbook.diagnosis.case import CONSEQUENCE, ROOT, Cause

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", seen_nodes.NAMES)
def test_what_real_nodes_showed_has_its_causes(name: str) -> None:
    """Each fault's own causes and no other ones, each with why, remedy and section."""
    one = seen(name)
    assert sorted(one.told()) == sorted(one.causes)
    assert all(cause.why and cause.remedy and cause.section for cause in diagnose.causes(one.case()))


def test_enough_faults_were_seen() -> None:
    """A file for each fault that the cluster tests make, and one for a cluster without any."""
    assert HEALTHY in seen_nodes.NAMES
    assert len(seen_nodes.NAMES) >= 25


def test_a_clock_is_off_against_most_others() -> None:
    """One of three is named, this machine itself where it is the one that differs."""
    one = seen(HEALTHY)
    offsets = {"node2": 600.0}
    assert list(shifted(one, offsets)) == [("node2", "its clock is off")]
    everywhere = dict.fromkeys(("node1", "node2", "node3"), -7200.0)
    found = shifted(one, everywhere)
    assert list(found) == [("(here)", "its clock is off")]
    assert "+7,200 s" in found["(here)", "its clock is off"]


def shifted(one: seen_nodes.Seen, offsets: dict[str, float]) -> dict[tuple[str, str], str]:
    """What is told of clocks that are off by these seconds."""
    shown = one.case()
    for name, offset in offsets.items():
        object.__setattr__(shown.nodes[name], "offset_ms", offset * 1000)
    return {(cause.node, cause.cause): cause.why for cause in diagnose.causes(shown) if "clock" in cause.cause}


def test_a_certificate_is_judged_by_the_nodes_own_clock() -> None:
    """A node whose clock is 30 years ahead finds its good certificate expired: both are told."""
    shown = seen(HEALTHY).case()
    object.__setattr__(shown.nodes["node2"], "offset_ms", 30 * 365 * 86400e3)
    found = {(cause.node, cause.cause) for cause in diagnose.causes(shown)}
    assert {("node2", "its clock is off"), ("node2", "the certificate is expired")} == found


@pytest.mark.parametrize(
    ("key", "old", "new", "cause"),
    [
        ("unit_etcd", "LoadState=loaded", "LoadState=masked", None),
        ("iptables", ":FORWARD ACCEPT", ":FORWARD DROP", None),
        ("iptables", "COMMIT", "-A INPUT -p udp -m multiport --dports 8000:9000 -j REJECT\nCOMMIT", None),
        ("links", "mtu 1500", "mtu 1499", "the MTU is too small"),
        ("links", "mtu 1450", "mtu 1300", "the MTU of flannel.1 was changed"),
        ("env", "FLANNEL_NETWORK=172.30.0.0/16", "FLANNEL_NETWORK=10.0.0.0/8", "its files disagree with the lease"),
        ("routes_all", "default", "172.16.0.0/12 via 198.18.0.1\ndefault", "flannel's network overlaps the host's"),
        ("routes", "dev flannel.1", "dev eth0", None),
        ("unit_flanneld", "-etcd-prefix=/kubernetes/network", "-etcd-prefix=/x", "flanneld looks under another prefix"),
    ],
)  # fmt: skip
def test_one_thing_that_differs_is_that_one_cause(key: str, old: str, new: str, cause: str | None) -> None:
    """Of a healthy cluster of which one node shows another thing: the one cause, or none where it does no harm."""
    one = seen(HEALTHY)
    one.change("node2", key, old, new)
    assert list(one.told()) == ([("node2", cause)] if cause else [])


NFT = """table inet mine {
    chain input {
        type filter hook input priority filter; policy accept;
        udp dport 8000-9000 counter packets 5 bytes 600 drop
    }
}"""


def test_a_firewalls_rule_is_a_cause_where_packets_are_lost() -> None:
    """The rule is named beside lost pings; of iptables with a range of ports, and of nft."""
    for key, rule in (
        ("iptables", "-A INPUT -p udp -m multiport --dports 8000:9000 -j REJECT"),
        ("nft", NFT),
        ("iptables", ":INPUT DROP [0:0]"),
    ):
        one = seen(HEALTHY)
        for name, said in one.nodes.items():
            assert said
            said["pings"] = lost(said["pings"]) if name != "node2" else said["pings"]
        said = one.nodes["node2"]
        assert said
        said[key] = f"{said[key].replace(':INPUT ACCEPT', '')}\n{rule}"
        found = one.told()
        assert list(found) == [("node2", "UDP 8472 is dropped by the firewall")], (rule, found)


def lost(pings: str) -> str:
    """Pings that were answered by plain addresses alone."""
    lines = [line.replace(" 0% packet", " 100% packet") if line.startswith("172.30.") else line
             for line in pings.splitlines()]  # fmt: skip
    return "\n".join(lines)


def test_lost_packets_that_nothing_explains_are_told() -> None:
    """Between the nodes something drops UDP 8472: every pair's node is a row."""
    one = seen(HEALTHY)
    for said in one.nodes.values():
        assert said
        said["pings"] = lost(said["pings"])
    assert {cause for _, cause in one.told()} == {"the overlay loses packets"}
    assert {node for node, _ in one.told()} == {"node1", "node2", "node3"}


def test_a_lossy_cable_is_told_of_its_node() -> None:
    """Plain addresses that lose some pings: the node that all such pairs have in common, or the cluster."""
    one, hosts = seen(HEALTHY), {node.name: node.host for node in seen(HEALTHY).cluster.nodes}

    def lose(name: str, to: str) -> None:
        had = f"{hosts[to]} 2 packets transmitted, 2 received, 0%"
        one.change(name, "pings", had, f"{hosts[to]} 10 packets transmitted, 9 received, 10%")

    lose("node1", "node2")
    lose("node3", "node2")
    found = one.told()
    assert list(found) == [("node2", "packets are lost between the nodes")]
    assert "node1 to node2 10 %, node3 to node2 10 %" in found["node2", "packets are lost between the nodes"]
    lose("node1", "node3")
    assert list(one.told()) == [("(cluster)", "packets are lost between the nodes")]


def test_a_unit_that_fails_for_no_known_reason_is_unknown() -> None:
    """It is said to be unknown, with state, exit status and the last lines of its journal."""
    one = seen(HEALTHY)
    one.change("node2", "unit_flanneld", "ActiveState=active", "ActiveState=activating")
    one.change("node2", "unit_flanneld", "Result=success", "Result=exit-code")
    said = one.nodes["node2"]
    assert said
    said["journal_flanneld"] = "10.1 systemd[1]: Starting flanneld.service\n10.2 flanneld[7]: sum of digits is odd"
    found = one.told()
    assert list(found) == [("node2", "unknown")]
    assert "exit-code" in found["node2", "unknown"]
    assert "sum of digits is odd" in found["node2", "unknown"]


def cause(node: str, about: str, rank: int, *unless: tuple[str, str]) -> Cause:
    """A cause of which only rank and order matter."""
    return Cause(node, f"{about} {rank}", "why", "remedy", "section", about, rank, frozenset(unless))


def test_a_consequence_is_left_out_beside_what_explains_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By node, or by any node where none is named; never by a cause of its own rank or a higher one."""
    root = cause("node1", case.ETCD, ROOT)
    explained = cause("node1", case.FLANNELD, CONSEQUENCE, (case.ETCD, "node1"))
    other_node = cause("node2", case.FLANNELD, CONSEQUENCE, (case.ETCD, "node2"))
    anywhere = cause("node3", case.OVERLAY, CONSEQUENCE, (case.ETCD, ""))
    same_rank = cause("node4", case.STORE, CONSEQUENCE, (case.FLANNELD, ""))
    found = [other_node, explained, anywhere, same_rank, root]
    monkeypatch.setattr(diagnose, "_RULES", (lambda _case: found,))
    assert diagnose.causes(seen(HEALTHY).case()) == [root, other_node, same_rank]


def test_nodes_that_do_not_answer_are_rows(tmp_path: Path) -> None:
    """A look at nodes that fail ends in a table, a row for each, and never in an error."""
    fleet = fleet_of(cluster_of(), tmp_path)
    for connection in local(fleet).values():
        connection.shim("mktemp", "exit 1")
    table = diagnose.diagnose(fleet)
    assert [(row["node"], row["cause"]) for row in show.rows(table)] == [
        (name, "the node can't be asked") for name in ("node1", "node2", "node3")
    ]
    assert table.caption == "Diagnosis of c: 3 causes found"
