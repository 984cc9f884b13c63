"""The causes of an error that was met just now, for its message: bounded in time, never in the way of that error."""

from __future__ import annotations

import contextlib
import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from runbook import diagnose, fleet, show
from runbook.diagnosis.case import CLUSTER, HERE
from runbook.diagnosis.symptoms import message

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from runbook.plans.apply import Result

#: An error is not held up for longer than this by looking for its cause.
_LIMIT_S = 10.0
_MOST = 6
_LAST_LINES = 3
#: What systemd says of each start that fails, after the unit's own last words.
_SYSTEMDS = re.compile(
    r"\S+: (Main process exited|Failed with result|Scheduled restart job)|(Start|Stopp)(ing|ed) |Failed to start "
)
#: What is only not built yet explains no failure.
_NOT_BUILT = "is not installed"


def causes(of: fleet.Fleet) -> list[dict[str, str]]:
    """The rows of a diagnosis; none where nothing was found, it took longer than 10 s, or failed itself."""
    found: list[dict[str, str]] = []

    def work() -> None:
        # Whatever fails here must not hide what it was to explain.
        with contextlib.suppress(Exception):
            rows = show.rows(diagnose.diagnose(of))
            found.extend(row for row in rows if not row["cause"].endswith(_NOT_BUILT))

    thread = threading.Thread(target=work, name="runbook-diagnose", daemon=True)
    thread.start()
    thread.join(_LIMIT_S)
    return list(found)


def lines(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Causes as lines of an error's message, each with its remedy."""
    told = [f"cause: {row['node']}: {row['cause']}: {row['why']}\n    -> {row['remedy']}" for row in rows[:_MOST]]
    more = len(rows) - _MOST
    return [*told, *([f"and {more} more: `runbook diagnose PARAMS`"] if more > 0 else [])]


def failed_starts(of: fleet.Fleet, results: list[Result]) -> list[Result]:
    """Results of starts; those that failed with the causes that a look at the nodes finds, and with their remedies."""
    if all(result.result != "failed" for result in results):
        return results
    rows = causes(of)
    return [_explained(result, rows) if result.result == "failed" else result for result in results]


def _explained(result: Result, rows: Sequence[Mapping[str, str]]) -> Result:
    own = [row for row in rows if row["node"] in (result.change.node, CLUSTER, HERE)]
    if not own:
        return result
    told = [f"{row['cause']}: {row['why']}" for row in own]
    # Of the journal's end, whose lines are long, the last ones are enough beside a cause.
    said = result.error.splitlines()
    said = [line for line in said if not _SYSTEMDS.match(line)] or said
    told += [message(line) for line in said[-_LAST_LINES:]]
    return replace(result, error="\n".join(told), remedy="; ".join(row["remedy"] for row in own))


def failed_check(nodes: Collection[str]) -> list[str]:
    """The causes behind rows of a table that don't hold, as lines of a message.

    Args:
        nodes: The nodes that the table names: the fleet that was opened last and has all of them is looked at, unless
            fleets of other clusters have them too.
    """
    having = [one for one in fleet.opened() if set(nodes) <= {node.name for node in one.cluster.nodes}]
    if not nodes or not having or any(one.cluster != having[-1].cluster for one in having):
        return []
    return lines(causes(having[-1]))
