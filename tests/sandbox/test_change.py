"""A cluster that serves is changed one member at a time, and loses nothing of what it acknowledged."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest
from practice import NODES, Practice, apply, cluster_of, until, wrong
from soak import writing

from runbook import errors, show
from runbook.journal import Step

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.journal import Pulse

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-2")]

UNIT = "/etc/systemd/system/etcd.service"


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
    before = pids(practice)
    with practice.fleet(members) as fleet:
        with writing(practice, cluster_of(members), tmp_path) as writer:
            results = apply(fleet, "03-04")
        assert [row["action"] for row in show.rows(results["etcd_units"])] == ["change"] * 3
        assert [(r["action"], r["result"]) for r in show.rows(results["etcd_start"])] == [("restart", "done")] * 3
        assert wrong(fleet, "03-05") == []
    assert not pids(practice) & before
    times = downs(practice)
    assert all(one.end < other.start for one, other in pairwise(times)), times
    assert any(times[0].start < write.at < times[-1].end for write in writer.acknowledged)
    assert writer.lost == []


@pytest.mark.parametrize(
    ("lost", "node", "step", "why"),
    [
        ("node2", "node2", "restart etcd.service started", "connection broke|answer|reached|timed out"),
        ("node3", "node1", "healthy done", "would leave 1 healthy members, a quorum needs 2"),
    ],
    ids=["the node that restarts", "the node after it"],
)
def test_a_node_lost_in_the_middle_ends_the_roll(
    practice: Practice, members: Path, tmp_path: Path, lost: str, node: str, step: str, why: str
) -> None:
    """No further member is stopped, so the others serve: writing goes on, nothing is lost; a plain run finishes it."""
    for name in NODES:
        practice.on(name, f"echo '# by hand' >>{UNIT}")
    others = [name for name in NODES if name not in ("node1", lost)]
    before = dict(line.split() for line in pids(practice))
    with practice.fleet(members) as fleet:
        apply(fleet, "03")
        cut: list[float] = []

        def hear(told: Step | Pulse) -> None:
            if isinstance(told, Step) and (told.node, f"{told.step} {told.state}") == (node, step) and not cut:
                practice.sandbox.stop(lost)
                cut.append(time.monotonic())

        fleet.journal.listen(hear)
        with writing(practice, cluster_of(members), tmp_path) as writer:
            with pytest.raises(errors.ApplyFailed, match=why) as caught:
                apply(fleet, "04")
            until(lambda: writer.acknowledged[-1].at > cut[0])
            (other,) = others
            running = practice.on(other, "systemctl show --value -p MainPID etcd")
            assert running == before[other], caught.value
            practice.sandbox.start(lost)
        assert writer.lost == []
    with practice.fleet(members) as fleet:
        until(lambda: not wrong(fleet, "05"), within_s=60)
        results = apply(fleet, "03-04")
        assert {row["node"] for row in show.rows(results["etcd_start"])} >= set(others)
        assert wrong(fleet, "03-05") == []


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
