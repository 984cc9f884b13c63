"""A plan while it is applied: beside the cell's event loop, told to the journal, and what came of it."""

from __future__ import annotations

import asyncio
import html
from typing import TYPE_CHECKING, TypeVar

from runbook import errors, show
from runbook.plain_text import clean
from runbook.plans.live import Live
from runbook.plans.progress import Progress
from runbook.plans.rollout import STOPPED, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runbook.plan import Plan
    from runbook.plans.apply import Result
    from runbook.resources import Change

T = TypeVar("T")
#: How often a cell looks whether its work is done, and shows how far it is: 4 times a second.
LOOK_S = 0.25


async def beside(work: Callable[[], T], look: Callable[[], None] = lambda: None) -> T:
    """Do blocking work in a thread and look now and then, so that the cell can show something and be interrupted.

    A bare await of a thread could not be interrupted: the event loop would never wake up.
    """
    done = asyncio.ensure_future(asyncio.to_thread(work))
    # After an interrupt nobody asks any more what came of it.
    done.add_done_callback(lambda ended: None if ended.cancelled() else ended.exception())
    while not done.done():
        look()
        await asyncio.wait([done], timeout=LOOK_S)
    return done.result()


async def run(
    plan: Plan,
    changes: Sequence[Change],
    how: str,
    *,
    stop: Stop | None = None,
    look: Callable[[Progress], None] | None = None,
) -> list[Result]:
    """Make the changes, noting in the journal how they were approved and what came of them.

    Args:
        plan: The plan that they belong to.
        changes: Those of its changes that were approved.
        how: Who approved them, in words.
        stop: Ends it between two steps.
        look: Shows the progress; by default an output of its own, of which one line stays.

    Returns:
        One result a change.
    """
    journal, stop, live = plan.fleet.journal, stop or Stop(), Live()
    progress = Progress(plan.title)

    def show_lines(progress: Progress) -> None:
        if shown := progress.as_html():
            live.show(shown, progress.as_text())

    shows = look or show_lines
    journal.note("", f"apply {plan.title}, plan {plan.id}", "started", how)
    end = journal.listen(progress.hear)
    try:
        results = await beside(lambda: plan.make(changes, stop), lambda: shows(progress))
        shows(progress)
    except BaseException:
        # The cell's stop button, Ctrl-C: the worker threads can't be stopped, but without their connections the
        # nodes' scripts end and remove what they staged; what has not begun does not begin.
        stop.ask("an interrupt")
        journal.note("", f"apply {plan.title}", "failed", "interrupted")
        plan.fleet.close()
        raise
    finally:
        end()
        if look is None:
            live.show(f"<p>{html.escape(clean(progress.end()))}</p>", clean(progress.end()))
    done = sum(result.result == "done" for result in results)
    state = "done" if done == len(results) else "failed"
    stopped = f"; stopped by {stop.by}" if stop.asked else ""
    journal.note("", f"apply {plan.title}", state, f"{done} of {len(results)}{stopped}")
    return results


def table(plan: Plan, results: Sequence[Result], left_out: Sequence[Change] = ()) -> show.Table:
    """What came of a plan: one row a change, those of nodes that were left out last."""
    rows: list[dict[str, object]] = [
        {
            "node": result.change.node or "(here)",
            "resource": result.change.resource,
            "action": result.change.action,
            "result": result.result,
            "error": result.error,
            "remedy": result.remedy,
            "took_s": result.took_s,
        }
        for result in results
    ]
    rows += [
        {"node": change.node, "resource": change.resource, "action": change.action, "result": "left out"}
        for change in left_out
    ]
    done = sum(result.result == "done" for result in results)
    left = f"; {len(left_out)} left out" if left_out else ""
    caption = f"{plan.title}: {done} of {len(results)} changes made{left}" if rows else plan.headline
    return show.table(rows, ["node", "resource", "action", "result", "error", "remedy", "took_s"], caption)


def failures(plan: Plan, results: Sequence[Result]) -> show.Table:
    """What failed: one row a change with its cause and what to do; what was only not begun is counted."""
    rows = [
        {
            "node": result.change.node or "(here)",
            "resource": result.change.resource,
            "result": result.result,
            "cause": result.error,
            "remedy": result.remedy or "mend the cause, then Try again",
        }
        for result in results
        if result.result != "done" and result.error
    ]
    left = sum(result.result != "done" for result in results)
    caption = f"{plan.title}: {left} of {len(results)} changes were not made"
    return show.table(rows, ["node", "resource", "result", "cause", "remedy"], caption)


def fault(plan: Plan, results: Sequence[Result]) -> errors.ApplyFailed | None:
    """The error of a plan that was applied in part, with each cause; None where all was made."""
    left = [result for result in results if result.result != "done"]
    if not left:
        return None
    causes = [
        f"{r.change.node or '(here)'} {r.change.resource}: {r.error}" + (f"\n    -> {r.remedy}" if r.remedy else "")
        for r in left
        if r.error
    ]
    mend = "" if all(one.error.startswith(STOPPED) for one in left) else "mend the cause, then "
    return errors.ApplyFailed(
        "\n".join([f"{len(left)} of {len(results)} changes were not made:", *causes]),
        subject=plan.title,
        remedy=f"{mend}run this again: what is done is kept, only the rest is made",
    )
