"""What flannel's certificate may do in etcd, tried with the certificate itself; nothing is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from runbook import etcd_access, etcdctl, show
from runbook.resources import content

if TYPE_CHECKING:
    from runbook.fleet import Fleet
    from runbook.params import Cluster

_COLUMNS = ["node", "path", "action", "ok", "expected", "found", "why", "remedy"]
_REMEDY = "run phase 07: it sets users, roles and auth as the params have them"


@dataclass(frozen=True)
class _Attempt:
    """One thing that is tried with flannel's certificate."""

    path: str
    action: str
    allowed: bool
    command: str


def rights(fleet: Fleet) -> show.Table:
    """Show what flannel's certificate may do in etcd: each node tries it with its own one. Changes nothing.

    A write is tried as a transaction whose condition never holds: etcd asks for the right to it all the same (tried
    with 3.5.21 and 3.6.16). Only nodes that are etcd members too have etcdctl; where there is none with both roles,
    what etcd has of its user and role is shown instead.

    Returns:
        One row a node and attempt: node, path (the key), action (read or write), ok, expected (allowed or refused),
        found, why, remedy. With `flannel.rbac: false` one row that says that nothing is limited.

    Next: where a row is not ok, `flannel.config(fleet)`; else phase 08, `flannel.units(fleet)`.
    """
    cluster = fleet.cluster
    both = [node for node in cluster.etcd_nodes if node in cluster.flannel_nodes]
    if not cluster.flannel.rbac:
        rows = [_row("(all)", "every key", "read, write", "allowed", "not limited: flannel.rbac is false")]
    elif not both:
        rows = [_granted(fleet)]
    else:
        attempts = _attempts(cluster)
        rows = []
        for outcome in fleet.run(_script(attempts), what="etcdctl as flannel", nodes=both).values():
            if outcome.value is None:
                why = outcome.error.message if outcome.error else "no answer"
                rows.append({"node": outcome.node.name, "ok": False, "why": why, "remedy": "bring the node up"})
                continue
            said = dict(line.split("=", 1) for line in outcome.value.text.splitlines() if "=" in line)
            for number, one in enumerate(attempts):
                text = (content(said, str(number)) or b"").decode("utf-8", "replace")
                rows.append(_judged(outcome.node.name, one, text))
    return show.table(rows, _COLUMNS, f"What flannel's certificate (user {etcd_access.USER}) may do in etcd")


def _attempts(cluster: Cluster) -> list[_Attempt]:
    prefix = cluster.flannel.etcd_prefix
    lease, config, outside = f"{prefix}/subnets/0.0.0.0-0", f"{prefix}/config", f"{prefix}-outside"

    def ask(*words: str) -> str:
        return etcdctl.command(cluster, *words, as_flannel=True)

    def write(key: str) -> str:
        # No key is ever changed so often (etcd's revisions are int64).
        never = f'mod({json.dumps(key)}) = "9223372036854775807"\n\nput {json.dumps(key)} "x"\n\n\n'
        return f"printf %s {quote(never)} | {ask('txn')}"

    return [
        _Attempt(config, "read", True, ask("get", config, "--keys-only")),  # noqa: FBT003 - allowed
        _Attempt(lease, "write", True, write(lease)),  # noqa: FBT003
        _Attempt(config, "write", False, write(config)),  # noqa: FBT003
        _Attempt(outside, "write", False, write(outside)),  # noqa: FBT003
        _Attempt("every key", "read", False, ask("get", "", "--from-key", "--keys-only", "--limit=1")),  # noqa: FBT003
        _Attempt("users and roles", "read", False, ask("user", "list")),  # noqa: FBT003
    ]


def _script(attempts: list[_Attempt]) -> str:
    """All of them at once; of each its output and, as the last line, its exit status."""
    started = "\n".join(
        f'{{ {one.command}; echo "$?"; }} >"$tried/{number}" 2>&1 </dev/null &' for number, one in enumerate(attempts)
    )
    return f"""
tried=$(mktemp -d) || exit 1
trap 'rm -rf "$tried"' EXIT
{started}
wait
for file in "$tried"/*; do echo "${{file##*/}}=$(base64 -w0 <"$file")"; done
"""


def _judged(node: str, one: _Attempt, text: str) -> dict[str, object]:
    *said, status = text.strip().splitlines() or [""]
    found = "allowed" if status == "0" else "refused" if etcdctl.refused(text) else "unknown"
    expected = "allowed" if one.allowed else "refused"
    row = _row(node, one.path, one.action, expected, found)
    if found != expected:
        why = f"{one.action} {one.path} is {found}, expected {expected}"
        last = f": {said[-1][-200:]}" if said and found != "allowed" else ""
        row |= {"ok": False, "why": f"{why}{last}", "remedy": _REMEDY}
    return row


def _row(node: str, path: str, action: str, expected: str, found: str) -> dict[str, object]:
    return {
        "node": node, "path": path, "action": action, "ok": True, "expected": expected, "found": found,
        "why": "", "remedy": "",
    }  # fmt: skip


def _granted(fleet: Fleet) -> dict[str, object]:
    """What etcd has of flannel's user and role, where no node can try it."""
    cluster = fleet.cluster
    done = fleet.first(cluster.etcd_nodes, etcd_access.probe(cluster), what="etcdctl user get, role get")
    lines = dict(line.split("=", 1) for line in done.text.splitlines() if "=" in line)
    said = {key: (content(lines, key) or b"").decode("utf-8", "replace") for key in lines}
    seen = etcd_access.parse(cluster, said)
    roles = seen.users.get(etcd_access.USER, frozenset())
    expected = f"auth on; roles: {etcd_access.ROLE}; {etcd_access.told(etcd_access.permissions(cluster))}"
    found = f"auth {'on' if seen.enabled else 'off'}; roles: {', '.join(sorted(roles)) or 'none'}"
    found += f"; {etcd_access.told(seen.role or ())}"
    row = _row("(cluster)", cluster.flannel.etcd_prefix, "as granted", expected, seen.error or found)
    if row["found"] != expected:
        row |= {"ok": False, "why": "etcd has other rights of flannel's user", "remedy": _REMEDY}
    return row
