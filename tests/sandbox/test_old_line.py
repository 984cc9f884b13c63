"""The older line: flannel over etcd's v2 API, each notebook alone by plain papermill."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from practice import NODES, Practice, mesh, table

from runbook import phases, record

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-2")]

V2 = {"etcd": {"version": "3.5.21"}, "flannel": {"version": "0.17.0"}}


@pytest.fixture(scope="module")
def values(practice: Practice) -> Path:
    """A file of parameters that hands the settings over as values, approved; the nodes are untouched."""
    practice.make_virgin()
    return practice.params(approve=True, **V2)


@pytest.mark.parametrize("phase", phases.PHASES, ids=lambda phase: f"{phase.number:02d}")
def test_each_notebook_runs_alone_by_papermill(practice: Practice, values: Path, phase: phases.Phase) -> None:
    """From any folder, with the settings as values, in order: exit 0, and every cell ran."""
    done = practice.papermill(phase.notebook, "-f", values)
    assert done.returncode == 0, done.stderr
    assert record.read(practice.output(phase.notebook)).ok


def test_the_older_line_ends_in_leases_and_a_mesh(practice: Practice) -> None:
    """Three healthy endpoints of 3.5.21, three leases kept by the v2 API, and a mesh without loss."""
    endpoints = table(practice.folder, 5, "etcd endpoints")
    assert [(row["ok"], row["version"]) for row in endpoints] == [(True, "3.5.21")] * 3
    (config,) = table(practice.folder, 10, "flannel's network config")
    assert (config["api"], config["ok"]) == ("v2", True)
    leases = table(practice.folder, 10, "Leases under")
    assert {row["node"] for row in leases if row["ok"]} == set(NODES)
    assert mesh(table(practice.folder, 11, "overlay: rtt_ms")) == set(itertools.product(NODES, NODES))
