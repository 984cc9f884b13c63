"""What flannel has made: leases in etcd, and on each node link, routes, neighbours, forwarding entries and files."""

from __future__ import annotations

import ipaddress
import re
import time
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Any

from runbook import etcdctl, show, versions
from runbook.transport import answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from runbook.fleet import Fleet
    from runbook.params import Cluster

_LEASE_COLUMNS = ["lease", "node", "ok", "public_ip", "vtep_mac", "vni", "expires_s", "why", "remedy"]
_SUBNET_COLUMNS = ["node", "lease", "owner", "ok", "link", "route", "neighbour", "forwarding", "files", "why", "remedy"]
#: So many leases are asked about at once.
_AT_ONCE = 8
_REMEDY = "`journalctl -u flanneld` on the node; a restart of flanneld writes all of it anew"


def leases(fleet: Fleet, *, expiry: bool = True) -> show.Table:
    """Show the subnet leases in etcd, held against the flannel nodes. Changes nothing.

    Args:
        fleet: The fleet.
        expiry: Whether to ask for `expires_s` too: one more question a lease.

    Returns:
        One row a lease, and one for each flannel node without: lease (the subnet), node, ok, public_ip, vtep_mac, vni,
        expires_s, why, remedy.

    Next: a node without a lease: `flannel.states(fleet)`; else `flannel.subnets(fleet)`.
    """
    cluster = fleet.cluster
    old = versions.flannel_api(cluster.flannel.version) == 2  # noqa: PLR2004 - etcd's API versions
    found = _leases_v2(fleet) if old else _leases_v3(fleet, expiry=expiry)
    return show.table(lease_rows(cluster, found), _LEASE_COLUMNS, f"Leases under {cluster.flannel.etcd_prefix}/subnets")


def lease_rows(cluster: Cluster, found: Sequence[tuple[str, str, float | None]]) -> list[dict[str, Any]]:
    """The rows of `leases`, from the keys there are: each with its value and the seconds it has left."""
    by_host = {node.host: node.name for node in cluster.flannel_nodes}
    # A node with an interface of its own choice may lease under another address than the one we log in to.
    chosen = {node.name for node in cluster.flannel_nodes if (node.iface or cluster.flannel.iface) != "auto"}
    rows: list[dict[str, Any]] = []
    leased = set()
    for key, value, expires_s in found:
        data = etcdctl.as_json(value)
        data = data if isinstance(data, dict) else {}
        backend = data.get("BackendData") or {}
        lease = key.rsplit("/", 1)[-1].replace("-", "/")
        ip = str(data.get("PublicIP", ""))
        node = by_host.get(ip, "")
        why = "" if node or chosen else f"no flannel node of the params has {ip}"
        if not _readable(lease, ip):
            ip, why = "", "it can't be read as a lease of flannel's"
        elif node in leased:
            why = f"a second lease of {node}"
        leased.add(node or None)
        rows.append(
            {
                "lease": lease,
                "node": node,
                "ok": not why,
                "public_ip": ip,
                "vtep_mac": str(backend.get("VtepMAC", "")),
                "vni": backend.get("VNI"),
                "expires_s": expires_s,
                "why": why,
                "remedy": "a node that is gone keeps its lease for a day; delete the key, or name the node"
                if why
                else "",
            }
        )
    for host, name in by_host.items():
        if name in leased:
            continue
        if name not in chosen or len(rows) < len(cluster.flannel_nodes):
            remedy = "does flanneld run there? phase 09"
            rows.append({"node": name, "ok": False, "public_ip": host, "why": "it has no lease", "remedy": remedy})
    rows.sort(key=lambda row: ipaddress.ip_address(str(row["public_ip"]) or "0.0.0.0"))  # noqa: S104 - sorts first
    return rows


def _readable(lease: str, ip: str) -> bool:
    try:
        ipaddress.IPv4Network(lease)
        ipaddress.IPv4Address(ip)
    except ValueError:
        return False
    return True


def _leases_v3(fleet: Fleet, *, expiry: bool) -> list[tuple[str, str, float | None]]:
    cluster = fleet.cluster
    folder = f"{cluster.flannel.etcd_prefix}/subnets/"
    get = etcdctl.command(cluster, "get", folder, "--prefix", "-w", "json")
    done = fleet.first(cluster.etcd_nodes, get, what=f"etcdctl get {folder}").check("is etcd running? phase 05")
    kvs = (etcdctl.as_json(done.text) or {}).get("kvs") or []
    ids = {int(kv["lease"]) for kv in kvs if kv.get("lease")}
    ttl: dict[int, float] = {}
    if ids and expiry:
        asks = [etcdctl.command(cluster, "lease", "timetolive", f"{one:x}", "-w", "json") for one in sorted(ids)]
        # Some at a time, a line each; all at once would be a thousand processes on a cluster of a thousand nodes.
        script = "\n".join(f"{ask} &{' wait' if not number % _AT_ONCE else ''}" for number, ask in enumerate(asks, 1))
        answers = fleet.first(cluster.etcd_nodes, f"{script}\nwait", what="etcdctl lease timetolive").text
        for line in answers.splitlines():
            answer = etcdctl.as_json(line) or {}
            ttl[int(answer.get("id", 0))] = float(answer.get("ttl", 0))
    return [
        (etcdctl.decoded(kv["key"]), etcdctl.decoded(kv.get("value", "")), ttl.get(int(kv.get("lease", 0))))
        for kv in kvs
    ]


def _leases_v2(fleet: Fleet) -> list[tuple[str, str, float | None]]:
    cluster = fleet.cluster
    folder = f"{cluster.flannel.etcd_prefix}/subnets"
    names = etcdctl.command(cluster, "ls", folder, api=2)
    get = etcdctl.command(cluster, "-o", "json", "get", api=2)
    script = f'for key in $({names}); do {get} "$key" | tr -d "\\n"; echo; done'
    done = fleet.first(cluster.etcd_nodes, script, what=f"etcdctl ls {folder}").check("is etcd running? phase 05")
    nodes = [(etcdctl.as_json(line) or {}).get("node") or {} for line in done.text.splitlines()]
    return [(node["key"], node.get("value", ""), node.get("ttl")) for node in nodes if "key" in node]


@dataclass(frozen=True)
class Kernel:
    """What one node's kernel and files say of the overlay; parsed from iproute2's text.

    Attributes:
        addresses: The node's own addresses.
        mac, mtu, address: Of the vxlan device; "" and 0 where there is none.
        routes: Subnet to gateway.
        neighbours: Address to MAC.
        forwarding: MAC to the peer's address.
        env, docker: The values of subnet.env and of the docker options file.
    """

    addresses: frozenset[str] = frozenset()
    mac: str = ""
    mtu: int = 0
    address: str = ""
    routes: Mapping[str, str] = field(default_factory=dict)
    neighbours: Mapping[str, str] = field(default_factory=dict)
    forwarding: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    docker: str = ""


def device(cluster: Cluster) -> str:
    """The vxlan device's name: flannel.VNI."""
    backend = cluster.flannel.network_config()["Backend"]
    return f"flannel.{backend.get('VNI', 1)}"


def kernel_script(cluster: Cluster) -> str:
    """Give the sh that prints a node's side of the overlay, for `answers.parse`."""
    name = quote(device(cluster))
    parts = {
        "addresses": "ip -o -4 addr show",
        "link": f"ip -o -d link show dev {name}",
        "routes": "ip -4 route show",
        "neighbours": f"ip neigh show dev {name}",
        "forwarding": f"bridge fdb show dev {name}",
    }
    said = (f'rb_say {key} "$({command} 2>/dev/null)"' for key, command in parts.items())
    return "\n".join([answers.SAY, *said, "rb_file env /run/flannel/subnet.env", "rb_file docker /run/flannel/docker"])


def parse_kernel(text: str) -> Kernel:
    """Parse what `kernel_script` printed; whatever is missing is empty."""
    said = answers.parse(text)

    def pairs(key: str, pattern: str) -> dict[str, str]:
        return dict(re.findall(pattern, said.get(key, ""), re.MULTILINE))

    mac = re.search(r"link/ether ([0-9a-f:]{17})", said.get("link", ""))
    mtu = re.search(r"\bmtu (\d+)", said.get("link", ""))
    name = re.match(r"\d+: ([^:@\s]+)", said.get("link", ""))
    own = rf"^\d+: {re.escape(name[1])}\s+inet ([0-9./]+)" if name else "(?!)"
    address = re.search(own, said.get("addresses", ""), re.MULTILINE)
    return Kernel(
        addresses=frozenset(re.findall(r"\binet ([0-9.]+)", said.get("addresses", ""))),
        mac=mac[1] if mac else "",
        mtu=int(mtu[1]) if mtu else 0,
        address=address[1] if address else "",
        routes=pairs("routes", r"^([0-9./]+) via ([0-9.]+)"),
        neighbours=pairs("neighbours", r"^([0-9.]+)(?: dev \S+)? lladdr ([0-9a-f:]{17})"),
        forwarding=pairs("forwarding", r"^([0-9a-f:]{17}).* dst ([0-9.]+)"),
        env=pairs("env", r"^([A-Z_]+)=(.*)$"),
        docker=said.get("docker", ""),
    )


def own_row(kernel: Kernel, lease: Mapping[str, object], network: str) -> dict[str, object]:
    """Hold a node's own lease against its vxlan device and files."""
    subnet = ipaddress.ip_network(str(lease["lease"]))
    first = f"{subnet[1]}/{subnet.prefixlen}"
    faults = []
    if not kernel.mac:
        faults.append("there is no vxlan device")
    elif kernel.mac != lease["vtep_mac"]:
        faults.append(f"the device's MAC is {kernel.mac}, the lease says {lease['vtep_mac']}")
    if kernel.mac and kernel.address != f"{subnet[0]}/32":
        faults.append(f"the device's address is {kernel.address or 'none'}, expected {subnet[0]}/32")
    for name, wanted in (("FLANNEL_SUBNET", first), ("FLANNEL_NETWORK", network), ("FLANNEL_MTU", str(kernel.mtu))):
        if kernel.env.get(name) != wanted:
            faults.append(f"subnet.env has {name}={kernel.env.get(name, 'nothing')}, expected {wanted}")
    options = (f"--bip={first}", f"--mtu={kernel.mtu}")
    faults += [f"/run/flannel/docker lacks {option}" for option in options if option not in kernel.docker]
    link = f"{kernel.address} {kernel.mac} mtu {kernel.mtu}" if kernel.mac else "none"
    files = (
        f"subnet.env {kernel.env.get('FLANNEL_SUBNET', 'missing')}, docker {'there' if kernel.docker else 'missing'}"
    )
    return {"link": link, "files": files, "why": "; ".join(faults)}


def peer_row(kernel: Kernel, lease: Mapping[str, object], *, direct: bool) -> dict[str, object]:
    """Hold another node's lease against the route, neighbour and forwarding entry for it."""
    subnet, ip, mac = str(lease["lease"]), str(lease["public_ip"]), str(lease["vtep_mac"])
    vtep = subnet.split("/", maxsplit=1)[0]
    route, neighbour = kernel.routes.get(subnet, ""), kernel.neighbours.get(vtep, "")
    forwarding = kernel.forwarding.get(mac, "")
    row: dict[str, object] = {"route": route or "none", "neighbour": neighbour or "none"}
    row["forwarding"] = forwarding or "none"
    if direct and route == ip:
        return {**row, "why": ""}
    faults = []
    if route != vtep:
        faults.append(f"the route to {subnet} goes via {route or 'nothing'}, expected {vtep}")
    if neighbour != mac:
        faults.append(f"the neighbour entry of {vtep} is {neighbour or 'missing'}, expected {mac}")
    if forwarding != ip:
        faults.append(f"the forwarding entry of {mac} is {forwarding or 'missing'}, expected {ip}")
    return {**row, "why": "; ".join(faults)}


def subnets(fleet: Fleet, leased: pd.DataFrame | None = None, *, within_s: float = 15) -> show.Table:
    """Show every node's side of every lease. Changes nothing.

    Peers learn a new lease a moment late, so it looks again within a deadline.

    Args:
        fleet: The fleet.
        leased: What `leases` returned; without it, and when looking again, etcd is asked.
        within_s: How long to look again, in seconds, until all rows hold.

    Returns:
        One row a flannel node and lease: node, lease, owner, ok, link, route, neighbour, forwarding, files, why,
        remedy.

    Next: what a node's kernel lacks, a restart of flanneld there writes anew; else phase 11, `mesh.ping(fleet)`.
    """
    deadline = time.monotonic() + within_s
    while True:
        table = _subnets_once(fleet, leases(fleet, expiry=False) if leased is None else leased)
        if (len(table) and table["ok"].all()) or time.monotonic() > deadline:
            return table
        leased = None
        time.sleep(0.3)


def _subnets_once(fleet: Fleet, leased: pd.DataFrame) -> show.Table:
    cluster = fleet.cluster
    there = [row for row in show.rows(leased) if row["lease"] and row["public_ip"]]
    there = [row for row in there if isinstance(row["lease"], str)]
    direct = bool(cluster.flannel.network_config()["Backend"].get("DirectRouting"))
    rows = []
    script = kernel_script(cluster)
    for outcome in fleet.run(script, what="ip link, route, neigh; bridge fdb", nodes=cluster.flannel_nodes).values():
        if outcome.value is None:
            why = outcome.error.message if outcome.error else "no answer"
            rows.append({"node": outcome.node.name, "ok": False, "why": why, "remedy": "bring the node up"})
            continue
        kernel = parse_kernel(outcome.value.text)
        for lease in there:
            own = lease["public_ip"] in kernel.addresses
            row = own_row(kernel, lease, cluster.flannel.network) if own else peer_row(kernel, lease, direct=direct)
            owner = lease["node"] or lease["public_ip"]
            shared = {"node": outcome.node.name, "lease": lease["lease"], "owner": owner, "ok": not row["why"]}
            rows.append({**shared, **row, "remedy": _REMEDY if row["why"] else ""})
        if not any(lease["public_ip"] in kernel.addresses for lease in there):
            why = "none of the leases is this node's"
            rows.append({"node": outcome.node.name, "ok": False, "why": why, "remedy": "does flanneld run? phase 09"})
    return show.table(rows, _SUBNET_COLUMNS, "Leases, held against each node's kernel and files")
