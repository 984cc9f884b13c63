"""One bridge in a namespace of its own; this machine sees a single link, `rbkN`, with the gateway's address.

The bridge is kept out of this machine's own namespace because rules and sysctls there (Docker's, with
bridge-nf-call-iptables) would otherwise filter what nodes send each other.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from runbook.errors import SandboxError
from runbook.sandbox.machine import attempt, mounts_below, run

if TYPE_CHECKING:
    from runbook.sandbox.addressing import Block
    from runbook.sandbox.ledger import Ledger

NODE_LINK = "eth0"
_BRIDGE = "br0"
_UPLINK = "uplink"
_ROUTE_METRIC = "9999"
_WIDEST_PREFIX = 8
"""A wider route than this (a default route, or a VPN's two halves of one) says nothing about our block."""

NETNS = Path("/run/netns")


class Network:
    """The network of one practice cluster.

    Args:
        block: Its addresses and names.
        ledger: Where what is made is written down first.
    """

    def __init__(self, block: Block, ledger: Ledger) -> None:
        self._block = block
        self._ledger = ledger

    def ensure(self) -> None:
        """Make the bridge, this machine's link to it and the route that keeps the block on this machine.

        Raises:
            SandboxError: Something that we did not make uses the block or one of the names.
        """
        block = self._block
        self._refuse_foreign_use()
        self._ensure_namespace(block.switch)
        if not _link_exists(_BRIDGE, block.switch):
            self._shell(block.switch, "for f in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 >$f; done")
            _batch(f"link add {_BRIDGE} type bridge mcast_snooping 0\nlink set {_BRIDGE} up\n", block.switch)
        self._ledger.claim("link", block.link, exists=_link_exists(block.link))
        if not (_link_exists(block.link) and _link_exists(_UPLINK, block.switch)):
            attempt("ip", "link", "delete", block.link)  # one whose other end went with its namespace
            run("ip", "link", "add", block.link, "address", block.mac(0), "type", "veth",
                "peer", "name", _UPLINK, "netns", block.switch)  # fmt: skip
        _batch(f"link set {_UPLINK} master {_BRIDGE}\nlink set {_UPLINK} up\n", block.switch)
        route = f"unreachable {block.network}"
        self._ledger.claim("route", route, exists=False)
        # Nothing a node sends is forwarded, whatever this machine does for others.
        Path(f"/proc/sys/net/ipv4/conf/{block.link}/forwarding").write_text("0\n", encoding="ascii")
        _batch(
            f"link set {block.link} addrgenmode none\n"
            f"address replace {block.gateway}/{block.network.prefixlen} dev {block.link}\n"
            f"link set {block.link} up\n"
            f"route replace {route} metric {_ROUTE_METRIC}\n"
        )

    def connect(self, index: int) -> Path:
        """Make node `index` a namespace with an eth0 on the bridge; give the namespace's path.

        Raises:
            SandboxError: A namespace of that name exists and we did not make it.
        """
        block, namespace = self._block, self._block.namespace(index)
        self._ensure_namespace(namespace)
        port = f"port{index}"
        if not _link_exists(NODE_LINK, namespace):
            run("ip", "-n", block.switch, "link", "add", port, "type", "veth", "peer", "name", NODE_LINK,
                "address", block.mac(index), "netns", namespace)  # fmt: skip
        _batch(f"link set {port} master {_BRIDGE}\nlink set {port} up\n", block.switch)
        _batch(
            "link set lo up\n"
            f"address replace {block.address(index)}/{block.network.prefixlen} dev {NODE_LINK}\n"
            f"link set {NODE_LINK} up\n"
            f"route replace default via {block.gateway}\n",
            namespace,
        )
        self._shell(namespace, "echo 1 >/proc/sys/net/ipv4/ip_forward")
        return NETNS / namespace

    def disconnect(self, index: int) -> None:
        """Remove node `index`'s namespace and its port; nothing happens where there is none."""
        if self._ledger.owns("netns", self._block.switch):
            attempt("ip", "-n", self._block.switch, "link", "delete", f"port{index}")
        self._remove_namespace(self._block.namespace(index))

    def remove(self) -> None:
        """Remove all that was claimed since the machine booted."""
        block = self._block
        for claim in reversed(self._ledger.claims):
            kind, _, name = claim.partition(" ")
            if kind == "netns":
                self._remove_namespace(name)
            elif kind == "link":
                if _link_exists(name):
                    run("ip", "link", "delete", name)
                self._ledger.release(kind, name)
            elif kind == "route":
                attempt("ip", "route", "delete", "unreachable", str(block.network), "metric", _ROUTE_METRIC)
                self._ledger.release(kind, name)

    def _ensure_namespace(self, name: str) -> None:
        self._ledger.claim("netns", name, exists=(NETNS / name).exists())
        # A file without a namespace mounted on it is what a killed `ip netns add` leaves.
        if (NETNS / name).exists() and not mounts_below(NETNS / name):
            run("ip", "netns", "delete", name)
        if not (NETNS / name).exists():
            run("ip", "netns", "add", name)

    def _remove_namespace(self, name: str) -> None:
        if not self._ledger.owns("netns", name):
            return
        if (NETNS / name).exists():
            run("ip", "netns", "delete", name)
        self._ledger.release("netns", name)

    @staticmethod
    def _shell(namespace: str, script: str) -> None:
        run("ip", "netns", "exec", namespace, "sh", "-c", script)

    def _refuse_foreign_use(self) -> None:
        """Compare the block with every address and route of this machine that is not ours."""
        block = self._block
        own_link = self._ledger.owns("link", block.link)
        for link in json.loads(run("ip", "-json", "-4", "address", "show")):
            for address in link.get("addr_info", []):
                used = IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False)
                if used.overlaps(block.network) and not (own_link and link["ifname"] == block.link):
                    raise self._in_use(f"{link['ifname']} has the address {address['local']}/{address['prefixlen']}")
        own_route = self._ledger.owns("route", f"unreachable {block.network}")
        for route in json.loads(run("ip", "-json", "-4", "route", "show", "table", "all")):
            target = IPv4Network("0.0.0.0/0" if route["dst"] == "default" else route["dst"], strict=False)
            ours = (own_link and route.get("dev") == block.link) or (
                own_route and target == block.network and route.get("type") == "unreachable"
            )
            if not ours and target.prefixlen >= _WIDEST_PREFIX and target.overlaps(block.network):
                through = route.get("dev") or route.get("type", "")
                raise self._in_use(f"a route to {route['dst']} ({through}) exists")

    def _in_use(self, found: str) -> SandboxError:
        return SandboxError(
            f"{found}, which this practice cluster did not make",
            subject=str(self._block.network),
            remedy="take that away, or use another --slot (0 to 7)",
        )


def _link_exists(link: str, namespace: str = "") -> bool:
    where = ("-n", namespace) if namespace else ()
    return attempt("ip", *where, "link", "show", link).returncode == 0


def _batch(commands: str, namespace: str = "") -> None:
    where = ("-n", namespace) if namespace else ()
    run("ip", *where, "-batch", "-", stdin=commands)
