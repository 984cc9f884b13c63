"""The twelve phases in order: each is a notebook, the plan it makes (if any) and the tables it shows."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import runbook
from runbook import errors

if TYPE_CHECKING:
    from runbook import show
    from runbook.fleet import Fleet
    from runbook.plan import Plan

Verify = Callable[["Fleet"], Sequence["show.Table"]]


@dataclass(frozen=True)
class Phase:
    """One phase.

    Attributes:
        number: Its place in the order.
        name: The notebook's name without the number.
        title: A few words for progress lines and tables.
        verify: Gives its tables; changes nothing.
        plan: Makes its plan; None where it only looks.
    """

    number: int
    name: str
    title: str
    verify: Verify
    plan: Callable[[Fleet], Plan] | None = None

    @property
    def notebook(self) -> str:
        """The notebook's file name."""
        return f"{self.number:02d}_{self.name}.ipynb"


def _of(name: str) -> Callable[[Fleet], Any]:
    """What a phase calls, imported when it is called: a run itself calls nothing of it, its notebooks do."""
    return lambda fleet: pkgutil.resolve_name(f"runbook.{name}")(fleet)  # noqa: PLW0108 - not before it is called


def _tables(*names: str) -> Verify:
    return lambda fleet: [_of(name)(fleet) for name in names]


def _preflight(fleet: Fleet) -> list[show.Table]:
    facts = runbook.preflight.facts(fleet)
    return [facts, runbook.preflight.checks(facts, fleet)]


def _binaries(fleet: Fleet) -> list[show.Table]:
    return [runbook.binaries.versions(fleet, "etcd")]


def _etcd_start(fleet: Fleet) -> list[show.Table]:
    return [runbook.etcd.states(fleet), runbook.binaries.versions(fleet, "flannel")]


def _flannel(fleet: Fleet) -> list[show.Table]:
    flannel = runbook.flannel
    leases = flannel.leases(fleet)
    return [flannel.config_there(fleet), leases, flannel.subnets(fleet, leases, within_s=5)]


def _mesh(fleet: Fleet) -> list[show.Table]:
    return [runbook.mesh.ping(fleet, within_s=5)]


PHASES = (
    Phase(0, "preflight", "preflight", _preflight),
    Phase(1, "binaries", "binaries", _binaries, _of("binaries:install")),
    Phase(2, "etcd_certs", "etcd certificates", _tables("etcd:cert_files"), _of("etcd:certs")),
    Phase(3, "etcd_units", "etcd units", _tables("etcd:unit_files"), _of("etcd:units")),
    Phase(4, "etcd_start", "etcd start", _etcd_start, _of("etcd:start")),
    Phase(5, "etcd_verify", "etcd verify", _tables("etcd:endpoints", "etcd:members", "etcd:alarms")),
    Phase(6, "flannel_certs", "flannel certificates", _tables("flannel:cert_files"), _of("flannel:certs")),
    Phase(
        7, "flannel_config", "flannel config", _tables("flannel:config_there", "flannel:rights"), _of("flannel:config")
    ),
    Phase(8, "flannel_units", "flannel units", _tables("flannel:unit_files"), _of("flannel:units")),
    Phase(9, "flannel_start", "flannel start", _tables("flannel:states"), _of("flannel:start")),
    Phase(10, "flannel_verify", "flannel verify", _flannel),
    Phase(11, "ping_mesh", "ping mesh", _mesh),
)


def select(text: str) -> tuple[Phase, ...]:
    """The phases that a list such as `03-05,11` names, in order; '' names all.

    Raises:
        RunbookError: with exit status 2, for a number or range that is none.
    """
    if not text:
        return PHASES
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not re.fullmatch("[0-9]+", first) or (dash and not re.fullmatch("[0-9]+", last)):
            raise errors.UsageError(
                f"{part!r} is no phase or range of phases", subject="--phases", remedy="as in 03-05,11"
            )
        low, high = int(first), int(last or first)
        if low > high:
            raise errors.UsageError(f"{part!r} runs backwards", subject="--phases", remedy="as in 03-05,11")
        if high >= len(PHASES):
            raise errors.UsageError(f"{part!r}: there are phases 00 to {len(PHASES) - 1}", subject="--phases")
        numbers.update(range(low, high + 1))
    return tuple(phase for phase in PHASES if phase.number in numbers)


#: The notebook that leads to all of them; it is no phase.
INDEX = "index.ipynb"


def notebooks_dir() -> Path:
    """Where the notebooks are: beside the package in a checkout, inside it where it was installed as a wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if (folder / PHASES[0].notebook).is_file():
            return folder
    raise errors.RunbookError("the notebooks are missing", subject=str(package.parent / "notebooks"))


def errors_page() -> Path:
    """Where the page on errors is: in docs/ of a checkout, beside the notebooks where it was installed as a wheel."""
    folder = notebooks_dir()
    page = folder / errors.PAGE
    return page if page.is_file() else folder.parent / "docs" / errors.PAGE
