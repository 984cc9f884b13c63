"""How a plan's changes are made: this side's first, then those of all nodes at once; ended between steps by Stop."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING

from runbook import errors
from runbook.journal import Pulse
from runbook.plans import apply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runbook.fleet import Fleet
    from runbook.plans.apply import Result
    from runbook.plans.looking import Known
    from runbook.resources import Change
    from runbook.ssh import Connection

#: Why a change was not begun when somebody stopped the rollout; who did follows.
STOPPED = "not begun: stopped by"


class Stopped(Exception):
    """A rollout was asked to end before a node's part of it had begun."""


class Stop:
    """Asks a rollout to end between two steps; what has begun is finished."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.by = ""

    def ask(self, by: str) -> None:
        """Let nothing further begin; safe from any thread.

        Args:
            by: Who stops it, for the results of what was not begun.
        """
        self.by = by
        self._asked.set()

    @property
    def asked(self) -> bool:
        """Whether nothing further may begin."""
        return self._asked.is_set()

    def begin(self, note: Callable[[], None]) -> Callable[[], None]:
        """Make what a node's part calls right before it begins: it raises Stopped, or notes the beginning, once."""
        noted = False

        def begin() -> None:
            nonlocal noted
            if self.asked:
                raise Stopped
            if not noted:
                note()
            noted = True

        return begin

    def rest(self, changes: Sequence[Change]) -> list[Result]:
        """Results of what was not begun."""
        return apply.not_done(changes, f"{STOPPED} {self.by}")


def everywhere(token: str, timeout_s: float) -> Callable[[Fleet, Sequence[Change], Stop], list[Result]]:
    """The rollout of most plans: this side's changes one by one, then those of all nodes at once, a round trip each.

    Args:
        token: Names what is staged; made unlike any other's here.
        timeout_s: How long a node's changes may take.
    """

    def rollout(fleet: Fleet, changes: Sequence[Change], stop: Stop) -> list[Result]:
        results, failed = _here(fleet, [change for change in changes if not change.node], stop)
        on_nodes = [change for change in changes if change.node]
        if failed or stop.asked:
            return results + (stop.rest(on_nodes) if stop.asked else apply.not_done(on_nodes))
        by_node = {n.name: [c for c in on_nodes if c.node == n.name] for n in fleet.cluster.nodes}

        def work(connection: Connection) -> list[Result]:
            return _on_node(fleet, connection, by_node[connection.node.name], token, timeout_s, stop)

        nodes = [node for node in fleet.cluster.nodes if by_node[node.name]]
        for name, outcome in fleet.each(work, nodes).items():
            why = outcome.error.message if outcome.error else ""
            results += outcome.value if outcome.value is not None else apply.not_done(by_node[name], why)
        return results

    return rollout


def _here(fleet: Fleet, changes: Sequence[Change], stop: Stop) -> tuple[list[Result], bool]:
    """Make this side's changes, up to the first that fails; whether one did."""
    results: list[Result] = []
    for number, change in enumerate(changes):
        if stop.asked:
            return results + stop.rest(changes[number:]), False
        start, what = time.monotonic(), f"{change.action} {change.resource}"
        try:
            if change.here:
                change.here()
        except errors.RunbookError as error:
            fleet.journal.note("", what, "failed", error.message)
            failed = apply.Result(change, "failed", str(error), time.monotonic() - start, error.remedy)
            return [*results, failed, *apply.not_done(changes[number + 1 :])], True
        results.append(apply.Result(change, "done", "", time.monotonic() - start))
        fleet.journal.note("", what)
    return results, False


def _on_node(
    fleet: Fleet, connection: Connection, changes: Sequence[Change], token: str, timeout_s: float, stop: Stop
) -> list[Result]:
    """Make a node's changes in one round trip, its steps noted as they come; none where it is stopped before."""
    name = connection.node.name
    sent = 0

    def told(sent_bytes: int, total_bytes: int) -> None:
        nonlocal sent
        sent = sent_bytes
        fleet.journal.tell(Pulse(name, sent_bytes=sent_bytes, total_bytes=total_bytes))

    def summed(path: str, known: Known) -> None:
        fleet.sums[name, path] = known

    try:
        made = apply.apply_on(
            connection, changes, f"{token}-{secrets.token_hex(3)}", timeout_s,
            told=told, step=lambda words: fleet.journal.note(name, words),
            begin=stop.begin(lambda: fleet.journal.note(name, "apply", "started")), summed=summed,
        )  # fmt: skip
    except Stopped:
        return stop.rest(changes)
    for result in made:
        state = "done" if result.result == "done" else "failed"
        fleet.journal.note(name, f"{result.change.action} {result.change.resource}", state, result.error)
    good = all(result.result == "done" for result in made)
    fleet.journal.note(name, "apply", "done" if good else "failed", sent_bytes=sent or None)
    return made
