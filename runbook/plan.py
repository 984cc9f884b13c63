"""A plan: what would change, why, and its diff; nothing changes before `apply`, and only what was approved."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import html
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from runbook import apply, errors, show
from runbook.approval import approved
from runbook.fleet import Fleet, values
from runbook.progress import Progress
from runbook.resources import PRELUDE, Change, Found, Resource
from runbook.ssh import clean

if TYPE_CHECKING:
    from runbook.apply import Result
    from runbook.ssh import Connection

Rollout = Callable[[Fleet, Sequence[Change]], "list[Result]"]
#: A plan that a person looked at for longer than this is read again before it is applied.
_STALE_AFTER_S = 5.0


def read(fleet: Fleet, resources: Mapping[str, Sequence[Resource]], *, what: str) -> dict[str, list[Found]]:
    """Read what is there: one round trip a node, all nodes at once.

    Returns:
        For each node the probes' `key=value` lines as mappings, in the order of the resources.

    Raises:
        RunbookError: nodes could not be read; all of them are listed.
    """
    nodes = [node for node in fleet.cluster.nodes if resources.get(node.name)]
    # A mark that nobody can guess: nothing that a node prints can pass for another resource's answer.
    mark = f"@{secrets.token_hex(8)}"

    def work(connection: Connection) -> list[Found]:
        wanted = resources[connection.node.name]
        body = "\n".join(f"echo {mark}\n{resource.probe()}" for resource in wanted)
        done = connection.run(f"{PRELUDE}\n{body}\necho {mark}", what=what).check()
        sections = done.text.split(f"{mark}\n")[1:-1]
        if len(sections) != len(wanted):
            raise errors.CommandFailed(
                f"{len(sections)} answers, expected {len(wanted)}", node=connection.node.name, subject=what
            )
        return [dict(line.split("=", 1) for line in text.splitlines() if "=" in line) for text in sections]

    return values(fleet.each(work, nodes))


class Plan:
    """What would change; shown as a table with diffs, applied with `await plan.apply(approve)`.

    Attributes:
        title: What it is for.
        changes: One a node and resource, in the order in which they are made.
        notes: What the operator should know beside the table.
        unchanged: How many resources are right already.
    """

    def __init__(
        self,
        title: str,
        fleet: Fleet,
        make: Callable[[], tuple[list[Change], list[str], int]],
        *,
        rollout: Rollout | None = None,
        timeout_s: float = 300,
    ) -> None:
        self.title = title
        self.fleet = fleet
        self._make = make
        self._rollout = rollout or self._everywhere
        self._timeout_s = timeout_s
        self._read_at = time.monotonic()
        self.changes, self.notes, self.unchanged = make()

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
    def headline(self) -> str:
        """What would change, in a sentence."""
        if self.empty:
            return f"{self.title}: nothing to change; {self.unchanged} right already."
        counts: dict[str, int] = {}
        for change in self.changes:
            counts[change.action] = counts.get(change.action, 0) + 1
        nodes = {change.node for change in self.changes if change.node}
        what = ", ".join(f"{count} to {action}" for action, count in counts.items())
        where = f"on {len(nodes)} node{'s' if len(nodes) != 1 else ''}" if nodes else "on this side"
        return f"{self.title}: {what} {where}; {self.unchanged} right already. Plan {self.id}."

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
        if self.empty:
            return f"<p>{show.chip('none')} {html.escape(self.headline)}</p>" + show.notes_html(self.notes)
        diffs = "".join(
            f"<details><summary>{html.escape(clean(name))}</summary>{show.diff_html(c.diff)}</details>"
            for c in self.changes
            for name in [f"{c.node} {c.resource}"]
            if c.diff
        )
        return show.table_html(self.table()) + diffs + show.notes_html(self.notes)

    def __repr__(self) -> str:
        if self.empty:
            return "\n".join([self.headline, *self.notes])
        diffs = [change.diff for change in self.changes if change.diff]
        return "\n\n".join([show.table_text(self.table()), *map(clean, [*diffs, *self.notes])])

    async def apply(self, approve: bool | str = False) -> show.Table:  # noqa: FBT001, FBT002 - the notebooks' parameter
        """Make the changes once they are approved; an empty plan needs no approval.

        Args:
            approve: True, or the id of this very plan; False asks the person in front of the notebook.

        Returns:
            One row a change: node, resource, action, result, error, took_s.

        Raises:
            ApprovalRequired: nobody to ask, or the answer was no; nothing was changed.
            PlanChanged: the nodes have changed since the plan was shown; nothing was changed.
            PlanRefused: a change would do harm; nothing was changed.
            ApplyFailed: some changes were not made; the table was shown, the rest goes on with the next run.
        """
        if refusals := [f"{c.node} {c.resource}: {c.refusal}" for c in self.changes if c.refusal]:
            raise errors.PlanRefused("\n".join(["nothing was changed:", *refusals]))
        if self.empty:
            return self._results([])
        how = approved(self, approve)
        self._check_still_true()
        self.fleet.journal.note("", f"apply {self.title}, plan {self.id}", "started", how)
        results = await self._run_in_thread()
        table = self._results(results)
        failed = [result for result in results if result.result != "done"]
        state = "failed" if failed else "done"
        self.fleet.journal.note("", f"apply {self.title}", state, f"{len(results) - len(failed)} of {len(results)}")
        if failed:
            show.display(table)
            causes = [f"{r.change.node or '(here)'} {r.change.resource}: {r.error}" for r in failed if r.error]
            raise errors.ApplyFailed(
                "\n".join([f"{len(failed)} of {len(results)} changes were not made:", *causes]),
                subject=self.title,
                remedy="mend the cause, then run this again: what is done is kept, only the rest is made",
            )
        return table

    def _check_still_true(self) -> None:
        if time.monotonic() - self._read_at < _STALE_AFTER_S:
            return
        shown = self.id
        self.changes, self.notes, self.unchanged = self._make()
        if self.id != shown:
            raise errors.PlanChanged(
                f"the nodes have changed since plan {shown} was shown; it would be {self.id} now",
                subject=self.title,
                remedy="look at the plan again",
            )

    async def _run_in_thread(self) -> list[Result]:
        """Work beside the event loop, so that the notebook can show progress and be interrupted."""
        progress = Progress(self.title)
        end = self.fleet.journal.listen(lambda step: progress.note(step.node, step.step, step.state, step.detail))
        work = asyncio.ensure_future(asyncio.to_thread(self._rollout, self.fleet, self.changes))
        try:
            while not work.done():
                progress.update()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(work), 0.25)
            return work.result()
        except BaseException:
            # The cell's stop button, Ctrl-C: the worker threads can't be stopped, but without their connections the
            # nodes' scripts end and remove what they staged.
            self.fleet.journal.note("", f"apply {self.title}", "failed", "interrupted")
            self.fleet.close()
            raise
        finally:
            end()
            progress.close()

    def _everywhere(self, fleet: Fleet, changes: Sequence[Change]) -> list[Result]:
        """Make this side's changes, then those of all nodes at once."""
        results: list[Result] = []
        for change in (c for c in changes if not c.node):
            start = time.monotonic()
            try:
                if change.here:
                    change.here()
            except errors.RunbookError as error:
                fleet.journal.note("", f"{change.action} {change.resource}", "failed", error.message)
                failed = apply.Result(change, "failed", str(error), time.monotonic() - start)
                return [*results, failed, *apply.not_done([one for one in changes if one.node])]
            results.append(apply.Result(change, "done", "", time.monotonic() - start))
            fleet.journal.note("", f"{change.action} {change.resource}")
        by_node = {n.name: [c for c in changes if c.node == n.name] for n in fleet.cluster.nodes}
        nodes = [node for node in fleet.cluster.nodes if by_node[node.name]]

        def work(connection: Connection) -> list[Result]:
            name = connection.node.name
            fleet.journal.note(name, "apply", "started")
            made = apply.apply_on(connection, by_node[name], f"{self.id}-{secrets.token_hex(3)}", self._timeout_s)
            for result in made:
                state = "done" if result.result == "done" else "failed"
                fleet.journal.note(name, f"{result.change.action} {result.change.resource}", state, result.error)
            return made

        for name, outcome in fleet.each(work, nodes).items():
            why = outcome.error.message if outcome.error else ""
            results += outcome.value if outcome.value is not None else apply.not_done(by_node[name], why)
        return results

    def _results(self, results: Sequence[Result]) -> show.Table:
        rows = [
            {
                "node": result.change.node or "(here)",
                "resource": result.change.resource,
                "action": result.change.action,
                "result": result.result,
                "error": result.error,
                "took_s": result.took_s,
            }
            for result in results
        ]
        done = sum(result.result == "done" for result in results)
        caption = f"{self.title}: {done} of {len(results)} changes made" if results else self.headline
        return show.table(rows, ["node", "resource", "action", "result", "error", "took_s"], caption)


def of_resources(
    title: str, fleet: Fleet, resources: Mapping[str, Sequence[Resource]], *, notes: Sequence[str] = ()
) -> Plan:
    """A plan that makes each node's resources as they are wanted, all nodes at once."""

    def make() -> tuple[list[Change], list[str], int]:
        found = read(fleet, resources, what=f"read for {title}")
        changes, unchanged = [], 0
        for node, wanted in resources.items():
            for resource, state in zip(wanted, found.get(node, ()), strict=True):
                change = resource.compare(state)
                if change is None:
                    unchanged += 1
                else:
                    changes.append(replace(change, node=node))
        return changes, list(notes), unchanged

    return Plan(title, fleet, make)
