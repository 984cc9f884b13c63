"""Why a unit does not run: what its journal says, that it was stopped, or that nobody knows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runbook.diagnosis import journal_lines
from runbook.diagnosis.case import CONSEQUENCE, ETCD, FLANNELD, NODE, STATE, STORE, Cause
from runbook.diagnosis.symptoms import message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.diagnosis.case import Case
    from runbook.diagnosis.symptoms import Symptoms, Unit

_PHASES = {ETCD: ("02 to 04", "04"), FLANNELD: ("06 to 09", "09")}
_LAST_LINES = 3
_MOST_TEXT = 300


def units(case: Case) -> Iterator[Cause]:
    """Each node's etcd.service and flanneld.service that is not active."""
    for about, nodes in ((ETCD, case.members), (FLANNELD, case.hosts)):
        for one in nodes:
            unit = one.etcd if about == ETCD else one.flanneld
            if not unit.active:
                yield from _not_active(case, one, unit, about)


def _not_active(case: Case, one: Symptoms, unit: Unit, about: str) -> Iterator[Cause]:
    name, (built_by, start) = one.node.name, _PHASES[about]
    if not unit.loaded:
        masked = unit.state.get("LoadState") == "masked"
        why = f"{unit.name}.service is {'masked' if masked else 'not there'}, expected it loaded"
        remedy = f"`systemctl unmask {unit.name}`" if masked else f"run phases {built_by}"
        yield Cause(name, f"{unit.name} is not installed", why, remedy, "unit-not-ready", about, STATE)
        return
    if unit.stopped:
        why = f"{unit.name}.service is {unit.told}, expected active/running: somebody stopped it"
        remedy = f"run phase {start}, or `systemctl start {unit.name}` on {name}"
        section = "member-down" if about == ETCD else "overlay-loses-packets"
        yield Cause(name, f"{unit.name} is stopped", why, remedy, section, about, STATE)
        return
    words = _words(case, one, unit)
    own = frozenset({(about, name), (NODE, name)})
    for line in journal_lines.LINES:
        if line.unit == unit.name and (found := line.found(unit.journal)):
            told = message(found)[-_MOST_TEXT:]
            expected = line.expected.format(**words)
            why = f"{unit.name}.service is {unit.told}; its journal says: {told}; expected {expected}"
            # What the node's or the cluster's state shows by itself needs no line of the journal beside it.
            unless = own | {(STORE, "")} if about == FLANNELD else own
            yield Cause(name, line.cause, why, line.remedy.format(**words), line.section, about, STATE, unless)
            return
    yield _unknown(one, unit, about, own)


def _words(case: Case, one: Symptoms, unit: Unit) -> dict[str, str]:
    cluster = case.cluster
    folder = cluster.etcd.unit_dir if unit.name == "etcd" else cluster.flannel.unit_dir
    return {
        "node": one.node.name,
        "host": one.node.host,
        "bin_dir": cluster.bin_dir,
        "data_dir": cluster.etcd.data_dir,
        "wal_dir": cluster.etcd.wal_dir,
        "user": cluster.etcd.user,
        "unit": f"{unit.name}.service",
        "unit_path": f"{folder}/{unit.name}.service",
        "prefix": cluster.flannel.etcd_prefix,
        "network": cluster.flannel.network,
    }


def _unknown(one: Symptoms, unit: Unit, about: str, own: frozenset[tuple[str, str]]) -> Cause:
    """A unit that waits for others is explained by them; any other one is unknown, and its evidence is told."""
    name = one.node.name
    own_lines = [line for line in unit.journal if not line.startswith(f"{unit.name}.service")]
    waits = any(re.search(journal_lines.WAITS, line) for line in own_lines[-50:])
    # flanneld 0.18 and newer says nothing while it can't reach etcd.
    silent = bool(own_lines) and about == FLANNELD and "Installing signal handlers" in own_lines[-1]
    last = " | ".join(message(line)[-_MOST_TEXT:] for line in own_lines[-_LAST_LINES:]) or "nothing"
    why = f"{unit.name}.service is {unit.told}; the last that its journal says: {last}"
    if waits or silent:
        whom = "the other members" if about == ETCD else "etcd"
        remedy = f"are {'TCP 2380' if about == ETCD else 'TCP 2379'} and the certificates right between the nodes?"
        return Cause(name, f"it waits for {whom}", why, remedy, "unit-not-ready", about, CONSEQUENCE,
                     own | {(STORE, "")})  # fmt: skip
    remedy = f"`journalctl -u {unit.name}` on {name} tells more; `systemctl status {unit.name}`"
    return Cause(name, "unknown", why, remedy, "unit-not-ready", about, CONSEQUENCE, own)


def unhealthy(case: Case) -> Iterator[Cause]:
    """A member whose unit is active and that does not answer a read through the quorum, or is not reached at all."""
    for one in case.members:
        name = one.node.name
        if not one.etcd.active or name in case.healthy:
            continue
        said = "\n".join(text for each in case.members for text in [each.said.get("health", "")])
        lines = [line for line in said.splitlines() if f"{one.node.host}:2379" in line]
        reason = re.findall(r'"error":"((?:[^"\\]|\\.)*)"', "\n".join(lines)) or lines
        why = f"etcd.service is active and its endpoint unhealthy: {(reason or ['no answer'])[-1][-_MOST_TEXT:]}"
        remedy = "see that TCP 2379 and 2380 are open between the nodes; `journalctl -u etcd` there tells more"
        unless = frozenset({(ETCD, name), (NODE, name), (STORE, "")})
        yield Cause(name, "unknown: the member does not answer", why, remedy, "etcd-does-not-answer", ETCD,
                    CONSEQUENCE, unless)  # fmt: skip


RULES = (units, unhealthy)
