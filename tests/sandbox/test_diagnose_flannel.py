"""Faults of flannel, made on real nodes: the diagnosis names node, cause and remedy; what it says mends them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from faults import KEPT, Told, edit_unit, etcdctl_on, finishes, found, restart, stop
from practice import Practice, apply, until

from runbook import errors, expect, flannel, mesh, show

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbook.fleet import Fleet

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-4")]

CONFIG = "/kubernetes/network/config"
SUBNETS = "/kubernetes/network/subnets"


@pytest.fixture(scope="module")
def params(practice: Practice) -> Path:
    """The params of a cluster that is built and complete."""
    practice.make_virgin()
    path = practice.params()
    with practice.fleet(path) as fleet:
        apply(fleet)
    return path


@pytest.fixture(autouse=True)
def kept(practice: Practice, params: Path, fleet: Fleet) -> Iterator[None]:
    """Nothing is wrong before a test; what was written before it, and each node's lease, are the same after it."""
    until(lambda: found(fleet) == {})
    etcdctl_on(practice, params, "put", KEPT, "value")
    before = owners(fleet)
    yield
    assert etcdctl_on(practice, params, "get", KEPT, "--print-value-only") == "value"
    assert owners(fleet) == before


def owners(fleet: Fleet) -> dict[str, str]:
    """Each lease's node."""
    return {row["lease"]: row["node"] for row in show.rows(flannel.leases(fleet))}


def free_subnet(fleet: Fleet) -> str:
    """A subnet of the network that nobody has leased."""
    return next(net for n in range(8, 248, 8) if (net := f"172.30.{n}.0/21") not in owners(fleet))


def test_nothing_is_wrong(fleet: Fleet) -> None:
    """A complete cluster has no causes, and a diagnosis leaves nothing behind on it."""
    Told(fleet)


def test_the_network_config_is_missing(practice: Practice, params: Path, fleet: Fleet) -> None:
    """The key and the phase that writes it are named; phase 07 does, and flanneld comes up by itself."""
    etcdctl_on(practice, params, "del", CONFIG)
    restart(practice, "node2", "flanneld")
    told = Told(fleet, ("(cluster)", "the network config is missing"))
    assert f"there is no {CONFIG} by API 3" in told.why("(cluster)")
    assert "phase 07" in told.remedy("(cluster)")
    states = flannel.config_there(fleet)
    with pytest.raises(errors.CheckFailed, match="there is none"):
        expect(states, "the config in etcd is the wanted one")
    finishes(fleet)


def test_the_network_config_is_malformed(practice: Practice, params: Path, fleet: Fleet) -> None:
    """Key, fault and text are named; phase 07 shows the difference and writes the wanted one."""
    etcdctl_on(practice, params, "put", CONFIG, '{"Network": "172.30.0.0/16", ')
    told = Told(fleet, ("(cluster)", "the network config is malformed"))
    assert "it is no JSON" in told.why("(cluster)")
    finishes(fleet)


def test_the_network_config_is_under_another_prefix(practice: Practice, params: Path, fleet: Fleet) -> None:
    """Both keys are named; phase 07 writes the one that flanneld reads."""
    etcdctl_on(practice, params, "del", CONFIG)
    etcdctl_on(practice, params, "put", "/coreos.com/network/config", json.dumps({"Network": "10.0.0.0/8"}))
    told = Told(fleet, ("(cluster)", "the network config is under another prefix"))
    assert f"there is no {CONFIG}, and there is /coreos.com/network/config" in told.why("(cluster)")
    finishes(fleet)
    etcdctl_on(practice, params, "del", "/coreos.com/network/config")


def test_flanneld_looks_under_another_prefix(practice: Practice, fleet: Fleet) -> None:
    """Node and both prefixes are named; phases 08 and 09 mend the unit."""
    edit_unit(practice, "node2", "flanneld", "s#-etcd-prefix=[^ ]*#-etcd-prefix=/coreos.com/network#")
    told = Told(fleet, ("node2", "flanneld looks under another prefix"))
    assert "-etcd-prefix=/coreos.com/network, expected /kubernetes/network" in told.why("node2")
    finishes(fleet)


def test_the_network_overlaps_the_hosts(practice: Practice, fleet: Fleet) -> None:
    """The route is named; without it nothing is wrong."""
    subnet = free_subnet(fleet)
    gateway = practice.address("node1")
    practice.on("node2", f"ip route add {subnet} via {gateway}")
    told = Told(fleet, ("node2", "flannel's network overlaps the host's"))
    assert f"{subnet} dev eth0 overlaps flannel's network 172.30.0.0/16" in told.why("node2")
    practice.on("node2", f"ip route del {subnet}")
    finishes(fleet)


def test_one_public_address_in_two_leases(practice: Practice, params: Path, fleet: Fleet) -> None:
    """Both leases are named, and which of them the node uses; the command of the remedy deletes the other one."""
    subnet = free_subnet(fleet)
    value = {
        "PublicIP": practice.address("node2"),
        "BackendType": "vxlan",
        "BackendData": {"VtepMAC": "02:00:00:00:00:01"},
    }
    etcdctl_on(practice, params, "put", f"{SUBNETS}/{subnet.replace('/', '-')}", json.dumps(value))
    told = Told(fleet, ("node2", "one public address in two leases"))
    assert subnet in told.why("node2")
    delete = told.remedy("node2").split("`etcdctl ")[1].rstrip("`").split()
    assert delete == ["del", f"{SUBNETS}/{subnet.replace('/', '-')}"]
    etcdctl_on(practice, params, *delete)
    finishes(fleet)


def test_an_interface_that_is_not_there(practice: Practice, fleet: Fleet) -> None:
    """Node and interface are named; phases 08 and 09 mend the unit."""
    edit_unit(practice, "node2", "flanneld", "s#-iface=[^ ]*#-iface=eth7#")
    told = Told(fleet, ("node2", "flannel uses the wrong interface"))
    assert f"-iface=eth7, expected {practice.address('node2')}" in told.why("node2")
    finishes(fleet)


def test_the_firewall_drops_vxlan(practice: Practice, fleet: Fleet) -> None:
    """Node and rule are named, by the failed ping mesh too; without the rule the packets pass."""
    rule = "INPUT -p udp -m udp --dport 8472 -j DROP"
    practice.on("node2", f"iptables -I {rule}")
    told = Told(fleet, ("node2", "UDP 8472 is dropped by the firewall"))
    assert f"-A {rule}" in told.why("node2")
    pings = mesh.ping(fleet, within_s=0)
    with pytest.raises(errors.CheckFailed, match="cause: node2: UDP 8472 is dropped by the firewall"):
        expect(pings, "every node reaches every flannel address")
    practice.on("node2", f"iptables -D {rule}")
    finishes(fleet)


def test_forward_drops(practice: Practice, fleet: Fleet) -> None:
    """A policy of DROP without flannel's own rules: node and policy are named; phases 08 and 09 bring the rules."""
    edit_unit(practice, "node2", "flanneld", "s#-ip-masq=true#-ip-masq=true -iptables-forward-rules=false#")
    until(lambda: practice.on("node2", "systemctl is-active flanneld || true") == "active")
    practice.on("node2", "iptables -F FORWARD; iptables -P FORWARD DROP")
    told = Told(fleet, ("node2", "FORWARD drops the overlay's packets"))
    assert "no rule accepts 172.30.0.0/16" in told.why("node2")
    finishes(fleet)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("ip link set flannel.1 address 02:00:00:00:00:09", "MAC 02:00:00:00:00:09"),
        (
            "ip link del flannel.1; ip link add flannel.1 up type vxlan id 7 dstport 8472 nolearning dev eth0",
            "VNI 7 on port 8472, expected 1 on 8472",
        ),
    ],
    ids=["MAC", "VNI"],
)
def test_a_stale_device(practice: Practice, fleet: Fleet, command: str, expected: str) -> None:
    """What differs is named; the device deleted and flanneld restarted, as told, all is there again."""
    practice.on("node2", command)
    told = Told(fleet, ("node2", "a stale flannel.1"))
    assert expected in told.why("node2")
    assert "`ip link del flannel.1; systemctl restart flanneld`" in told.remedy("node2")
    practice.on("node2", "ip link del flannel.1; systemctl restart flanneld")
    finishes(fleet)


def test_the_mtu_is_too_small(practice: Practice, fleet: Fleet) -> None:
    """Both interfaces and what the overlay needs are named; with the command of the remedy nothing is wrong."""
    practice.on("node2", "ip link set eth0 mtu 1400")
    told = Told(fleet, ("node2", "the MTU is too small"))
    assert "eth0 has MTU 1400, flannel.1 1450: it needs 1500" in told.why("node2")
    assert "`ip link set eth0 mtu 1500`" in told.remedy("node2")
    practice.on("node2", "ip link set eth0 mtu 1500")
    finishes(fleet)


def test_files_disagree_with_the_lease(practice: Practice, fleet: Fleet) -> None:
    """Both files and what they should say are named; a restart writes them anew."""
    first = practice.on("node2", ". /run/flannel/subnet.env; echo $FLANNEL_SUBNET")
    practice.on("node2", "sed -i s#--bip=[0-9./]*#--bip=172.17.0.1/16# /run/flannel/docker")
    told = Told(fleet, ("node2", "its files disagree with the lease"))
    assert f"/run/flannel/docker has --bip=172.17.0.1/16, expected {first}" in told.why("node2")
    practice.on("node2", "systemctl restart flanneld")
    finishes(fleet)


def test_flanneld_is_stopped(practice: Practice, fleet: Fleet) -> None:
    """The node is named; phase 09 starts it."""
    stop(practice, "node3", "flanneld")
    told = Told(fleet, ("node3", "flanneld is stopped"))
    assert "phase 09" in told.remedy("node3")
    finishes(fleet)
