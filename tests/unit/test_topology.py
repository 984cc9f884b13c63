"""runbook.topology: who is where, and what is missing, with captured answers of etcd and flannel from stand-ins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from local_node import cluster_of, fleet_of, local

from runbook import errors, show, topology

if TYPE_CHECKING:
    from runbook.fleet import Fleet

HERE = Path(__file__).parent
#: In the captured leases.
SUBNETS = {"node1": "172.30.184.0/21", "node2": "172.30.96.0/21", "node3": "172.30.144.0/21"}
IP = """case "$*" in
  "-o -4 addr show") echo "2: eth0 inet HOST/26 scope global eth0"
    echo "3: flannel.1    inet VTEP/32 scope global flannel.1";;
  "-o -d link show dev flannel.1") echo "3: flannel.1: <UP> mtu 1450 link/ether 56:fa:9c:11:21:31 brd";;
esac"""
ETCDCTL = f"""#!/bin/sh
case "$*" in
  *"endpoint health"*) cat {HERE}/test_etcd_state/health.json;;
  *"endpoint status"*) cat {HERE}/test_etcd_state/status.json;;
  *timetolive*) cat {HERE}/test_flannel_state/timetolive.txt;;
  *" get "*) cat {HERE}/test_flannel_state/leases.json;;
  *) exit 9;;
esac
"""


def fleet_with(folder: Path, etcdctl: str = ETCDCTL, **sections: object) -> Fleet:
    """Three nodes with a vxlan device each, and etcdctl's captured answers."""
    (folder / "etcdctl").write_text(etcdctl)
    (folder / "etcdctl").chmod(0o755)
    fleet = fleet_of(cluster_of(**sections).model_copy(update={"bin_dir": str(folder)}), folder)  # type: ignore[arg-type]
    for name, one in local(fleet).items():
        vtep = SUBNETS.get(name, "172.30.8.0/21").split("/")[0]
        one.shim("ip", IP.replace("HOST", one.node.host).replace("VTEP", vtep))
    return fleet


def rows(fleet: Fleet) -> dict[str, dict[str, Any]]:
    return {row["node"]: row for row in show.rows(topology.topology(fleet))}


def test_every_node_has_its_place(tmp_path: Path) -> None:
    """Each node with its address, lease, vxlan device and place in etcd; one leads."""
    table = topology.topology(fleet_with(tmp_path))
    assert table["ok"].all()
    assert dict(zip(table["node"], table["lease"], strict=True)) == SUBNETS
    assert list(table["etcd"]) == ["leader", "member", "member"]
    assert set(table["mtu"]) == {1450}
    text = table._repr_html_()
    for said in (
        "overlay 172.30.0.0/16: vxlan, flannel.1, UDP 8472",
        "plain network",
        *SUBNETS.values(),
        "198.18.0.12",
    ):
        assert said in text
    assert text.count("★ etcd leader") == 1
    assert text.count("✓ etcd member") == 2
    assert "✗" not in text


def test_a_node_that_is_down_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, keeps the lease that etcd has of it, and is not joined to the plain network; it comes first."""
    fleet = fleet_with(tmp_path)

    def down(*_: object, **__: object) -> None:
        raise errors.Unreachable("no route to host", node="node3")

    monkeypatch.setattr(local(fleet)["node3"], "run", down)
    table = topology.topology(fleet)
    first = show.rows(table)[0]
    assert (first["node"], first["ok"], first["why"], first["lease"]) == (
        "node3", False, "does not answer", SUBNETS["node3"],
    )  # fmt: skip
    text = table._repr_html_()
    assert text.count("✗ does not answer") == 1
    assert text.count(topology._JOINED["underlay"]) == 2 + text.count("border:1px solid #8c959f")


def test_a_node_without_a_lease_or_device_shows_it(tmp_path: Path) -> None:
    """Neither has what the overlay needs: no lease in etcd, no device on the node."""
    nodes = [{"name": f"node{n}", "host": f"198.18.0.1{n}", "roles": ["flannel"] if n == 4 else ["etcd", "flannel"]}
             for n in (1, 2, 3, 4)]  # fmt: skip
    fleet = fleet_with(tmp_path, nodes=nodes)
    local(fleet)["node4"].shim("ip", "exit 1")
    table = topology.topology(fleet)
    first = show.rows(table)[0]
    assert (first["node"], first["etcd"], first["why"]) == ("node4", "", "no lease; no flannel.1")
    assert first["remedy"] == "phase 09"
    text = table._repr_html_()
    for said in ("✗ no lease", "✗ no flannel.1", "= no etcd"):
        assert text.count(said) == 1


def test_a_node_outside_the_overlay_is_told_apart(tmp_path: Path) -> None:
    """An etcd node without flannel needs no lease."""
    roles = {1: ["etcd"], 2: ["etcd", "flannel"], 3: ["etcd", "flannel"]}
    nodes = [{"name": f"node{n}", "host": f"198.18.0.1{n}", "roles": roles[n]} for n in (1, 2, 3)]
    table = topology.topology(fleet_with(tmp_path, nodes=nodes))
    found = {row["node"]: row for row in show.rows(table)}["node1"]
    assert (found["ok"], found["lease"]) == (True, "")
    assert "not in the overlay" in table._repr_html_()
    assert "a lease of none of these nodes: 172.30.184.0/21 of 198.18.0.11" in table._repr_html_()


def test_an_unhealthy_member_shows_it(tmp_path: Path) -> None:
    """A member that etcd calls unhealthy is not shown as one that works."""
    sick = 'sed \'s/11:2379","health":true/11:2379","health":false,"error":"deadline"/\' '
    etcdctl = ETCDCTL.replace('health"*) cat', f'health"*) {sick}')
    found = rows(fleet_with(tmp_path, etcdctl))
    assert {name: row["etcd"] for name, row in found.items()} == {
        "node1": "unhealthy", "node2": "member", "node3": "member",
    }  # fmt: skip
    assert found["node1"]["why"] == "etcd is unhealthy"


def test_what_etcd_does_not_tell_is_unknown(tmp_path: Path) -> None:
    """Without an answer of etcd's the nodes are shown with what they know themselves, and why there is no more."""
    table = topology.topology(fleet_with(tmp_path, "#!/bin/sh\necho 'deadline exceeded' >&2; exit 1\n"))
    assert not table["ok"].any()
    assert set(table["device"]) == {subnet.split("/")[0] for subnet in SUBNETS.values()}
    text = table._repr_html_()
    assert "✗ lease unknown" in text
    assert "the leases are unknown: " in text


@pytest.mark.parametrize(("count", "bands"), [(1, 1), (3, 1), (5, 1), (6, 2), (16, 4)])
def test_many_nodes_stand_in_lines(count: int, bands: int) -> None:
    """Up to five nodes beside each other; the networks are drawn for each line."""
    nodes = [
        {"name": f"n{n}", "host": f"10.0.0.{n}", "roles": ["etcd", "flannel"] if n == 1 else ["flannel"]}
        for n in range(1, count + 1)
    ]
    cluster = cluster_of(nodes=nodes)
    shared = {"ok": True, "why": "", "lease": "172.30.8.0/21", "device": "172.30.8.0", "mtu": 1450}
    made = [{"node": one.name, "host": one.host, "etcd": "leader" if one.name == "n1" else "", **shared}
            for one in cluster.nodes]  # fmt: skip
    text = topology.drawn(cluster, made, "Topology")
    assert text.count("plain network") == bands
    assert all(f">{one.name}<" in text for one in cluster.nodes)
    assert text.count("<caption") == 1
    assert not re.search(r"<(style|svg|script|img)|class=", text)


def test_what_nodes_say_is_text(tmp_path: Path) -> None:
    """An address that a node or etcd made up can't be markup."""
    fleet = fleet_with(tmp_path)
    row = {"node": "node1", "host": "<b>", "ok": False, "why": "<i>", "etcd": "member", "lease": "<u>", "mtu": "<s>",
           "device": "<em>"}  # fmt: skip
    assert not re.search("<(b|i|u|s|em)>", topology.drawn(fleet.cluster, [row], "<q>"))
