"""Who says yes to a plan: the parameter `approve`, or the person in front of the notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runbook import errors

if TYPE_CHECKING:
    from runbook.plan import Plan


def person_present() -> bool:
    """Whether a frontend that can ask a question stands behind this cell (papermill has none)."""
    from IPython.core.getipython import get_ipython  # noqa: PLC0415 - the command line need not load IPython

    shell: Any = get_ipython()
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return shell is not None
    return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))


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
