"""Why etcd does not do as it should: each cause is a function from the case to what it finds; nothing is asked here."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from runbook import etcd_state, versions
from runbook.diagnosis.case import CLUSTER, ETCD, HERE, NODE, ROOT, STATE, STORE, Cause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.diagnosis.case import Case

MAX_OFFSET_MS = 1000
#: etcd allocates a WAL file of 64 MB at once (wal.SegmentSizeBytes).
NEEDED_BYTES = 64 << 20
_UNITS_AGAIN = "run phases 03 and 04: they write the unit as the params have it, and start it"


def unreachable(case: Case) -> Iterator[Cause]:
    """A node that can't be asked."""
    for name, one in case.nodes.items():
        if one.error:
            remedy = "bring it up, or its SSH login; what it runs can't be looked at until then"
            yield Cause(name, "the node can't be asked", one.error, remedy, "unreachable", NODE)


def clocks(case: Case) -> Iterator[Cause]:
    """A clock that differs from most others by more than a second; this machine's is one of them."""
    offsets = {name: one.offset_ms for name, one in case.nodes.items() if not one.error}
    ordered = sorted([0.0, *offsets.values()])
    middle = ordered[len(ordered) // 2]
    expected = f"within {MAX_OFFSET_MS} ms"
    remedy = "run chrony or systemd-timesyncd there (`timedatectl`), then `chronyc makestep`"
    for name, offset in {**offsets, HERE: 0.0}.items():
        if abs(offset - middle) > MAX_OFFSET_MS:
            why = f"it is {(offset - middle) / 1000:+,.0f} s off most of the other clocks, expected {expected}"
            yield Cause(name, "its clock is off", why, remedy, "clocks-differ", NODE)


def full_disk(case: Case) -> Iterator[Cause]:
    """No room for the next WAL file, or none at all for binaries."""
    etcd = case.cluster.etcd
    for one in case.members:
        full = {}
        for key, path, need in (
            ("data", etcd.data_dir, NEEDED_BYTES),
            ("wal", etcd.wal_dir, NEEDED_BYTES),
            ("bin", case.cluster.bin_dir, 1 << 20),
        ):
            free = one.free_bytes(key)
            if free is not None and free < need:
                full[path] = f"{free / (1 << 20):.0f} MiB free for {path}, expected {need >> 20} MiB or more"
        if full:
            remedy = "free space on that disk (`du -xh --max-depth=3`), or put the folder on another; then run phase 04"
            yield Cause(one.node.name, "the disk is full", "; ".join(full.values()), remedy, "disk-full", ETCD)


def port_taken(case: Case) -> Iterator[Cause]:
    """2379 or 2380 is another process's while etcd does not run."""
    for one in case.members:
        taken = [
            text
            for text in one.facts.get("listeners", ())
            if text.startswith(("2379/tcp", "2380/tcp")) and not text.endswith(" ours")
        ]
        if taken and not one.etcd.active:
            why = f"{', '.join(taken)}; expected etcd.service or nothing there"
            remedy = "stop what has it (`ss -lntp`, `systemctl stop UNIT`), then run phase 04"
            yield Cause(one.node.name, "its port is taken", why, remedy, "port-taken", ETCD)


def address(case: Case) -> Iterator[Cause]:
    """The node, or what its unit listens on, is no address of the node's own."""
    for one in case.nodes.values():
        if one.error:
            continue
        name, host, own = one.node.name, one.node.host, one.kernel.addresses
        remedy = (
            "name the node by an address of its own (`ip -4 addr`), not by a NAT or floating one; run phases 03, 04"
        )
        if not one.facts.get("iface"):
            why = f"no interface carries {host}; it has {', '.join(sorted(own)) or 'none'}"
            yield Cause(name, "its address is not on the node", why, remedy, "address-not-on-the-node", NODE)
            continue
        urls = [one.etcd.flags.get(flag, "") for flag in ("listen-peer-urls", "listen-client-urls")]
        dialled = set(re.findall(r"//([0-9.]+):", ",".join(urls)))
        if foreign := sorted(dialled - own - {"0.0.0.0"}):  # noqa: S104 - all addresses, as a flag's value
            why = f"etcd.service listens on {', '.join(foreign)}, expected one of {', '.join(sorted(own))}"
            yield Cause(
                name, "it listens on an address that is not on the node", why, _UNITS_AGAIN, "address-not-on-the-node",
                ETCD,
            )  # fmt: skip


def other_cluster(case: Case) -> Iterator[Cause]:
    """A member with another cluster's id: by its unit's token or members, or by data that were there before."""
    etcd = case.cluster.etcd
    by_flags: dict[str, tuple[str, str]] = {
        one.node.name: (one.etcd.flags["initial-cluster-token"], one.etcd.flags.get("initial-cluster", ""))
        for one in case.members
        if "initial-cluster-token" in one.etcd.flags
    }
    most = Counter(by_flags.values()).most_common(1)
    for name, found in case.cluster_ids.items():
        if not case.cluster_id or found == case.cluster_id:
            continue
        ids = f"its cluster's id is {found}, expected {case.cluster_id} as most members have"
        aside = f"`systemctl stop etcd; mv {etcd.data_dir} {etcd.data_dir}.old; mv {etcd.wal_dir} {etcd.wal_dir}.old`"
        flags, wanted = by_flags.get(name), most[0][0] if most else None
        if flags and wanted and flags != wanted:
            what = "--initial-cluster-token" if flags[0] != wanted[0] else "--initial-cluster"
            differ = (flags[0], wanted[0]) if flags[0] != wanted[0] else (flags[1], wanted[1])
            why = f"{ids}: {what} is {differ[0]}, expected {differ[1]}"
            remedy = f"on {name}: {aside}, then run phases 03 and 04"
            yield Cause(name, "cluster id mismatch", why, remedy, "data-of-another-cluster", ETCD)
        else:
            why = f"{ids}: {etcd.data_dir} holds another cluster's data"
            remedy = (
                f"see that nobody needs them, then on {name}: {aside}, and run phases 03 and 04; should etcd then say"
                " that the member has already been bootstrapped, this command tells how to go on"
            )
            yield Cause(name, "data folder of another cluster", why, remedy, "data-of-another-cluster", ETCD)


def alarms(case: Case) -> Iterator[Cause]:
    """A database over its quota, or one that is damaged."""
    raised = {
        (f"{int(number):x}", alarm)
        for one in case.members
        for number, alarm in re.findall(r"memberID:(\d+) alarm:(\w+)", one.said.get("alarms", ""))
    }
    ids = {
        f"{int(status['header']['member_id']):x}": name for name, status in case.status.items() if "header" in status
    }
    for number, alarm in sorted(raised):
        name = ids.get(number, CLUSTER)
        if alarm == "NOSPACE":
            status = case.status.get(name, {})
            quota = status.get("dbSizeQuota") or case.nodes[name].etcd.flags.get("quota-backend-bytes", "its quota")
            why = f"alarm NOSPACE of member {number}: {status.get('dbSize', '?')} bytes, its quota is {quota}"
            remedy = (
                "`etcdctl compact REVISION` (the newest of `endpoint status`), `etcdctl defrag --cluster`,"
                " `etcdctl alarm disarm`; then see what fills it, or raise --quota-backend-bytes"
            )
            yield Cause(name, "the database is over its quota", why, remedy, "database-over-its-quota", STORE)
        else:
            why = f"alarm {alarm} of member {number}: its data differ from the other members'"
            remedy = "stop it, move its data aside, `etcdctl member remove` and `member add` it anew"
            yield Cause(name, "the database is damaged", why, remedy, "etcd-does-not-answer", STORE)


def members(case: Case) -> Iterator[Cause]:
    """The cluster's own list of members, against the params."""
    listed = next(
        (found["members"] for one in case.members if one.node.name in case.healthy and (found := one.json("members"))),
        None,
    )
    for row in etcd_state.member_rows(case.cluster, listed) if listed else ():
        if not row["ok"]:
            yield Cause(
                row["node"] or CLUSTER, "members and params differ", row["why"], row["remedy"],
                "member-without-its-data", ETCD, STATE,
            )  # fmt: skip


def without_v2(case: Case) -> Iterator[Cause]:
    """An old flannel needs API 2 of etcd, which 3.4 and 3.5 only speak when told to, and 3.6 not at all."""
    if case.api != 2:  # noqa: PLR2004 - etcd's API versions
        return
    needs = "flannel below 0.18 speaks only API 2"
    for one in case.members:
        version = str(case.status.get(one.node.name, {}).get("version") or case.cluster.etcd.version)
        if not versions.etcd_has_v2(version):
            why = f"{needs}, etcd {version} has none"
            remedy = "flannel 0.18 or newer, or etcd 3.5 with --enable-v2"
        elif one.etcd.flags and versions.etcd_v2_flag(version) and one.etcd.flags.get("enable-v2") != "true":
            why = f"{needs}; etcd.service on {one.node.name} has no --enable-v2=true"
            remedy = "run phases 03 and 04: they write it into the unit and restart one member at a time; then phase 09"
        else:
            continue
        yield Cause(
            one.node.name, "etcd without v2 under an old flannel", why, remedy, "flannel-finds-no-config", STORE
        )


def quorum(case: Case) -> Iterator[Cause]:
    """So many members don't serve that the rest has no majority."""
    up = [
        node.name
        for node in case.cluster.etcd_nodes
        if node.name in case.status and case.cluster_ids.get(node.name) == case.cluster_id
    ]
    down = [node.name for node in case.cluster.etcd_nodes if node.name not in up]
    built = any(one.etcd.loaded for one in case.members)
    if built and len(up) < case.quorum:
        many = len(case.cluster.etcd_nodes)
        why = f"{len(up)} of {many} members serve, a quorum needs {case.quorum}: {', '.join(down)} down"
        remedy = "bring these up first, all at once (phase 04); nothing is lost while their data folders are there"
        yield Cause(CLUSTER, "the cluster has no quorum", why, remedy, "quorum-lost", STORE, ROOT)


RULES = (
    unreachable, clocks, full_disk, port_taken, address, other_cluster, alarms, members, without_v2, quorum,
)  # fmt: skip
