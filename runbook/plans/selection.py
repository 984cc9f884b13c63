"""What may be left out of a plan, and what its starts and restarts mean for a quorum: pure functions of its changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runbook.resources import Change


@dataclass(frozen=True)
class Quorum:
    """The members that vote; etcd answers while a majority of them is up (etcd's FAQ, "Why an odd number").

    Attributes:
        members: The names of their nodes.
    """

    members: tuple[str, ...]

    @property
    def needed(self) -> int:
        """How many members have to be up."""
        return len(self.members) // 2 + 1


@dataclass(frozen=True)
class Outlook:
    """What a plan means for the quorum, in a sentence; `at_risk` where it would be lost or is lost already."""

    text: str
    at_risk: bool


def outlook(quorum: Quorum, changes: Sequence[Change], left_out: Collection[str] = ()) -> Outlook | None:
    """Hold the members that are up before and during these changes against what a quorum needs.

    What the plan wants to start does not run now; starts come first, all at once, restarts follow one at a time.

    Args:
        quorum: The members.
        changes: All of the plan's changes.
        left_out: The nodes whose changes are not made.

    Returns:
        None where no member is started or restarted.
    """
    members = set(quorum.members)
    down = {change.node for change in changes if change.action == "start"} & members
    started = down - set(left_out)
    restarted = {change.node for change in changes if change.action == "restart"} & members - set(left_out)
    if not started and not restarted:
        return None
    count, need = len(quorum.members), quorum.needed
    up = count - len(down)
    after = up + len(started)
    needs, all_of = f"a quorum needs {need}", f"{count} member{'' if count == 1 else 's'}"
    if not up:
        return Outlook(f"{all_of}, none up: the first start, all at once; {needs}", at_risk=False)
    if up < need:
        return Outlook(f"{all_of}, {up} up now and {needs}: there is none until {need - up} more start", at_risk=True)
    if not restarted:
        return Outlook(f"{all_of}, {up} up now, {after} after; {needs}", at_risk=False)
    if count == 1:
        return Outlook("1 member: etcd does not answer while it restarts", at_risk=True)
    before = f"{up} up now, " if down else ""
    stay = f"{after - 1} {'stays' if after - 1 == 1 else 'stay'} up"
    return Outlook(f"{all_of}, {before}restarts one at a time: {stay}, {needs}", at_risk=after - 1 < need)


def held(changes: Sequence[Change], quorum: Quorum | None = None, whole: str = "") -> dict[str, str]:
    """Which nodes of a plan may not be left out, and why.

    Args:
        changes: The plan's changes.
        quorum: The members, where the plan starts some.
        whole: Why none of its nodes may be left out; '' where they may.

    Returns:
        A reason by the node's name; a node that is not in it may be left out.
    """
    names = list(dict.fromkeys(change.node for change in changes if change.node))
    if whole:
        return dict.fromkeys(names, whole)
    if len(names) == 1:
        return {names[0]: "the only node in this plan: Not now leaves it as it is"}
    if quorum is None:
        return {}
    starts = [change.node for change in changes if change.action == "start" and change.node in quorum.members]
    up, need = len(quorum.members) - len(starts), quorum.needed
    if starts and not up:
        return dict.fromkeys(starts, "a member of the first start: it blocks without a quorum")
    if up < need:
        return dict.fromkeys(starts, f"{up} up and a quorum needs {need}: without a quorum a start blocks")
    if starts and up - 1 < need and any(change.action == "restart" for change in changes):
        return dict.fromkeys(starts, f"while another restarts, {up - 1} would be up; a quorum needs {need}")
    return {}


def without(changes: Sequence[Change], left_out: Collection[str]) -> list[Change]:
    """The changes of the other nodes; what is made on this side always goes along."""
    return [change for change in changes if not change.node or change.node not in left_out]


def within(changes: Sequence[Change], approved: Sequence[Change]) -> bool:
    """Whether each of these changes is one of those that were approved."""
    return {_key(change) for change in changes} <= {_key(change) for change in approved}


def _key(change: Change) -> tuple[str, ...]:
    return change.node, change.resource, change.action, change.digest, change.refusal
