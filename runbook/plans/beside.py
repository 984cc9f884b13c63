"""A plan of several parts: read together, shown and approved as one, and made beside each other.

What the first is for waits for something, and leaves the line to the nodes and their disks idle meanwhile.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from runbook.plans import reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runbook.fleet import Fleet
    from runbook.plans.apply import Result
    from runbook.plans.rollout import Stop
    from runbook.resources import Change, Found, Resource

#: The first part begins so long before the others: on its way to where it waits it has nodes and line to itself.
AHEAD_S = 0.3

#: What a plan is made of: its changes, notes, and how many resources are right already.
Made = tuple["list[Change]", "list[str]", int]


@dataclass(frozen=True)
class Part:
    """A part of a plan.

    Attributes:
        title: What it is for.
        asked: What is to be read, by the node's name.
        judge: Gives what is to be changed, by what was read of `asked`.
        rollout: Makes those of its changes that it is given.
    """

    title: str
    asked: Mapping[str, Sequence[Resource]]
    judge: Callable[[Mapping[str, Sequence[Found]]], Made]
    rollout: Callable[[Fleet, Sequence[Change], Stop], list[Result]]


class Together:
    """Parts as one: what a Plan needs to be made of them.

    Args:
        fleet: The nodes.
        parts: The first is what the plan is for.
    """

    def __init__(self, fleet: Fleet, *parts: Part) -> None:
        self._fleet = fleet
        self._parts = parts
        self._whose: dict[tuple[str, str], Part] = {}

    def make(self) -> Made:
        """Read all parts' resources, one round trip a node, and judge each part's.

        Raises:
            RunbookError: nodes could not be read; all of them are listed.
        """
        names = [node.name for node in self._fleet.cluster.nodes]
        asked = {name: [one for part in self._parts for one in part.asked.get(name, ())] for name in names}
        found = reading.read(self._fleet, asked, what=f"read for {self._parts[0].title}")
        answers = {name: iter(states) for name, states in found.items()}
        changes: list[Change] = []
        notes: list[str] = []
        unchanged = 0
        for part in self._parts:
            own = {name: list(islice(answers[name], len(of_node))) for name, of_node in part.asked.items() if of_node}
            made, told, right = part.judge(own)
            self._whose |= {(change.node, change.resource): part for change in made}
            changes, notes, unchanged = changes + made, notes + told, unchanged + right
        return changes, notes, unchanged

    def rollout(self, fleet: Fleet, changes: Sequence[Change], stop: Stop) -> list[Result]:
        """Make the changes, each part's in its own way; what is in the journal of all but the first names its part."""
        shares = {
            part.title: [change for change in changes if self._whose[change.node, change.resource] is part]
            for part in self._parts
        }
        first = self._parts[0]

        def work(part: Part) -> list[Result]:
            if part is first:
                return part.rollout(fleet, shares[part.title], stop)
            if shares[first.title]:
                time.sleep(AHEAD_S)
            return part.rollout(fleet.noting(part.title), shares[part.title], stop)

        at_work = [part for part in self._parts if shares[part.title]]
        with ThreadPoolExecutor(max(1, len(at_work)), thread_name_prefix="runbook-part") as pool:
            return [result for results in pool.map(work, at_work) for result in results]
