"""The cluster as a picture: each node between the overlay above it and the plain network below it."""

from __future__ import annotations

import html
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from runbook import errors, etcd_state, flannel_state, show
from runbook.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from runbook.fleet import Fleet
    from runbook.params import Cluster, Node

_COLUMNS = ["node", "host", "ok", "etcd", "lease", "device", "mtu", "why", "remedy"]
#: So many nodes stand beside each other; the networks are drawn again for the next ones.
_ROW = 5
#: The tunnel's UDP port where the params name none (Linux's own default, not the IANA's 4789).
_PORT = 8472
_OVERLAY, _UNDERLAY, _LEADER = ("#0a3069", "#ddf4ff"), ("#424a53", "#eaeef2"), ("#ffffff", "#116329")
#: The line that joins a node to a network, where it is joined; it is seen on light and on dark.
_JOINED = {"overlay": "#54aeff", "underlay": "#8c959f"}
#: JupyterLab would stripe the rows.
_TR = '<tr style="background-color:transparent">'
_CELL = "padding:0;text-align:center;vertical-align:top;background-color:transparent"


def topology(fleet: Fleet, leased: pd.DataFrame | None = None) -> show.Picture:
    """Show who is where: the nodes, their leases, etcd's members and leader, between overlay and plain network.

    It looks, and changes nothing. A node that does not answer, has no lease or no vxlan device shows that.

    Args:
        fleet: The fleet; nodes that are down don't hinder it (`connect(cluster, partial=True)`).
        leased: What `flannel.leases` returned; without it etcd is asked.

    Returns:
        A picture as HTML, a table as text; as a table it is one row a node: node, host, ok, etcd (leader, member,
        unhealthy, unknown or ""), lease, device (the vxlan device's address), mtu, why, remedy.
    """
    cluster = fleet.cluster
    notes: list[str] = []

    def asked(what: str, look: Callable[[Fleet], pd.DataFrame]) -> list[dict[str, Any]] | None:
        try:
            return show.rows(look(fleet))
        except errors.RunbookError as error:
            notes.append(f"{what} are unknown: {error.message}")
            return None

    with ThreadPoolExecutor(2, thread_name_prefix="runbook-ask") as beside:
        members = beside.submit(asked, "etcd's members", etcd_state.endpoints)
        answer = beside.submit(asked, "the leases", _leases if leased is None else lambda _: leased)
        outcomes = fleet.run(flannel_state.kernel_script(cluster), what="ip link, addr")
        endpoints, leases = members.result(), answer.result()
    kernels = {
        name: flannel_state.parse_kernel(one.value.text) for name, one in outcomes.items() if one.value is not None
    }
    rows = [_row(cluster, node, kernels.get(node.name), endpoints, leases) for node in cluster.nodes]
    known = {row["lease"] for row in rows}
    notes += [
        f"a lease of none of these nodes: {row['lease']} of {row['public_ip'] or '?'}"
        for row in leases or []
        if isinstance(row["lease"], str) and row["lease"] not in known
    ]
    caption = f"Topology of {cluster.name}"
    made = show.Picture(show.table(rows, _COLUMNS, caption))
    made.caption = caption
    made.html = drawn(cluster, rows, caption) + show.notes_html(notes)
    return made


def _leases(fleet: Fleet) -> pd.DataFrame:
    return flannel_state.leases(fleet, expiry=False)


def _row(
    cluster: Cluster,
    node: Node,
    kernel: flannel_state.Kernel | None,
    endpoints: Sequence[Mapping[str, Any]] | None,
    leases: Sequence[Mapping[str, Any]] | None,
) -> dict[str, Any]:
    row: dict[str, Any] = {"node": node.name, "host": node.host, "etcd": "", "lease": ""}
    faults = []
    if kernel is None:
        faults.append(("does not answer", "is it up, is its address right? phase 00"))
    if node in cluster.etcd_nodes:
        there = next((one for one in endpoints or () if one["node"] == node.name), None)
        row["etcd"] = "unknown" if there is None else _etcd(there)
        if row["etcd"] in ("unknown", "unhealthy"):
            faults.append((f"etcd is {row['etcd']}", "phases 04 and 05"))
    if node in cluster.flannel_nodes:
        addresses = kernel.addresses if kernel else frozenset()
        own = [one for one in leases or () if one["node"] == node.name or one["public_ip"] in addresses]
        row["lease"] = next((one["lease"] for one in own if isinstance(one["lease"], str)), "")
        if not row["lease"]:
            faults.append(("no lease" if leases is not None else "its lease is unknown", "phase 09"))
        if kernel:
            row |= {"device": kernel.address.partition("/")[0], "mtu": kernel.mtu or None}
            if not kernel.address:
                faults.append((f"no {flannel_state.device(cluster)}", "phases 09 and 10"))
    row["ok"] = not faults
    row["why"] = "; ".join(why for why, _ in faults)
    row["remedy"] = faults[0][1] if faults else ""
    return row


def _etcd(endpoint: Mapping[str, Any]) -> str:
    if endpoint["ok"] is not True:
        return "unhealthy"
    return "leader" if endpoint["leader"] is True else "member"


# ---- drawn


def drawn(cluster: Cluster, rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    """The picture as HTML with inline styles.

    Args:
        cluster: The params.
        rows: One a node, as `topology` has them.
        caption: What it shows.
    """
    lines = -(-len(rows) // _ROW)
    across = -(-len(rows) // lines)
    backend = cluster.flannel.network_config()["Backend"]
    port = backend.get("Port", _PORT)
    overlay = f"overlay {cluster.flannel.network}: vxlan, {flannel_state.device(cluster)}, UDP {port}"
    underlay = "plain network: the nodes' own addresses"
    body = []
    for place in range(lines):
        chunk = rows[place * across : (place + 1) * across]
        again = ", the same as above" if place else ""
        body += [
            _band(across, f"{overlay}{again}", _OVERLAY),
            _joints([_JOINED["overlay"] if row["lease"] else "" for row in chunk]),
            f"{_TR}{''.join(_box(cluster, row) for row in chunk)}</tr>",
            _joints([_JOINED["underlay"] if "does not answer" not in row["why"] else "" for row in chunk]),
            _band(across, f"{underlay}{again}", _UNDERLAY),
            f'{_TR}<td colspan="{across}" style="{_CELL};height:12px"></td></tr>' if place + 1 < lines else "",
        ]
    title = "text-align:left;font-weight:bold;padding:4px 0"
    style = "border-collapse:separate;border-spacing:8px 0;margin:0;font-size:13px"
    return (
        f'<table style="{style}"><caption style="{title}">{_safe(caption)}</caption>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def _band(across: int, text: str, colours: tuple[str, str]) -> str:
    style = f"{_CELL};{_on(colours)};border-radius:6px;padding:5px 10px;font-weight:600"
    return f'{_TR}<th scope="colgroup" colspan="{across}" style="{style}">{_safe(text)}</th></tr>'


def _joints(colours: Sequence[str]) -> str:
    """A line of joints between boxes and a network; none where a node is not joined."""
    cells = (f"background-color:{colour}" if colour else "background-color:transparent" for colour in colours)
    joints = "".join(
        f'<td style="{_CELL}"><div style="width:3px;height:12px;margin:0 auto;{one}"></div></td>' for one in cells
    )
    return f"{_TR}{joints}</tr>"


def _box(cluster: Cluster, row: Mapping[str, Any]) -> str:
    node = next(one for one in cluster.nodes if one.name == row["node"])
    down = "does not answer" in row["why"]
    lines = [f'<div style="font-weight:700;font-size:15px;padding:5px 8px 2px">{_safe(row["node"])}</div>']
    if down:
        lines.append(_line(show.chip("failed", "does not answer")))
    lines.append(_line(_member(row["etcd"])))
    if node in cluster.flannel_nodes and not down:
        device = flannel_state.device(cluster)
        there = row.get("device")
        chip = show.chip("ok", f"{device}, MTU {row['mtu']}") if there else show.chip("failed", f"no {device}")
        lines.append(_line(chip))
    if row["lease"]:
        top = _edge(row["lease"], _OVERLAY)
    elif node in cluster.flannel_nodes:
        top = _edge("✗ " + ("no lease" if "no lease" in row["why"] else "lease unknown"), show.CHIPS["failed"][1:])
    else:
        top = _edge("not in the overlay", show.CHIPS["none"][1:])
    colour = "#8c959f" if row["ok"] else "#d1242f"
    style = f"{_CELL};border:{1 if row['ok'] else 2}px solid {colour};border-radius:6px;min-width:150px"
    return (
        f'<td style="{style}">{top}{"".join(lines)}<div style="height:4px"></div>{_edge(row["host"], _UNDERLAY)}</td>'
    )


def _edge(text: str, colours: Sequence[str]) -> str:
    return f'<div style="{_on(colours)};padding:2px 8px;white-space:nowrap">{_safe(text)}</div>'


def _line(content: str) -> str:
    return f'<div style="padding:2px 8px">{content}</div>'


def _member(state: str) -> str:
    if state == "leader":
        return f'<span style="{_on(_LEADER)};padding:0 6px;border-radius:6px;white-space:nowrap">★ etcd leader</span>'
    return {
        "member": show.chip("ok", "etcd member"),
        "unhealthy": show.chip("failed", "etcd unhealthy"),
        "unknown": show.chip("warning", "etcd unknown"),
    }.get(state, show.chip("none", "no etcd"))


def _on(colours: Sequence[str]) -> str:
    return f"color:{colours[0]};background-color:{colours[1]}"


def _safe(text: object) -> str:
    return html.escape(clean(str(text)))
