"""Phase 11: every node pings every flannel node's overlay address and its plain address."""

from __future__ import annotations

import re
import time
from shlex import quote
from typing import TYPE_CHECKING

from runbook import flannel_state, show
from runbook.pages import mesh_picture

if TYPE_CHECKING:
    import pandas as pd

    from runbook.fleet import Fleet

__all__ = ["beside", "matrix", "ping"]


def __dir__() -> list[str]:
    return __all__  # what Tab shows in a notebook


_COLUMNS = ["node", "to", "network", "address", "ok", "rtt_ms", "loss_pct", "why", "remedy"]
_COUNT = 3
_ROUND_S = 15


def ping(fleet: Fleet, *, within_s: float = 20) -> show.Table:
    """Ping all pairs at once, and the pairs that fail again within a deadline (peers learn a new lease a moment late).

    Every node pings every flannel node's overlay address and its plain one. Changes nothing.

    Args:
        fleet: The fleet.
        within_s: How long failing pairs are tried again, in seconds.

    Returns:
        One row a pair and network: node, to, network (overlay or underlay), address, ok, rtt_ms (average), loss_pct,
        why, remedy.

    Next: `mesh.beside(pings)` shows both networks; a pair that fails only on the overlay: `flannel.subnets(fleet)`.
    """
    cluster = fleet.cluster
    overlay = {}
    for row in show.rows(flannel_state.leases(fleet, expiry=False)):
        name = row["node"] or row["public_ip"]
        if isinstance(row["lease"], str):
            overlay[name] = row["lease"].split("/")[0]
    targets = [(name, "overlay", address) for name, address in overlay.items()]
    targets += [(node.name, "underlay", node.host) for node in cluster.flannel_nodes]
    deadline = time.monotonic() + within_s
    found: dict[tuple[str, str, str], dict[str, object]] = {}
    pending = {node.name: list(targets) for node in cluster.flannel_nodes}
    while any(pending.values()):
        for name, pairs in _round(fleet, pending).items():
            found.update({(name, *key): row for key, row in pairs.items()})
        pending = {
            name: [one for one in asked if not found[name, one[0], one[1]]["ok"]] for name, asked in pending.items()
        }
        if time.monotonic() > deadline:
            break
    rows = [_explained(row, found) for row in found.values()]
    rows += [
        {"node": node.name, "to": node.name, "network": "overlay", "ok": False, "why": f"{node.name} has no lease",
         "remedy": "phases 09 and 10"}
        for node in cluster.flannel_nodes
        if node.name not in overlay and len(overlay) < len(cluster.flannel_nodes)
    ]  # fmt: skip
    return show.table(rows, _COLUMNS, "Ping mesh")


def _round(
    fleet: Fleet, pending: dict[str, list[tuple[str, str, str]]]
) -> dict[str, dict[tuple[str, str], dict[str, object]]]:
    """Each node pings its pending targets, all at once; one round trip a node."""
    nodes = [node for node in fleet.cluster.flannel_nodes if pending[node.name]]

    def script(name: str) -> str:
        pings = [
            f"{{ ping -n -q -c {_COUNT} -i 0.05 -W 1 {quote(address)} 2>&1 | sed 's/^/{number} /'; }} &"
            for number, (_, _, address) in enumerate(pending[name])
        ]
        return "\n".join([*pings, "wait"])

    outcomes = fleet.run(lambda node: script(node.name), what="ping", nodes=nodes, timeout_s=_ROUND_S)
    rounds: dict[str, dict[tuple[str, str], dict[str, object]]] = {}
    for name, outcome in outcomes.items():
        text = outcome.value.text if outcome.value else ""
        error = outcome.error.message if outcome.error else ""
        rounds[name] = {}
        for number, (to, network, address) in enumerate(pending[name]):
            said = "\n".join(re.findall(rf"^{number} (.*)$", text, re.MULTILINE))
            row = parse_ping(said) if not error else {"ok": False, "rtt_ms": None, "loss_pct": None, "why": error}
            rounds[name][to, network] = {"node": name, "to": to, "network": network, "address": address, **row}
    return rounds


def parse_ping(said: str) -> dict[str, object]:
    """Parse iputils' summary: ok (no loss), rtt_ms, loss_pct, why."""
    loss = re.search(r"([0-9.]+)% packet loss", said)
    rtt = re.search(r"= [0-9.]+/([0-9.]+)/", said)
    loss_pct = float(loss[1]) if loss else 100.0
    why = "" if loss_pct == 0 else f"{loss_pct:g} % of {_COUNT} lost" if loss else said[-200:] or "ping said nothing"
    return {"ok": loss_pct == 0, "rtt_ms": float(rtt[1]) if rtt else None, "loss_pct": loss_pct, "why": why}


def _explained(row: dict[str, object], found: dict[tuple[str, str, str], dict[str, object]]) -> dict[str, object]:
    """Name the likely cause of a failing pair: what the other network says tells which side of the tunnel fails."""
    if row["ok"]:
        return row
    if row["network"] == "underlay":
        remedy = "the node is down or does not answer ICMP: is it up, is its address right?"
    elif found.get((str(row["node"]), str(row["to"]), "underlay"), {}).get("ok"):
        remedy = "the plain address answers: UDP 8472 is dropped between them, or phase 10 shows what the kernel lacks"
    else:
        remedy = "the plain address fails too: mend that first"
    return {**row, "remedy": remedy}


def beside(pings: pd.DataFrame) -> mesh_picture.Heatmaps:
    """Show the overlay's heatmap beside the underlay's: round-trip time and loss in every cell, a row a pinging node.

    Dark red and ✗: no answer. Yellow and ▲: some pings were lost. What differs between the two is the price of vxlan.

    Args:
        pings: What `ping` returned, or some of its rows.

    Returns:
        What a notebook shows, as HTML or text; `tables` has the numbers, N x N: overlay and underlay in ms,
        overlay_loss and underlay_loss in percent.
    """
    networks = ("overlay", "underlay")
    return mesh_picture.Heatmaps(
        {name: matrix(pings, name) for name in networks}
        | {f"{name}_loss": matrix(pings, name, "loss_pct") for name in networks}
    )


def matrix(pings: pd.DataFrame, network: str, value: str = "rtt_ms") -> show.Table:
    """One network's pings as an N x N table: a row a pinging node, a column a pinged one.

    Args:
        pings: What `ping` returned.
        network: overlay or underlay.
        value: rtt_ms or loss_pct.
    """
    chosen = pings[pings["network"] == network]
    names = sorted({*map(str, chosen["node"]), *map(str, chosen["to"])}, key=_counted)
    cells = {(row["node"], row["to"]): row[value] for row in show.rows(chosen)}
    rows = [{"from": name, **{to: cells.get((name, to)) for to in names}} for name in names]
    return show.table(rows, ["from", *names], f"{network}: {value}")


def _counted(name: str) -> list[tuple[int, str]]:
    """A sort key: node2 before node10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
