"""The twelve phases in order: each is a notebook, the plan it makes (if any) and the tables it shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runbook import binaries, errors, etcd, flannel, mesh, preflight, show
from runbook.fleet import Fleet

if TYPE_CHECKING:
    from runbook.plan import Plan

Verify = Callable[[Fleet], Sequence[show.Table]]


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


def _preflight(fleet: Fleet) -> list[show.Table]:
    facts = preflight.facts(fleet)
    return [facts, preflight.checks(facts, fleet)]


def _etcd(fleet: Fleet) -> list[show.Table]:
    return [etcd.endpoints(fleet), etcd.members(fleet), etcd.alarms(fleet)]


def _flannel(fleet: Fleet) -> list[show.Table]:
    return [flannel.config_there(fleet), flannel.leases(fleet), flannel.subnets(fleet, within_s=5)]


PHASES = (
    Phase(0, "preflight", "preflight", _preflight),
    Phase(1, "binaries", "binaries", lambda fleet: [binaries.versions(fleet)], binaries.install),
    Phase(2, "etcd_certs", "etcd certificates", lambda fleet: [etcd.cert_files(fleet)], etcd.certs),
    Phase(3, "etcd_units", "etcd units", lambda fleet: [etcd.unit_files(fleet)], etcd.units),
    Phase(4, "etcd_start", "etcd start", lambda fleet: [etcd.states(fleet)], etcd.start),
    Phase(5, "etcd_verify", "etcd verify", _etcd),
    Phase(6, "flannel_certs", "flannel certificates", lambda fleet: [flannel.cert_files(fleet)], flannel.certs),
    Phase(7, "flannel_config", "flannel config", lambda fleet: [flannel.config_there(fleet)], flannel.config),
    Phase(8, "flannel_units", "flannel units", lambda fleet: [flannel.unit_files(fleet)], flannel.units),
    Phase(9, "flannel_start", "flannel start", lambda fleet: [flannel.states(fleet)], flannel.start),
    Phase(10, "flannel_verify", "flannel verify", _flannel),
    Phase(11, "ping_mesh", "ping mesh", lambda fleet: [mesh.ping(fleet, within_s=5)]),
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


def notebooks_dir() -> Path:
    """Where the notebooks are: beside the package in a checkout, inside it where it was installed as a wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if (folder / PHASES[0].notebook).is_file():
            return folder
    raise errors.RunbookError("the notebooks are missing", subject=str(package.parent / "notebooks"))
