"""The cluster's lock on real nodes: one run at a time, also from another program; stale, taken over, renewed, gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from practice import NODES, Practice, until

from runbook import errors, lock, lock_script
from runbook.journal import Journal
from runbook.plain_text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbook.fleet import Fleet

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-1")]

LOCK = f"{lock.FOLDER}/lock.json"
OTHER_RUN = """
import sys
from runbook import connect, lock
with lock.held(connect(sys.argv[1]), record=sys.argv[2], lifetime_s=float(sys.argv[3])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(practice: Practice) -> Path:
    """Params of three running nodes."""
    practice.sandbox.up(3)
    return practice.params()


@pytest.fixture
def fleet(practice: Practice, path: Path) -> Iterator[Fleet]:
    with practice.fleet(path) as made:
        made.journal = Journal("")
        yield made


def other_run(path: Path, record: str, lifetime_s: float = 120) -> subprocess.Popen[str]:
    """Another program that holds the lock until its standard input ends."""
    argv = [sys.executable, "-c", OTHER_RUN, str(path), record, str(lifetime_s)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kept(practice: Practice, node: str) -> dict[str, Any]:
    """The lock on a node."""
    return json.loads(practice.on(node, f"cat {LOCK}"))  # type: ignore[no-any-return]


def traces(practice: Practice) -> list[str]:
    """What there is of a lock on each node."""
    return [practice.on(node, f"ls -d {lock.FOLDER} {LOCK} 2>/dev/null || true") for node in NODES]


def test_of_two_runs_at_once_one_wins_and_the_other_names_it(practice: Practice, path: Path) -> None:
    """Two programs begin at the same time: one holds all nodes, the other ends with LockHeld, naming the first."""
    runs = {record: other_run(path, record) for record in ("r1", "r2")}
    try:
        until(lambda: any(run.poll() is not None for run in runs.values()))
        (loser,) = [record for record, run in runs.items() if run.poll() is not None]
        winner = "r2" if loser == "r1" else "r1"
        assert runs[winner].stdout is not None
        assert runs[winner].stdout.readline() == "locked\n"
        assert {kept(practice, node)["holder"]["record"] for node in NODES} == {winner}
        _, said = runs[loser].communicate(timeout=20)
        assert "LockHeld: node1" in said
        assert f"(process {runs[winner].pid}, record {winner}) since 20" in said
        _, said = runs[winner].communicate("", timeout=20)
        assert (runs[winner].returncode, said) == (0, "")
    finally:
        for run in runs.values():
            run.kill()
            run.communicate()
    assert traces(practice) == ["", "", ""]


def test_the_lock_of_a_run_that_was_killed_is_no_obstacle(practice: Practice, path: Path, fleet: Fleet) -> None:
    """The next run on this machine sees that its process is gone, and takes the lock at once; it is noted."""
    with other_run(path, "killed") as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "locked\n"
        run.kill()
    with lock.held(fleet, record="next") as held:
        assert {kept(practice, node)["token"] for node in NODES} == {held.token}
    noted = [step.detail for step in fleet.journal.steps if "taken over: the one of" in step.detail]
    assert len(noted) == 3
    assert all(f"process {run.pid}" in detail for detail in noted)
    assert traces(practice) == ["", "", ""]


def test_elsewhere_it_goes_stale(practice: Practice, path: Path, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can't tell that the process is gone is refused until the lock expires; then this user gets it unasked."""
    monkeypatch.setattr(lock, "life", lambda _pid: "")
    with other_run(path, "killed", 4) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "locked\n"
        run.kill()
    said = rf"process {run.pid}, record killed.*\n.*no longer runs"
    with pytest.raises(errors.LockHeld, match=said), lock.held(fleet, record="r"):
        pass
    until(lambda: int(practice.on("node1", "date +%s")) >= max(kept(practice, node)["expires"] for node in NODES))
    with lock.held(fleet, record="next") as held:
        assert {kept(practice, node)["token"] for node in NODES} == {held.token}
    assert traces(practice) == ["", "", ""]


def test_a_stale_lock_of_another_is_taken_over_when_told(practice: Practice, fleet: Fleet) -> None:
    """A lock from another machine whose time is over refuses, its holder cleaned; with take_over it is replaced."""
    holder = {"user": "ada", "host": "el\x1b[31msewhere", "pid": 7, "record": "r0"}
    text = "\n".join(
        ["{", '"token": "abcd",', '"since": 100,', '"expires": 200,', f'"holder": {json.dumps(holder)}', "}"]
    )
    practice.on("node2", f"mkdir -p {lock.FOLDER} && cat >{LOCK} <<'END'\n{text}\nEND")
    with pytest.raises(errors.LockHeld) as caught, lock.held(fleet, record="r"):
        pass
    assert str(caught.value).startswith("node2: a stale lock by ada@el[31msewhere (process 7, record r0) since 1970-")
    assert "--take-over" in str(caught.value)
    with lock.held(fleet, record="r", take_over=True) as held:
        assert {kept(practice, node)["token"] for node in NODES} == {held.token}
    assert traces(practice) == ["", "", ""]


def test_it_is_released_after_an_exception(practice: Practice, fleet: Fleet) -> None:
    """What ended the run comes out, and no trace of the lock stays."""

    def fail() -> None:
        with lock.held(fleet, record="r"):
            assert traces(practice) == [f"{lock.FOLDER}\n{LOCK}"] * 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert traces(practice) == ["", "", ""]


def test_it_is_renewed_over_connections_of_its_own(practice: Practice, fleet: Fleet) -> None:
    """It outlives its first lifetime while the run's own connections are closed and a change has the nodes' /run."""
    with lock.held(fleet, record="r", lifetime_s=2):
        first = {node: kept(practice, node) for node in NODES}
        fleet.close()
        until(lambda: all(kept(practice, node)["expires"] > first[node]["expires"] + 2 for node in NODES))
        assert [kept(practice, node)["since"] for node in NODES] == [first[node]["since"] for node in NODES]
        with subprocess.Popen(practice.sandbox.ssh_command("node1", "flock /run sleep 600")) as busy:
            try:
                at = kept(practice, "node1")["expires"]
                until(lambda: kept(practice, "node1")["expires"] > at + 1)
                assert busy.poll() is None
            finally:
                practice.on("node1", "pkill -x -f 'sleep 600'")
    assert traces(practice) == ["", "", ""]


@pytest.mark.usefixtures("path")
def test_a_node_that_is_down_is_not_locked(practice: Practice) -> None:
    """The others are, in seconds; the journal names the one that is not."""
    with practice.fleet(practice.params(ssh={"connect_timeout_s": 2})) as fleet:
        fleet.journal = Journal("")
        practice.sandbox.stop("node1")
        try:
            start = time.monotonic()
            with lock.held(fleet, record="r") as held:
                assert held.nodes == ("node2", "node3")
            assert time.monotonic() - start < 30
        finally:
            practice.sandbox.start("node1")
    assert "node1" in {step.node for step in fleet.journal.steps if "not locked" in step.detail}
    assert traces(practice) == ["", "", ""]


@pytest.mark.usefixtures("path")
def test_user_with_sudo_locks_too(practice: Practice) -> None:
    """The lock lies where only root writes; a user with sudo gets it."""
    with practice.fleet(practice.params(ssh={"user": "ops", "sudo": True})) as fleet:
        with lock.held(fleet, record="r") as held:
            assert practice.on("node1", f"stat -c '%U %a' {LOCK}") == "root 600"
            guards = [f"{lock_script.guard(token, lock.FOLDER)}echo on" for token in (held.token, "")]
            done = [fleet.run(guard, what="guard")["node1"].value for guard in guards]
        assert [one.status for one in done if one] == [0, 75]
        assert done[1] is not None
        assert f"(process {os.getpid()}, record r)" in printable(done[1].stderr)
