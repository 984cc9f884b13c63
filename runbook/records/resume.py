"""Go on where a run broke off: which phase comes next, and whether it is still the same run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runbook import errors, phases, show
from runbook.record import params_text
from runbook.records import summary
from runbook.resources import unified_diff

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runbook.fleet import Fleet
    from runbook.params import Cluster
    from runbook.phases import Phase


@dataclass(frozen=True)
class Resumption:
    """What a resumed run does.

    Attributes:
        record: The record that it continues.
        chosen: The phases that are left, from the first that did not pass.
        earlier: The phases before them: not run again, but looked at.
    """

    record: Path
    chosen: tuple[Phase, ...]
    earlier: tuple[Phase, ...]


def resumption(newest: Path | None, cluster: Cluster, *, accept_changes: bool = False) -> Resumption:
    """Say where to go on after the newest record.

    Raises:
        UsageError: there is nothing to resume.
        PlanRefused: params or the tool's version differ from that run's; the message says in what.
    """
    if newest is None:
        raise errors.UsageError(
            f"there is no record of a run of {cluster.name} to resume", subject="--resume", remedy="run without it"
        )
    told = summary.load(newest)
    left = [row["number"] for row in told["phases"]]
    while left and _passed(told, left[0]):
        left.pop(0)
    if not left:
        raise errors.UsageError(
            f"nothing to resume: every phase of {newest.name} passed", subject="--resume", remedy="run without it"
        )
    if not accept_changes and (differences := _differences(newest, told, cluster)):
        raise errors.PlanRefused(
            "\n".join([f"not the same run as {newest.name} any more; nothing was done:", *differences]),
            subject="--resume",
            remedy="run from the start, or go on all the same with --resume --accept-changes",
        )
    chosen = tuple(phase for phase in phases.PHASES if phase.number in left)
    earlier = tuple(phase for phase in phases.PHASES if phase.number < chosen[0].number)
    return Resumption(newest, chosen, earlier)


def _passed(told: dict[str, Any], number: int) -> bool:
    return any(row["number"] == number and row["outcome"] == "passed" for row in told["phases"])


def _differences(record: Path, told: dict[str, Any], cluster: Cluster) -> list[str]:
    found = []
    version = summary.tool()["version"]
    if told["tool"]["version"] != version:
        found.append(f"the tool's version: then {told['tool']['version']}, now {version}")
    if told["params_sha256"] != summary.params_sha256(cluster):
        kept = record / "params.yaml"
        then = kept.read_bytes() if kept.is_file() else b""
        now = params_text(cluster).encode()
        found.append("the params:\n" + (unified_diff("params", then, now) or "in what they left open"))
    return found


def no_longer_hold(fleet: Fleet, earlier: Sequence[Phase]) -> list[tuple[Phase, str, show.Table | None]]:
    """The tables of phases that passed then and have rows that don't hold now: phase, what it says, its rows."""
    failing: list[tuple[Phase, str, show.Table | None]] = []
    for phase in earlier:
        try:
            for table in phase.verify(fleet):
                if "ok" in table.columns and not table["ok"].all():
                    failing.append((phase, table.caption, table[~table["ok"].astype(bool)]))  # noqa: PERF401 - no comprehension holds a try
        except errors.RunbookError as error:
            failing.append((phase, str(error), None))
    return failing
