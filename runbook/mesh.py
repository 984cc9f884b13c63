"""Phase 11: every node pings every flannel node's overlay address and its plain address."""

from __future__ import annotations

import re
import time
from shlex import quote
from typing import TYPE_CHECKING

from runbook import flannel_state, show
from runbook.pages import mesh_picture
from runbook.transport import answers

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    import pandas as pd

    from runbook.fleet import Fleet

__all__ = ["beside", "matrix", "ping"]


def __dir__() -> list[str]:
    return __all__  # what Tab shows in a notebook


_COLUMNS = ["node", "to", "network", "address", "ok", "rtt_ms", "loss_pct", "why", "remedy"]
_COUNT = 3
#: So many more where a ping was lost: of three, one in thirty is lost unseen more often than not.
_MORE = 20
_ROUND_S = 15

#: What a node pings: the other one's name, overlay or underlay, the address; and who pings whom, where.
Target = tuple[str, str, str]
Pair = tuple[str, str, str]


def ping(fleet: Fleet, *, within_s: float = 20) -> show.Table:
    """Ping all pairs at once, silent ones again within a deadline (peers learn a new lease a moment late).

    Every node pings every flannel node's overlay address and its plain one. Where a pair that answers lost a ping, all
    pairs that answer are pinged twenty times more, and their loss is that of these: a link that loses one packet in
    thirty shows, and what was lost only while a lease was being learned does not. Changes nothing.

    Args:
        fleet: The fleet.
        within_s: How long silent pairs are tried again, in seconds.

    Returns:
        One row a pair and network: node, to, network (overlay or underlay), address, ok, rtt_ms (average), loss_pct,
        why, remedy.

    Next: `mesh.beside(pings)` shows both networks; a pair that fails only on the overlay: `flannel.subnets(fleet)`.
    """
    cluster = fleet.cluster
    overlay: dict[str, str] = {}
    for row in show.rows(flannel_state.leases(fleet, expiry=False)):
        name = row["node"] or row["public_ip"]
        if isinstance(row["lease"], str):
            overlay[name] = row["lease"].split("/")[0]
    targets = [(name, "overlay", address) for name, address in overlay.items()]
    targets += [(node.name, "underlay", node.host) for node in cluster.flannel_nodes]
    deadline = time.monotonic() + within_s
    pending = {node.name: list(targets) for node in cluster.flannel_nodes}
    found = _round(fleet, pending, _COUNT)
    while silent := {key for key, row in found.items() if row["rtt_ms"] is None}:
        if time.monotonic() > deadline:
            break
        found |= _round(fleet, _chosen(pending, silent), _COUNT)
    answering = found.keys() - silent
    if not all(found[key]["ok"] for key in answering):
        found |= _round(fleet, _chosen(pending, answering), _MORE)
    rows = [_explained(row, found) for row in found.values()]
    rows += [
        {"node": node.name, "to": node.name, "network": "overlay", "ok": False, "why": f"{node.name} has no lease",
         "remedy": "phases 09 and 10"}
        for node in cluster.flannel_nodes
        if node.name not in overlay and len(overlay) < len(cluster.flannel_nodes)
    ]  # fmt: skip
    return show.table(rows, _COLUMNS, "Ping mesh")


def _chosen(asked: dict[str, list[Target]], keys: AbstractSet[Pair]) -> dict[str, list[Target]]:
    """Of what each node was asked to ping, these pairs."""
    return {name: [one for one in targets if (name, one[0], one[1]) in keys] for name, targets in asked.items()}


def _round(fleet: Fleet, asked: dict[str, list[Target]], count: int) -> dict[Pair, dict[str, object]]:
    """Each node pings its targets so many times, all at once; one round trip a node."""
    nodes = [node for node in fleet.cluster.flannel_nodes if asked[node.name]]

    def script(name: str) -> str:
        ping = f"ping -n -q -c {count} -i 0.02 -W 1"
        pings = [
            f'{{ rb_said=$({ping} {quote(address)} 2>&1); rb_say {number} "$rb_said"; }} &'
            for number, (_, _, address) in enumerate(asked[name])
        ]
        return "\n".join([answers.SAY, *pings, "wait"])

    outcomes = fleet.run(lambda node: script(node.name), what="ping", nodes=nodes, timeout_s=_ROUND_S)
    found: dict[Pair, dict[str, object]] = {}
    for name, outcome in outcomes.items():
        answered = answers.parse(outcome.value.text) if outcome.value else {}
        error = outcome.error.message if outcome.error else ""
        for number, (to, network, address) in enumerate(asked[name]):
            said = answered.get(str(number), "")
            row = parse_ping(said) if not error else {"ok": False, "rtt_ms": None, "loss_pct": None, "why": error}
            found[name, to, network] = {"node": name, "to": to, "network": network, "address": address, **row}
    return found


def parse_ping(said: str) -> dict[str, object]:
    """Parse iputils' summary: ok (no loss), rtt_ms, loss_pct, why."""
    loss = re.search(r"([0-9.]+)% packet loss", said)
    rtt = re.search(r"= [0-9.]+/([0-9.]+)/", said)
    loss_pct = float(loss[1]) if loss else 100.0
    sent = re.search(r"(\d+) packets transmitted", said)
    why = f"{loss_pct:.3g} % of {sent[1]} lost" if loss and sent else said[-200:] or "ping said nothing"
    return {
        "ok": loss_pct == 0,
        "rtt_ms": float(rtt[1]) if rtt else None,
        "loss_pct": loss_pct,
        "why": why if loss_pct else "",
    }


def _explained(row: dict[str, object], found: dict[Pair, dict[str, object]]) -> dict[str, object]:
    """Name the likely cause of a failing pair: what the other network says tells which side of the tunnel fails."""
    if row["ok"]:
        return row
    below = found.get((str(row["node"]), str(row["to"]), "underlay"), {})
    answers = row["rtt_ms"] is not None
    if answers and any(one["network"] == "underlay" and one["loss_pct"] for one in found.values()):
        remedy = (
            "plain addresses lose packets too: `ip -s link` on the nodes (errors, dropped), then cable, duplex and what"
            " limits the rate between; etcd pays for each with slow writes and elections"
        )
    elif row["network"] == "underlay":
        remedy = "the node is down or does not answer ICMP: is it up, is its address right?"
    elif answers:
        remedy = "no plain address loses any: a limit or a filter on UDP 8472 between them, or a busy node"
    elif below.get("ok"):
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
