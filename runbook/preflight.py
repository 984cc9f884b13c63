"""Phase 00: what each node is, and whether the next phases can work there; nothing is changed."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runbook import clocks, preflight_script, show, versions
from runbook.transport import answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from runbook.fleet import Fleet
    from runbook.params import Cluster, Node
    from runbook.ssh import Connection

__all__ = ["checks", "facts"]


def __dir__() -> list[str]:
    return __all__  # what Tab shows in a notebook


_COLUMNS = [
    "node", "host", "distribution", "kernel", "arch", "systemd", "iface", "clock_offset_ms", "data_free_bytes",
    "wal_free_bytes", "listeners", "vxlan", "br_netfilter", "ip_forward", "iptables", "missing_tools", "unit_dirs",
    "tools", "why",
]  # fmt: skip
_NEEDED_FREE_BYTES = 1 << 30
#: etcd warns past a second; certificates and leases live by the clock too.
MAX_OFFSET_MS = 1000
#: What a check says: did it hold, what was found, what to do; a warning holds.
Verdict = tuple[str, str, str]


def facts(fleet: Fleet) -> show.Table:
    """Read what each node is, in one round trip. Changes nothing.

    Returns:
        One row a node: node, host, distribution, kernel, arch, systemd (version), iface (the one that carries the
        node's own address), clock_offset_ms (against this machine, at least), data_free_bytes, wal_free_bytes,
        listeners (of 2379, 2380 TCP and 8472 UDP), vxlan, br_netfilter, ip_forward, iptables, missing_tools,
        unit_dirs, tools.

        A node that does not answer has only node, host and why.

    Next: `preflight.checks(facts, fleet)` says what of it stands in the way.
    """
    script = preflight_script.probe(fleet.cluster)

    def work(connection: Connection) -> tuple[str, tuple[float, float]]:
        return clocks.asked(connection, script, what="read the node")

    rows: list[dict[str, object]] = []
    for name, outcome in fleet.each(work).items():
        if outcome.value is None:
            why = outcome.error.message if outcome.error else "no answer"
            rows.append({"node": name, "host": outcome.node.host, "why": why})
        else:
            rows.append(described(outcome.node, *outcome.value))
    return show.table(rows, _COLUMNS, "What the nodes are")


def described(node: Node, text: str, clock: tuple[float, float]) -> dict[str, Any]:
    """A row of `facts`, from what `preflight_script.probe` printed.

    Args:
        node: The node.
        text: What was printed.
        clock: The times on this side, in seconds since the epoch, when it was begun and when its first line was there:
            the node told its time in between, so a slow link is no clock that is off.
    """
    said = defaultdict(str, {key: value.strip() for key, value in answers.parse(text).items()})
    iface = re.search(rf"^\d+: (\S+)\s+inet {re.escape(node.host)}/", said["addresses"], re.MULTILINE)
    tools = said["tools"].splitlines()
    systemd = re.search(r"systemd (\d+)", said["systemd"])
    return {
        "node": node.name,
        "host": node.host,
        "distribution": said["os"],
        "kernel": said["kernel"],
        "arch": said["machine"],
        "systemd": int(systemd[1]) if systemd else 0,
        "unit_dirs": said["unit_path"].split(),
        "tools": [line for line in tools if line.startswith("/")],
        "missing_tools": [line.split()[1] for line in tools if line.startswith("missing ")],
        "iface": iface[1] if iface else "",
        "iptables": next((line for line in tools if line.endswith("/iptables")), ""),
        "data_free_bytes": _free(said["data_free"]),
        "wal_free_bytes": _free(said["wal_free"]),
        "clock_offset_ms": clocks.offset_ms(float(said["clock"]), *clock),
        "listeners": list(_listeners(said["listeners"], said["vxlan_links"], said["pids"].split())),
        "vxlan": said["vxlan"] or "unknown",
        "br_netfilter": said["br_netfilter"] == "yes",
        "ip_forward": said["ip_forward"] == "1",
    }


def _free(df: str) -> int:
    fields = df.split()
    return int(fields[3]) * 1024 if len(fields) > 3 and fields[3].isdigit() else 0  # noqa: PLR2004 - POSIX df -P


def _listeners(sockets: str, vxlan_links: str, pids: list[str]) -> Iterator[str]:
    """Who has our ports: `2379/tcp etcd` for our own, `2379/tcp nginx (pid 12)` for another's."""
    ours = {pid for pid in pids if pid != "0"}
    for line in sockets.splitlines():
        fields = line.split()
        port = fields[4].rsplit(":", 1)[-1] if len(fields) > 4 else ""  # noqa: PLR2004 - ss: local address
        if (fields[:1], port) not in ((["tcp"], "2379"), (["tcp"], "2380"), (["udp"], "8472")):
            continue
        user = re.search(r'"([^"]+)",pid=(\d+)', line)
        # A vxlan device's socket is the kernel's own, without a process.
        mine = user[2] in ours if user else port == "8472" and "flannel." in vxlan_links
        name = "ours" if mine else f"{user[1]} (pid {user[2]})" if user else "the kernel"
        yield f"{port}/{fields[0]} {name}"


@dataclass(frozen=True)
class Check:
    """One check: its name, the nodes it is for, and the function from a row of facts to a verdict."""

    name: str
    role: str
    judge: Callable[[dict[str, Any], Cluster], Verdict]


def checks(table: pd.DataFrame, fleet: Fleet) -> show.Table:
    """Hold the facts against what the next phases need. Changes nothing.

    Args:
        table: What `preflight.facts` returned.
        fleet: The fleet.

    Returns:
        One row a node and check: node, check, ok, state (ok, warning, failed), why (what was found), remedy. A warning
        does not stop a run.

    Next: mend what failed on the node itself (`remedy`), or the params; then phase 01, `binaries.install(fleet)`.
    """
    by_node = {row["node"]: row for row in show.rows(table)}
    rows = []
    for node in fleet.cluster.nodes:
        if by_node[node.name]["why"] and isinstance(by_node[node.name]["why"], str):
            row = {"node": node.name, "check": "reachable", "ok": False, "state": "failed"}
            rows.append({**row, "why": by_node[node.name]["why"], "remedy": "bring the node up, or its SSH login"})
            continue
        for check in _CHECKS:
            if check.role and check.role not in node.roles:
                continue
            state, why, remedy = check.judge(by_node[node.name], fleet.cluster)
            ok = state != "failed"
            row = {"node": node.name, "check": check.name, "ok": ok, "state": state, "why": why}
            rows.append({**row, "remedy": "" if state == "ok" else remedy})
    return show.table(rows, ["node", "check", "ok", "state", "why", "remedy"], "Preflight checks")


def _tools(row: dict[str, Any], _: Cluster) -> Verdict:
    missing = [tool for tool in row["missing_tools"] if tool not in ("iptables", "modprobe")]
    state = "failed" if missing else "ok"
    return state, f"missing: {', '.join(missing)}" if missing else f"{len(row['tools'])} found", "install them"


def _systemd(row: dict[str, Any], _: Cluster) -> Verdict:
    # RestrictAddressFamilies, ProtectSystem=strict and `+` in ExecStartPre are older than this (systemd NEWS, 232).
    need = 232
    remedy = "a distribution with systemd 232 or later (RHEL 8, Debian 9, Ubuntu 18.04)"
    return ("ok" if row["systemd"] >= need else "failed"), f"systemd {row['systemd']}", remedy


def _arch(row: dict[str, Any], _: Cluster) -> Verdict:
    state = "ok" if row["arch"] in ("x86_64", "aarch64") else "failed"
    return state, row["arch"], "etcd and flannel are released for x86_64 and aarch64"


def _unit_dirs(row: dict[str, Any], cluster: Cluster) -> Verdict:
    missing = sorted({cluster.etcd.unit_dir, cluster.flannel.unit_dir} - set(row["unit_dirs"]))
    found = f"systemd does not read {', '.join(missing)}" if missing else "systemd reads the unit folders"
    return ("failed" if missing else "ok"), found, f"choose unit_dir from {', '.join(row['unit_dirs'][:4])}"


def _address(row: dict[str, Any], _: Cluster) -> Verdict:
    found = f"on {row['iface']}" if row["iface"] else f"no interface carries {row['host']}"
    remedy = "etcd listens on this address: name the node by an address of its own (not a NAT or floating one)"
    return ("ok" if row["iface"] else "failed"), found, remedy


def _free_space(column: str, folder: str) -> Callable[[dict[str, Any], Cluster], Verdict]:
    def judge(row: dict[str, Any], cluster: Cluster) -> Verdict:
        free = row[column]
        state = "ok" if free >= _NEEDED_FREE_BYTES else "failed"
        text = f"{free / (1 << 30):.1f} GiB free for {getattr(cluster.etcd, folder)}"
        return state, text, "etcd needs at least 1 GiB: free space, or name a folder on another disk"

    return judge


def _clock(row: dict[str, Any], _: Cluster) -> Verdict:
    offset = row["clock_offset_ms"]
    state = "ok" if abs(offset) < MAX_OFFSET_MS else "failed"
    return state, f"{offset:+.0f} ms against this machine", "run chrony or systemd-timesyncd on all machines"


def _port(port: str) -> Callable[[dict[str, Any], Cluster], Verdict]:
    def judge(row: dict[str, Any], _: Cluster) -> Verdict:
        users = [text.split(" ", 1)[1] for text in row["listeners"] if text.startswith(f"{port} ")]
        others = sorted({user for user in users if user != "ours"})
        found = f"taken by {', '.join(others)}" if others else "ours" if users else "free"
        return ("failed" if others else "ok"), found, "stop what has it: `ss -lntup` on the node"

    return judge


def _vxlan(row: dict[str, Any], _: Cluster) -> Verdict:
    state = "warning" if row["vxlan"] == "unknown" else "ok"
    return state, row["vxlan"], "modprobe vxlan; without it flanneld ends with `operation not supported`"


def _br_netfilter(row: dict[str, Any], cluster: Cluster) -> Verdict:
    if row["br_netfilter"] or not versions.needs_br_netfilter(cluster.flannel.version):
        return "ok", "there" if row["br_netfilter"] else "not needed", ""
    remedy = "modprobe br_netfilter; echo br_netfilter > /etc/modules-load.d/br_netfilter.conf"
    return "failed", "not loaded, and this flannel ends without it", remedy


def _iptables(row: dict[str, Any], _: Cluster) -> Verdict:
    remedy = "install iptables: flanneld -ip-masq calls it"
    return ("ok" if row["iptables"] else "failed"), row["iptables"] or "not in PATH", remedy


def _forwarding(row: dict[str, Any], _: Cluster) -> Verdict:
    if row["ip_forward"]:
        return "ok", "on", ""
    return "warning", "off: pods of other nodes won't be reached", "sysctl net.ipv4.ip_forward=1 (docker sets it too)"


_CHECKS = (
    Check("tools", "", _tools),
    Check("systemd", "", _systemd),
    Check("architecture", "", _arch),
    Check("unit folders", "", _unit_dirs),
    Check("own address", "", _address),
    Check("clock", "", _clock),
    Check("data disk", "etcd", _free_space("data_free_bytes", "data_dir")),
    Check("wal disk", "etcd", _free_space("wal_free_bytes", "wal_dir")),
    Check("port 2379/tcp", "etcd", _port("2379/tcp")),
    Check("port 2380/tcp", "etcd", _port("2380/tcp")),
    Check("port 8472/udp", "flannel", _port("8472/udp")),
    Check("vxlan", "flannel", _vxlan),
    Check("br_netfilter", "flannel", _br_netfilter),
    Check("iptables", "flannel", _iptables),
    Check("ip_forward", "flannel", _forwarding),
)
