"""One run at a time on a cluster: a lock on every node, with its holder and a lifetime.

The lock is a file in /run (gone after a reboot, as is whatever the run did there), read by anyone who comes later, from
whichever machine. Its times are the node's own: no two clocks are compared. A run renews it while it lives; one that
broke off leaves a lock that is stale when its lifetime has passed. On that run's own machine nobody waits for it: the
next run sees that the process is gone, and takes the lock at once.
"""

from __future__ import annotations

import contextlib
import getpass
import math
import os
import secrets
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from runbook import errors
from runbook.fleet import Fleet
from runbook.journal import Journal
from runbook.lock_script import FOLDER, Found, answer, look, release, take
from runbook.ssh import Connection, SshConnection
from runbook.transport import brokered
from runbook.transport.brokered import BrokeredConnection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

    from runbook.fleet import Outcome
    from runbook.params import Node
    from runbook.transport.completed import Completed

_LIFETIME_S = 120.0
_RENEWALS_A_LIFETIME = 4
_TIMEOUT_S = 20.0
#: The locks that this process takes or holds now: one of its own that is in here is no leftover.
_held: set[str] = set()


@contextlib.contextmanager
def held(
    fleet: Fleet,
    *,
    record: str,
    token: str = "",
    take_over: bool = False,
    lifetime_s: float = _LIFETIME_S,
    folder: str = FOLDER,
) -> Iterator[Lock]:
    """Hold the lock of a cluster: on every node that can be reached, or on none.

    It is renewed from a thread, over the run's broker or connections of its own; a renewal that fails is noted in the
    fleet's journal and ends nothing. At the end, also after an error, it is released.

    Args:
        fleet: The cluster; its journal gets a step `lock` a node.
        record: The name of the run's record, for whoever finds the lock.
        token: Names the lock, 32 hex digits that nobody can guess; made where there is none.
        take_over: Take a stale lock of somebody else too; one that has not expired is never taken but from a run of
            this user on this machine that has ended.
        lifetime_s: For how long it holds without a renewal; at least a second.
        folder: Where it lies on the nodes; the folder is made and removed.

    Raises:
        LockHeld: another run holds it on a node, or left a stale one; no lock of ours stays.
        NodeError: no node can be reached.
        CommandFailed: a node can't keep a lock.
    """
    lock = Lock(fleet, record, token or secrets.token_hex(16), lifetime_s, folder)
    try:
        lock.acquire(take_over=take_over)
        with _Renewal(lock, lifetime_s / _RENEWALS_A_LIFETIME):
            yield lock
    finally:
        lock.release()


class Lock:
    """A lock on the nodes of a cluster; use `held`.

    Attributes:
        token: Names this lock; the run's kernels get it by TOKEN_VARIABLE.
        nodes: The names of the nodes that are locked.
    """

    def __init__(self, fleet: Fleet, record: str, token: str, lifetime_s: float, folder: str) -> None:
        self.token = token
        self.nodes: tuple[str, ...] = ()
        self._journal = fleet.journal
        self._holder = {"user": _user(), "host": socket.gethostname(), "pid": os.getpid(), "record": record}
        self._holder["life"] = life(os.getpid())
        self._lifetime_s, self._folder = math.ceil(lifetime_s), folder
        # A journal of its own: of what fails here the run's journal gets the lock's own words.
        self._fleet = Fleet(fleet.cluster, _twins(fleet), Journal(""))
        self._touched: list[Node] = []

    def acquire(self, *, take_over: bool) -> None:
        """Take the lock on all nodes that can be reached."""
        _held.add(self.token)
        outcomes = self._fleet.run(look(self._folder), what="look at the lock", timeout_s=_TIMEOUT_S)
        found: dict[str, Found | None] = {}
        for name, outcome in outcomes.items():
            if isinstance(outcome.error, errors.NodeError):
                self._journal.note(name, "lock", "failed", f"not locked: {outcome.error.message}")
            else:
                found[name] = _said(outcome)[1]
        if not found:
            raise errors.together([outcome.error for outcome in outcomes.values() if outcome.error])
        leftovers = {
            name: one
            for name, one in found.items()
            if one and ((one.stale and (take_over or self._ours(one))) or self._ended(one))
        }
        self._refuse({name: one for name, one in found.items() if one and name not in leftovers})
        # Whoever gets the first node gets the others: of two runs that begin at once exactly one goes on.
        nodes = sorted((node for node in self._fleet.cluster.nodes if node.name in found), key=lambda node: node.host)
        for some in (nodes[:1], nodes[1:]):
            self._take(some, leftovers)
        if not self.nodes:
            raise errors.Unreachable("no node could be locked: all were lost on the way", remedy="run again")
        for name in self.nodes:
            before = leftovers.get(name)
            self._journal.note(name, "lock", "done", f"taken over: {_left_by(before)}" if before else "taken")

    def _take(self, nodes: Iterable[Node], leftovers: Mapping[str, Found]) -> None:
        chosen = list(nodes)
        self._touched += chosen
        outcomes = self._fleet.run(
            lambda node: self._script(leftovers.get(node.name)),
            what="take the lock",
            nodes=chosen,
            timeout_s=_TIMEOUT_S,
        )
        answers = {}
        for name, outcome in outcomes.items():
            if isinstance(outcome.error, errors.NodeError):
                self._journal.note(name, "lock", "failed", f"not locked: {outcome.error.message}")
            else:
                answers[name] = _said(outcome)
        self._refuse({name: found for name, (_, found) in answers.items() if found})
        self.nodes += tuple(answers)

    def _script(self, over: Found | None = None) -> str:
        ended = over is not None and self._ended(over)
        return take(self._folder, self.token, self._holder, self._lifetime_s, over, ended=ended)

    def _ours(self, found: Found) -> bool:
        """Whether a run of this user on this machine left it, and is gone."""
        if (found.user, found.host) != (self._holder["user"], self._holder["host"]):
            return False
        return found.token not in _held if found.pid == os.getpid() else not _runs(found.pid)

    def _ended(self, found: Found) -> bool:
        """Whether it was left by a run of this user on this machine that has certainly ended: nobody waits for it."""
        if (found.user, found.host) != (self._holder["user"], self._holder["host"]):
            return False
        if found.pid == os.getpid():
            return found.token not in _held
        machine = str(self._holder["life"]).rpartition("/")[0]
        return bool(machine) and found.life.rpartition("/")[0] == machine and life(found.pid) != found.life

    def _refuse(self, held_by: Mapping[str, Found]) -> None:
        if not held_by:
            return
        stale = all(found.stale for found in held_by.values())
        gone = any(self._ours(found) for found in held_by.values())
        remedy = (
            "its lifetime has passed: when that run is really over, run again with --take-over"
            if stale
            else "that process no longer runs on this machine: run again when the lock has expired"
            if gone
            else "wait for its end; when that run broke off, its lock is stale once it has expired"
        )
        by_run: dict[tuple[str, bool], list[str]] = {}
        for name, found in held_by.items():  # by the run: its nodes' clocks may be a second apart
            by_run.setdefault((found.token, found.stale), []).append(name)
        lines = [(", ".join(names), held_by[names[0]].told) for names in by_run.values()]
        if len(lines) == 1:
            raise errors.LockHeld(lines[0][1], node=lines[0][0], remedy=remedy)
        raise errors.LockHeld("\n".join(["another run is at work:", *map(": ".join, lines)]), remedy=remedy)

    def renew(self) -> None:
        """Make the lock hold for another lifetime; what fails is noted, and nothing is raised."""
        nodes = [node for node in self._fleet.cluster.nodes if node.name in self.nodes]
        outcomes = self._fleet.run(self._script(), what="renew the lock", nodes=nodes, timeout_s=_TIMEOUT_S)
        for name, outcome in outcomes.items():
            try:
                word, found = _said(outcome)
            except errors.RunbookError as error:
                self._journal.note(name, "lock", "failed", f"not renewed: {error.message}")
                continue
            if found:
                self._journal.note(name, "lock", "failed", f"not renewed: it was taken by {found}")
            elif word == "taken":
                self._journal.note(name, "lock", "done", "taken again: it was gone (was the node started anew?)")

    def note_failure(self, error: Exception) -> None:
        """Note that a renewal failed on this side; a journal that can't be written is no reason to end."""
        with contextlib.suppress(OSError):
            self._journal.note("", "lock", "failed", f"not renewed: {type(error).__name__}: {error}")

    def release(self) -> None:
        """Remove our lock wherever it may be, and close the connections; what fails is noted."""
        try:
            script = release(self._folder, self.token)
            outcomes = self._fleet.run(script, what="release the lock", nodes=self._touched, timeout_s=_TIMEOUT_S)
            for name, outcome in outcomes.items():
                try:
                    word, _ = _said(outcome)
                except errors.RunbookError as error:
                    self._journal.note(name, "lock", "failed", f"not released, it will expire: {error.message}")
                    continue
                if word == "released":
                    self._journal.note(name, "lock", "done", "released")
                elif name in self.nodes:
                    self._journal.note(name, "lock", "failed", "was no longer ours at the end")
        finally:
            _held.discard(self.token)
            self._fleet.close()


class _Renewal(threading.Thread):
    """Renews a lock from time to time until the block ends; no renewal is under way after that."""

    def __init__(self, lock: Lock, every_s: float) -> None:
        super().__init__(daemon=True, name="runbook-lock")
        self._lock, self._every_s = lock, every_s
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._lock.renew()
            except Exception as error:  # noqa: BLE001 - the run goes on, whatever it was
                self._lock.note_failure(error)

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self.join()


def _twins(fleet: Fleet) -> dict[str, Connection]:
    """The run's broker where it has one; else connections of our own: a renewal never waits for what the run does."""
    ssh = fleet.cluster.ssh

    def twin(connection: Connection) -> Connection:
        ours = isinstance(connection, SshConnection | BrokeredConnection)
        return brokered.connection(connection.node, ssh) if ours else connection

    return {name: outcome.value for name, outcome in fleet.each(twin).items() if outcome.value}


def _said(outcome: Outcome[Completed]) -> tuple[str, Found | None]:
    if outcome.value is None:
        raise outcome.error or errors.Unreachable("no answer", node=outcome.node.name)
    return answer(outcome.value)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name: containers have such
        return str(os.geteuid())


def life(pid: int) -> str:
    """A process as no other is or was: the system's boot, the pid namespace and its start; "" where that is not known.

    It is also "" for one that has ended, waited for or not (proc(5): the state, and the start in ticks since the boot).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").stat().st_ino
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *rest = stat.rpartition(")")[2].split()
        return "" if state in "ZX" else f"{boot}/{space}/{rest[18]}"
    except (OSError, IndexError):
        return ""


def _left_by(found: Found) -> str:
    return f"{'a stale one' if found.stale else 'the one'} of {found}{'' if found.stale else ', which has ended'}"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
