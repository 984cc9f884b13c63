"""runbook.lock: one run at a time on a cluster; real sh and flock, a local shell with a folder of its own a node."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from local_node import LocalConnection, cluster_of, fleet_of
from waiting import until

from runbook import errors, lock, lock_script
from runbook.fleet import Fleet
from runbook.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from runbook.transport.completed import Completed

NODES = ("node1", "node2", "node3")
FOLDER = "runbook"
"""Below each stand-in's own folder, which is where its shell runs."""

ELSEWHERE = {"user": "ada", "host": "elsewhere", "pid": 77, "record": "20261123T020000Z"}


class Nodes:
    """Three stand-ins; `fleet` gives a fleet for them, as another program would have one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fleet(self) -> Fleet:
        fleet = fleet_of(cluster_of(), self.folder)
        fleet.journal = Journal("")
        return fleet

    def held(self, fleet: Fleet | None = None, **options: Any) -> AbstractContextManager[lock.Lock]:  # noqa: ANN401
        return lock.held(fleet or self.fleet(), folder=FOLDER, **{"record": "r", **options})

    def path(self, node: str) -> Path:
        return self.folder / node / FOLDER / "lock.json"

    def kept(self, node: str) -> dict[str, Any]:
        return json.loads(self.path(node).read_text())  # type: ignore[no-any-return]

    def locked(self) -> list[str]:
        return [node for node in NODES if self.path(node).exists()]

    def leave(self, node: str, holder: dict[str, Any], expires_in: int, token: str = "aa" * 16) -> None:
        """Put a lock of somebody else on a node."""
        now = int(time.time())
        script = lock_script.take(FOLDER, token, holder, 60, None)
        done = LocalConnection(cluster_of().nodes[0], self.folder / node).run(script, what="take")
        assert done.text.startswith("taken"), done
        text = self.path(node).read_text()
        self.path(node).write_text(text.replace(str(self.kept(node)["expires"]), str(now + expires_in)))

    def hand_over(self, node: str, holder: dict[str, Any]) -> None:
        """Put another's lock in the place of ours, at no moment none."""
        path = self.path(node).with_name("other")
        path.write_text(json.dumps({**self.kept(node), "token": "aa" * 16, "holder": holder}, indent=0))
        path.replace(self.path(node))


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    made = Nodes(tmp_path)
    made.fleet()  # makes the folders
    return made


def gone_pid() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def notes(fleet: Fleet, state: str) -> list[tuple[str, str]]:
    return [(step.node, step.detail) for step in fleet.journal.steps if step.step == "lock" and step.state == state]


def test_it_lies_on_every_node_and_goes_at_the_end(nodes: Nodes) -> None:
    """While it is held each node has a file, for root's eyes, that says who, from where and for how long; then none."""
    fleet = nodes.fleet()
    with nodes.held(fleet, record="20261123T021314Z") as held:
        assert held.nodes == NODES
        for node in NODES:
            kept = nodes.kept(node)
            assert kept["token"] == held.token
            assert kept["expires"] - kept["since"] == 120
            assert abs(kept["since"] - time.time()) < 60
            assert (kept["holder"]["pid"], kept["holder"]["record"]) == (os.getpid(), "20261123T021314Z")
            assert [path.stat().st_mode & 0o777 for path in (nodes.path(node), nodes.path(node).parent)] == [
                0o600,
                0o700,
            ]
    assert [list((nodes.folder / node).iterdir()) for node in NODES] == [[], [], []]
    assert [detail for _, detail in notes(fleet, "done")] == ["taken"] * 3 + ["released"] * 3


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_it_goes_after_an_error_too(nodes: Nodes, error: BaseException) -> None:
    """Whatever ends the block, the error is what comes out, and no lock stays."""

    def fail() -> None:
        with nodes.held():
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert nodes.locked() == []


def test_a_second_run_is_refused_and_told_by_whom(nodes: Nodes) -> None:
    """LockHeld names nodes, user, machine, process, record, since, expiry and remedy, and takes nothing away."""
    with nodes.held(record="20261123T021314Z") as held:
        with pytest.raises(errors.LockHeld) as caught, nodes.held(take_over=True):
            pass
        assert {nodes.kept(node)["token"] for node in NODES} == {held.token}
        kept = nodes.kept("node1")
    said = str(caught.value)
    assert said.startswith("node1, node2, node3: locked by ")
    assert f"@{kept['holder']['host']} (process {os.getpid()}, record 20261123T021314Z) since 20" in said
    assert "expires 20" in said
    assert "-> wait for its end" in said
    assert caught.value.exit_status == 1


def test_one_run_is_told_once_though_its_nodes_clocks_differ(nodes: Nodes) -> None:
    """The same lock on three nodes is one line, of the first node's times; another run's is a line of its own."""
    for seconds, node in enumerate(NODES[:2]):
        nodes.leave(node, ELSEWHERE, 60 + seconds)
    nodes.leave("node3", ELSEWHERE, 60, token="bb" * 16)
    with pytest.raises(errors.LockHeld) as caught, nodes.held():
        pass
    heads = [line.partition(" by ")[0] for line in str(caught.value).splitlines()[1:3]]
    assert heads == ["node1, node2: locked", "node3: locked"]


def test_it_is_taken_on_all_nodes_or_on_none(nodes: Nodes) -> None:
    """A lock on the last node alone refuses the run, and leaves nothing on the others."""
    nodes.leave("node3", ELSEWHERE, 60)
    with pytest.raises(errors.LockHeld, match=r"^node3: locked by ada@elsewhere"), nodes.held():
        pass
    assert nodes.locked() == ["node3"]


def test_it_is_taken_back_where_a_node_refuses_late(nodes: Nodes) -> None:
    """A lock that comes between the look and the taking refuses as well, and what was taken is given back."""
    fleet = nodes.fleet()

    class Late(LocalConnection):
        def run(self, script: str, *, what: str, feed: Iterable[bytes] = (), timeout_s: float = 60) -> Completed:
            if what == "take the lock":
                nodes.leave("node2", ELSEWHERE, 60)
            return super().run(script, what=what, feed=feed, timeout_s=timeout_s)

    some = {node.name: LocalConnection(node, nodes.folder / node.name) for node in fleet.cluster.nodes}
    some["node2"] = Late(fleet.cluster.nodes[1], nodes.folder / "node2")
    with pytest.raises(errors.LockHeld, match=r"^node2: "), nodes.held(Fleet(fleet.cluster, some, Journal(""))):
        pass
    assert nodes.locked() == ["node2"]
    assert nodes.kept("node2")["holder"] == ELSEWHERE


def test_of_many_at_once_one_wins(nodes: Nodes) -> None:
    """Of eight runs that begin at once exactly one goes on, at any moment; who is refused is told a holder."""
    begin, over = threading.Barrier(8), threading.Event()

    def attempt(number: int) -> str:
        begin.wait()
        try:
            with nodes.held(record=f"r{number}"):
                over.wait(20)
                return "won"
        except errors.LockHeld as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(attempt, number) for number in range(8)]
        until(lambda: sum(run.done() for run in runs) == 7)
        winner = nodes.kept("node1")["holder"]["record"]
        over.set()
        said = [run.result() for run in runs]
    assert said.count("won") == 1
    assert said[int(winner[1:])] == "won"
    assert all(f"record {winner})" in one for one in said if one != "won")
    assert nodes.locked() == []


def test_a_stale_lock_is_said_and_taken_over_when_told(nodes: Nodes) -> None:
    """An expired lock refuses, naming its holder and --take-over; with take_over it is taken and noted."""
    nodes.leave("node2", ELSEWHERE, -1)
    with pytest.raises(errors.LockHeld) as caught, nodes.held():
        pass
    assert "node2: a stale lock by ada@elsewhere (process 77, record 20261123T020000Z) since" in str(caught.value)
    assert "expired 20" in str(caught.value)
    assert "--take-over" in caught.value.remedy
    fleet = nodes.fleet()
    with nodes.held(fleet, take_over=True) as held:
        assert {nodes.kept(node)["token"] for node in NODES} == {held.token}
    ((node, detail),) = [note for note in notes(fleet, "done") if "taken over" in note[1]]
    assert node == "node2"
    assert "ada@elsewhere" in detail


def ours(pid: int) -> dict[str, Any]:
    """A holder who is this user on this machine."""
    return {"user": lock._user(), "host": lock.socket.gethostname(), "pid": pid, "record": "r"}


def test_what_a_dead_run_of_ours_left_is_taken_without_asking(nodes: Nodes) -> None:
    """An expired lock of this user on this machine whose process is gone is no reason to ask; it is noted."""
    nodes.leave("node1", ours(gone_pid()), -1)
    fleet = nodes.fleet()
    with nodes.held(fleet):
        assert nodes.locked() == list(NODES)
    assert [node for node, detail in notes(fleet, "done") if "taken over" in detail] == ["node1"]


@pytest.mark.parametrize("whose", ["another user", "another machine", "a process that runs"])
def test_any_other_stale_lock_is_asked_for(nodes: Nodes, whose: str) -> None:
    """Expired alone is not enough: its process may still be at work."""
    holder = ours(os.getppid() if whose == "a process that runs" else gone_pid())
    holder |= {"another user": {"user": "ada"}, "another machine": {"host": "elsewhere"}}.get(whose, {})
    nodes.leave("node1", holder, -1)
    with pytest.raises(errors.LockHeld, match="--take-over"), nodes.held():
        pass


def test_a_dead_run_of_ours_is_waited_for_until_it_expires(nodes: Nodes) -> None:
    """Before its time is over a lock is never taken: what that run began may still be at work on the node."""
    nodes.leave("node1", ours(gone_pid()), 60)
    with pytest.raises(errors.LockHeld, match="no longer runs on this machine"), nodes.held(take_over=True):
        pass


def test_a_dead_run_of_this_very_machine_is_not_waited_for(nodes: Nodes) -> None:
    """Where boot, pid namespace and start tell that the process is gone, its lock is taken at once, and it is noted."""
    with subprocess.Popen(["sleep", "60"]) as process:
        holder = ours(process.pid) | {"life": lock.life(process.pid)}
        process.kill()
    nodes.leave("node1", holder, 60)
    fleet = nodes.fleet()
    with nodes.held(fleet) as held:
        assert {nodes.kept(node)["token"] for node in NODES} == {held.token}
    ((node, detail),) = [note for note in notes(fleet, "done") if "taken over" in note[1]]
    assert node == "node1"
    assert detail.endswith("which has ended")


@pytest.mark.parametrize("which", ["it runs", "another machine's", "another user's", "another boot's", "unknown"])
def test_any_other_lock_that_has_not_expired_is_never_taken(nodes: Nodes, which: str) -> None:
    """Only what is certain counts: a process that runs, another system's numbers, or none at all refuse."""
    with subprocess.Popen(["sleep", "60"]) as process:
        holder = ours(process.pid) | {"life": lock.life(process.pid)}
        if which != "it runs":
            process.kill()
            process.wait()
        holder |= {
            "another machine's": {"host": "elsewhere"},
            "another user's": {"user": "ada"},
            "another boot's": {"life": f"x{holder['life']}"},
            "unknown": {"life": ""},
        }.get(which, {})
        nodes.leave("node1", holder, 60)
        with pytest.raises(errors.LockHeld), nodes.held(take_over=True):
            pass
        process.kill()


def test_a_life_is_one_process_s_own() -> None:
    """The same at each look, another for another process, none for one that has ended though nobody waited for it."""
    assert lock.life(os.getpid()) == lock.life(os.getpid()) != ""
    with subprocess.Popen(["sleep", "60"]) as process:
        assert lock.life(process.pid) not in ("", lock.life(os.getpid()))
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert lock.life(process.pid) == ""


def test_the_nodes_clock_decides(nodes: Nodes) -> None:
    """A node whose clock is a day behind judges by its own time: its lock is not stale for it."""
    day = 86_400
    fleet = nodes.fleet()
    behind = LocalConnection(fleet.cluster.nodes[0], nodes.folder / "node1")
    behind.shim("date", f"echo $(( $(/bin/date +%s) - {day} ))")
    nodes.leave("node1", ELSEWHERE, 60 - day)
    with pytest.raises(errors.LockHeld, match=r"locked by ada@elsewhere .* \(in [3-6]\d s\)"), nodes.held():
        pass
    nodes.leave("node2", ELSEWHERE, 60 - day)
    with pytest.raises(errors.LockHeld, match="node2: a stale lock") as caught, nodes.held():
        pass
    assert "node1: locked" in str(caught.value)


def test_it_is_renewed_while_it_is_held(nodes: Nodes) -> None:
    """Its end moves on, its beginning stays, and nobody gets it though its first lifetime is long over."""
    with nodes.held(lifetime_s=1):
        first = nodes.kept("node1")
        until(lambda: all(nodes.kept(node)["expires"] >= first["expires"] + 2 for node in NODES))
        assert nodes.kept("node1")["since"] == first["since"]
        with pytest.raises(errors.LockHeld), nodes.held(take_over=True):
            pass
    assert nodes.locked() == []


def test_a_renewal_that_fails_is_noted_and_ends_nothing(nodes: Nodes) -> None:
    """A lock that another took is noted with its holder, and stays theirs; one that is gone is made again."""
    fleet = nodes.fleet()
    with nodes.held(fleet, lifetime_s=1) as held:
        nodes.hand_over("node2", ELSEWHERE)
        nodes.path("node3").unlink()
        until(lambda: any("taken by ada@elsewhere" in detail for _, detail in notes(fleet, "failed")))
        until(lambda: any("taken again" in detail for _, detail in notes(fleet, "done")))
        assert nodes.kept("node3")["token"] == held.token
    assert nodes.locked() == ["node2"]
    assert ("node2", "was no longer ours at the end") in notes(fleet, "failed")
    assert {node for node, _ in notes(fleet, "failed")} == {"node2"}


class Lost(LocalConnection):
    """Stands in for a node that is lost from a given step on."""

    def __init__(self, node: Any, folder: Path, steps: set[str]) -> None:  # noqa: ANN401
        super().__init__(node, folder)
        self.steps = steps

    def run(self, script: str, *, what: str, feed: Iterable[bytes] = (), timeout_s: float = 60) -> Completed:
        if what in self.steps:
            raise errors.Unreachable("no answer", node=self.node.name)
        return super().run(script, what=what, feed=feed, timeout_s=timeout_s)


ALL_STEPS = {"look at the lock", "take the lock", "renew the lock", "release the lock"}


def losing(nodes: Nodes, **lost: set[str]) -> Fleet:
    cluster = cluster_of()
    return Fleet(
        cluster,
        {node.name: Lost(node, nodes.folder / node.name, lost.get(node.name, set())) for node in cluster.nodes},
        Journal(""),
    )


@pytest.mark.parametrize("steps", [ALL_STEPS, ALL_STEPS - {"look at the lock"}])
def test_a_node_that_is_down_is_no_reason_to_refuse(nodes: Nodes, steps: set[str]) -> None:
    """The others are locked, the first of them too where it is the one that is down; the journal says which is not."""
    fleet = losing(nodes, node1=steps)
    with nodes.held(fleet) as held:
        assert held.nodes == ("node2", "node3")
        assert nodes.locked() == ["node2", "node3"]
    assert notes(fleet, "failed")[0] == ("node1", "not locked: no answer")
    assert nodes.locked() == []


@pytest.mark.parametrize("steps", [ALL_STEPS, {"take the lock"}])
def test_without_any_node_there_is_no_lock(nodes: Nodes, steps: set[str]) -> None:
    """Where no node can be locked the run is refused with exit status 4."""
    with pytest.raises(errors.NodeError) as caught, nodes.held(losing(nodes, node1=steps, node2=steps, node3=steps)):
        pass
    assert caught.value.exit_status == 4


def test_a_node_lost_meanwhile_ends_nothing(nodes: Nodes) -> None:
    """Renewal and release fail on it and are noted; the others are renewed and released; no error comes out."""
    fleet = losing(nodes, node2={"renew the lock", "release the lock"})
    with nodes.held(fleet, lifetime_s=1):
        until(lambda: ("node2", "not renewed: no answer") in notes(fleet, "failed"))
    assert ("node2", "not released, it will expire: no answer") in notes(fleet, "failed")
    assert nodes.locked() == ["node2"]


def test_a_renewal_that_breaks_on_this_side_ends_nothing(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a renewal raises is noted, and the next one is tried."""
    calls = []

    def broken(_: lock.Lock) -> None:
        calls.append(1)
        raise RuntimeError("odd")

    monkeypatch.setattr(lock.Lock, "renew", broken)
    fleet = nodes.fleet()
    with nodes.held(fleet, lifetime_s=1):
        until(lambda: len(calls) > 1)
    assert ("", "not renewed: RuntimeError: odd") in notes(fleet, "failed")


def test_a_node_that_cannot_keep_a_lock_is_an_error(nodes: Nodes) -> None:
    """Where the folder can't be made the run is refused, naming the node; the others are given back."""
    (nodes.folder / "node2" / FOLDER).write_text("a file in its place")
    with pytest.raises(errors.CommandFailed, match="node2: take the lock: ended with status 1"), nodes.held():
        pass
    assert nodes.locked() == []


def test_a_broken_file_on_a_node_is_refused_then_taken_over(nodes: Nodes) -> None:
    """It is said, and goes only when told."""
    nodes.path("node1").parent.mkdir()
    nodes.path("node1").write_text("garbage\n")
    with pytest.raises(errors.LockHeld, match="node1: a stale lock by an unknown holder"), nodes.held():
        pass
    with nodes.held(take_over=True):
        assert nodes.locked() == list(NODES)


# ---- the guard


@pytest.fixture(params=["sh", "bash --posix"])
def guarded(request: pytest.FixtureRequest, nodes: Nodes) -> Callable[[str], Completed]:
    """Runs a strict script with the guard for a token at its start, on the first node."""
    node = LocalConnection(cluster_of().nodes[0], nodes.folder / "node1")
    if request.param != "sh":
        node.shim("sh", f'exec {request.param} "$@"')

    def run(token: str) -> Completed:
        return node.run(f"set -eu\n{lock_script.guard(token, FOLDER)}echo went on", what="apply")

    return run


def test_the_guard_lets_the_holder_pass_and_nobody_else(nodes: Nodes, guarded: Callable[[str], Completed]) -> None:
    """With the lock's token a script goes on; with another or none it ends with 75 and says who holds the lock."""
    with nodes.held(record="20261123T021314Z") as held:
        assert guarded(held.token).stdout == b"went on\n"
        for token in ("", "00" * 16):
            done = guarded(token)
            assert (done.status, done.stdout) == (75, b"")
            assert f"@{ours(1)['host']} (process {os.getpid()}, record 20261123T021314Z)".encode() in done.stderr
            assert b"s more: wait for its end" in done.stderr


def test_the_guard_lets_all_pass_where_no_lock_holds(nodes: Nodes, guarded: Callable[[str], Completed]) -> None:
    """Without a lock, with a stale one, and with a broken file a script goes on."""
    assert guarded("").stdout == b"went on\n"
    nodes.leave("node1", ELSEWHERE, -1)
    assert guarded("").stdout == b"went on\n"
    nodes.path("node1").write_text("garbage")
    assert guarded("").stdout == b"went on\n"
