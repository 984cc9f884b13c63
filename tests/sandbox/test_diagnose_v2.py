"""Faults between the two APIs of etcd, made on the older line: etcd 3.5, which speaks v2 when it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from faults import Told, etcdctl_on, finishes, found, restart
from practice import NODES, Practice, apply, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-4")]

CONFIG = "/kubernetes/network/config"
V2 = {"etcd": {"version": "3.5.21"}, "flannel": {"version": "0.17.0"}}


@pytest.fixture(scope="module")
def params(practice: Practice) -> Path:
    """The params of a complete cluster of the older line."""
    practice.make_virgin()
    path = practice.params(**V2)
    with practice.fleet(path) as fleet:
        apply(fleet)
    return path


def test_etcd_without_v2_under_an_old_flannel(practice: Practice, params: Path) -> None:
    """Every member without --enable-v2 is named; phases 03 and 04 write it again, and flannel goes on."""
    with practice.fleet(params) as fleet:
        assert found(fleet) == {}
        for node in NODES:
            practice.on(node, "sed -i s/--enable-v2=true/--enable-v2=false/ /etc/systemd/system/etcd.service")
            practice.on(node, "systemctl daemon-reload")
            restart(practice, node, "etcd")
        until(lambda: all(practice.on(node, "systemctl is-active etcd || true") == "active" for node in NODES))
        restart(practice, "node2", "flanneld")
        told = Told(fleet, *((node, "etcd without v2 under an old flannel") for node in NODES))
        assert "has no --enable-v2=true" in told.why("node2")
        assert "phases 03 and 04" in told.remedy("node2")
        finishes(fleet)


@pytest.mark.usefixtures("params")
def test_a_newer_flannel_does_not_see_what_the_v2_store_holds(practice: Practice) -> None:
    """The config was written by API 2 and flannel reads API 3: both are named; phase 07 writes it there."""
    newer = practice.params(**{**V2, "flannel": {"version": "0.26.7"}})
    with practice.fleet(newer) as fleet:
        apply(fleet, "04")
        restart(practice, "node2", "flanneld")
        told = Told(fleet, ("(cluster)", "the network config is in the other API's store"))
        assert f"{CONFIG} is there by API 2, and this flannel reads API 3" in told.why("(cluster)")
        assert "phase 07" in told.remedy("(cluster)")
        apply(fleet, "07-09")
        until(lambda: found(fleet) == {})
        assert "Network" in etcdctl_on(practice, newer, "get", CONFIG)
