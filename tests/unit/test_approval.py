"""runbook.plans.approval: who says yes to a plan."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from IPython.core import getipython
from local_node import cluster_of

from runbook import errors
from runbook.fleet import Fleet
from runbook.plan import Plan
from runbook.plans import approval
from runbook.resources import Change

if TYPE_CHECKING:
    from typing import NoReturn

PLAN = Plan("etcd units", Fleet(cluster_of(), {}), lambda: ([Change("/x", "create", "missing", node="node1")], [], 0))


def never(_prompt: str) -> NoReturn:
    raise AssertionError("nobody was to be asked")


def shell(monkeypatch: pytest.MonkeyPatch, kernel: object) -> None:
    """Stands in for IPython; `kernel` None is its terminal."""
    monkeypatch.setattr(getipython, "get_ipython", lambda: SimpleNamespace(kernel=kernel))


def kernel_with(content: dict[str, object]) -> object:
    """Stands in for a kernel whose frontend sent this with the cell."""
    return SimpleNamespace(get_parent=lambda channel: {"content": content} if channel == "shell" else {})


def test_true_and_the_plans_id_say_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parameter approves without a question; how is told for the journal."""
    monkeypatch.setattr("builtins.input", never)
    assert approval.approved(PLAN, approve=True) == "approved by parameter: approve = True"
    assert approval.approved(PLAN, approve=PLAN.id) == f"approved by parameter: approve = {PLAN.id}"


@pytest.mark.parametrize("other", ["0123456789ab", "yes", "True"])
def test_another_id_is_a_changed_plan(other: str) -> None:
    """Any other text is taken for an id, and the error names both plans and how to approve this one."""
    with pytest.raises(errors.PlanChanged) as caught:
        approval.approved(PLAN, approve=other)
    assert (other in caught.value.message, caught.value.exit_status) == (True, 3)
    assert caught.value.remedy == f"look at the plan, then approve it: -p approve {PLAN.id}"


@pytest.mark.parametrize("wrong", [None, "", 1, 0, 1.0, ["x"]])
def test_anything_else_says_no(wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is neither False, True nor an id never approves: 1 is not True."""
    monkeypatch.setattr("builtins.input", never)
    with pytest.raises(errors.ApprovalRequired, match="it takes False, True or a plan's id"):
        approval.approved(PLAN, approve=wrong)


def test_without_a_person_it_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headless nobody is asked: the error says how to approve."""
    monkeypatch.setattr("builtins.input", never)
    monkeypatch.setattr(approval, "person_present", lambda: False)
    with pytest.raises(errors.ApprovalRequired, match="approval needed, nothing was changed") as caught:
        approval.approved(PLAN, approve=False)
    assert caught.value.remedy == f"-p approve {PLAN.id}"


@pytest.mark.parametrize("answer", ["yes", " YES \n"])
def test_yes_is_yes(answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The person sees what would change, and the word yes applies it."""
    monkeypatch.setattr(approval, "person_present", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _prompt: answer)
    assert approval.approved(PLAN, approve=False) == "approved by the person at the notebook"
    assert PLAN.id in capsys.readouterr().out


@pytest.mark.parametrize("answer", ["", "y", "no", "yes please"])
def test_anything_but_yes_is_no(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another answer, or none, changes nothing."""
    monkeypatch.setattr(approval, "person_present", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _prompt: answer)
    with pytest.raises(errors.ApprovalRequired, match="not approved"):
        approval.approved(PLAN, approve=False)


def test_a_person_is_behind_a_frontend_that_can_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Papermill's client allows no input, JupyterLab's does; a plain script has nobody, IPython's terminal has."""
    assert approval.person_present() is False
    for content, present in (({"allow_stdin": True}, True), ({"allow_stdin": False}, False), ({}, False)):
        shell(monkeypatch, kernel_with(content))
        assert approval.person_present() is present
    shell(monkeypatch, None)
    assert approval.person_present() is True


def test_buttons_are_for_a_notebooks_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's page names the cell and can ask; a console names none, papermill can't ask, a terminal has input."""
    can, cell = {"allow_stdin": True}, {"cellId": "1"}
    for content, metadata, possible in (
        (can, cell, True), (can, {}, False), ({"allow_stdin": False}, cell, False),
    ):  # fmt: skip
        parent = {"content": content, "metadata": metadata, "header": {"session": "page"}}
        shell(monkeypatch, SimpleNamespace(get_parent=lambda _channel, parent=parent: parent))
        assert approval.buttons_possible() is possible
        assert approval.session() == "page"
    shell(monkeypatch, None)
    assert approval.buttons_possible() is False


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the user may have no name: the number stands for it."""

    def nameless() -> NoReturn:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(approval.getpass, "getuser", nameless)
    monkeypatch.setattr(approval.os, "geteuid", lambda: 1234)
    assert approval.user() == "1234"
