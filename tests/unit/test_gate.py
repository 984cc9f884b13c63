"""plans.gate and plans.controls: a plan waits for a button; only the cell works; what stays is static."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import pytest
from IPython.core import getipython
from ipywidgets.widgets.widget import _instances
from local_node import cluster_of

from runbook import errors, plan, show
from runbook.fleet import Fleet
from runbook.plan import Plan
from runbook.plans import approval, controls, gate
from runbook.plans.apply import Result, not_done
from runbook.plans.selection import Quorum
from runbook.resources import Change

if TYPE_CHECKING:
    from runbook.plans.rollout import Stop

THREE = [Change("/x", "create", "missing", digest="new", node=f"node{n}") for n in (1, 2, 3)]
VIEW = "application/vnd.jupyter.widget-view+json"
Answer = Callable[["Cell"], None]


class Cell:
    """Stands in for a notebook's cell: what it displays, each output by the order of its making, and who presses."""

    def __init__(self) -> None:
        self.session = "page"
        self.outputs: list[dict[str, Any]] = []
        self.box: widgets.VBox | None = None

    def get_ipython(self) -> object:
        parent = {"header": {"session": self.session}, "content": {"allow_stdin": True}, "metadata": {"cellId": "c"}}
        return SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda _channel: parent))

    def display(self, shown: object, *, raw: bool = False, display_id: bool = False) -> object:
        assert raw == display_id
        number = len(self.outputs)
        self.outputs.append(shown if isinstance(shown, dict) else {"text/plain": repr(shown)})
        if VIEW in self.outputs[number]:
            self.box = _instances[self.outputs[number][VIEW]["model_id"]]

        def update(bundle: dict[str, Any], *, raw: bool) -> None:
            assert raw
            self.outputs[number] = bundle

        return SimpleNamespace(update=update)

    def found(self, kind: type[Any], description: str) -> Any:  # noqa: ANN401 - ipywidgets has no types
        """The widget of this kind and description that is shown; None where there is none."""
        todo = [self.box] if self.box else []
        while todo:
            one = todo.pop()
            todo += getattr(one, "children", ())
            if isinstance(one, kind) and one.description == description:
                return one
        return None

    def press(self, label: str) -> None:
        self.found(widgets.Button, label).click()

    @property
    def page(self) -> str:
        """The text that the notebook keeps of the gate."""
        return str(self.outputs[0]["text/plain"])


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
    made = Cell()
    monkeypatch.setattr(getipython, "get_ipython", made.get_ipython)
    monkeypatch.setattr("IPython.display.display", made.display)
    monkeypatch.setattr(show, "display", made.display)
    monkeypatch.setattr(controls, "LOOK_S", 0)
    monkeypatch.setattr(approval, "user", lambda: "ada")
    before = set(_instances)
    yield made
    assert set(_instances) <= before or made.session != "page"


def plan_of(rollout: Any, *readings: Sequence[Change], **options: Any) -> Plan:  # noqa: ANN401 - as Plan takes them
    """A plan of these changes; at each further reading the next ones, the last ones stay."""
    left = list(readings or [THREE])

    def make() -> tuple[list[Change], list[str], int]:
        return list(left.pop(0) if len(left) > 1 else left[0]), [], 0

    return Plan("units", Fleet(cluster_of(), {}), make, rollout=rollout, **options)


def made(_fleet: Fleet, changes: Sequence[Change], _stop: Stop) -> list[Result]:
    return [Result(change, "done") for change in changes]


def through(one: Plan, cell: Cell, *presses: tuple[str, Answer | None]) -> show.Table:
    """Apply the plan in a cell: each of these buttons is pressed when it is there, after its answer is done."""

    async def work() -> show.Table:
        task = asyncio.ensure_future(one.apply(approve=False))
        for label, before in presses:
            await until(lambda label=label: task.done() or cell.found(widgets.Button, label))
            if task.done():
                break
            if before:
                before(cell)
                for _ in range(3):
                    await asyncio.sleep(0)
            pressed = cell.found(widgets.Button, label)
            pressed.click()
            await until(lambda old=pressed, label=label: task.done() or cell.found(widgets.Button, label) is not old)
        return await task

    return asyncio.run(work())


async def until(holds: Callable[[], object]) -> None:
    """Let the cell go on until this holds."""
    while not holds():  # noqa: ASYNC110 - nothing sets an event: it is a page that is looked at
        await asyncio.sleep(0)


def notes(one: Plan) -> list[tuple[str, str]]:
    """What the journal has of the gate: state and detail."""
    return [(step.state, step.detail) for step in one.fleet.journal.steps if step.step.startswith("gate ")]


# ---- Apply, Not now


def test_nothing_happens_before_apply(cell: Cell) -> None:
    """The plan waits, and says so; Apply makes it, and what stays is text that says who did, and when."""
    begun: list[str] = []

    def rollout(fleet: Fleet, changes: Sequence[Change], stop: Stop) -> list[Result]:
        begun.append("begun")
        return made(fleet, changes, stop)

    def look(cell: Cell) -> None:
        assert begun == []
        assert "WAITING for Apply or Not now; nothing was changed" in cell.page

    one = plan_of(rollout)
    table = through(one, cell, ("Apply", look))
    assert list(table["result"]) == ["done"] * 3
    lines = cell.page.splitlines()
    assert lines[0] == one.headline
    assert lines[1].startswith("done Applied by ada, 20")
    assert lines[1].endswith(" UTC")
    assert lines[2].startswith("units: applied in ")
    assert len(lines) == 3
    assert cell.outputs[1] == {"text/html": "", "text/plain": ""}
    assert "WAITING" not in cell.outputs[0]["text/html"]
    assert notes(one)[1] == ("done", f"Apply pressed by {gate.approval.user()}@{gate.socket.gethostname()}")


def test_not_now_changes_nothing(cell: Cell) -> None:
    """Not now ends the cell with an error, so that Run All stops; page and journal say who pressed it."""
    one = plan_of(None)
    with pytest.raises(errors.ApprovalRequired, match="Not now was pressed, nothing was changed") as caught:
        through(one, cell, ("Not now", None))
    assert caught.value.exit_status == 3
    assert "Not now: pressed by ada, 20" in cell.page
    assert cell.page.endswith("; nothing was changed")
    assert notes(one)[-1][0] == "failed"
    assert cell.outputs[1]["text/html"] == ""


def test_the_first_press_counts(cell: Cell) -> None:
    """A second press, or another button's, before the cell has looked changes nothing."""

    async def work() -> None:
        task = asyncio.ensure_future(plan_of(made).apply(approve=False))
        await until(lambda: cell.found(widgets.Button, "Apply"))
        cell.press("Not now")
        cell.press("Apply")
        with pytest.raises(errors.ApprovalRequired):
            await task

    asyncio.run(work())


def test_a_plan_that_changed_while_it_was_looked_at_is_asked_again(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply is for what was shown: where the nodes have changed since, the new plan is shown and waits."""
    monkeypatch.setattr(plan, "_STALE_AFTER_S", 0.0)
    one = plan_of(made, THREE, THREE[:2])

    def look(cell: Cell) -> None:
        assert "The nodes have changed since that plan was shown" in cell.page

    table = through(one, cell, ("Apply", None), ("Apply", look))
    assert list(table["node"]) == ["node1", "node2"]


def test_a_plan_that_came_true_meanwhile_needs_nothing(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody else has made the changes nothing is left to apply, and nothing is."""
    monkeypatch.setattr(plan, "_STALE_AFTER_S", 0.0)
    assert len(through(plan_of(None, THREE, []), cell, ("Apply", None))) == 0
    assert "nothing to change" in cell.page


def test_a_refusal_comes_before_the_gate(cell: Cell) -> None:
    """A plan that would do harm is never asked for."""
    with pytest.raises(errors.PlanRefused):
        through(plan_of(made, [Change("/x", "create", "", refusal="in use", node="node1")]), cell)
    assert cell.outputs == []


# ---- leaving out, looking


def test_a_node_that_is_unticked_is_left_out(cell: Cell) -> None:
    """The rest is made; page, table and journal tell who was left out."""

    def untick(cell: Cell) -> None:
        cell.found(widgets.Checkbox, "node2").value = False

    one = plan_of(made)
    table = through(one, cell, ("Apply", untick))
    assert {row["node"]: row["result"] for row in show.rows(table)} == {
        "node1": "done", "node3": "done", "node2": "left out",
    }  # fmt: skip
    assert "node2: the next run finds it still to do" in cell.page
    assert "2 to create on 2 nodes" in cell.page
    assert notes(one)[1][1].endswith("; left out: node2")


def test_a_box_that_is_unticked_just_before_the_press_counts(cell: Cell) -> None:
    """Both may come between two looks of the cell: what stood on the page when Apply was pressed is applied."""
    one = plan_of(made)

    async def work() -> show.Table:
        task = asyncio.ensure_future(one.apply(approve=False))
        await until(lambda: cell.found(widgets.Checkbox, "node2"))
        cell.found(widgets.Checkbox, "node2").value = False
        cell.press("Apply")  # with nothing awaited in between
        return await task

    table = asyncio.run(work())
    assert {row["node"]: row["result"] for row in show.rows(table)}["node2"] == "left out"


def test_a_member_of_a_first_start_cannot_be_unticked(cell: Cell) -> None:
    """Its box is disabled, with the reason as text beside it."""
    members = [Change("etcd.service", "start", "inactive/dead", node=f"node{n}") for n in (1, 2, 3)]

    def look(cell: Cell) -> None:
        assert cell.found(widgets.Checkbox, "node1").disabled
        texts = [one.value for one in _instances.values() if isinstance(one, widgets.HTML)]
        assert any("can&#x27;t be left out: a member of the first start" in text for text in texts)

    one = plan_of(made, members, quorum=Quorum(("node1", "node2", "node3")))
    through(one, cell, ("Apply", look))


def test_with_every_node_left_out_there_is_nothing_to_apply(cell: Cell) -> None:
    """Apply can't be pressed then; Not now can."""

    def untick(cell: Cell) -> None:
        for n in (1, 2, 3):
            cell.found(widgets.Checkbox, f"node{n}").value = False

    async def work() -> None:
        task = asyncio.ensure_future(plan_of(made).apply(approve=False))
        await until(lambda: cell.found(widgets.Checkbox, "node1"))
        untick(cell)
        await until(lambda: cell.found(widgets.Button, "Apply").disabled)
        cell.press("Not now")
        with pytest.raises(errors.ApprovalRequired):
            await task

    asyncio.run(work())


def test_show_filters_the_table(cell: Cell) -> None:
    """With one node chosen its rows alone are there."""

    def choose(cell: Cell) -> None:
        assert "node1, node2, node3" in cell.page
        cell.found(widgets.Dropdown, "Show").value = "node2"

    def look(cell: Cell) -> None:
        assert "node2" in cell.page
        assert "node1" not in cell.page

    async def work() -> None:
        task = asyncio.ensure_future(plan_of(made).apply(approve=False))
        await until(lambda: cell.found(widgets.Dropdown, "Show") and "node1" in cell.page)
        choose(cell)
        await until(lambda: "node1" not in cell.page)
        look(cell)
        cell.press("Apply")
        await task

    asyncio.run(work())


# ---- stop, failure, another try


def test_stop_ends_it_with_an_error(cell: Cell) -> None:
    """What was not begun says who stopped it, in the table and on the page; Run All does not go past it."""

    def rollout(_fleet: Fleet, changes: Sequence[Change], stop: Stop) -> list[Result]:
        while not stop.asked:
            pass
        return [Result(changes[0], "done"), *stop.rest(changes[1:])]

    one = plan_of(rollout)
    with pytest.raises(errors.ApplyFailed, match="node2 /x: not begun: stopped by ada"):
        through(one, cell, ("Apply", None), ("Stop after this step", None))
    assert "Stopped by ada, 20" in cell.page
    assert "2 of 3 changes not begun" in cell.page
    assert "Stop after this step pressed by ada@" in str(notes(one))


def yes(change: Change) -> Result:
    return Result(change, "done")


def failing(*fails: str) -> Any:  # noqa: ANN401 - a rollout
    """A rollout in which node2 fails, once for each of these causes."""
    left = list(fails)

    def rollout(_fleet: Fleet, changes: Sequence[Change], _stop: Stop) -> list[Result]:
        cause = left.pop(0) if left and any(change.node == "node2" for change in changes) else ""
        return [
            Result(change, "failed", cause, remedy="free some") if change.node == "node2" and cause else yes(change)
            for change in changes
        ]

    return rollout


def test_another_try_does_only_what_is_missing(cell: Cell) -> None:
    """After the cause is mended what was approved is made without a second yes, and nothing twice."""

    def look(cell: Cell) -> None:
        assert "WAITING for Try again" in cell.page
        assert "no space left" in cell.page
        assert "free some" in cell.page

    one = plan_of(failing("no space left"), THREE, [THREE[1]])
    table = through(one, cell, ("Apply", None), ("Try again", look))
    assert list(table["result"]) == ["done"] * 3
    assert table.caption == "units: 3 of 3 changes made"
    assert "Try again pressed by ada" in cell.page
    assert "Applied by ada" in cell.page
    assert sum("1 of 1" in step.detail for step in one.fleet.journal.steps) == 1


def test_another_try_of_something_else_is_asked_for(cell: Cell) -> None:
    """What is missing now and was never approved needs a yes of its own."""
    other = Change("/x", "change", "mode", digest="other", node="node2")

    def look(cell: Cell) -> None:
        assert "not what was approved" in cell.page
        assert "WAITING for Apply" in cell.page

    table = through(
        plan_of(failing("no space left"), THREE, [other]), cell, ("Apply", None), ("Try again", None), ("Apply", look)
    )
    assert list(table["result"]) == ["done"] * 3


def test_a_node_that_was_left_out_stays_out_in_another_try(cell: Cell) -> None:
    """What is still to do on it is no part of what is missing."""

    def untick(cell: Cell) -> None:
        cell.found(widgets.Checkbox, "node3").value = False

    table = through(plan_of(failing("no space left"), THREE, THREE[1:]), cell, ("Apply", untick), ("Try again", None))
    assert [(row["node"], row["result"]) for row in show.rows(table)] == [
        ("node1", "done"), ("node2", "done"), ("node3", "left out"),
    ]  # fmt: skip


def test_leaving_it_raises_the_error(cell: Cell) -> None:
    """Who does not try again has the error, with the table shown; the page says what was applied."""
    one = plan_of(failing("no space left", "again"), THREE, [THREE[1]])
    with pytest.raises(errors.ApplyFailed, match="node2 /x: again"):
        through(one, cell, ("Apply", None), ("Try again", None), ("Leave it", None))
    assert "Applied in part by ada" in cell.page
    assert "Leave it pressed by ada" in cell.page
    assert "failed" in cell.outputs[2]["text/plain"]


# ---- interrupt, reload


def test_an_interrupt_ends_the_wait(cell: Cell) -> None:
    """The kernel's interrupt ends it at once, with an error of one line, and no widgets stay."""
    one = plan_of(made)

    async def work() -> None:
        task = asyncio.ensure_future(one.apply(approve=False))
        await until(lambda: cell.found(widgets.Button, "Apply"))
        task.cancel()
        with pytest.raises(errors.ApprovalRequired, match="interrupted: nothing was changed"):
            await task

    asyncio.run(work())
    assert "Interrupted, 20" in cell.page
    assert cell.outputs[1]["text/html"] == ""
    assert notes(one)[-1] == ("failed", "Interrupted; nothing was changed")


def test_a_button_of_a_reloaded_page_counts_for_nothing(cell: Cell) -> None:
    """A press from another page than the one that ran the cell applies nothing and says: run this cell again."""

    def reload(cell: Cell) -> None:
        cell.session = "the page after its reload"

    with pytest.raises(errors.ApprovalRequired, match="the page was reloaded: nothing was changed"):
        through(plan_of(not_done), cell, ("Apply", reload))
    assert cell.box is not None
    (told,) = cell.box.children
    assert "run this cell again" in told.value
    controls._close([cell.box])


def test_what_is_told_of_nodes_is_escaped(cell: Cell) -> None:
    """Neither the page nor the widgets hold tags or control characters of others."""
    hostile = Change("<script>\x1b", "create", "<script>\x1b", node="node1")
    held = plan_of(made, [hostile, THREE[1]], whole="<script>\x1b")

    def look(_cell: Cell) -> None:
        texts = [one.value for one in _instances.values() if isinstance(one, widgets.HTML)]
        for text in [*texts, cell.outputs[0]["text/html"]]:
            assert "<script>" not in text
            assert "\x1b" not in text

    through(held, cell, ("Apply", look))
