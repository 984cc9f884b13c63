"""runbook.plans.selection: what may be left out of a plan, and what its starts and restarts mean for a quorum."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.plans import selection
from runbook.plans.selection import Quorum
from runbook.resources import Change

THREE = Quorum(("node1", "node2", "node3"))


def of(**actions: str) -> list[Change]:
    """A change of etcd.service a node, by the node's name."""
    return [Change("etcd.service", action, "", node=node) for node, action in actions.items()]


def members(count: int) -> Quorum:
    return Quorum(tuple(f"node{n}" for n in range(1, count + 1)))


# ---- the quorum


@pytest.mark.parametrize(("count", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_a_quorum_is_a_majority(count: int, needed: int) -> None:
    """Etcd answers while more than half of its members are up."""
    assert members(count).needed == needed


@pytest.mark.parametrize(
    ("quorum", "changes", "text", "at_risk"),
    [
        (THREE, of(node1="restart", node2="restart", node3="restart"),
         "3 members, restarts one at a time: 2 stay up, a quorum needs 2", False),
        (THREE, of(node1="start", node2="start", node3="start"),
         "3 members, none up: the first start, all at once; a quorum needs 2", False),
        (THREE, of(node1="start"), "3 members, 2 up now, 3 after; a quorum needs 2", False),
        (THREE, of(node1="start", node2="start"),
         "3 members, 1 up now and a quorum needs 2: there is none until 1 more start", True),
        (THREE, of(node1="start", node2="restart"),
         "3 members, 2 up now, restarts one at a time: 2 stay up, a quorum needs 2", False),
        (members(1), of(node1="restart"), "1 member: etcd does not answer while it restarts", True),
        (members(2), of(node1="restart"), "2 members, restarts one at a time: 1 stays up, a quorum needs 2", True),
        (members(5), of(node1="restart"), "5 members, restarts one at a time: 4 stay up, a quorum needs 3", False),
    ],
)  # fmt: skip
def test_members_up_are_held_against_the_quorum(
    quorum: Quorum,
    changes: list[Change],
    text: str,
    at_risk: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """The sentence tells how many are up before, during and after, what a quorum needs, and whether it is at risk."""
    assert selection.outlook(quorum, changes) == selection.Outlook(text, at_risk)


def test_a_member_that_is_down_and_left_out_stays_down() -> None:
    """Who leaves a stopped member out has one fewer while another restarts."""
    changes = of(node1="start", node2="restart")
    told = selection.outlook(members(3), changes, left_out=["node1"])
    assert told == selection.Outlook(
        "3 members, 2 up now, restarts one at a time: 1 stays up, a quorum needs 2", at_risk=True
    )


@pytest.mark.parametrize("changes", [[], of(node1="enable"), of(other="restart")])
def test_what_stops_no_member_is_no_matter_of_quorum(changes: list[Change]) -> None:
    """Enabling a unit, or another node's restart, has no outlook."""
    assert selection.outlook(THREE, changes) is None


# ---- leaving out


def test_no_member_of_a_first_start_may_be_left_out() -> None:
    """Started without the others a member waits for a quorum until its time is up; the reason says so."""
    held = selection.held(of(node1="start", node2="start", node3="start"), THREE)
    assert held == dict.fromkeys(THREE.members, "a member of the first start: it blocks without a quorum")


def test_a_start_that_a_quorum_waits_for_may_not_be_left_out() -> None:
    """Where fewer are up than a quorum needs every start counts."""
    held = selection.held(of(node1="start", node2="start"), THREE)
    assert held == dict.fromkeys(["node1", "node2"], "1 up and a quorum needs 2: without a quorum a start blocks")


def test_a_start_that_a_restart_needs_may_not_be_left_out() -> None:
    """A restart of three takes one away: the one that is down has to come up first; the restart itself may wait."""
    held = selection.held(of(node1="start", node2="restart", node3="restart"), THREE)
    assert held == {"node1": "while another restarts, 1 would be up; a quorum needs 2"}
    assert selection.held(of(node1="start", node2="restart"), members(5)) == {}


@pytest.mark.parametrize("changes", [of(node1="restart", node2="restart"), of(node1="start", node2="enable")])
def test_others_may_be_left_out(changes: list[Change]) -> None:
    """A member that runs goes on running; nothing hangs on it."""
    assert selection.held(changes, THREE) == {}
    assert selection.held(changes) == {}


def test_the_only_node_is_not_left_out() -> None:
    """A plan of one node has nothing else to apply, whatever else it makes on this side."""
    held = selection.held([Change("ca.pem", "create", ""), *of(node2="create")])
    assert held == {"node2": "the only node in this plan: Not now leaves it as it is"}


def test_a_plan_may_hold_all_its_nodes() -> None:
    """A plan's own reason comes before all others."""
    assert selection.held(of(node1="create"), whole="it writes for all") == {"node1": "it writes for all"}


def test_this_side_always_goes_along() -> None:
    """The CA is made whoever is left out."""
    changes = [Change("ca.pem", "create", ""), *of(node1="create", node2="create")]
    assert [change.node for change in selection.without(changes, ["node1"])] == ["", "node2"]


@given(st.lists(st.sampled_from(["start", "restart", "enable", ""]), min_size=1, max_size=7), st.data())
def test_no_allowed_choice_takes_the_quorum_away(actions: list[str], data: st.DataObject) -> None:
    """Whatever is left out of what may be left out, a quorum that holds without leaving out holds with it."""
    quorum = members(len(actions))
    changes = of(**{name: action for name, action in zip(quorum.members, actions, strict=True) if action})
    held = selection.held(changes, quorum)
    free = [change.node for change in changes if change.node not in held]
    left_out = data.draw(st.lists(st.sampled_from(free), unique=True) if free else st.just([]))
    before, after = selection.outlook(quorum, changes), selection.outlook(quorum, changes, left_out)
    if before and not before.at_risk and after:
        assert not after.at_risk


# ---- approved again


def test_what_was_approved_may_be_done_again() -> None:
    """The rest of an approved plan is within it; another node, action or content is not."""
    approved = of(node1="restart", node2="restart")
    assert selection.within(approved[1:], approved)
    assert selection.within([], approved)
    for other in (
        replace(approved[0], node="node3"), replace(approved[0], action="start"), replace(approved[0], digest="x"),
        replace(approved[0], refusal="not any more"),
    ):  # fmt: skip
        assert not selection.within([other], approved)
