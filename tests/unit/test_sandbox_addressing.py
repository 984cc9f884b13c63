from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.errors import SandboxError
from runbook.sandbox.addressing import RANGE, SLOTS, Block, node_index, node_name

slots = st.integers(0, SLOTS - 1)
indexes = st.integers(1, 52)


@pytest.mark.parametrize(
    ("slot", "network", "gateway", "first"),
    [
        (0, "198.18.0.0/26", "198.18.0.1", "198.18.0.11"),
        (1, "198.18.0.64/26", "198.18.0.65", "198.18.0.75"),
        (3, "198.18.0.192/26", "198.18.0.193", "198.18.0.203"),
    ],
)
def test_each_slot_has_a_quarter_of_the_range(slot: int, network: str, gateway: str, first: str) -> None:
    """Slot 0 has the addresses that params/sandbox.yaml names; the others follow in steps of 64."""
    block = Block("sandbox", slot)
    assert (str(block.network), str(block.gateway), str(block.address(1))) == (network, gateway, first)


def test_slots_do_not_overlap_and_fill_the_range() -> None:
    """Clusters side by side never have an address in common, nor one outside 198.18.0.0/23."""
    networks = [Block("sandbox", slot).network for slot in range(SLOTS)]
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))
    assert all(network.subnet_of(RANGE) for network in networks)


@given(slot=slots, index=indexes)
def test_a_node_address_is_usable(slot: int, index: int) -> None:
    """Every node's address is inside its block and neither the block's own, the gateway's nor the broadcast one."""
    block = Block("sandbox", slot)
    address = block.address(index)
    assert address in block.network
    assert address not in {block.network.network_address, block.network.broadcast_address, block.gateway}
    assert int(address) == int(block.network.network_address) + 10 + index


@given(slot=slots, index=st.integers().filter(lambda index: not 1 <= index <= 52))
def test_more_nodes_than_addresses_are_refused(slot: int, index: int) -> None:
    """The message names the block and how many nodes it holds."""
    with pytest.raises(SandboxError, match=r"198\.18\.[01]\.\d+/26 has addresses for 1 to 52"):
        Block("sandbox", slot).address(index)


@given(one=st.tuples(slots, indexes), other=st.tuples(slots, indexes))
def test_names_and_macs_are_unique(one: tuple[int, int], other: tuple[int, int]) -> None:
    """Two nodes share neither namespace nor hardware address, and no interface name passes the kernel's 15 bytes."""
    first, second = Block("sandbox", one[0]), Block("sandbox", other[0])
    same = one == other
    assert (first.namespace(one[1]) == second.namespace(other[1])) is same
    assert (first.mac(one[1]) == second.mac(other[1])) is same
    assert int(first.mac(one[1])[:2], 16) & 3 == 2  # locally administered, one station
    assert len(first.link) <= 15


@pytest.mark.parametrize("name", ["", "Sandbox", "a/b", "../x", "a b", "-a", "a-", "1a", "x" * 25, "a\n"])
def test_a_name_that_could_not_be_a_file_or_host_is_refused(name: str) -> None:
    """The name becomes part of a folder, a namespace and a container's name."""
    with pytest.raises(SandboxError, match="can't be a practice cluster's name"):
        Block(name, 0)


@pytest.mark.parametrize("slot", [-1, 8])
def test_a_slot_outside_0_to_7_is_refused(slot: int) -> None:
    """There are four /26 in the range."""
    with pytest.raises(SandboxError, match=f"there is no slot {slot}"):
        Block("sandbox", slot)


@given(index=indexes)
def test_a_node_name_tells_its_index(index: int) -> None:
    """node1 is 1, and back."""
    assert node_index(node_name(index)) == index


@pytest.mark.parametrize("node", ["node", "node0", "node01", "node100", "Node1", "node1 ", "1", "../node1"])
def test_other_names_are_no_nodes(node: str) -> None:
    """A name from the command line never becomes a path unchecked."""
    with pytest.raises(SandboxError, match="is not a practice node"):
        node_index(node)
