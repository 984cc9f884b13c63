"""A cluster that serves is taken from etcd 3.5 to 3.6 one member at a time, and loses nothing that it acknowledged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from practice import NODES, Practice, apply, cluster_of, until, wrong
from soak import writing

from runbook import etcdctl, show

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-6")]

OLD, NEW = "3.5.21", "3.6.16"


def versions(practice: Practice, params: Path) -> list[tuple[str, str]]:
    """Each member's version, and that of its data, as it tells; 3.5 tells none of its data."""
    told = practice.on("node1", etcdctl.command(cluster_of(params), "endpoint", "status", "-w", "json"))
    return [(row["Status"]["version"], row["Status"].get("storageVersion", "")) for row in json.loads(told)]


def test_the_next_minor_line_is_rolled_in_while_a_writer_loses_nothing(practice: Practice, tmp_path: Path) -> None:
    """Another version in the params: binaries, units and a restart a member; each acknowledged write is there."""
    practice.make_virgin()
    old = practice.params(etcd={"version": OLD}, flannel={"version": "0.26.7"})
    with practice.fleet(old) as fleet:
        apply(fleet)
    new = practice.params(etcd={"version": NEW}, flannel={"version": "0.26.7"})
    assert {version for version, _ in versions(practice, old)} == {OLD}
    with practice.fleet(new) as fleet, writing(practice, cluster_of(old), tmp_path) as writer:
        made = apply(fleet)
        assert wrong(fleet, "04-05") == []
    assert writer.lost == []
    assert len(writer.acknowledged) > 100
    assert {row["result"] for table in made.values() for row in show.rows(table)} == {"done"}
    assert [(row["node"], row["action"]) for row in show.rows(made["etcd_start"])] == [(n, "restart") for n in NODES]
    until(lambda: versions(practice, new) == [(NEW, "3.6.0")] * 3, within_s=60)  # data follow by themselves
    with practice.fleet(new) as fleet:
        until(lambda: wrong(fleet, "05,10-11") == [])
        assert all(table.empty for table in apply(fleet).values())
