"""The whole build by `runbook run`, as a user starts it; plan and approval before it, a run without a change after."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import pytest
from practice import NODES, Practice, loads, mesh, plan_id, table, wrong

from runbook import phases, record

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-1")]

PAIRS = set(itertools.product(NODES, NODES))
REFUSED_UNTIL_LATER = {"04 etcd start", "07 flannel config", "09 flannel start"}
"""The phases that stand on what an earlier one makes."""


class Run(NamedTuple):
    """A `runbook run`: how it ended, its params, and its record."""

    done: CompletedProcess[str]
    params: Path
    record: Path


def whole_run(practice: Practice, params: Path) -> Run:
    """Run all phases with approval; the record is the newest one."""
    folder = practice.folder / "records" / practice.sandbox.block.name
    before = set(folder.glob("*"))
    done = practice.cli("run", params, "--approve", "--records", practice.folder / "records")
    (made,) = set(folder.glob("*")) - before
    return Run(done, params, made)


@pytest.fixture(scope="module")
def first(practice: Practice) -> Run:
    """The first run, on nodes that were never touched."""
    practice.make_virgin()
    return whole_run(practice, practice.params())


def test_a_plan_of_untouched_nodes_shows_all_and_changes_nothing(virgin: Practice) -> None:
    """Each phase shows what it would do; those that stand on an earlier one say so; no file and no user changes."""
    before = virgin.traces()
    done = virgin.cli("plan", virgin.params(), "--json")
    assert done.returncode == 0, done.stderr
    plans = {one["phase"]: one for one in loads(done)["plans"]}
    assert len(plans) == 8
    assert all(one["changes"] for one in plans.values())
    assert {name for name, one in plans.items() if any(c["refusal"] for c in one["changes"])} == REFUSED_UNTIL_LATER
    assert {c["node"] for c in plans["01 binaries"]["changes"]} == set(NODES)
    units = [c for c in plans["03 etcd units"]["changes"] if c["resource"].endswith("/etcd.service")]
    assert [c["node"] for c in units] == list(NODES)
    assert all("+  --initial-cluster-state=new" in c["diff"] for c in units)
    assert virgin.traces() == before


def test_without_approval_nothing_changes_and_the_id_approves_that_plan_only(virgin: Practice) -> None:
    """`run` ends with 3 and names the plan; plain papermill applies it by its id, and nothing by another id."""
    params, before = virgin.params(), virgin.traces()
    stopped = virgin.cli("run", params, "--phases", "01-03")
    assert stopped.returncode == 3, stopped.stdout
    assert "2 not begun" in stopped.stdout
    identity = plan_id(stopped.stdout)
    other = identity[:-1] + ("0" if identity[-1] != "0" else "1")
    refused = virgin.papermill("01_binaries.ipynb", "-p", "cluster", params, "-p", "approve", other)
    assert refused.returncode != 0
    executed = record.read(virgin.output("01_binaries.ipynb"))
    assert (executed.ename, executed.never_ran) == ("PlanChanged", 1)
    assert virgin.traces() == before
    applied = virgin.papermill("01_binaries.ipynb", "-p", "cluster", params, "-p", "approve", identity)
    assert applied.returncode == 0, applied.stderr
    with virgin.fleet(params) as fleet:
        assert wrong(fleet, "01") == []
    assert virgin.on("node1", "ls /etc/etcd /etc/systemd/system/etcd.service 2>&1 || true").count("No such file") == 2


def test_the_first_run_builds_the_cluster(first: Run) -> None:
    """Exit 0; twelve executed notebooks; three healthy endpoints with one leader, three leases, a mesh without loss."""
    assert first.done.returncode == 0, first.done.stdout + first.done.stderr
    notebooks = sorted(first.record.glob("*.ipynb"))
    assert [path.name for path in notebooks] == [phase.notebook for phase in phases.PHASES]
    assert all(record.read(path).ok for path in notebooks)
    endpoints = table(first.record, 5, "etcd endpoints")
    assert [(row["node"], row["ok"], row["version"]) for row in endpoints] == [(n, True, "3.6.16") for n in NODES]
    assert sum(row["leader"] for row in endpoints) == 1
    leases = table(first.record, 10, "Leases under")
    assert {row["node"] for row in leases if row["ok"]} == set(NODES)
    assert len({row["lease"] for row in leases}) == 3
    assert mesh(table(first.record, 11, "overlay: rtt_ms")) == PAIRS
    assert mesh(table(first.record, 11, "underlay: rtt_ms")) == PAIRS


def test_a_second_run_changes_and_restarts_nothing(practice: Practice, first: Run) -> None:
    """Exit 0, no change in any phase's plan, the same processes since the same moment, no file touched."""
    before, files = practice.starts(), practice.traces()
    again = whole_run(practice, first.params)
    assert again.done.returncode == 0, again.done.stdout + again.done.stderr
    changes = {path.name[:2]: record.read(path).changes for path in again.record.glob("*.ipynb")}
    assert {number for number, count in changes.items() if count == 0} == {
        f"{phase.number:02d}" for phase in phases.PHASES if phase.plan
    }
    assert "nothing was to change" in again.done.stdout
    assert practice.starts() == before
    assert practice.traces() == files


def test_a_built_cluster_has_an_empty_plan_and_a_good_status(practice: Practice, first: Run) -> None:
    """`plan --json` has no change, `status --json` no row that does not hold, and both end with 0."""
    plan = practice.cli("plan", first.params, "--json")
    assert plan.returncode == 0, plan.stderr
    assert [one["changes"] for one in loads(plan)["plans"]] == [[]] * 8
    status = practice.cli("status", first.params, "--json")
    assert status.returncode == 0, status.stdout
    told = loads(status)
    assert told["errors"] == []
    assert {row["ok"] for one in told["tables"] for row in one["rows"] if "ok" in row} == {True}
    (pings,) = [one["rows"] for one in told["tables"] if one["caption"] == "Ping mesh"]
    assert {(row["node"], row["to"], row["network"]) for row in pings} == {
        (*pair, network) for pair in PAIRS for network in ("overlay", "underlay")
    }
    assert {row["loss_pct"] for row in pings} == {0}
