"""What is wrong with a node's part of the overlay: device, MTU, files, firewall, routes; pure functions of the case."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from runbook import flannel_state
from runbook.diagnosis import firewall_rules
from runbook.diagnosis.case import CLUSTER, CONSEQUENCE, FLANNELD, NODE, OVERLAY, STATE, STORE, Cause
from runbook.diagnosis.flannel_causes import own_subnet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.diagnosis.case import Case
    from runbook.diagnosis.symptoms import Link, Symptoms

#: What a packet grows by: outer Ethernet, IPv4, UDP and VXLAN headers (RFC 7348, section 5).
_HEADERS = 50
_KERNELS_PORT = 8472
_AGAIN = "`systemctl restart flanneld` there: it writes all of it anew"
_LOST = "overlay-loses-packets"


def _running(case: Case) -> list[Symptoms]:
    """The nodes whose flanneld runs: where it does not, what it left is no fault of its own."""
    return [one for one in case.hosts if one.flanneld.active]


def overlaps(case: Case) -> Iterator[Cause]:
    """A network of the host's own inside flannel's: packets to it would go astray."""
    network = ipaddress.IPv4Network(case.cluster.flannel.network)
    device = flannel_state.device(case.cluster)
    for one in case.hosts:
        own = one.kernel.env.get("FLANNEL_SUBNET", "")
        found = []
        for line in one.said.get("routes_all", "").splitlines():
            words = line.split()
            try:
                route = ipaddress.IPv4Network(words[0]) if words else None
            except ValueError:
                continue  # `default`, `unreachable …`
            through = re.search(r"\bdev (\S+)", line)
            name = through[1] if through else ""
            # The bridge of docker or a CNI has the node's own subnet, and direct routes go to leases.
            bridge = bool(own) and str(route) == str(ipaddress.IPv4Interface(own).network)
            leased = any(row["lease"] == str(route) for row in case.leases)
            if route and route.overlaps(network) and name != device and not bridge and not leased:
                found.append(f"{route} dev {name}")
        if found:
            why = f"{', '.join(found)} overlaps flannel's network {network}, expected nothing else of the host's in it"
            remedy = "take that route or address away (`ip route`, `ip addr`), or choose another flannel.network"
            yield Cause(
                one.node.name, "flannel's network overlaps the host's", why, remedy, "network-overlaps", OVERLAY
            )


def device(case: Case) -> Iterator[Cause]:
    """The vxlan device: there, with the VNI of the config, the MAC of the lease, and no other one in its way."""
    name = flannel_state.device(case.cluster)
    backend = case.cluster.flannel.network_config()["Backend"]
    vni, port = int(backend.get("VNI", 1)), int(backend.get("Port", 0)) or _KERNELS_PORT
    for one in case.hosts:
        link = one.links.get(name)
        running = one.flanneld.active
        for other in one.links.values():
            if other.name != name and other.vni is not None and _in_the_way(other, vni, port):
                why = (
                    f"{other.name} has VNI {other.vni} on port {other.port}; expected only {name} with {vni} on {port}"
                )
                remedy = f"`ip link del {other.name}` there, then run phase 09"
                yield Cause(one.node.name, "a stale vxlan device", why, remedy, "stale-overlay-device", OVERLAY)
        if link is None:
            if running:
                yield Cause(one.node.name, "the vxlan device is gone", f"there is no {name}, and flanneld runs", _AGAIN,
                            _LOST, OVERLAY)  # fmt: skip
            continue
        wrong = [] if (link.vni, link.port) == (vni, port) else [
            f"VNI {link.vni} on port {link.port}, expected {vni} on {port}"
        ]  # fmt: skip
        own = _own_lease(case, one)
        if own and own["vtep_mac"] and one.kernel.mac != own["vtep_mac"] and running:
            wrong.append(f"MAC {one.kernel.mac}, expected {own['vtep_mac']} as its lease says")
        if wrong and running:
            remedy = f"`ip link del {name}; systemctl restart flanneld` there: it makes the device anew"
            why = f"{name} has {'; '.join(wrong)}"
            yield Cause(one.node.name, f"a stale {name}", why, remedy, "stale-overlay-device", OVERLAY)


def _in_the_way(other: Link, vni: int, port: int) -> bool:
    return other.name.startswith("flannel.") or (other.vni == vni and other.port == port)


def _own_lease(case: Case, one: Symptoms) -> dict[str, object] | None:
    rows = [row for row in case.leases if row["public_ip"] in one.kernel.addresses]
    # Of two leases the node's own is the one that it uses; the other one has a cause of its own.
    return next((row for row in rows if row["lease"] == own_subnet(one)), rows[0] if rows else None)


def mtu(case: Case) -> Iterator[Cause]:
    """Packets of the overlay's MTU must fit the interface below it with their headers."""
    name = flannel_state.device(case.cluster)
    for one in _running(case):
        below = next((link for link in one.links.values() if link.name == _interface(one)), None)
        link = one.links.get(name)
        if not link or not below:
            continue
        if below.mtu < link.mtu + _HEADERS:
            need = link.mtu + _HEADERS
            why = f"{below.name} has MTU {below.mtu}, {name} {link.mtu}: it needs {need}, else big packets are lost"
            remedy = (
                f"`ip link set {below.name} mtu {link.mtu + _HEADERS}` if the network carries it; else run"
                " `systemctl restart flanneld` (it takes the MTU from the interface), or set flannel.backend.MTU"
            )
            yield Cause(one.node.name, "the MTU is too small", why, remedy, "mtu-too-small", OVERLAY)
        told = one.kernel.env.get("FLANNEL_MTU", "")
        if told and told != str(link.mtu):
            why = f"{name} has MTU {link.mtu}, subnet.env says {told}"
            remedy = f"`ip link set {name} mtu {told}` there, or {_AGAIN}"
            yield Cause(one.node.name, f"the MTU of {name} was changed", why, remedy, "mtu-too-small", OVERLAY)


def _interface(one: Symptoms) -> str:
    """The interface that the tunnel leaves by: the one that carries the device's local address."""
    return str(one.facts.get("iface", ""))


def files(case: Case) -> Iterator[Cause]:
    """subnet.env and the docker options, against the node's lease."""
    for one in _running(case):
        lease = _own_lease(case, one)
        if not lease:
            continue
        subnet = ipaddress.IPv4Network(str(lease["lease"]))
        first = f"{subnet[1]}/{subnet.prefixlen}"
        wrong = []
        for name, wanted in (("FLANNEL_SUBNET", first), ("FLANNEL_NETWORK", case.cluster.flannel.network)):
            if one.kernel.env.get(name) != wanted:
                wrong.append(f"subnet.env has {name}={one.kernel.env.get(name, 'nothing')}, expected {wanted}")
        if f"--bip={first}" not in one.kernel.docker:
            told = re.search(r"--bip=([0-9./]+)", one.kernel.docker)
            wrong.append(f"/run/flannel/docker has --bip={told[1] if told else 'nothing'}, expected {first}")
        if wrong:
            remedy = f"{_AGAIN}; then restart docker, which reads them"
            yield Cause(one.node.name, "its files disagree with the lease", "; ".join(wrong), remedy,
                        "files-disagree-with-the-lease", OVERLAY)  # fmt: skip


def kernel(case: Case) -> Iterator[Cause]:
    """Routes, neighbours and forwarding entries for the other nodes' leases."""
    direct = bool(case.cluster.flannel.network_config()["Backend"].get("DirectRouting"))
    for one in _running(case):
        if flannel_state.device(case.cluster) not in one.links:
            continue
        wrong = [
            str(flannel_state.peer_row(one.kernel, row, direct=direct)["why"])
            for row in case.leases
            if row["public_ip"] not in one.kernel.addresses
        ]
        if told := "; ".join(filter(None, wrong)):
            unless = frozenset({(OVERLAY, ""), (FLANNELD, ""), (STORE, "")})
            yield Cause(one.node.name, "the kernel lacks what the leases say", told, _AGAIN, _LOST, OVERLAY, STATE,
                        unless)  # fmt: skip


def firewall(case: Case) -> Iterator[Cause]:
    """A rule that drops VXLAN, where packets of the overlay are lost or nobody is there to try."""
    port = int(case.cluster.flannel.network_config()["Backend"].get("Port", 0)) or _KERNELS_PORT
    losing = {name for pair in lost_pairs(case) for name in pair}
    alone = not any(_overlay_pings(case, one) for one in case.hosts)
    for one in _running(case):
        rules = firewall_rules.drops_port(one.said.get("iptables", ""), one.said.get("nft", ""), port)
        if rules and (one.node.name in losing or alone):
            why = f"the firewall drops UDP {port}, which carries the overlay: {'; '.join(rules[:3])}"
            remedy = f"take the rule away, or accept UDP {port} from the other nodes before it (`iptables -I`, `nft`)"
            yield Cause(one.node.name, f"UDP {port} is dropped by the firewall", why, remedy, _LOST, OVERLAY)


def forwarding(case: Case) -> Iterator[Cause]:
    """Containers' packets are forwarded: a policy of DROP needs flannel's own rules before it."""
    for one in _running(case):
        rules = firewall_rules.drops_forwarded(
            one.said.get("iptables", ""), one.said.get("nft", ""), case.cluster.flannel.network
        )
        if rules:
            why = f"{'; '.join(rules)}: containers don't reach other nodes"
            remedy = (
                "run phases 08 and 09 (flanneld adds its rules to iptables), or `iptables -P FORWARD ACCEPT`; in a"
                " table of nft's own: a rule that accepts them"
            )
            yield Cause(
                one.node.name, "FORWARD drops the overlay's packets", why, remedy, "forwarding-dropped", OVERLAY
            )


def _overlay_pings(case: Case, one: Symptoms) -> dict[str, bool]:
    """Whether each other node answered this one through the overlay, by name."""
    found = {}
    for row in case.leases:
        end = str(row["lease"]).split("/", maxsplit=1)[0]
        if end in one.pings and row["node"] and row["node"] != one.node.name:
            found[str(row["node"])] = one.pings[end]
    return found


def lost_pairs(case: Case) -> list[tuple[str, str]]:
    """The pairs of nodes that reach each other, but not through the overlay."""
    hosts = {node.name: node.host for node in case.cluster.flannel_nodes}
    return [
        (one.node.name, other)
        for one in case.hosts
        for other, answered in _overlay_pings(case, one).items()
        if not answered and one.pings.get(hosts[other])
    ]


def lost(case: Case) -> Iterator[Cause]:
    """Lost packets that nothing on the nodes explains."""
    by_node: dict[str, list[str]] = {}
    for name, other in lost_pairs(case):
        by_node.setdefault(name, []).append(other)
    for name, others in by_node.items():
        pairs = {name, *others}
        unless = frozenset({(STORE, ""), *((about, one) for about in (NODE, FLANNELD, OVERLAY) for one in pairs)})
        why = f"{', '.join(others)} answer at their own addresses and not through the overlay"
        unseen = [one.node.name for one in case.hosts if one.node.name in pairs and not one.said.get("nft", "").strip()]
        remedy = "something between the nodes drops UDP 8472 (a security group, a hypervisor): open it, or set Port"
        if unseen:
            remedy += (
                f"; or a rule of nft's on {', '.join(unseen)}, which iptables does not show (no `nft` there to ask)"
            )
        yield Cause(name, "the overlay loses packets", why, remedy, _LOST, OVERLAY, CONSEQUENCE, unless)


def lossy(case: Case) -> Iterator[Cause]:
    """Plain addresses that answer some pings and not others: of one node, where all such pairs have one in common."""
    names = {node.host: node.name for node in case.cluster.flannel_nodes}
    found = [
        (one.node.name, names[address], loss)
        for one in case.hosts
        for address, loss in one.losses.items()
        if address in names and 0 < loss < 100  # noqa: PLR2004 - percent
    ]
    common = set.intersection(*({a, b} for a, b, _ in found)) if found else set()
    if found:
        told = ", ".join(f"{a} to {b} {loss:.0f} %" for a, b, loss in found)
        why = f"of ten pings each to plain addresses some were lost: {told}; expected none"
        remedy = "`ip -s link` on the nodes (errors, dropped), then cable, duplex, and what limits the rate between"
        yield Cause(common.pop() if len(common) == 1 else CLUSTER, "packets are lost between the nodes", why, remedy,
                    _LOST, NODE, STATE)  # fmt: skip


RULES = (overlaps, device, mtu, files, firewall, forwarding, kernel, lost, lossy)
