"""runbook.preflight: facts parsed, captured from a practice node; each check's good and bad case."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from local_node import NODES, cluster_of, fleet_of, local

from runbook import errors, preflight, preflight_script, show
from runbook.fleet import Fleet

if TYPE_CHECKING:
    from runbook.params import Cluster

HERE = Path(__file__).parent / "test_preflight"
CAPTURED = (HERE / "node1.txt").read_text()
CLUSTER = cluster_of()
CLOCK = float(
    base64.b64decode(next(line for line in CAPTURED.splitlines() if line.startswith("clock=")).partition("=")[2])
)


def row_of(clock: float = CLOCK, **changed: str) -> dict[str, Any]:
    """The facts of the captured node, with other output of some commands."""
    said = dict(line.split("=", 1) for line in CAPTURED.splitlines())
    said |= {key: base64.b64encode(value.encode()).decode() for key, value in changed.items()}
    return preflight.described(
        CLUSTER.nodes[0], "\n".join(f"{key}={value}" for key, value in said.items()), (clock, clock)
    )


def verdicts(row: dict[str, Any], cluster: Cluster = CLUSTER) -> dict[str, dict[str, Any]]:
    """What the checks say of one node with these facts, by the check's name."""
    fleet = Fleet(cluster.model_copy(update={"nodes": cluster.nodes[:1]}), {})
    return {told["check"]: told for told in show.rows(preflight.checks(show.table([row], preflight._COLUMNS), fleet))}


# ---- facts


def test_facts_are_read() -> None:
    """Each fact of the captured node."""
    row = row_of()
    tools = row.pop("tools")
    assert "/usr/sbin/ip" in tools
    assert row.pop("unit_dirs")[0].startswith("/")
    assert row == {
        "node": "node1", "host": "198.18.0.11", "distribution": "Debian GNU/Linux 12 (bookworm)",
        "kernel": row["kernel"], "arch": "x86_64", "systemd": 252, "missing_tools": [], "iface": "eth0",
        "iptables": "/usr/sbin/iptables", "data_free_bytes": 78350684 * 1024, "wal_free_bytes": 78350684 * 1024,
        "clock_offset_ms": 0.0, "vxlan": "built in", "br_netfilter": True, "ip_forward": True,
        "listeners": ["8472/udp ours", "2379/tcp ours", "2380/tcp ours", "2379/tcp ours"],
    }  # fmt: skip


def test_the_script_is_valid_sh() -> None:
    """What is sent to a node parses, with any folder."""
    script = preflight_script.probe(cluster_of(etcd={"data_dir": "/data/a=b,c@d/e"}))
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0


def test_facts_of_this_machine(tmp_path: Path) -> None:
    """The script runs by a real sh, and its answer parses: one row, with this machine's kernel and clock."""
    fleet = fleet_of(cluster_of(nodes=NODES[:1]), tmp_path)
    (row,) = show.rows(preflight.facts(fleet))
    assert row["kernel"] == subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    assert abs(row["clock_offset_ms"]) < 1000
    assert row["iface"] == ""
    assert row["data_free_bytes"] > 0


@pytest.mark.parametrize(
    ("sockets", "links", "pids", "listeners"),
    [
        ("", "", [], []),
        (
            'tcp LISTEN 0 128 0.0.0.0:2379 0.0.0.0:* users:(("nginx",pid=12,fd=3))',
            "",
            ["0"],
            ["2379/tcp nginx (pid 12)"],
        ),
        ('tcp LISTEN 0 128 [::]:2380 [::]:* users:(("etcd",pid=12,fd=3))', "", ["12", "0"], ["2380/tcp ours"]),
        ("udp UNCONN 0 0 0.0.0.0:8472 0.0.0.0:*", "", [], ["8472/udp the kernel"]),
        ("udp UNCONN 0 0 0.0.0.0:8472 0.0.0.0:*", "3: flannel.1: <UP>", [], ["8472/udp ours"]),
        ("udp UNCONN 0 0 0.0.0.0:2379 0.0.0.0:*\ntcp LISTEN 0 128 0.0.0.0:22379 0.0.0.0:*\ngarbage\n\n", "", [], []),
    ],
)
def test_listeners_are_told_apart(sockets: str, links: str, pids: list[str], listeners: list[str]) -> None:
    """Who has a port of ours: ourselves, another program by its name, or the kernel; other ports don't matter."""
    assert list(preflight._listeners(sockets, links, pids)) == listeners


@pytest.mark.parametrize(
    ("df", "free"), [("/dev/sda1 100 40 60 40% /", 61440), ("", 0), ("df: no such file", 0), ("a b c -", 0)]
)
def test_free_space(df: str, free: int) -> None:
    """The fourth field of POSIX df, in bytes; what is none is nothing."""
    assert preflight._free(df) == free


# ---- checks


def test_the_captured_node_is_ready() -> None:
    """On a good node each check holds, and none has a remedy."""
    told = verdicts(row_of())
    assert {name: one["state"] for name, one in told.items()} == dict.fromkeys(told, "ok")
    assert {one["remedy"] for one in told.values()} == {""}
    assert len(told) == len(preflight._CHECKS)


OTHER = 'tcp LISTEN 0 128 0.0.0.0:{} 0.0.0.0:* users:(("nginx",pid=12,fd=3))'


@pytest.mark.parametrize(
    ("check", "changed", "state", "why"),
    [
        ("tools", {"tools": "/usr/bin/tar\nmissing gzip\nmissing ping"}, "failed", "missing: gzip, ping"),
        ("tools", {"tools": "/usr/bin/tar\nmissing modprobe"}, "ok", "1 found"),
        ("systemd", {"systemd": "systemd 219"}, "failed", "systemd 219"),
        ("systemd", {"systemd": ""}, "failed", "systemd 0"),
        ("systemd", {"systemd": "systemd 232 (232-25+deb9u14)"}, "ok", "systemd 232"),
        ("architecture", {"machine": "riscv64"}, "failed", "riscv64"),
        ("architecture", {"machine": "aarch64"}, "ok", "aarch64"),
        ("unit folders", {"unit_path": "/usr/lib/systemd/system"}, "failed",
         "systemd does not read /etc/systemd/system"),
        ("own address", {"addresses": "2: eth0    inet 10.0.0.4/24 scope global eth0"}, "failed",
         "no interface carries 198.18.0.11"),
        ("own address", {"addresses": "2: eth0    inet 198.18.0.110/24 scope global eth0"}, "failed",
         "no interface carries 198.18.0.11"),
        ("data disk", {"data_free": "/dev/sda1 100 40 1048575 40% /"}, "failed",
         "1.0 GiB free for /data/k8s/etcd/data"),
        ("data disk", {"data_free": "/dev/sda1 100 40 1048576 40% /"}, "ok", "1.0 GiB free for /data/k8s/etcd/data"),
        ("wal disk", {"wal_free": ""}, "failed", "0.0 GiB free for /data/k8s/etcd/wal"),
        ("port 2379/tcp", {"listeners": OTHER.format(2379)}, "failed", "taken by nginx (pid 12)"),
        ("port 2380/tcp", {"listeners": OTHER.format(2380)}, "failed", "taken by nginx (pid 12)"),
        ("port 2380/tcp", {"listeners": OTHER.format(2379)}, "ok", "free"),
        ("port 8472/udp", {"vxlan_links": "4: vxlan0: <UP>"}, "failed", "taken by the kernel"),
        ("vxlan", {"vxlan": ""}, "warning", "unknown"),
        ("vxlan", {"vxlan": "loadable"}, "ok", "loadable"),
        ("br_netfilter", {"br_netfilter": "no"}, "failed", "not loaded, and this flannel ends without it"),
        ("iptables", {"tools": "/usr/bin/tar\nmissing iptables"}, "failed", "not in PATH"),
        ("ip_forward", {"ip_forward": "0"}, "warning", "off: pods of other nodes won't be reached"),
    ],
)  # fmt: skip
def test_each_check_has_its_verdict(check: str, changed: dict[str, str], state: str, why: str) -> None:
    """What was found is told; where it does not hold, or hardly, there is a remedy too."""
    told = verdicts(row_of(**changed))[check]
    assert (told["state"], told["why"], told["ok"]) == (state, why, state != "failed")
    assert bool(told["remedy"]) == (state != "ok")


@pytest.mark.parametrize(("offset_s", "state"), [(0.9, "ok"), (-0.9, "ok"), (1.1, "failed"), (-3600, "failed")])
def test_clocks_may_differ_by_less_than_a_second(offset_s: float, state: str) -> None:
    """Ahead or behind, a second is too much."""
    assert verdicts(row_of(CLOCK + offset_s))["clock"]["state"] == state


def test_a_node_that_does_not_answer_has_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is down is one failing row; the facts and checks of the others stay as they are."""
    fleet = fleet_of(CLUSTER, tmp_path)

    def down(*_: object, **__: object) -> None:
        raise errors.Unreachable("no answer within 10 s", node="node2")

    monkeypatch.setattr(local(fleet)["node2"], "run", down)
    facts = preflight.facts(fleet)
    assert {row["node"]: row["why"] for row in show.rows(facts) if isinstance(row["why"], str) and row["why"]} == {
        "node2": "no answer within 10 s"
    }
    told = [row for row in show.rows(preflight.checks(facts, fleet)) if row["node"] == "node2"]
    assert [(row["ok"], row["why"]) for row in told] == [(False, "no answer within 10 s")]
    alone = preflight.facts(fleet_of(cluster_of(nodes=NODES[:1]), tmp_path))
    good = {row["check"]: row["state"] for row in show.rows(preflight.checks(facts, fleet)) if row["node"] == "node1"}
    assert good == {
        row["check"]: row["state"] for row in show.rows(preflight.checks(alone, Fleet(cluster_of(nodes=NODES[:1]), {})))
    }


def test_an_old_flannel_needs_no_br_netfilter() -> None:
    """Below 0.26 the module is not asked for."""
    old = cluster_of(etcd={"version": "3.5.21"}, flannel={"version": "0.17.0"})
    assert verdicts(row_of(br_netfilter="no"), old)["br_netfilter"]["state"] == "ok"


@pytest.mark.parametrize(("role", "left_out"), [("etcd", "vxlan"), ("flannel", "data disk")])
def test_checks_are_those_of_the_nodes_roles(role: str, left_out: str) -> None:
    """A node is held only against what its roles need."""
    both = [{**NODES[0], "roles": [role]}, {**NODES[1], "roles": ["etcd", "flannel"]}]
    told = verdicts(row_of(), cluster_of(nodes=both))
    assert left_out not in told
    assert "tools" in told
