"""The gate in JupyterLab: a plan waits for Apply, shows how far it is, and offers another try where it failed.

Only the cell works and raises; buttons say what was pressed. What the notebook keeps is static HTML and text; what was
pressed and what came of it is in the journal too, whatever the page shows.
"""

from __future__ import annotations

import asyncio
import html
import socket
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runbook import errors, show
from runbook.journal import GATE
from runbook.plain_text import clean
from runbook.plans import applying, approval, plan_view, selection
from runbook.plans.controls import Choice, Controls, Reloaded, row, text
from runbook.plans.live import Live
from runbook.plans.progress import Progress
from runbook.plans.rollout import Stop

if TYPE_CHECKING:
    from runbook.plan import Plan
    from runbook.plans.apply import Result
    from runbook.resources import Change

APPLY, NOT_NOW, STOP, AGAIN, LEAVE = "Apply", "Not now", "Stop after this step", "Try again", "Leave it"
_RUN_AGAIN = "run this cell again: what is done is kept, only the rest is made"
_GOES_ON = (
    "<small>After a reload of this page it goes on, and what is shown here stands still.<br>Then run this cell again:"
    " it waits for the end, and makes only what is missing.</small>"
)
_RELOADS = "<small>After a reload of this page: interrupt the kernel (■), then run this cell again.</small>"


async def through(plan: Plan) -> show.Table:
    """Ask the person at the notebook, apply what was approved, and ask again where it failed.

    Returns:
        What came of it: one row a change, those of nodes that were left out last.

    Raises:
        ApprovalRequired: the answer was Not now, or it was interrupted or reloaded before one; nothing was changed.
        PlanRefused: a change would do harm; nothing was changed.
        ApplyFailed: some changes were not made, and it was left at that, stopped or interrupted.
    """
    gate = _Gate(plan)
    try:
        return await gate.passed()
    except Reloaded:
        raise gate.ended("The page was reloaded") from None
    except (asyncio.CancelledError, KeyboardInterrupt):
        # Told in a line: a person who presses the stop button needs no traceback.
        raise gate.ended("Interrupted") from None
    finally:
        gate.close()


def now() -> str:
    """The time, for the record."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


class _Page:
    """What the cell shows and the notebook keeps: a headline, what was pressed and what came of it, and what is now."""

    def __init__(self) -> None:
        self.headline = ""
        #: A chip's word ('' for none) and what is told beside it.
        self.lines: list[tuple[str, str]] = []
        self._live = Live()

    def show(self, status: tuple[str, str] | None = None, under: str = "", under_text: str = "") -> None:
        """Show the lines, then what is going on now (a chip's word and text), then HTML under it, and that as text."""
        lines = [*self.lines, *([status] if status else [])]
        style = "margin:4px 8px"
        made = "".join(
            f'<p style="{style}">{show.chip(word) + " " if word else ""}{html.escape(clean(told))}</p>'
            for word, told in lines
        )
        head = f'<p style="{style}"><b>{html.escape(clean(self.headline))}</b></p>' if self.headline else ""
        plain = [clean(self.headline), *(f"{word} {clean(told)}".strip() for word, told in lines), under_text]
        self._live.show(f"<div>{head}{made}{under}</div>", "\n".join(filter(None, plain)))


class _Gate:
    """One run of an apply cell: its plan, what was pressed, and what came of it so far."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._page, self._controls = _Page(), Controls()
        self._page.headline = plan.headline
        self._user = approval.user()
        self._left_out: tuple[str, ...] = ()
        self._pressed_at = ""
        self._running = False
        self._results: dict[tuple[str, str], Result] = {}
        self._approved: list[Change] = []

    async def passed(self) -> show.Table:
        """Go through the gate: ask, apply, ask again where it failed."""
        await self._ask()
        while changes := selection.without(self._plan.changes, self._left_out):
            await self._apply(changes)
            fault = self._fault()
            if fault is None:
                break
            if not await self._try_again():
                self._part()
                show.display(self._table())
                raise fault
        self._page.lines = [line for line in self._page.lines if line[1] != self._press()]
        self._say("done", f"Applied by {self._user}, {self._pressed_at}", first=True)
        if self._left_out:
            self._say("left out", f"{', '.join(self._left_out)}: the next run finds it still to do")
        return self._table()

    # ---- asking

    async def _ask(self) -> None:
        """Wait for Apply; what was looked at for long is read again, and asked for anew where it changed."""
        while True:
            await self._answer()
            shown = self._plan.id
            if not self._plan.stale:
                break
            await self._read_again()
            if self._plan.id == shown:
                break
            self._note("failed", f"the nodes have changed: plan {shown} is {self._plan.id} now")
            if self._plan.empty:
                self._page.headline = self._plan.headline
                return
            self._say("warning", "The nodes have changed since that plan was shown: this is what it is now.")
        self._approved += selection.without(self._plan.changes, self._left_out)
        self._say("", self._press())

    async def _read_again(self) -> None:
        self._page.show(("running", "reading the nodes again"))
        await applying.beside(self._plan.read_again)
        self._plan.check_allowed()

    async def _answer(self) -> None:
        """Show the plan with its buttons until one is pressed.

        Raises:
            ApprovalRequired: it was Not now.
        """
        plan, controls = self._plan, self._controls
        names = list(dict.fromkeys(change.node for change in plan.changes if change.node))
        words = {name: plan_view.kinds([c for c in plan.changes if c.node == name]) for name in names}
        choice = Choice(words, plan.held(), self._left_out)
        yes = controls.button(APPLY, "success", "Make these changes now")
        no = controls.button(NOT_NOW, "", "Change nothing and end here")
        summary = text("")
        self._page.show()  # above the buttons
        controls.show(*choice.widgets, row(yes, no, summary), text(_RELOADS))
        self._note("started", "waiting for an answer")

        def look() -> None:
            self._left_out = choice.left_out
            self._page.headline = plan_view.headline(plan, self._left_out)
            chosen = selection.without(plan.changes, self._left_out)
            yes.disabled = bool(names) and set(names) == set(self._left_out)
            summary.value = "every node is left out" if yes.disabled else html.escape(plan_view.counts(chosen))
            short = plan_view.short(chosen, f"What {APPLY} would change", choice.node)
            waiting = f"for {APPLY} or {NOT_NOW}; {self.so_far()}"
            self._page.show(("WAITING", waiting), show.table_html(short), show.table_text(short))

        pressed = await controls.pressed(look)
        self._pressed_at = now()
        if pressed == APPLY:
            self._note("done", f"{APPLY} pressed by {self._name()}{self._left()}")
            return
        self._note("failed", f"{NOT_NOW} pressed by {self._name()}; {self.so_far()}")
        self._say("", f"{NOT_NOW}: pressed by {self._user}, {self._pressed_at}; {self.so_far()}")
        raise self._fault() or errors.ApprovalRequired(
            f"{NOT_NOW} was pressed, nothing was changed", subject=plan.title, remedy="run this cell to be asked again"
        )

    # ---- applying

    async def _apply(self, changes: list[Change]) -> None:
        stop, last = Stop(), Progress(self._plan.title)

        def ask_to_stop() -> None:
            stop.ask(self._user)
            self._note("done", f"{STOP} pressed by {self._name()}")

        def look(progress: Progress) -> None:
            nonlocal last
            last = progress
            words = f"{STOP} was pressed: what has begun is finished" if stop.asked else "applying"
            self._page.show(("running", words), progress.as_html(), progress.as_text())

        hint = "What has begun is finished, nothing more begins"
        self._controls.show(row(self._controls.acting(STOP, hint, ask_to_stop)), text(_GOES_ON))
        self._running = True
        how = f"approved by {self._name()}{self._left()}"
        results = await applying.run(self._plan, changes, how, stop=stop, look=look)
        self._running = False
        self._results |= {(one.change.node, one.change.resource): one for one in results}
        fault = self._fault()
        if fault is None or not stop.asked:
            self._say("failed" if fault else "", last.end())
        else:
            self._part()
            rest = sum(one.result == "not done" for one in results)
            self._say("", last.end("stopped after"))
            self._say("warning", f"Stopped by {self._user}, {now()}: {rest} of {len(results)} changes not begun")
            show.display(self._table())
            raise fault

    async def _try_again(self) -> bool:
        """Show what failed until a button is pressed; whether to go on with what is missing.

        What is missing needs no second yes where all of it was approved; anything else is shown and asked for.
        """
        again = self._controls.button(AGAIN, "primary", "Read the nodes again, make only what is missing")
        leave = self._controls.button(LEAVE, "", "End here with the error")
        self._controls.show(row(again, leave), text(_RELOADS))
        failures = applying.failures(self._plan, list(self._results.values()))
        waiting = f"for {AGAIN}, once the cause is mended, or {LEAVE}; {self.so_far()}"
        self._page.show(("WAITING", waiting), show.table_html(failures), show.table_text(failures))
        self._note("started", f"{self.so_far()}, waiting for an answer")
        pressed = await self._controls.pressed()
        for one in show.rows(failures):
            self._say("failed", f"{one['node']} {one['resource']}: {one['cause']}")
        self._say("", f"{pressed} pressed by {self._user}, {now()}")
        self._note("done" if pressed == AGAIN else "failed", f"{pressed} pressed by {self._name()}; {self.so_far()}")
        if pressed == LEAVE:
            return False
        await self._read_again()
        rest = selection.without(self._plan.changes, self._left_out)
        missing = {(change.node, change.resource) for change in rest}
        for key, result in self._results.items():
            if key not in missing:  # somebody else made it meanwhile
                self._results[key] = replace(result, result="done", error="", remedy="")
        if rest and not selection.within(rest, self._approved):
            self._say("warning", "What is missing now is not what was approved: look at it.")
            await self._ask()
        return True

    # ---- what is told

    def so_far(self) -> str:
        """What has been changed until now, in words."""
        if self._running:
            return "what was done is kept, and is in the journal"
        done = sum(result.result == "done" for result in self._results.values())
        return f"{done} of {len(self._results)} changes made" if self._results else "nothing was changed"

    def ended(self, how: str) -> errors.RunbookError:
        """Tell and note an end that nobody pressed a button for; gives the cell's error."""
        self._note("failed", f"{how}; {self.so_far()}")
        self._say("failed", f"{how}, {now()}: {self.so_far()}; run this cell again")
        kind = errors.ApplyFailed if self._approved else errors.ApprovalRequired
        return kind(f"{how[0].lower()}{how[1:]}: {self.so_far()}", subject=self._plan.title, remedy=_RUN_AGAIN)

    def close(self) -> None:
        """Leave static text, and no widgets."""
        self._page.show()
        self._controls.close()

    def _fault(self) -> errors.ApplyFailed | None:
        return applying.fault(self._plan, list(self._results.values()))

    def _press(self) -> str:
        return f"{APPLY} pressed by {self._user}, {self._pressed_at}"

    def _part(self) -> None:
        self._say("failed", f"Applied in part by {self._user}, {self._pressed_at}: {self.so_far()}", first=True)

    def _say(self, word: str, told: str, *, first: bool = False) -> None:
        self._page.lines.insert(0 if first else len(self._page.lines), (word, told))
        self._page.show()

    def _table(self) -> show.Table:
        left = [change for change in self._plan.changes if change.node in self._left_out]
        return applying.table(self._plan, list(self._results.values()), left)

    def _note(self, state: str, detail: str) -> None:
        self._plan.fleet.journal.note("", f"{GATE} {self._plan.title}, plan {self._plan.id}", state, detail)

    def _name(self) -> str:
        return f"{self._user}@{socket.gethostname()}"

    def _left(self) -> str:
        return f"; left out: {', '.join(self._left_out)}" if self._left_out else ""
