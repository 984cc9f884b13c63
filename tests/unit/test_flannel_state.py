"""runbook.flannel_state: leases and kernel state, captured from flannel 0.26.7 on a practice node with iproute2 6.1."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_node import NODES, LocalConnection, cluster_of, fleet_of, local

from runbook import flannel_state, show
from runbook.flannel_state import Kernel
from runbook.transport import answers

if TYPE_CHECKING:
    from runbook.fleet import Fleet
    from runbook.params import Cluster
    from runbook.transport.completed import Completed

HERE = Path(__file__).parent / "test_flannel_state"
KERNELS = {name: flannel_state.parse_kernel((HERE / f"{name}.txt").read_text()) for name in ("node1", "node2")}
LEASES = {
    "node1": {"lease": "172.30.184.0/21", "node": "node1", "public_ip": "198.18.0.11", "vtep_mac": "56:fa:9c:11:21:31"},
    "node2": {"lease": "172.30.96.0/21", "node": "node2", "public_ip": "198.18.0.12", "vtep_mac": "da:d7:16:79:ac:d4"},
    "node3": {"lease": "172.30.144.0/21", "node": "node3", "public_ip": "198.18.0.13", "vtep_mac": "82:2b:10:08:11:5f"},
}
NETWORK = "172.30.0.0/16"


def fleet_with(folder: Path, listed: object, cluster: Cluster | None = None, ttl: str | None = None) -> Fleet:
    """A fleet whose etcdctl is a stand-in that has these leases."""
    (folder / "leases").write_text(listed if isinstance(listed, str) else json.dumps(listed))
    (folder / "ttl").write_text((HERE / "timetolive.txt").read_text() if ttl is None else ttl)
    script = f'case "$*" in *timetolive*) cat {folder}/ttl;; *" get "*) cat {folder}/leases;; *) exit 9;; esac'
    (folder / "etcdctl").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "etcdctl").chmod(0o755)
    return fleet_of((cluster or cluster_of()).model_copy(update={"bin_dir": str(folder)}), folder)


@pytest.fixture
def listed() -> dict[str, Any]:
    """The leases as etcdctl gave them."""
    return json.loads((HERE / "leases.json").read_text())  # type: ignore[no-any-return]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# ---- leases


def test_leases_are_read(tmp_path: Path, listed: dict[str, Any]) -> None:
    """Each lease has its subnet, node, address, MAC, VNI and the seconds that are left."""
    table = flannel_state.leases(fleet_with(tmp_path, listed))
    for row in show.rows(table):
        wanted = LEASES[row["node"]]
        assert {key: row[key] for key in wanted} == wanted
        assert (row["ok"], row["vni"], row["expires_s"], row["why"]) == (True, 1, 85287.0, "")
    assert list(table["node"]) == ["node1", "node2", "node3"]


def test_a_node_without_a_lease_has_a_row(tmp_path: Path, listed: dict[str, Any]) -> None:
    """A flannel node that leased nothing is told; so is a lease of nobody."""
    listed["kvs"][0]["value"] = encoded(json.dumps({"PublicIP": "198.18.0.99", "BackendData": {"VNI": 1}}))
    table = flannel_state.leases(fleet_with(tmp_path, listed))
    why = {row["public_ip"]: row["why"] for row in show.rows(table) if not row["ok"]}
    assert why == {"198.18.0.99": "no flannel node of the params has 198.18.0.99", "198.18.0.13": "it has no lease"}


def test_no_leases_at_all(tmp_path: Path) -> None:
    """Before flanneld ran there is a row for each node, and none of them holds."""
    table = flannel_state.leases(fleet_with(tmp_path, {"header": {}}))
    assert [(row["public_ip"], row["ok"], row["why"]) for row in show.rows(table)] == [
        (f"198.18.0.1{n}", False, "it has no lease") for n in (1, 2, 3)
    ]


def test_a_second_lease_of_a_node_is_told(tmp_path: Path, listed: dict[str, Any]) -> None:
    """Two leases of one address: the second is a row that does not hold, and says whose it is."""
    again = copy.deepcopy(listed["kvs"][0])
    again["key"] = encoded("/kubernetes/network/subnets/172.30.8.0-21")
    listed["kvs"].append(again)
    table = flannel_state.leases(fleet_with(tmp_path, listed))
    assert [(row["lease"], row["why"]) for row in show.rows(table) if not row["ok"]] == [
        ("172.30.8.0/21", "a second lease of node3")
    ]
    assert len(table) == 4


def test_a_chosen_interface_may_lease_under_another_address(tmp_path: Path, listed: dict[str, Any]) -> None:
    """With an interface of its own a node's lease has that interface's address: that is no fault."""
    listed["kvs"][0]["value"] = encoded(json.dumps({"PublicIP": "10.0.0.3", "BackendData": {}}))
    cluster = cluster_of(flannel={"iface": "eth1"})
    assert flannel_state.leases(fleet_with(tmp_path, listed, cluster))["ok"].all()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("172.30.8.0-21", "garbage"), ("172.30.8.0-21", "[1]"), ("172.30.8.0-21", '{"PublicIP": null}'),
        ("172.30.8.0-21", '{"PublicIP": "x"}'), ("172.30.0.0-21&fd00::-64", '{"PublicIP": "198.18.0.11"}'), ("", "{}"),
    ],
)  # fmt: skip
def test_what_is_no_lease_is_a_row(tmp_path: Path, listed: dict[str, Any], key: str, value: str) -> None:
    """Anything else under the prefix is a row that says so, and breaks no other table."""
    listed["kvs"].append({"key": encoded(f"/kubernetes/network/subnets/{key}"), "value": encoded(value)})
    fleet = fleet_with(tmp_path, listed)
    bad = [row for row in show.rows(flannel_state.leases(fleet)) if not row["ok"]]
    assert [row["why"] for row in bad] == ["it can't be read as a lease of flannel's"]
    assert len(flannel_state.subnets(fleet, within_s=0)) > 0


@pytest.mark.parametrize("garbage", ["", "{", "null"])
def test_garbage_is_no_lease(tmp_path: Path, garbage: str) -> None:
    """Whatever etcdctl prints, no lease is made of it."""
    assert not flannel_state.leases(fleet_with(tmp_path, garbage))["ok"].any()


def test_leases_of_the_v2_api(tmp_path: Path) -> None:
    """Flannel below 0.18 keeps its leases where only etcdctl's v2 commands see them."""
    cluster = cluster_of(etcd={"version": "3.5.21"}, flannel={"version": "0.17.0"})
    value = json.dumps(
        {"PublicIP": "198.18.0.12", "BackendType": "vxlan", "BackendData": {"VtepMAC": "da:d7:16:79:ac:d4"}}
    )
    key = "/kubernetes/network/subnets/172.30.96.0-21"
    node = json.dumps({"action": "get", "node": {"key": key, "value": value, "ttl": 86000}})
    fleet = fleet_with(tmp_path, "")
    script = f'case "$*" in *" ls "*) echo {key};; *" get "*) cat <<\'END\'\n{node}\nEND\n;; esac'
    (tmp_path / "etcdctl").write_text(f"#!/bin/sh\n[ $ETCDCTL_API = 2 ] || exit 9\n{script}\n")
    fleet.cluster = cluster.model_copy(update={"bin_dir": str(tmp_path)})
    good = [row for row in show.rows(flannel_state.leases(fleet)) if row["ok"]]
    assert [(row["lease"], row["node"], row["expires_s"]) for row in good] == [("172.30.96.0/21", "node2", 86000)]


# ---- what a kernel says


def test_a_kernel_is_read() -> None:
    """Device, routes, neighbours, forwarding entries and files come from iproute2's own text."""
    kernel = KERNELS["node1"]
    assert kernel.addresses == {"127.0.0.1", "198.18.0.11", "172.30.184.0"}
    assert (kernel.mac, kernel.mtu, kernel.address) == ("56:fa:9c:11:21:31", 1450, "172.30.184.0/32")
    assert kernel.routes["172.30.96.0/21"] == "172.30.96.0"
    assert kernel.neighbours == {"172.30.144.0": "82:2b:10:08:11:5f", "172.30.96.0": "da:d7:16:79:ac:d4"}
    assert kernel.forwarding == {"82:2b:10:08:11:5f": "198.18.0.13", "da:d7:16:79:ac:d4": "198.18.0.12"}
    assert kernel.env == {
        "FLANNEL_NETWORK": NETWORK, "FLANNEL_SUBNET": "172.30.184.1/21",
        "FLANNEL_MTU": "1450", "FLANNEL_IPMASQ": "true",
    }  # fmt: skip
    assert "--bip=172.30.184.1/21" in kernel.docker


@pytest.mark.parametrize("text", ["", "garbage", "link=\nroutes=\n", "=\n=", "link=bm8gc3VjaCBkZXZpY2U="])
def test_a_node_without_flannel_is_empty(text: str) -> None:
    """Nothing printed, or nothing known: an empty kernel, not an error."""
    assert flannel_state.parse_kernel(text) == Kernel()


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["link", "routes", "env", "neighbours", "forwarding"]), st.text(max_size=80)))
def test_no_text_breaks_the_parser(said: dict[str, str]) -> None:
    """Whatever the tools print, it parses, and what it says is not that all is well."""
    text = "\n".join(
        f"{key}={base64.b64encode(value.encode('utf-8', 'replace')).decode()}" for key, value in said.items()
    )
    kernel = flannel_state.parse_kernel(text)
    assert flannel_state.own_row(kernel, LEASES["node1"], NETWORK)["why"]
    assert flannel_state.peer_row(kernel, LEASES["node2"], direct=False)["why"]


def test_the_captured_state_holds() -> None:
    """What was read of a good cluster has no fault, on either side of each lease."""
    for name, kernel in KERNELS.items():
        own = flannel_state.own_row(kernel, LEASES[name], NETWORK)
        assert own["why"] == ""
        for other in set(LEASES) - {name}:
            row = flannel_state.peer_row(kernel, LEASES[other], direct=False)
            assert (row["why"], row["forwarding"]) == ("", LEASES[other]["public_ip"])


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"mac": ""}, "there is no vxlan device"),
        ({"mac": "00:00:00:00:00:01"}, "the device's MAC is 00:00:00:00:00:01, the lease says 56:fa:9c:11:21:31"),
        ({"address": "172.30.0.0/32"}, "the device's address is 172.30.0.0/32, expected 172.30.184.0/32"),
        ({"address": ""}, "the device's address is none, expected 172.30.184.0/32"),
        ({"mtu": 1400}, "subnet.env has FLANNEL_MTU=1450, expected 1400"),
        ({"env": {}}, "subnet.env has FLANNEL_SUBNET=nothing, expected 172.30.184.1/21"),
        ({"docker": ""}, "/run/flannel/docker lacks --bip=172.30.184.1/21"),
    ],
)
def test_a_fault_of_the_own_side_is_named(changed: dict[str, Any], why: str) -> None:
    """Each thing that can be wrong with a node's own lease is told with what was found and expected."""
    row = flannel_state.own_row(replace(KERNELS["node1"], **changed), LEASES["node1"], NETWORK)
    assert why in str(row["why"]).split("; ")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"routes": {}}, "the route to 172.30.96.0/21 goes via nothing, expected 172.30.96.0"),
        (
            {"routes": {"172.30.96.0/21": "198.18.0.12"}},
            "the route to 172.30.96.0/21 goes via 198.18.0.12, expected 172.30.96.0",
        ),
        ({"neighbours": {}}, "the neighbour entry of 172.30.96.0 is missing, expected da:d7:16:79:ac:d4"),
        ({"forwarding": {}}, "the forwarding entry of da:d7:16:79:ac:d4 is missing, expected 198.18.0.12"),
    ],
)
def test_a_fault_of_a_peers_side_is_named(changed: dict[str, Any], why: str) -> None:
    """Each entry that can be wrong for another node's lease is told alone."""
    assert flannel_state.peer_row(replace(KERNELS["node1"], **changed), LEASES["node2"], direct=False)["why"] == why


def test_direct_routing_needs_no_tunnel() -> None:
    """With DirectRouting the route leads to the peer itself, without neighbour and forwarding entry."""
    kernel = Kernel(routes={"172.30.96.0/21": "198.18.0.12"})
    assert flannel_state.peer_row(kernel, LEASES["node2"], direct=True)["why"] == ""
    assert flannel_state.peer_row(kernel, LEASES["node2"], direct=False)["why"]
    assert flannel_state.peer_row(KERNELS["node1"], LEASES["node2"], direct=True)["why"] == ""


def test_the_device_is_named_for_its_vni() -> None:
    """flannel.VNI, and flannel.1 where none is given."""
    assert flannel_state.device(cluster_of()) == "flannel.1"
    assert flannel_state.device(cluster_of(flannel={"backend": {"type": "vxlan", "vni": 42}})) == "flannel.42"


# ---- all together


#: Stand-ins for a node's tools: they show the files in HERE.
IP = """case "$*" in
*"link show"*) f=link;; *"addr show"*) f=addresses;;
*neigh*) f=neighbours;; *) f=routes;;
esac
exec /bin/cat HERE/$f"""


class _WithFiles(LocalConnection):
    """Stands in for a node whose /run/flannel is in its folder."""

    def run(self, script: str, **options: Any) -> Completed:  # noqa: ANN401 - handed on
        for path, name in (("/run/flannel/subnet.env", "env"), ("/run/flannel/docker", "docker")):
            script = script.replace(path, f"{self.folder}/{name}")
        return super().run(script, **options)


def subnets_of(tmp_path: Path, listed: object, texts: dict[str, str]) -> show.Table:
    fleet = fleet_with(tmp_path, listed)
    fleet._connections.update({name: _WithFiles(one.node, one.folder) for name, one in local(fleet).items()})
    for name, text in texts.items():
        connection = local(fleet)[name]
        lines = dict(line.split("=", 1) for line in text.splitlines())
        for key in ("link", "routes", "neighbours", "addresses", "forwarding", "env", "docker"):
            (tmp_path / name / key).write_bytes(base64.b64decode(lines.get(key, "")))
        here = tmp_path / name
        connection.shim("ip", IP.replace("HERE", str(here)))
        connection.shim("bridge", f"cat {here}/forwarding")
    return flannel_state.subnets(fleet, within_s=0)


def test_every_node_is_held_against_every_lease(tmp_path: Path, listed: dict[str, Any]) -> None:
    """A row a node and lease; a node that made nothing says so for each of them."""
    texts = {name: (HERE / f"{name}.txt").read_text() for name in KERNELS}
    table = subnets_of(tmp_path, listed, {**texts, "node3": "addresses=" + encoded("2: eth0 inet 198.18.0.13/26\n")})
    held = {(row["node"], row["owner"]): row["ok"] for row in show.rows(table)}
    assert held == {(node, owner): node != "node3" for node in LEASES for owner in LEASES}
    assert "there is no vxlan device" in next(r["why"] for r in show.rows(table) if r["node"] == r["owner"] == "node3")


def test_a_node_that_has_none_of_the_leases(tmp_path: Path, listed: dict[str, Any]) -> None:
    """A node whose addresses are in no lease has a row of its own for that."""
    texts = {name: (HERE / f"{name}.txt").read_text() for name in KERNELS}
    table = subnets_of(tmp_path, listed, {**texts, "node3": "addresses=" + encoded("2: eth0 inet 10.0.0.1/8\n")})
    assert "none of the leases is this node's" in [row["why"] for row in show.rows(table) if row["node"] == "node3"]


def test_the_script_is_the_same_for_all(tmp_path: Path) -> None:
    """The script prints a line for each thing, and runs without complaint on a machine without any of it."""
    fleet = fleet_of(cluster_of(nodes=NODES[:1]), tmp_path)
    outcome = fleet.run(flannel_state.kernel_script(fleet.cluster), what="kernel")["node1"]
    assert outcome.value is not None
    keys = {"addresses", "link", "routes", "neighbours", "forwarding", "env", "docker"}
    assert answers.parse(outcome.value.check().text).keys() == keys
    assert outcome.value.stderr == b""
