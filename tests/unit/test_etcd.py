"""runbook.etcd: flags by version, the unit, and when a member may be stopped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from local_node import NODES, cluster_of, fleet_of

from runbook import errors, etcd, etcd_quorum, params, show, versions
from runbook.resources import Change

if TYPE_CHECKING:
    from runbook.fleet import Fleet
    from runbook.params import Cluster

PAIRS = [
    ("3.3.10", "0.10.0"),
    ("3.4.23", "0.17.0"),
    ("3.5.21", "0.17.0"),
    ("3.5.21", "0.26.7"),
    ("3.6.16", "0.26.7"),
    ("3.7.3", "0.26.7"),
]
TUTORIAL = {
    "name", "data-dir", "wal-dir", "cert-file", "key-file", "trusted-ca-file", "peer-cert-file", "peer-key-file",
    "peer-trusted-ca-file", "peer-client-cert-auth", "client-cert-auth", "listen-peer-urls",
    "initial-advertise-peer-urls", "listen-client-urls", "advertise-client-urls", "initial-cluster-token",
    "initial-cluster", "initial-cluster-state", "auto-compaction-mode", "auto-compaction-retention",
    "max-request-bytes", "quota-backend-bytes", "heartbeat-interval", "election-timeout",
}  # fmt: skip


def cluster_at(etcd_version: str, flannel_version: str) -> Cluster:
    return cluster_of(etcd={"version": etcd_version}, flannel={"version": flannel_version})


def unit_of(cluster: Cluster, folder: Path) -> str:
    """The unit that the plan would put on the first node."""
    plan = etcd.units(fleet_of(cluster, folder))
    change = next(c for c in plan.changes if c.node == "node1" and c.resource.endswith("etcd.service"))
    (payload,) = change.payloads()
    assert isinstance(payload.source, bytes)
    return payload.source.decode()


@pytest.mark.parametrize(("etcd_version", "flannel_version"), PAIRS)
def test_every_flag_is_one_that_this_etcd_knows(etcd_version: str, flannel_version: str) -> None:
    """All flags of the tutorial are given, none that stops this version, and none without a value."""
    cluster = cluster_at(etcd_version, flannel_version)
    flags = etcd.flags(cluster, cluster.nodes[0])
    assert set(flags) >= TUTORIAL
    assert [flag for flag in flags if not versions.etcd_supports(flag, etcd_version)] == []
    assert all(flags.values())


def test_flags_that_depend_on_versions() -> None:
    """The v2 API is asked for where flannel speaks it and etcd leaves it off; zap and who may be a peer from 3.4 on."""
    found = {pair: set(etcd.flags(cluster_at(*pair), cluster_at(*pair).nodes[0])) - TUTORIAL for pair in PAIRS}
    assert found == {
        ("3.3.10", "0.10.0"): set(),
        ("3.4.23", "0.17.0"): {"logger", "peer-cert-allowed-hostname", "enable-v2"},
        ("3.5.21", "0.17.0"): {"logger", "peer-cert-allowed-hostname", "enable-v2", "tls-min-version"},
        ("3.5.21", "0.26.7"): {"logger", "peer-cert-allowed-hostname", "tls-min-version"},
        ("3.6.16", "0.26.7"): {"logger", "peer-cert-allowed-hostname", "tls-min-version"},
        ("3.7.3", "0.26.7"): {"logger", "peer-cert-allowed-hostname", "tls-min-version"},
    }


def test_the_gateway_is_off_where_flannel_is_held_to_its_prefix() -> None:
    """It comes with the member's own certificate, whose user may do all; without the option nothing changes."""
    with_it, without = cluster_of(flannel={"rbac": True}), cluster_of()
    flags = [etcd.flags(cluster, cluster.nodes[0]) for cluster in (with_it, without)]
    assert dict(flags[0].items() - flags[1].items()) == {"enable-grpc-gateway": "false"}
    assert set(flags[1]) < set(flags[0])


def test_each_member_has_its_own_addresses() -> None:
    """Name and addresses are the node's, the cluster is the same for all, and every address is TLS."""
    cluster = cluster_of(nodes=[*NODES, {"name": "node4", "host": "198.18.0.14", "roles": ["flannel"]}])
    made = [etcd.flags(cluster, node) for node in cluster.etcd_nodes]
    assert [flags["name"] for flags in made] == ["node1", "node2", "node3"]
    assert made[1]["listen-client-urls"] == "https://198.18.0.12:2379,https://127.0.0.1:2379"
    assert made[1]["initial-advertise-peer-urls"] == "https://198.18.0.12:2380"
    (members,) = {flags["initial-cluster"] for flags in made}
    assert members == ",".join(f"node{n}=https://198.18.0.1{n}:2380" for n in (1, 2, 3))
    assert "http://" not in str(made)


@pytest.mark.parametrize(("etcd_version", "flannel_version"), PAIRS)
def test_a_rendered_unit_is_whole(etcd_version: str, flannel_version: str, tmp_path: Path) -> None:
    """No flag is empty, nothing of the template is left, and each line but the last of the command goes on."""
    unit = unit_of(cluster_at(etcd_version, flannel_version), tmp_path)
    assert not re.search(
        r"\{[{%]|[%}]\}|=\s*\\?$|None|undefined",
        unit.replace("CapabilityBoundingSet=\n", "").replace("AmbientCapabilities=\n", ""),
        re.MULTILINE,
    )
    command = re.search(r"^ExecStart=.*(?:\n  --.*)*", unit, re.MULTILINE)
    assert command is not None
    lines = command[0].splitlines()
    assert len(lines) == 1 + len(etcd.flags(cluster_at(etcd_version, flannel_version), cluster_of().nodes[0]))
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert not lines[-1].endswith("\\")
    assert unit.endswith("\n")
    assert "\n\n\n" not in unit


def test_the_unit_runs_as_etcd_and_writes_its_folders_only(tmp_path: Path) -> None:
    """User, writable folders and sandbox stand in the unit; ETCD_UNSUPPORTED_ARCH only where it is needed."""
    unit = unit_of(cluster_of(), tmp_path)
    for line in (
        "Type=notify",
        "User=etcd",
        "Group=etcd",
        "ReadWritePaths=/data/k8s/etcd",
        "NoNewPrivileges=yes",
        "Restart=always",
    ):
        assert f"\n{line}\n" in unit, line
    assert "Environment=" not in unit
    assert "\nEnvironment=ETCD_UNSUPPORTED_ARCH=arm64\n" in unit_of(cluster_at("3.4.23", "0.17.0"), tmp_path)


def test_folders_apart_are_both_writable(tmp_path: Path) -> None:
    """A WAL folder on another disk: its parent is etcd's too, since etcd renames WAL.tmp beside it."""
    cluster = cluster_of(etcd={"data_dir": "/data/etcd", "wal_dir": "/wal/etcd/wal"})
    assert "\nReadWritePaths=/data/etcd /wal/etcd\n" in unit_of(cluster, tmp_path)
    resources = [c.resource for c in etcd.units(fleet_of(cluster, tmp_path)).changes if c.node == "node1"]
    assert [name for name in resources if name.endswith("/")] == ["/wal/etcd/", "/data/etcd/", "/wal/etcd/wal/"]


def test_a_data_folder_that_is_the_wals_parent(tmp_path: Path) -> None:
    """Etcd's own way, the WAL in its data folder: each folder is made once, the outer one first."""
    cluster = cluster_of(etcd={"data_dir": "/data/etcd", "wal_dir": "/data/etcd/wal"})
    resources = [c.resource for c in etcd.units(fleet_of(cluster, tmp_path)).changes if c.node == "node1"]
    assert [name for name in resources if name.endswith("/")] == ["/data/etcd/", "/data/etcd/wal/"]


# ---- may a member be stopped


def endpoints_of(fleet: Fleet, healthy: set[str]) -> show.Table:
    rows = [{"node": node.name, "ok": node.name in healthy} for node in fleet.cluster.etcd_nodes]
    return show.table(rows, ["node", "ok"])


@pytest.mark.parametrize(
    ("size", "healthy", "allowed"),
    [(3, {1, 2, 3}, True), (3, {1, 2}, False), (3, {2, 3}, True), (3, {2}, False), (5, {1, 2, 3, 4}, True),
     (5, {2, 3, 4}, True), (5, {1, 2, 3}, False), (2, {1, 2}, False), (1, set(), True)],
)  # fmt: skip
def test_a_quorum_is_kept(
    size: int,
    healthy: set[int],
    allowed: bool,  # noqa: FBT001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """node1 may be stopped only while the others are a majority of all; a single member always."""
    nodes = [{"name": f"node{n}", "host": f"198.18.0.{10 + n}"} for n in range(1, size + 1)]
    fleet = fleet_of(cluster_of(nodes=nodes), tmp_path)
    monkeypatch.setattr(etcd_quorum, "endpoints", lambda one: endpoints_of(one, {f"node{n}" for n in healthy}))
    if allowed:
        etcd_quorum.may_stop(fleet, fleet.cluster.nodes[0])
    else:
        with pytest.raises(errors.PlanRefused, match=f"a quorum needs {size // 2 + 1}"):
            etcd_quorum.may_stop(fleet, fleet.cluster.nodes[0])


@pytest.mark.parametrize(
    ("healthy", "actions", "refused"),
    [
        ({1, 2, 3}, {1: "restart", 2: "restart", 3: "restart"}, set()),
        ({1, 2}, {1: "restart", 2: "restart", 3: "start"}, set()),
        ({1, 2}, {1: "restart", 2: "restart"}, {1, 2}),
        ({1, 2}, {3: "restart"}, set()),
        ({1, 2}, {1: "restart", 3: "restart"}, {1}),
        (set(), {1: "restart", 2: "restart", 3: "restart"}, {1, 2, 3}),
        ({1}, {2: "start", 3: "start"}, set()),
        ({1, 2}, {1: "enable"}, set()),
    ],
)
def test_a_plan_that_would_take_the_quorum_away_is_refused(
    healthy: set[int],
    actions: dict[int, str],
    refused: set[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Members that don't answer and are not started first count as down: the restarts that need them are refused."""
    fleet = fleet_of(cluster_of(), tmp_path)
    monkeypatch.setattr(etcd_quorum, "endpoints", lambda one: endpoints_of(one, {f"node{n}" for n in healthy}))
    changes = [Change("etcd.service", action, "why", node=f"node{n}") for n, action in actions.items()]
    judged = etcd_quorum.with_a_quorum(fleet, changes)
    assert [(one.node, one.action) for one in judged] == [(one.node, one.action) for one in changes]
    assert {int(one.node[-1]) for one in judged if one.refusal} == refused
    assert all("a quorum needs 2" in one.refusal for one in judged if one.refusal)


def test_a_member_that_does_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the deadline the roll stops with etcdctl's last words."""
    (tmp_path / "etcdctl").write_text("#!/bin/sh\necho 'unhealthy: took too long' >&2; exit 1\n")
    (tmp_path / "etcdctl").chmod(0o755)
    fleet = fleet_of(cluster_of().model_copy(update={"bin_dir": str(tmp_path)}), tmp_path)
    monkeypatch.setattr(etcd_quorum, "_HEALTH_TIMEOUT_S", 0)
    with pytest.raises(errors.CommandFailed, match="took too long"):
        etcd_quorum.wait_healthy(fleet, fleet.cluster.nodes[0])


def test_params_of_the_tutorial_give_its_command_line() -> None:
    """The tutorial's own cluster, etcd 3.3.10: its addresses, and no flag that 3.3 does not know."""
    cluster = params.load(Path(__file__).parents[2] / "params" / "follow-me.yaml")
    flags = etcd.flags(cluster, cluster.etcd_nodes[0])
    assert [flag for flag in flags if not versions.etcd_supports(flag, "3.3.10")] == []
    assert "192.168.27.13" in flags["initial-cluster"]
