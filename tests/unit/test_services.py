"""runbook.services: what a unit's state calls for, captured from systemd 252; and how units are rolled."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_node import cluster_of, fleet_of, local

from runbook import errors, services
from runbook.plans import reading, starting
from runbook.plans.apply import Result
from runbook.plans.rollout import Stop
from runbook.resources import Change
from runbook.services import Service

if TYPE_CHECKING:
    from runbook.fleet import Fleet
    from runbook.params import Node
    from runbook.ssh import Connection

HERE = Path(__file__).parent / "test_services"
CERTS = tuple(f"/etc/etcd/cert/{name}" for name in ("ca.pem", "etcd.pem", "etcd-key.pem"))
ETCD = Service("etcd.service", ("/etc/systemd/system/etcd.service", "/opt/k8s/bin/etcd", *CERTS))
CHANGES = [Change("etcd.service", "restart", "changed", node=f"node{n}") for n in (1, 2, 3)]


def captured(name: str, **changed: str) -> dict[str, str]:
    """What `Service.probe` printed on a practice node."""
    lines = (HERE / f"{name}.txt").read_text().splitlines()
    return {**dict(line.split("=", 1) for line in lines), **changed}


def ctime(path: str) -> str:
    """The key under which the probe tells when this file of etcd's changed."""
    return f"{ETCD.inputs.index(path)}_ctime"


# ---- what a state calls for


def test_a_unit_that_runs_from_its_files_stays() -> None:
    """Active, enabled, and every file older than the process: nothing is to do, so nothing restarts."""
    assert ETCD.compare(captured("running")) is None


@pytest.mark.parametrize("path", ETCD.inputs)
def test_a_file_that_is_newer_calls_for_a_restart(path: str) -> None:
    """A unit, binary or certificate that changed since the start is named."""
    change = ETCD.compare(captured("running", **{ctime(path): captured("running")["now"]}))
    assert change is not None
    assert (change.action, change.why) == ("restart", f"changed since it started: {path}")


def test_the_start_is_known_to_a_tick() -> None:
    """A file of the moment before the start is no change; one of a moment after is."""
    found = captured("running")
    started = float(found["now"]) - float(found["uptime"]) + int(found["start_ticks"]) / 100
    for later_s, restarts in ((-0.1, False), (0.0, False), (0.2, True)):
        change = ETCD.compare({**found, ctime("/opt/k8s/bin/etcd"): f"{started + later_s:.9f}"})
        assert (change is not None) == restarts


def test_a_missing_file_is_no_reason_to_restart() -> None:
    """A file that is gone has no time; the phase that puts it there comes before."""
    assert ETCD.compare(captured("running", **{ctime("/opt/k8s/bin/etcd"): ""})) is None


def test_any_path_can_be_looked_at(tmp_path: Path) -> None:
    """What the probe prints of a file by real sh is what is compared, in a path with = and a quote too."""
    path = tmp_path / "a=b'c"
    path.touch()
    service = Service("etcd.service", ("/nowhere", str(path)))
    (found,) = reading.read(fleet_of(cluster_of(), tmp_path), {"node1": [service]}, what="probe")["node1"]
    times = {key: value for key, value in found.items() if key.endswith("_ctime")}
    assert float(times["1_ctime"]) == pytest.approx(path.stat().st_ctime)
    assert found["0_type"] == "none"
    captured_times = dict.fromkeys((key for key in captured("running") if key.endswith("_ctime")), "")
    change = service.compare({**captured("running", now="3"), **captured_times, **times})
    assert change is not None
    assert change.why == f"changed since it started: {path}"


def test_a_unit_that_is_not_read_again_calls_for_a_restart() -> None:
    """Systemd says when a unit file changed since it read it."""
    change = ETCD.compare(captured("running", NeedDaemonReload="yes"))
    assert change is not None
    assert (change.action, change.why) == ("restart", "the unit changed since systemd read it")


def test_a_unit_that_would_not_survive_a_boot_is_enabled() -> None:
    """It runs, but is not enabled: it is enabled, and not restarted."""
    change = ETCD.compare(captured("running", UnitFileState="disabled"))
    assert change is not None
    assert (change.action, change.why) == ("enable", "unit file is disabled")


@pytest.mark.parametrize(
    ("active", "sub"),
    [("inactive", "dead"), ("failed", "failed"), ("activating", "auto-restart"), ("activating", "start")],
)
def test_what_does_not_run_is_started(active: str, sub: str) -> None:
    """Whatever keeps a unit from being active, it is started."""
    change = Service("fstrim.service", ()).compare(captured("inactive", ActiveState=active, SubState=sub))
    assert change is not None
    assert (change.action, change.why, change.refusal) == ("start", f"{active}/{sub}", "")


def test_a_unit_that_is_not_there_is_refused() -> None:
    """Without its file a unit can't be started: the operator is told which phase comes first."""
    change = ETCD.compare(captured("not_found"))
    assert change is not None
    assert "the units phase comes first" in change.refusal


def test_a_masked_unit_is_refused() -> None:
    """Somebody masked it on purpose: that is told, with the command that undoes it."""
    change = Service("console-getty.service", ()).compare(captured("masked"))
    assert change is not None
    assert "systemctl unmask console-getty.service" in change.refusal


@pytest.mark.parametrize("found", [{}, {"LoadState": ""}, {"garbage": "x"}])
def test_a_node_without_systemd_is_refused(found: dict[str, str]) -> None:
    """No answer is no running unit."""
    change = ETCD.compare(found)
    assert change is not None
    assert change.refusal


@given(now=st.floats(1e9, 2e9), uptime=st.floats(1, 1e7), age=st.floats(0.5, 1e5))
def test_only_newer_files_restart(now: float, uptime: float, age: float) -> None:
    """Whatever the clock and uptime are, a file from before the start never restarts, one from after it does."""
    age = min(age, uptime)
    found = captured("running", now=f"{now}", uptime=f"{uptime}", start_ticks=f"{int((uptime - age) * 100)}")
    found |= {ctime(path): f"{now - age - 1:.9f}" for path in ETCD.inputs}
    assert ETCD.compare(found) is None
    found[ctime(CERTS[0])] = f"{now - age + 0.3:.9f}"
    assert ETCD.compare(found) is not None


# ---- scripts


@pytest.mark.parametrize("unit", ["etcd.service", "a b'c.service"])
def test_a_probe_is_valid_sh(unit: str) -> None:
    """What is sent to a node parses."""
    script = Service(unit, ("/a", "/b c")).probe()
    done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---- rolling


class Roll:
    """Stands in for nodes: notes the order of what is done, and fails where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **fails: str) -> None:
        self.order: list[str] = []
        self.fails = fails
        monkeypatch.setattr(starting, "_start", self.start)

    def start(self, _fleet: Fleet, _connection: Connection, change: Change, _stop: Stop, _again: str) -> Result:
        self.order.append(f"{change.action} {change.node}")
        bad = self.fails.get("start") == change.node
        return Result(change, "failed" if bad else "done", "crashed" if bad else "")

    def may_stop(self, _fleet: Fleet, node: Node) -> None:
        self.order.append(f"may stop {node.name}")
        if self.fails.get("may_stop") == node.name:
            raise errors.PlanRefused("no quorum")

    def healthy(self, _fleet: Fleet, node: Node) -> None:
        self.order.append(f"healthy {node.name}")
        if self.fails.get("healthy") == node.name:
            raise errors.CommandFailed("not healthy")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return fleet_of(cluster_of(), tmp_path)


def rolled(fleet: Fleet, roll: Roll, changes: list[Change]) -> list[tuple[str, str, str]]:
    results = services.roll(fleet, changes, roll.may_stop, roll.healthy)
    return [(one.change.node, one.result, one.error) for one in results]


def test_restarts_come_one_at_a_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node is asked for, restarted and healthy before the next."""
    roll = Roll(monkeypatch)
    assert [result for _, result, _ in rolled(fleet, roll, CHANGES)] == ["done"] * 3
    assert roll.order == [
        f"{step} node{n}" for n in (1, 2, 3) for step in ("may stop", "restart", "healthy")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "error", "order"),
    [
        ("may_stop", "no quorum", ["may stop node1", "restart node1", "healthy node1", "may stop node2"]),
        ("start", "crashed", ["may stop node1", "restart node1", "healthy node1", "may stop node2", "restart node2"]),
        ("healthy", "not healthy",
         ["may stop node1", "restart node1", "healthy node1", "may stop node2", "restart node2", "healthy node2"]),
    ],
)  # fmt: skip
def test_a_roll_stops_at_the_first_failure(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, where: str, error: str, order: list[str]
) -> None:
    """Where node2 fails, node3 runs on as it is, and its row says so."""
    roll = Roll(monkeypatch, **{where: "node2"})
    assert rolled(fleet, roll, CHANGES) == [
        ("node1", "done", ""), ("node2", "failed", error), ("node3", "not done", "not begun: another node failed"),
    ]  # fmt: skip
    assert roll.order == order


def test_starts_come_before_restarts(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not run is started first, all at once: a restart may need its quorum; where it fails none follows."""
    start = Change("etcd.service", "start", "inactive/dead", node="node3")
    roll = Roll(monkeypatch)
    assert [one[0] for one in rolled(fleet, roll, [CHANGES[0], start])] == ["node3", "node1"]
    assert roll.order[0] == "start node3"
    failing = Roll(monkeypatch, start="node3")
    assert [one[1] for one in rolled(fleet, failing, [CHANGES[0], start])] == ["failed", "not done"]
    assert failing.order == ["start node3"]


def test_a_stop_ends_between_two_nodes(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node that restarts is brought to its end; the others run on, and their rows say who stopped it."""
    stop = Stop()
    roll = Roll(monkeypatch)

    def healthy(fleet: Fleet, node: Node) -> None:
        stop.ask("ada")
        roll.healthy(fleet, node)

    results = services.roll(fleet, CHANGES, roll.may_stop, healthy, stop)
    assert [(one.result, one.error) for one in results] == [
        ("done", ""), ("not done", "not begun: stopped by ada"), ("not done", "not begun: stopped by ada"),
    ]  # fmt: skip
    assert roll.order == ["may stop node1", "restart node1", "healthy node1"]


def test_a_stop_before_the_first_start_starts_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing begins once it is stopped, starts as little as restarts."""
    stop, roll = Stop(), Roll(monkeypatch)
    stop.ask("ada")
    start = replace(CHANGES[0], action="start")
    assert [one.result for one in services.roll(fleet, [start, CHANGES[1]], roll.may_stop, roll.healthy, stop)] == [
        "not done", "not done",
    ]  # fmt: skip
    assert roll.order == []


def test_no_changes_start_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty roll does nothing."""
    roll = Roll(monkeypatch)
    assert rolled(fleet, roll, []) == []
    assert roll.order == []


# ---- the table


def test_states_are_read(fleet: Fleet, tmp_path: Path) -> None:
    """A row a node: state, restarts and pid; one that does not run has its last journal lines."""
    running, dead = (HERE / "running.txt").read_text(), (HERE / "inactive.txt").read_text()
    for name, shown, status in (("node1", running, 0), ("node2", dead, 3), ("node3", "", 1)):
        connection = local(fleet)[name]
        (tmp_path / name / "shown").write_text(shown)
        connection.shim("systemctl", f"case $1 in show) cat {tmp_path / name}/shown;; is-active) exit {status};; esac")
        connection.shim("journalctl", "echo 'panic: a=b'; echo 'main: exit'")
    table = services.states(fleet, fleet.cluster.nodes, "etcd.service")
    rows = {row["node"]: row for row in table.to_dict("records")}
    assert (rows["node1"]["ok"], rows["node1"]["state"], rows["node1"]["main_pid"]) == (True, "active (running)", 505)
    assert rows["node1"]["since"] == "Mon 2026-11-23 01:55:49 UTC"
    assert (rows["node2"]["ok"], rows["node2"]["why"]) == (False, "not running\npanic: a=b\nmain: exit")
    assert (rows["node3"]["ok"], rows["node3"]["state"]) == (False, "unknown ()")
