"""How a plan looks, in a notebook, in a terminal and at the gate."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from runbook import show
from runbook.plain_text import clean
from runbook.plans import selection

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runbook.plan import Plan
    from runbook.resources import Change


def headline(plan: Plan, left_out: Collection[str] = ()) -> str:
    """What would change on how many nodes, what restarts, and what that means for a quorum.

    Args:
        plan: The plan.
        left_out: The nodes whose changes are not made.
    """
    if plan.empty:
        return f"{plan.title}: nothing to change; {plan.unchanged} right already."
    chosen = selection.without(plan.changes, left_out)
    told = [counts(chosen), _restarts(chosen)]
    if outlook := selection.outlook(plan.quorum, plan.changes, left_out) if plan.quorum else None:
        told.append(f"{'quorum at risk: ' if outlook.at_risk else ''}{outlook.text}")
    return f"{plan.title}: {'; '.join(told)}; {plan.unchanged} right already. Plan {plan.id}."


def counts(changes: Sequence[Change]) -> str:
    """How many changes of which kind, on how many nodes: `2 to create, 1 to renew on 2 nodes`."""
    nodes = {change.node for change in changes if change.node}
    where = f"on {len(nodes)} node{'' if len(nodes) == 1 else 's'}" if nodes else "on this side"
    return f"{kinds(changes)} {where}"


def kinds(changes: Sequence[Change]) -> str:
    """How many changes of which kind: `2 to create, 1 to renew`."""
    found: dict[str, int] = {}
    for change in changes:
        found[change.action] = found.get(change.action, 0) + 1
    return ", ".join(f"{count} to {action}" for action, count in found.items()) or "nothing"


def _restarts(changes: Sequence[Change]) -> str:
    units = dict.fromkeys(change.resource for change in changes if change.action == "restart")
    return f"restarts {', '.join(units) or 'nothing'}"


def html_of(plan: Plan) -> str:
    """The plan's table as HTML, the diff of each changed file folded under its row, the notes below."""
    if plan.empty:
        shown = f"<p>{show.chip('none')} {html.escape(clean(plan.headline))}</p>"
    else:
        shown = show.table_html(plan.table(), below=[diff(change) for change in plan.changes])
    return shown + show.notes_html(plan.notes, "note")


def diff(change: Change) -> str:
    """A change's diff, folded, as HTML; '' where there is none."""
    if not change.diff:
        return ""
    name = html.escape(clean(f"{change.node} {change.resource}".strip()))
    return f"<details><summary>diff of {name}</summary>{show.diff_html(change.diff)}</details>"


def text_of(plan: Plan) -> str:
    """The plan as text: table, diffs, notes."""
    if plan.empty:
        return "\n".join([clean(plan.headline), *map(clean, plan.notes)])
    diffs = [change.diff for change in plan.changes if change.diff]
    return "\n\n".join([show.table_text(plan.table()), *map(clean, [*diffs, *plan.notes])])


def short(changes: Sequence[Change], caption: str, node: str = "") -> show.Table:
    """The plan in few rows, for the gate: what is alike on several nodes is one row.

    Args:
        changes: What would be made.
        caption: What the table shows.
        node: The only node to show; '' shows all, and what is made on this side.

    Returns:
        node (several names, parted by commas), resource, action, why.
    """
    rows: dict[tuple[str, str, str], list[str]] = {}
    for change in changes:
        if not node or change.node == node:
            rows.setdefault((change.resource, change.action, change.why), []).append(change.node or "(here)")
    made = [
        {"node": ", ".join(nodes), "resource": resource, "action": action, "why": why}
        for (resource, action, why), nodes in rows.items()
    ]
    return show.table(made, ["node", "resource", "action", "why"], caption)
