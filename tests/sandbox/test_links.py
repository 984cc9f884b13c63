"""Links that lose, and firewalls of nft's: what the ping mesh and a diagnosis say of them, on real nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cables import cables
from faults import Told, finishes, found
from practice import Practice, apply, until

from runbook import errors, expect, mesh, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.fleet import Fleet

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-7")]

DROPPED = "UDP 8472 is dropped by the firewall"


@pytest.fixture(scope="module")
def fleet(practice: Practice) -> Iterator[Fleet]:
    """The connections to a cluster that is built and complete."""
    practice.make_virgin()
    with practice.fleet(practice.params()) as made:
        apply(made)
        until(lambda: found(made) == {})
        yield made


WORKSTATION = """policy drop
  ct state established,related accept
  iif lo accept
  tcp dport { 22, 2379, 2380 } accept
  icmp type echo-request accept"""


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("udp dport 8000-9000 counter drop", "inet mine input: udp dport 8000-9000 drop"),
        (WORKSTATION, "the policy of inet mine input is drop, and no rule accepts UDP 8472"),
    ],
)
def test_a_rule_of_nfts_own_drops_vxlan(practice: Practice, fleet: Fleet, rules: str, told: str) -> None:
    """Node and rule are named: iptables shows nothing of it; without the table the packets pass."""
    table = "table inet mine {\n chain input {\n type filter hook input priority 0\n" + rules + "\n}\n}"
    practice.on("node2", f"nft '{table}'")
    try:
        assert told in Told(fleet, ("node2", DROPPED)).why("node2")
        with pytest.raises(errors.CheckFailed, match=f"cause: node2: {DROPPED}"):
            expect(mesh.ping(fleet, within_s=0), "every node reaches every flannel address")
    finally:
        practice.on("node2", "nft delete table inet mine")
    finishes(fleet)


def test_a_node_without_nft_says_what_it_can_not_see(practice: Practice, fleet: Fleet) -> None:
    """Where a node has no `nft` its rules stay unseen: the remedy says so, and not only that others drop packets."""
    table = "table inet mine { chain input { type filter hook input priority 0; udp dport 8472 drop; }; }"
    practice.on("node2", f"nft '{table}'; mv /usr/sbin/nft /usr/sbin/nft.away")
    try:
        rows = Told(fleet, *((node, "the overlay loses packets") for node in ("node1", "node2", "node3"))).rows
        assert all("a rule of nft's on node2" in row["remedy"] for row in rows.values())
    finally:
        practice.on("node2", "mv /usr/sbin/nft.away /usr/sbin/nft; nft delete table inet mine")
    finishes(fleet)


def test_a_link_that_loses_is_told_with_its_figures(practice: Practice, fleet: Fleet) -> None:
    """With 3 % of all frames lost, the mesh tells loss and does not pass; the diagnosis names it; then all is well."""
    with cables(practice.sandbox, loss=0.03):
        pings = mesh.ping(fleet)
        rows = [row for row in show.rows(pings) if row["node"] != row["to"]]
        assert all(row["rtt_ms"] for row in rows)
        lost = sum(row["loss_pct"] for row in rows) / len(rows)
        assert 3 < lost < 30  # a ping passes four cables: 11.5 % of 240 and more
        failing = [row for row in rows if not row["ok"]]
        assert failing
        assert all("plain addresses lose packets too" in row["remedy"] for row in failing)
        told = "% of 20 lost[\\s\\S]*cause: .*: packets are lost between the nodes"
        with pytest.raises(errors.CheckFailed, match=told):
            expect(pings, "every node reaches every flannel address")
    finishes(fleet)
