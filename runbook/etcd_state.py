"""What the etcd cluster says of itself: endpoints, members, alarms."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from runbook import etcdctl, show, versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runbook.fleet import Fleet
    from runbook.params import Cluster

_ENDPOINT_COLUMNS = [
    "endpoint", "node", "ok", "took_ms", "version", "db_bytes", "leader", "raft_term", "raft_index", "why", "remedy",
]  # fmt: skip


def endpoints(fleet: Fleet) -> show.Table:
    """Show every member's endpoint, asked through the first node that answers. Changes nothing.

    Returns:
        One row an endpoint: endpoint, node, ok (healthy), took_ms (a read through the quorum), version, db_bytes,
        leader, raft_term, raft_index, why, remedy.

    Next: where a row is not ok, `etcd.states(fleet)` shows its unit and journal.
    """
    cluster = fleet.cluster
    status = etcdctl.command(cluster, "endpoint", "status", "-w", "json")
    # 3.3 has no JSON for health: there the plain text is read.
    as_json = ["-w", "json"] if versions.health_is_json(cluster.etcd.version) else []
    health = etcdctl.command(cluster, "endpoint", "health", *as_json)
    script = f"""
{status} &
rb_health=$({health})
wait
printf '\\n@\\n%s\\n' "$rb_health"
"""
    done = fleet.first(cluster.etcd_nodes, script, what="etcdctl endpoint health and status")
    second, _, first = done.text.rpartition("\n@\n")
    said = done.stderr.decode("utf-8", "replace")
    healths = {row["endpoint"]: row for row in etcdctl.as_json(first) or []}
    statuses = {row["Endpoint"]: row["Status"] for row in etcdctl.as_json(second) or []}
    rows = []
    for node, endpoint in zip(cluster.etcd_nodes, etcdctl.endpoints(cluster), strict=True):
        row = _endpoint_row(endpoint, healths.get(endpoint), statuses.get(endpoint), first + said)
        rows.append({"endpoint": endpoint, "node": node.name, **row})
    return show.table(rows, _ENDPOINT_COLUMNS, "etcd endpoints")


def _endpoint_row(
    endpoint: str, health: dict[str, Any] | None, status: dict[str, Any] | None, said: str
) -> dict[str, object]:
    ok = bool(health.get("health")) if health else f"{endpoint} is healthy" in said
    row: dict[str, object] = {"ok": ok}
    if health:
        row["took_ms"] = milliseconds(str(health.get("took", "")))
    if status:
        header = status.get("header", {})
        row |= {
            "version": status.get("version", ""),
            "db_bytes": status.get("dbSize"),
            "leader": bool(status.get("leader")) and status.get("leader") == header.get("member_id"),
            "raft_term": status.get("raftTerm"),
            "raft_index": status.get("raftIndex"),
        }
    if not ok:
        lines = [line for line in said.splitlines() if endpoint.removeprefix("https://") in line]
        why = (
            (health or {}).get("error") or "; ".join((status or {}).get("errors", [])) or (lines or [said.strip()])[-1]
        )
        row["why"] = f"unhealthy: {why[-300:] or 'no answer'}"
        row["remedy"] = "is etcd.service active there (phase 04), and TCP 2379 and 2380 open between the nodes?"
    return row


_UNITS_MS = {"ns": 1e-6, "µs": 1e-3, "us": 1e-3, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}


def milliseconds(took: str) -> float | None:
    """A Go duration such as 5.79ms, 1.2s or 1m2.5s (time.Duration.String) in milliseconds; None for anything else."""
    part = r"(\d+(?:\.\d+)?)(ns|µs|us|ms|s|m|h)"
    if not re.fullmatch(f"(?:{part})+", took):
        return None
    return sum(float(number) * _UNITS_MS[unit] for number, unit in re.findall(part, took))


def members(fleet: Fleet) -> show.Table:
    """Show the members as the cluster knows them, held against the params. Changes nothing.

    Returns:
        One row a member: node, member_id (hex, as etcd's log prints it), started, peer_urls, client_urls, ok, why,
        remedy.

    Next: a member too many or too few is removed or added by etcdctl, as `remedy` says.
    """
    cluster = fleet.cluster
    script = etcdctl.command(cluster, "member", "list", "-w", "json")
    done = fleet.first(cluster.etcd_nodes, script, what="etcdctl member list")
    listed = (etcdctl.as_json(done.check("is etcd running? phase 04").text) or {}).get("members", [])
    columns = ["node", "member_id", "started", "peer_urls", "client_urls", "ok", "why", "remedy"]
    return show.table(member_rows(cluster, listed), columns, "etcd members")


def member_rows(cluster: Cluster, listed: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `members`, from the members that etcdctl listed as JSON."""
    rows: list[dict[str, Any]] = []
    wanted = {f"https://{node.host}:2380": node for node in cluster.etcd_nodes}
    for member in listed:
        urls = member.get("peerURLs", [])
        node = next((wanted.pop(url) for url in urls if url in wanted), None)
        started = bool(member.get("name"))
        why = "" if node and started else "not started yet" if node else "a member that the params don't name"
        rows.append(
            {
                "node": node.name if node else member.get("name", ""),
                "member_id": f"{int(member['ID']):x}",
                "started": started,
                "peer_urls": urls,
                "client_urls": member.get("clientURLs", []),
                "ok": not why,
                "why": why,
                "remedy": "" if not why else "`etcdctl member remove ID`, or name it in the params",
            }
        )
    for url, node in wanted.items():
        why, remedy = f"not a member: no member has {url}", f"`etcdctl member add {node.name} --peer-urls={url}`"
        rows.append({"node": node.name, "ok": False, "started": False, "why": why, "remedy": remedy})
    return rows


def alarms(fleet: Fleet) -> show.Table:
    """Show the alarms that are raised. Changes nothing.

    Returns:
        One row an alarm: member_id (hex), alarm, remedy; no rows is the good case.

    Next: what `remedy` says; NOSPACE is a database at its quota.
    """
    script = etcdctl.command(fleet.cluster, "alarm", "list")
    done = fleet.first(fleet.cluster.etcd_nodes, script, what="etcdctl alarm list").check("is etcd running? phase 04")
    rows = []
    for line in filter(None, done.text.splitlines()):
        found = dict(part.strip().split(":", 1) for part in line.split(" ") if ":" in part)
        remedy = "compact, defragment each member, then `etcdctl alarm disarm`"
        number = found.get("memberID", "")  # decimal here; hex in the members' table and in etcd's log
        member = f"{int(number):x}" if number.isdecimal() else number
        rows.append({"member_id": member, "alarm": found.get("alarm", line), "remedy": remedy})
    return show.table(rows, ["member_id", "alarm", "remedy"], "etcd alarms: none" if not rows else "etcd alarms")
