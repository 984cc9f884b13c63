"""Which addresses and names a practice cluster has: pure arithmetic, nothing is read or changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from runbook.errors import SandboxError

RANGE = IPv4Network("198.18.0.0/23")
"""Of 198.18.0.0/15, which RFC 2544 keeps for tests of networks: no machine on the internet has such an address."""

SLOT_PREFIX = 26
SLOTS = 8
FIRST_NODE = 11
"""Node 1 is the block's address + 11; the gateway (this machine) is + 1."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,22}[a-z0-9])?")


@dataclass(frozen=True)
class Block:
    """One of the eight /26 blocks of 198.18.0.0/23, with the names of what stands in it.

    Args:
        name: The practice cluster's name.
        slot: 0 to 7; two clusters on one machine need two slots.

    Raises:
        SandboxError: The name or the slot is not a usable one.
    """

    name: str
    slot: int

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SandboxError(
                f"{self.name!r} can't be a practice cluster's name",
                remedy="use 1 to 24 lower-case letters, digits and hyphens, a letter first",
            )
        if not 0 <= self.slot < SLOTS:
            raise SandboxError(f"there is no slot {self.slot}", remedy=f"use a slot from 0 to {SLOTS - 1}")

    @property
    def network(self) -> IPv4Network:
        """The slot's block."""
        return list(RANGE.subnets(new_prefix=SLOT_PREFIX))[self.slot]

    @property
    def gateway(self) -> IPv4Address:
        """This machine's own address in the block."""
        return self.network[1]

    @property
    def capacity(self) -> int:
        """How many nodes have an address."""
        return self.network.num_addresses - FIRST_NODE - 1

    @property
    def link(self) -> str:
        """The one interface that this machine sees."""
        return f"rbk{self.slot}"

    @property
    def switch(self) -> str:
        """The network namespace that holds the bridge."""
        return f"{self.link}-{self.name}-switch"

    def namespace(self, index: int) -> str:
        """The network namespace of node `index`, which is also its container's name."""
        return f"{self.link}-{self.name}-{node_name(index)}"

    def address(self, index: int) -> IPv4Address:
        """The address of node `index` (from 1).

        Raises:
            SandboxError: The block has no such node.
        """
        if not 1 <= index <= self.capacity:
            raise SandboxError(
                f"{index} nodes asked for, but {self.network} has addresses for 1 to {self.capacity}",
                remedy=f"ask for at most {self.capacity} nodes",
            )
        return self.network[FIRST_NODE + index - 1]

    def mac(self, index: int) -> str:
        """The same hardware address at every start, as a real machine has: neighbours' caches stay true."""
        return f"02:52:42:4b:{self.slot:02x}:{index:02x}"


def node_name(index: int) -> str:
    """The name of node `index` (from 1)."""
    return f"node{index}"


def node_index(node: str) -> int:
    """The index behind a node's name.

    Raises:
        SandboxError: It is not the name of a practice node.
    """
    match = re.fullmatch(r"node([1-9][0-9]?)", node)
    if not match:
        raise SandboxError(f"{node!r} is not a practice node", remedy="nodes are called node1, node2, ...")
    return int(match[1])
