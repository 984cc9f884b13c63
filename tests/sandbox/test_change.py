"""A cluster that serves is changed one member at a time, and loses nothing of what it acknowledged."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest
from practice import NODES, Practice, apply, cluster_of, until, wrong

from runbook import etcdctl, show

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-2")]

UNIT = "/etc/systemd/system/etcd.service"
FLAG = "/run/writer"
"""The writer goes on for as long as this file is there."""


class Down(NamedTuple):
    """When a member was not serving, in seconds since this machine's boot (the nodes share its clock)."""

    start: float
    end: float


def downs(practice: Practice) -> list[Down]:
    """When each node's etcd went down last, and was ready again; in the order of time."""
    found = []
    for node in NODES:
        said = practice.on(
            node, "systemctl show --value -p ActiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic etcd"
        )
        enter, leave = sorted(map(int, said.split()), reverse=True)
        found.append(Down(leave / 1e6, enter / 1e6))
    return sorted(found)


def pids(practice: Practice) -> set[str]:
    """The main process of each node's etcd."""
    return {f"{node} {practice.on(node, 'systemctl show --value -p MainPID etcd')}" for node in NODES}


@contextmanager
def writer(practice: Practice, params: Path, out: Path) -> Iterator[None]:
    """Write key after key through all endpoints; `out` gets a line for each that etcd acknowledged: number and time."""
    put = etcdctl.command(cluster_of(params), "put", "/writer/KEY", "value").replace("/writer/KEY", '/writer/"$i"')
    loop = f"touch {FLAG}; i=0; while [ -e {FLAG} ]; do i=$((i+1))"
    loop += f"; {put} >/dev/null 2>&1 && echo $i $(cut -d' ' -f1 /proc/uptime); done; true"
    with (
        out.open("w", encoding="ascii") as file,
        subprocess.Popen(practice.sandbox.ssh_command("node2", loop), stdin=subprocess.DEVNULL, stdout=file) as process,
    ):
        try:
            until(lambda: len(out.read_text(encoding="ascii").splitlines()) > 3)
            yield
            practice.on("node2", f"rm {FLAG}")
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


@pytest.fixture
def members(virgin: Practice) -> Path:
    """The params of three members that run; no flannel, whose open watches each stop of etcd waits 10 s for."""
    path = virgin.params()
    with virgin.fleet(path) as fleet:
        apply(fleet, "01-04")
    return path


def test_a_changed_unit_is_rolled_while_a_writer_loses_nothing(
    practice: Practice, members: Path, tmp_path: Path
) -> None:
    """All members restart, never two of them down at once; writing goes on, and what was acknowledged is there."""
    for node in NODES:
        practice.on(node, f"echo '# by hand' >>{UNIT}")
    before, out = pids(practice), tmp_path / "acknowledged"
    with practice.fleet(members) as fleet:
        with writer(practice, members, out):
            results = apply(fleet, "03-04")
        assert [row["action"] for row in show.rows(results["etcd_units"])] == ["change"] * 3
        assert [(r["action"], r["result"]) for r in show.rows(results["etcd_start"])] == [("restart", "done")] * 3
        assert wrong(fleet, "03-05") == []
    assert not pids(practice) & before
    times = downs(practice)
    assert all(one.end < other.start for one, other in pairwise(times)), times
    lines = [line.split() for line in out.read_text(encoding="ascii").splitlines()]
    assert any(times[0].start < float(at) < times[-1].end for _, at in lines)
    get = etcdctl.command(cluster_of(members), "get", "/writer/", "--prefix", "--keys-only")
    kept = set(practice.on("node1", get).split())
    assert {f"/writer/{number}" for number, _ in lines} <= kept


@pytest.mark.usefixtures("members")
def test_new_certificates_are_taken_up_one_member_at_a_time(practice: Practice) -> None:
    """Another subject in the params: all certificates are issued anew, and each etcd takes its own before the next."""
    before = pids(practice)
    path = practice.params(pki={"subject": {"O": "k8s", "OU": "second"}})
    with practice.fleet(path) as fleet:
        results = apply(fleet, "02,04")
        assert [row["action"] for row in show.rows(results["etcd_certs"])] == ["renew"] * 3
        assert wrong(fleet, "02,04-05") == []
    assert not pids(practice) & before
    times = downs(practice)
    assert all(one.end < other.start for one, other in pairwise(times)), times
