"""Faults of etcd, made on real members: the diagnosis names node, cause and remedy; the remedy mends; nothing is lost.

The clock is the one fault that is not made for real: a container has its machine's clock.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from faults import (
    DATA,
    KEPT,
    WAL,
    Told,
    anew,
    aside,
    certificate,
    edit_unit,
    etcdctl_on,
    finishes,
    found,
    pki_folder,
    put_certificate,
    restart,
    stop,
    wrapped,
)  # fmt: skip
from practice import NODES, Practice, apply, cluster_of, loads, until

from runbook import errors, etcd, etcdctl, expect, pki, show

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbook.fleet import Fleet

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-4")]

ETCD = "02-05"
"""The phases of a cluster that has no flannel yet: what keeps a watch open delays each stop of a member."""


@pytest.fixture(scope="module")
def params(practice: Practice) -> Path:
    """The params of three members that run, with a key in them."""
    practice.make_virgin()
    path = practice.params()
    with practice.fleet(path) as fleet:
        apply(fleet, "01-04")
    return path


@pytest.fixture
def kept(practice: Practice, params: Path, fleet: Fleet) -> Iterator[None]:
    """Nothing is wrong before the test; what was written before it is there after it."""
    assert found(fleet) == {}
    etcdctl_on(practice, params, "put", KEPT, "value")
    yield
    assert etcdctl_on(practice, params, "get", KEPT, "--print-value-only") == "value"


@pytest.mark.usefixtures("kept")
def test_certificate_without_the_nodes_address(practice: Practice, params: Path, fleet: Fleet) -> None:
    """Node and address are named; phases 02 and 04 issue it anew."""
    put_certificate(practice, "node2", certificate(pki_folder(params), "node2", ("127.0.0.1",)))
    told = Told(fleet, ("node2", "the certificate lacks the node's address"))
    assert f"valid for 127.0.0.1, expected {practice.address('node2')}" in told.why("node2")
    assert "phases 02 and 04" in told.remedy("node2")
    finishes(fleet, ETCD)


@pytest.mark.usefixtures("kept")
def test_expired_certificate(practice: Practice, params: Path, fleet: Fleet) -> None:
    """Node and both dates are named; phases 02 and 04 issue it anew."""
    sans = (practice.address("node2"), "127.0.0.1")
    put_certificate(practice, "node2", certificate(pki_folder(params), "node2", sans, days=(-9, -2)))
    told = Told(fleet, ("node2", "the certificate is expired"))
    assert "the node's clock says" in told.why("node2")
    finishes(fleet, ETCD)


@pytest.mark.usefixtures("kept")
def test_another_ca_on_one_node(practice: Practice, fleet: Fleet, tmp_path: Path) -> None:
    """The node whose CA is not the others' is named; its folder moved aside, phases 02 and 04 mend it."""
    other = pki.create_authority(fleet.cluster.pki, tmp_path, name="other")
    sans = (practice.address("node3"), "127.0.0.1")
    put_certificate(practice, "node3", certificate(tmp_path, "node3", sans), other.pem)
    told = Told(fleet, ("node3", "another CA on one node"))
    assert other.fingerprint[:12] in told.why("node3")
    assert "`mv /etc/etcd/cert /etc/etcd/cert.old`" in told.remedy("node3")
    with pytest.raises(errors.PlanRefused, match="another CA"):
        apply(fleet, "02")
    practice.on("node3", "mv /etc/etcd/cert /etc/etcd/cert.old")
    finishes(fleet, ETCD)


@pytest.mark.usefixtures("kept")
def test_a_node_whose_date_says_ten_minutes_more(practice: Practice, fleet: Fleet) -> None:
    """Only what the node's `date` says is shifted: the node and its offset are named."""
    with wrapped(practice, "node2", "date", 'exec /usr/bin/date -d "10 minutes" "$@"'):
        told = Told(fleet, ("node2", "its clock is off"))
        assert "+600 s" in told.why("node2")
        assert "chrony" in told.remedy("node2")
    finishes(fleet, ETCD)


def test_leftover_data_folder_of_another_cluster(practice: Practice, params: Path, fleet: Fleet) -> None:
    """The folder and both ids are named; moved aside, the member joins, and the old data are still there."""
    anew(practice)
    apply(fleet, "03")
    flags = (
        f"--name=old --data-dir={DATA} --wal-dir={WAL} --initial-cluster=old=http://127.0.0.1:12380"
        " --listen-client-urls=http://127.0.0.1:12379 --advertise-client-urls=http://127.0.0.1:12379"
        " --listen-peer-urls=http://127.0.0.1:12380 --initial-advertise-peer-urls=http://127.0.0.1:12380"
    )
    practice.on("node2", f"systemd-run -q --uid=etcd --unit=old -p Type=notify /opt/k8s/bin/etcd {flags}")
    practice.on("node2", "/opt/k8s/bin/etcdctl --endpoints=http://127.0.0.1:12379 put old value; systemctl stop old")
    for node in NODES:
        restart(practice, node, "etcd")
    told = Told(fleet, ("node2", "data folder of another cluster"))
    assert f"{DATA} holds another cluster's data" in told.why("node2")
    assert f"mv {DATA} {DATA}.old" in told.remedy("node2")
    aside(practice, "node2")
    finishes(fleet, ETCD)
    assert practice.on("node2", f"ls {DATA}.old/member/snap/db")
    etcdctl_on(practice, params, "put", KEPT, "value")


def test_another_token_is_another_cluster(practice: Practice, fleet: Fleet) -> None:
    """A member that was bootstrapped with another token: both tokens and ids are named."""
    anew(practice)
    apply(fleet, "03")
    edit_unit(practice, "node2", "etcd", "s/--initial-cluster-token=[^ ]*/--initial-cluster-token=other/")
    for node in ("node1", "node3"):
        restart(practice, node, "etcd")
    told = Told(fleet, ("node2", "cluster id mismatch"))
    assert "--initial-cluster-token is other, expected etcd-cluster-0" in told.why("node2")
    aside(practice, "node2")
    finishes(fleet, ETCD)


@pytest.mark.usefixtures("kept")
def test_a_member_without_its_data_is_known_already(practice: Practice, params: Path, fleet: Fleet) -> None:
    """The start that fails names cause and remedy itself; removed and added, the member gets its data again."""
    aside(practice, "node2")
    apply(fleet, "03")
    cause = "the cluster knows this member, and its data folder is empty"
    with pytest.raises(errors.ApplyFailed, match=cause) as caught:
        apply(fleet, "04")
    told = Told(fleet, ("node2", cause))
    assert "etcdctl member remove" in told.remedy("node2")
    assert "etcdctl member remove" in str(caught.value)
    stop(practice, "node2")
    (member,) = [row["member_id"] for row in show.rows(etcd.members(fleet)) if row["node"] == "node2"]
    etcdctl_on(practice, params, "member", "remove", member)
    add = ("member", "add", "node2", f"--peer-urls=https://{practice.address('node2')}:2380")
    until(lambda: "added to cluster" in practice.on("node1", _quietly(params, *add)))
    aside(practice, "node2")
    apply(fleet, "03")
    edit_unit(practice, "node2", "etcd", "s/--initial-cluster-state=new/--initial-cluster-state=existing/")
    until(lambda: practice.on("node2", "systemctl is-active etcd || true") == "active")
    finishes(fleet, ETCD)


def _quietly(params: Path, *words: str) -> str:
    """An etcdctl call that may fail: a cluster takes no new member within 5 s of losing one."""
    return f"{etcdctl.command(cluster_of(params), *words)} 2>&1 || true"


@pytest.mark.usefixtures("kept")
def test_a_port_that_is_taken(practice: Practice, fleet: Fleet) -> None:
    """Node, port and who has it are named; once that is stopped, phase 04 goes on."""
    stop(practice, "node2")
    address = practice.address("node2")
    practice.on("node2", f"systemd-run -q --unit=squatter --socket-property=ListenStream={address}:2379 sleep 600")
    try:
        restart(practice, "node2", "etcd")
        told = Told(fleet, ("node2", "its port is taken"))
        # systemd has it until somebody connects, then what it starts.
        assert re.search(r"2379/tcp (systemd|sleep) \(pid \d+\)", told.why("node2"))
    finally:
        practice.on("node2", "systemctl stop squatter.socket squatter.service")
    finishes(fleet, ETCD)


@pytest.mark.usefixtures("kept")
def test_an_address_that_is_not_on_the_node(practice: Practice, fleet: Fleet) -> None:
    """A unit that listens on an address that the node does not have: both are named; phases 03 and 04 mend it."""
    foreign = practice.address("node1").rsplit(".", 1)[0] + ".61"
    edit_unit(practice, "node2", "etcd", f"s#--listen-peer-urls=https://[0-9.]*#--listen-peer-urls=https://{foreign}#")
    told = Told(fleet, ("node2", "it listens on an address that is not on the node"))
    assert foreign in told.why("node2")
    assert "phases 03 and 04" in told.remedy("node2")
    finishes(fleet, ETCD)


@pytest.mark.usefixtures("kept")
def test_a_full_data_disk(practice: Practice, params: Path, fleet: Fleet) -> None:
    """A member whose disk is full goes down: node and folders are named; with space again it catches up."""
    stop(practice, "node2")
    disk = "/data/k8s/etcd"
    practice.on("node2", f"cp -a {disk} /data/k8s/kept; mount -t tmpfs -o size=140m,mode=700,uid=etcd tmpfs {disk}")
    try:
        practice.on("node2", f"cp -a /data/k8s/kept/. {disk}; systemctl start etcd")
        practice.on("node2", f"cat /dev/zero >{disk}/ballast 2>/dev/null || true")
        value = "v" * 90_000
        for number in range(12):
            etcdctl_on(practice, params, "put", f"/big/{number}", value)
        told = Told(fleet, ("node2", "the disk is full"))
        assert f"0 MiB free for {DATA}" in told.why("node2")
        assert "free space" in told.remedy("node2")
        practice.on("node2", f"rm {disk}/ballast; mount -o remount,size=400m {disk}")
        finishes(fleet, ETCD)
        assert etcdctl_on(practice, params, "get", "/big/11", "--print-value-only", node="node2") == value
    finally:
        stop(practice, "node2")
        practice.on("node2", f"cp -a {disk}/. /data/k8s/kept; umount {disk}; cp -a /data/k8s/kept/. {disk}")
        practice.on("node2", "rm -rf /data/k8s/kept; systemctl start etcd")
    etcdctl_on(practice, params, "del", "/big/", "--prefix")


@pytest.mark.usefixtures("kept")
def test_a_database_over_its_quota(practice: Practice, params: Path, fleet: Fleet) -> None:
    """The member with the alarm and its quota are named; compacted, defragmented and disarmed it takes writes again."""
    edit_unit(practice, "node2", "etcd", "s/--quota-backend-bytes=[0-9]*/--quota-backend-bytes=2500000/")
    until(lambda: practice.on("node2", "systemctl is-active etcd || true") == "active")
    put = _quietly(params, "put", "/big/same", "VALUE").replace("VALUE", '"$value"')
    practice.on("node2", f"value=$(head -c 90000 /dev/zero | tr '\\0' v); for i in $(seq 30); do {put}; done")
    told = Told(fleet, ("node2", "the database is over its quota"))
    assert "its quota is 2500000" in told.why("node2")
    assert "alarm disarm" in told.remedy("node2")
    revision = etcdctl_on(practice, params, "get", KEPT, "-w", "json").split('"revision":')[1].split(",")[0]
    etcdctl_on(practice, params, "compact", revision)
    etcdctl_on(practice, params, "defrag", "--cluster")
    etcdctl_on(practice, params, "alarm", "disarm")
    finishes(fleet, ETCD)


@pytest.mark.usefixtures("kept")
def test_a_member_that_is_down(practice: Practice, params: Path, fleet: Fleet) -> None:
    """One row, by `runbook diagnose` too, in JSON with exit status 1; nothing is changed; up again, the status is 0."""
    stop(practice, "node3")
    told = Told(fleet, ("node3", "etcd is stopped"))
    assert "phase 04" in told.remedy("node3")
    before = practice.traces()
    done = practice.cli("diagnose", params, "--json")
    assert done.returncode == 1, done.stderr
    rows = [row for row in loads(done)["causes"] if row["cause"] != "flanneld is not installed"]
    assert [(row["node"], row["cause"]) for row in rows] == [("node3", "etcd is stopped")]
    assert practice.traces() == before
    endpoints = etcd.endpoints(fleet)
    with pytest.raises(errors.CheckFailed, match="node3: etcd is stopped"):
        expect(endpoints, "every endpoint is healthy")
    finishes(fleet, ETCD)


def test_two_members_down(practice: Practice, params: Path, fleet: Fleet) -> None:
    """Both are named, and that the quorum is lost; what was written before is there when they are up again."""
    etcdctl_on(practice, params, "put", KEPT, "value")
    for node in ("node2", "node3"):
        stop(practice, node)
    told = Told(
        fleet, ("node2", "etcd is stopped"), ("node3", "etcd is stopped"), ("(cluster)", "the cluster has no quorum")
    )
    assert "1 of 3 members serve, a quorum needs 2: node2, node3 down" in told.why("(cluster)")
    finishes(fleet, ETCD)
    assert etcdctl_on(practice, params, "get", KEPT, "--print-value-only") == "value"


def test_a_node_that_is_off_is_a_cause_and_the_others_are_looked_at(practice: Practice, params: Path) -> None:
    """With one node's power cut the rest is looked at; one row for it, none for what follows from it."""
    path = practice.params(ssh={"connect_timeout_s": 2})
    practice.sandbox.stop("node3")
    try:
        with practice.fleet(path, partial=True) as partly:
            Told(partly, ("node3", "the node can't be asked"))
    finally:
        practice.sandbox.start("node3")
    with practice.fleet(params) as again:
        finishes(again, ETCD)
