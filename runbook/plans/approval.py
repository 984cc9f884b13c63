"""Who says yes to a plan: the parameter `approve`, or the person in front of the notebook."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING, Any

from runbook import errors

if TYPE_CHECKING:
    from runbook.plan import Plan


def person_present() -> bool:
    """Whether a frontend that can ask a question stands behind this cell (papermill has none)."""
    from IPython.core.getipython import get_ipython  # noqa: PLC0415 - the command line need not load IPython

    shell: Any = get_ipython()
    if getattr(shell, "kernel", None) is None:
        return shell is not None
    return bool(_request().get("content", {}).get("allow_stdin"))


def buttons_possible() -> bool:
    """Whether the frontend behind this cell shows widgets: it is a notebook's (a console names no cell)."""
    return person_present() and "cellId" in _request().get("metadata", {})


def session() -> str:
    """The session of the page that sent the message that is worked on now; a reloaded page has another one."""
    return str(_request().get("header", {}).get("session", ""))


def _request() -> dict[str, Any]:
    """The message that is worked on now: a cell's execution, or a widget's event; empty without a kernel."""
    from IPython.core.getipython import get_ipython  # noqa: PLC0415 - the command line need not load IPython

    kernel = getattr(get_ipython(), "kernel", None)
    request: dict[str, Any] = kernel.get_parent("shell") if kernel is not None else {}
    return request


def user() -> str:
    """Who sits here: the user's name, or its number where it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # containers have such users
        return str(os.geteuid())


def approved(plan: Plan, approve: object) -> str:
    """Return how the plan was approved, in words; ask where there is somebody to ask.

    Raises:
        ApprovalRequired: `approve` is False and nobody can be asked, or the answer was no.
        PlanChanged: `approve` is the id of another plan.
    """
    if approve is True:
        return "approved by parameter: approve = True"
    if isinstance(approve, str) and approve:
        if approve == plan.id:
            return f"approved by parameter: approve = {approve}"
        raise errors.PlanChanged(
            f"plan {approve} was approved, but what would change now is plan {plan.id}",
            subject=plan.title,
            remedy=f"look at the plan, then approve it: -p approve {plan.id}",
        )
    if approve is not False:
        raise errors.ApprovalRequired(
            f"approve is {approve!r}; it takes False, True or a plan's id", subject=plan.title
        )
    remedy = f"-p approve {plan.id}"
    if not person_present():
        raise errors.ApprovalRequired("approval needed, nothing was changed", subject=plan.title, remedy=remedy)
    print(plan.headline)  # noqa: T201 - the question's own cell
    if input("Type yes to apply it: ").strip().lower() == "yes":
        return "approved by the person at the notebook"
    raise errors.ApprovalRequired("not approved, nothing was changed", subject=plan.title, remedy=remedy)
