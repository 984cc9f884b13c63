"""Why something does not work: every node is read at once, and each cause found with its remedy; nothing is changed.

A cause that is not known is told as unknown, with its evidence. What follows from another cause is left out.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from runbook import clocks, errors, pki, show, state
from runbook.diagnosis import (
    cert_causes,
    etcd_causes,
    flannel_causes,
    overlay_causes,
    rights_causes,
    symptom_script,
    symptoms,
    unit_causes,
)
from runbook.diagnosis.case import Case, Cause
from runbook.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runbook.fleet import Fleet
    from runbook.ssh import Connection

COLUMNS = ("node", "cause", "ok", "why", "remedy", "section")
_RULES = (
    *etcd_causes.RULES, *rights_causes.RULES, *cert_causes.RULES, *unit_causes.RULES, *flannel_causes.RULES,
    *overlay_causes.RULES,
)  # fmt: skip
_LOOK_S = 9.0


def diagnose(fleet: Fleet) -> show.Table:
    """Look for causes on all nodes.

    Args:
        fleet: The fleet; a node that can't be reached is a row.

    Returns:
        One row a cause, roots before what is only seen: node (or (cluster), (here)), cause, ok (always False), why,
        remedy, section (of docs/troubleshooting.md). No rows where nothing was found.
    """
    rows = [
        {
            "node": one.node,
            "cause": one.cause,
            "ok": False,
            "why": clean(one.why),
            "remedy": clean(one.remedy),
            "section": one.section,
        }
        for one in causes(look(fleet))
    ]
    count = f"{len(rows)} cause{'s' if len(rows) > 1 else ''} found" if rows else "nothing wrong was found"
    return show.table(rows, COLUMNS, f"Diagnosis of {fleet.cluster.name}: {count}")


def look(fleet: Fleet) -> Case:
    """Read every node in one round trip, all at once."""
    cluster = fleet.cluster

    def work(connection: Connection) -> tuple[str, tuple[float, float]]:
        script = symptom_script.script(cluster, connection.node)
        return clocks.asked(connection, script, what="look for causes", timeout_s=_LOOK_S)

    found = {}
    for name, outcome in fleet.each(work).items():
        if outcome.value is None:
            why = outcome.error.message if outcome.error else "no answer"
            found[name] = symptoms.Symptoms(outcome.node, why)
        else:
            found[name] = symptoms.parse(outcome.node, *outcome.value)
    return Case(cluster, found, time.time(), _own_ca(fleet))


def _own_ca(fleet: Fleet) -> bytes | None:
    """The CA's certificate on this side; a cluster that someone else built has none here."""
    try:
        authority = pki.find_authority(fleet.cluster.pki, state.pki_dir(fleet.cluster, create=False))
    except errors.RunbookError:
        return None
    return authority.pem if authority else None


def causes(case: Case) -> list[Cause]:
    """What is wrong, roots first; a consequence only where no cause of a lower rank explains it."""
    found = [cause for rule in _RULES for cause in rule(case)]
    kept = []
    for one in dict.fromkeys(found):
        roots = [(other.about, other.node) for other in found if other.rank < one.rank]
        if not any(_explains(root, one.unless) for root in roots):
            kept.append(one)
    return sorted(kept, key=lambda one: one.rank)


def _explains(root: tuple[str, str], unless: Iterable[tuple[str, str]]) -> bool:
    """Whether a cause about this explains; a pair without a node stands for every node."""
    return any(about == root[0] and node in ("", root[1]) for about, node in unless)
