"""A plan: what would change, why, and its diff; nothing changes before `apply`, and only what was approved."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from runbook import errors, show
from runbook.fleet import Fleet
from runbook.plans import applying, approval, plan_view, reading, selection
from runbook.plans.rollout import Stop, everywhere
from runbook.resources import Change, Resource

if TYPE_CHECKING:
    from runbook.plans.apply import Result
    from runbook.plans.reading import Guard
    from runbook.plans.selection import Quorum

Rollout = Callable[[Fleet, Sequence[Change], Stop], "list[Result]"]
#: A plan that a person looked at for longer than this is read again before it is applied.
_STALE_AFTER_S = 5.0


class Plan:
    """What would change; shown as a table with diffs, applied with `await plan.apply(approve)`.

    Attributes:
        title: What it is for.
        fleet: The nodes that it is for.
        changes: One a node and resource, in the order in which they are made.
        notes: What the operator should know beside the table.
        unchanged: How many resources are right already.
        quorum: The members that vote, where the plan starts or restarts some; else None.
        whole: Why none of its nodes may be left out; "" where they may.
    """

    def __init__(
        self,
        title: str,
        fleet: Fleet,
        make: Callable[[], tuple[list[Change], list[str], int]],
        *,
        rollout: Rollout | None = None,
        quorum: Quorum | None = None,
        whole: str = "",
        timeout_s: float = 300,
    ) -> None:
        self.title = title
        self.fleet = fleet
        self.quorum = quorum
        self.whole = whole
        self._make = make
        self._rollout = rollout
        self._timeout_s = timeout_s
        self._begun = False
        self.read_again()

    def read_again(self) -> None:
        """Look at the nodes anew: what would change now.

        Raises:
            RunbookError: nodes could not be read; all of them are listed.
        """
        changes, notes, unchanged = self._make()
        self.changes, self.notes, self.unchanged = changes, notes, unchanged
        self._read_at = time.monotonic()

    @property
    def id(self) -> str:
        """A hash of what would change: the same plan has the same id, today and on another machine."""
        rows = sorted([c.node, c.resource, c.action, c.digest, "refused" if c.refusal else ""] for c in self.changes)
        text = json.dumps([self.title, self.fleet.cluster.name, rows])
        # The letter in front keeps YAML and papermill from reading an id such as 123456789e10 as a number.
        return "p" + hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def empty(self) -> bool:
        """Whether nothing is to change."""
        return not self.changes

    @property
    def stale(self) -> bool:
        """Whether it was read so long ago that the nodes may have changed since."""
        return time.monotonic() - self._read_at >= _STALE_AFTER_S

    @property
    def headline(self) -> str:
        """What would change, what restarts, and what that means for a quorum, in a few words each."""
        return plan_view.headline(self)

    @property
    def refusals(self) -> list[str]:
        """Why the plan may not be applied, a line each; empty where it may."""
        return [f"{c.node} {c.resource}: {c.refusal}" for c in self.changes if c.refusal]

    def table(self) -> show.Table:
        """One row a change: node, resource, action, why, current, desired."""
        rows = [{name: getattr(change, name) for name in show.PLAN_COLUMNS} for change in self.changes]
        return show.plan_table(self.headline, rows)

    def as_dict(self) -> dict[str, object]:
        """The plan for programs: title, id, notes, unchanged, and one mapping a change with its diff."""
        rows = [
            {name: getattr(change, name) for name in [*show.PLAN_COLUMNS, "diff", "refusal"]} for change in self.changes
        ]
        shared = {"title": self.title, "id": self.id, "notes": self.notes, "unchanged": self.unchanged}
        return {**shared, "changes": rows}

    def _repr_mimebundle_(self, **_options: object) -> dict[str, object]:
        return {show.PLAN_MIME: self.as_dict(), "text/html": self._repr_html_(), "text/plain": repr(self)}

    def _repr_html_(self) -> str:
        return plan_view.html_of(self)

    def __repr__(self) -> str:
        return plan_view.text_of(self)

    async def apply(self, approve: bool | str = False) -> show.Table:  # noqa: FBT001, FBT002 - the notebooks' parameter
        """Make the changes once they are approved; an empty plan needs no approval.

        A plan that was applied before, whole or in part, is read again first: nothing is made twice.

        Args:
            approve: True, or the id of this very plan; False asks the person in front of the notebook: JupyterLab shows
                buttons, and boxes to leave nodes out.

        Returns:
            One row a change: node, resource, action, result (done, or left out), error, remedy, took_s.

        Raises:
            ApprovalRequired: nobody to ask, or the answer was no; nothing was changed.
            PlanChanged: the nodes have changed since the plan was shown; nothing was changed.
            PlanRefused: a change would do harm; nothing was changed.
            ApplyFailed: some changes were not made; the table was shown, the rest goes on with the next run.
        """
        if self._begun:
            await self._leave_the_rest(approve)
        self.check_allowed()
        if self.empty:
            return applying.table(self, [])
        if approve is False and approval.buttons_possible():
            from runbook.plans import gate  # noqa: PLC0415 - ipywidgets is for JupyterLab alone

            return await gate.through(self)
        how = approval.approved(self, approve)
        self._check_still_true()
        results = await applying.run(self, self.changes, how)
        table = applying.table(self, results)
        if fault := applying.fault(self, results):
            show.display(table)
            raise fault
        return table

    async def _leave_the_rest(self, approve: object) -> None:
        """Read the nodes again after an apply, which may have ended unseen: a page was reloaded, a cell interrupted."""
        before, shown = self.changes, self.id
        await applying.beside(self.read_again)
        if approve is True and not selection.within(self.changes, before):
            raise self._changed(shown)
        self._begun = False

    def check_allowed(self) -> None:
        """Raise PlanRefused where a change would do harm."""
        if refusals := self.refusals:
            raise errors.PlanRefused("\n".join(["nothing was changed:", *refusals]))

    def _check_still_true(self) -> None:
        if not self.stale:
            return
        shown = self.id
        self.read_again()
        if self.id != shown:
            raise self._changed(shown)

    def _changed(self, shown: str) -> errors.PlanChanged:
        return errors.PlanChanged(
            f"the nodes have changed since plan {shown} was shown; it would be {self.id} now",
            subject=self.title,
            remedy="look at the plan again",
        )

    def held(self) -> dict[str, str]:
        """The nodes that may not be left out, each with the reason."""
        return selection.held(self.changes, self.quorum, self.whole)

    def make(self, changes: Sequence[Change], stop: Stop) -> list[Result]:
        """Make these changes of the plan, as they are; called by `applying`, once they are approved."""
        self._begun = True
        rollout = self._rollout or everywhere(self.id, self._timeout_s)
        return rollout(self.fleet, changes, stop)


def of_resources(
    title: str,
    fleet: Fleet,
    resources: Mapping[str, Sequence[Resource]],
    *,
    notes: Sequence[str] = (),
    whole: str = "",
    guards: Mapping[str, Guard] | None = None,
) -> Plan:
    """A plan that makes each node's resources as they are wanted, all nodes at once.

    Args:
        title: What it is for.
        fleet: The nodes.
        resources: What each node should have, by the node's name.
        notes: What the operator should know beside the table.
        whole: Why none of the nodes may be left out; "" where they may.
        guards: What says whether a node may be changed, by the node's name.
    """

    def make() -> tuple[list[Change], list[str], int]:
        changes, unchanged = reading.compared(fleet, resources, what=f"read for {title}", guards=guards)
        return changes, list(notes), unchanged

    return Plan(title, fleet, make, whole=whole)
