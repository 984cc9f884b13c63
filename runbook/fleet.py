"""All nodes of a cluster at once: the same work on each, one outcome a node."""

from __future__ import annotations

import copy
import resource
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from runbook import errors, params, show
from runbook.journal import Journal
from runbook.ssh import Connection, SshConnection
from runbook.transport import brokered
from runbook.transport.brokered import BrokeredConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from runbook.params import Cluster, Node
    from runbook.transport.completed import Completed

T = TypeVar("T")
#: No thread a node beyond this: paramiko has one of its own for each connection already.
WORKERS = 32
#: A kernel's own files, and two for each script that runs.
_OTHER_FILES = 512
#: The fleets of this process that were opened and not closed, in this order.
_opened: list[weakref.ref[Fleet]] = []


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of the work on one node: a value or an error, and the time it took."""

    node: Node
    value: T | None
    error: errors.RunbookError | None
    took_s: float


class Fleet:
    """The connections to the nodes of one cluster.

    Attributes:
        cluster: The params.
        journal: Where each step is noted.
        sums: The change time and SHA-256 of files that plans have found to have the wanted bytes, or have put there, by
            node and path: those that have not changed since need not be summed again.
    """

    def __init__(self, cluster: Cluster, connections: Mapping[str, Connection], journal: Journal | None = None) -> None:
        self.cluster = cluster
        self.journal = journal or Journal()
        self.sums: dict[tuple[str, str], tuple[str, str]] = {}
        self._connections = dict(connections)
        self._logins: dict[str, Outcome[None]] = {}

    def open(self) -> list[errors.RunbookError]:
        """Connect to every node; returns the errors of those that can't be reached or refused us."""

        def login(connection: Connection) -> None:
            if isinstance(connection, SshConnection | BrokeredConnection):
                connection.open()
                self.journal.note(connection.node.name, "connect")

        self._logins = self.each(login)
        _opened.append(weakref.ref(self))
        return [outcome.error for outcome in self._logins.values() if outcome.error]

    def each(self, work: Callable[[Connection], T], nodes: Iterable[Node] | None = None) -> dict[str, Outcome[T]]:
        """Do `work` on the nodes at once (all of them by default); one node's error never hides another's outcome.

        Returns:
            One Outcome a node, by the node's name, in the order of the nodes.
        """
        chosen = list(self.cluster.nodes if nodes is None else nodes)

        def one(node: Node) -> Outcome[T]:
            start = time.monotonic()
            try:
                return Outcome(node, work(self._connections[node.name]), None, time.monotonic() - start)
            except errors.RunbookError as error:
                self.journal.note(node.name, "error", "failed", error.message)
                return Outcome(node, None, error, time.monotonic() - start)
            except Exception as error:  # noqa: BLE001 - a fault of ours on one node must not hide what the others say
                self.journal.note(node.name, "error", "failed", type(error).__name__)
                ours = errors.RunbookError(f"unexpected {type(error).__name__}: {error}", node=node.name)
                ours.__cause__ = error
                return Outcome(node, None, ours, time.monotonic() - start)

        if not chosen:
            return {}
        with ThreadPoolExecutor(min(WORKERS, len(chosen)), thread_name_prefix="runbook-node") as pool:
            return {outcome.node.name: outcome for outcome in pool.map(one, chosen)}

    def run(
        self,
        script: str | Callable[[Node], str],
        *,
        what: str,
        nodes: Iterable[Node] | None = None,
        timeout_s: float = 60,
    ) -> dict[str, Outcome[Completed]]:
        """Run a script on the nodes at once; one Outcome a node, whatever its exit status."""

        def work(connection: Connection) -> Completed:
            text = script if isinstance(script, str) else script(connection.node)
            return connection.run(text, what=what, timeout_s=timeout_s)

        return self.each(work, nodes)

    def first(self, nodes: Iterable[Node], script: str, *, what: str, timeout_s: float = 60) -> Completed:
        """Run a script on the first of the nodes that can be reached.

        Raises:
            NodeError: none of them can be reached.
        """
        failed: list[errors.RunbookError] = []
        for node in nodes:
            outcome = self.run(script, what=what, nodes=[node], timeout_s=timeout_s)[node.name]
            if outcome.value is not None:
                return outcome.value
            if outcome.error and not isinstance(outcome.error, errors.NodeError):
                raise outcome.error
            failed.append(outcome.error or errors.Unreachable("no answer", node=node.name))
        raise errors.together(failed)

    def table(self) -> show.Table:
        """One row a node: node, host, roles, ok, took_ms (connect and login), why."""
        rows = [
            {
                "node": node.name,
                "host": node.host,
                "roles": node.roles,
                "ok": outcome is not None and outcome.error is None,
                "took_ms": None if outcome is None else outcome.took_s * 1000,
                "why": "" if outcome is None or outcome.error is None else outcome.error.message,
            }
            for node in self.cluster.nodes
            for outcome in [self._logins.get(node.name)]
        ]
        columns = ["node", "host", "roles", "ok", "took_ms", "why"]
        return show.table(rows, columns, f"Nodes of cluster {self.cluster.name}")

    def _repr_mimebundle_(self, **_options: object) -> dict[str, object]:
        table = self.table()
        shown = {"text/html": show.table_html(table) + show.notes_html(self.cluster.warnings)}
        return {show.TABLE_MIME: [show.kept(table)], **shown, "text/plain": self._text(table)}

    def __repr__(self) -> str:
        return self._text(self.table())

    def _text(self, table: show.Table) -> str:
        return "\n".join([show.table_text(table), *(f"warning: {text}" for text in self.cluster.warnings)])

    def noting(self, part: str) -> Fleet:
        """The same connections, for what is noted in the journal as a part of something."""
        fleet = copy.copy(self)
        fleet.journal = self.journal.of(part)
        return fleet

    def close(self) -> None:
        """Close every connection."""
        _opened[:] = [one for one in _opened if one() not in (self, None)]
        for connection in self._connections.values():
            connection.close()


def opened() -> list[Fleet]:
    """The fleets that were opened and are still in use, the newest last: a check that fails can ask its nodes why."""
    return [fleet for one in _opened if (fleet := one()) is not None]


def values(outcomes: Mapping[str, Outcome[T]]) -> dict[str, T]:
    """The values by node name, when every node has one.

    Raises:
        RunbookError: one that lists every node that failed.
    """
    if failed := [outcome.error for outcome in outcomes.values() if outcome.error]:
        raise errors.together(failed)
    return {name: outcome.value for name, outcome in outcomes.items() if outcome.value is not None}


def allow_descriptors(nodes: int) -> None:
    """Let this process open a connection to that many nodes: 1,024 files is what most systems begin with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = nodes + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def connect(cluster: str | Path | Mapping[str, object] | Cluster, *, partial: bool = False) -> Fleet:
    """Read and check the params, then connect to every node, all at once.

    Args:
        cluster: The path of a params file, its `cluster` settings themselves, or a Cluster.
        partial: Go on with the nodes that answer (the verify phases: a node that is down is a row in their tables).

    Returns:
        The fleet; as a cell's last expression it shows a row a node.

    Raises:
        ParamsError: the params have faults; all of them are listed, and no node was touched.
        NodeError: nodes can't be reached or refused us; all of them are listed.
    """
    read = params.load(cluster)
    allow_descriptors(len(read.nodes))
    fleet = Fleet(read, {node.name: brokered.connection(node, read.ssh) for node in read.nodes})
    failed = fleet.open()
    if failed and (not partial or len(failed) == len(read.nodes)):
        show.display(fleet)
        fleet.close()
        raise errors.together(failed)
    return fleet
