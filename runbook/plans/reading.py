"""What is there on the nodes: read in one round trip each, and held against what is wanted."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from runbook import errors
from runbook.fleet import values
from runbook.plans import looking
from runbook.resources import Change, File, Found, Look, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runbook.fleet import Fleet, Outcome
    from runbook.ssh import Connection
    from runbook.transport.completed import Completed


class Guard(Resource, Protocol):
    """Says whether a node may be changed at all; asked where something is to change, or where there is a doubt."""

    def there(self) -> str:
        """Give sh that prints `guarded=yes` where there is anything to look at, `guarded=doubt` to be asked anyway."""


def read(fleet: Fleet, resources: Mapping[str, Sequence[Resource]], *, what: str) -> dict[str, list[Found]]:
    """Read what is there: one round trip a node, all nodes at once.

    Returns:
        For each node what its resources' looks found and their probes printed, in the order of the resources.

    Raises:
        RunbookError: nodes could not be read; all of them are listed.
    """
    return values(outcomes(fleet, resources, what=what))


def outcomes(
    fleet: Fleet, resources: Mapping[str, Sequence[Resource]], *, what: str
) -> dict[str, Outcome[list[Found]]]:
    """As `read`, with an outcome for each node: one that can't be read hides no other."""
    nodes = [node for node in fleet.cluster.nodes if resources.get(node.name)]
    return fleet.each(lambda connection: _read(fleet, connection, resources[connection.node.name], what), nodes)


def _read(fleet: Fleet, connection: Connection, wanted: Sequence[Resource], what: str) -> list[Found]:
    node = connection.node.name
    looks = [look for resource in wanted for look in resource.looks()]
    known = {look.path: fleet.sums[node, look.path] for look in looks if (node, look.path) in fleet.sums}
    # A mark that nobody can guess: nothing that a node prints can pass for another resource's answer.
    mark = f"@{secrets.token_hex(8)}\n"
    *pieces, contents = looking.script(looks, known)
    pieces += [*(resource.probe() for resource in wanted), contents]
    script = "\n".join([*(f"echo {mark}{piece}" for piece in pieces), "exit 0"])
    torn = ""
    for _ in range(2):
        *sections, contents_read = _sections(connection.run(script, what=what).check(), mark.encode(), len(pieces))
        try:
            found = looking.found(looks, known, [*sections[: looking.PARTS - 1], contents_read])
        except looking.TornError as error:
            torn = str(error)
            continue
        printed = zip(wanted, map(_values, sections[looking.PARTS - 1 :]), strict=True)
        return [{**said, **{k: v for look in one.looks() for k, v in found[look].items()}} for one, said in printed]
    raise errors.CommandFailed(
        f"files changed while they were read: {torn}",
        node=node,
        subject=what,
        remedy="see what writes them on the node, then look again",
    )


def _sections(done: Completed, mark: bytes, count: int) -> list[bytes]:
    sections = done.stdout.split(mark)[1:]
    if len(sections) != count:
        raise errors.CommandFailed(f"{len(sections)} answers, expected {count}", node=done.node, subject=done.what)
    return sections


def _values(section: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in section.decode("utf-8", "replace").splitlines() if "=" in line)


def guarded(
    resources: Mapping[str, Sequence[Resource]], guards: Mapping[str, Guard] | None
) -> dict[str, list[Resource]]:
    """The resources of each node, and whether its guard has anything to look at, to be read for `judged`."""
    there = {name: [_There(guard)] for name, guard in (guards or {}).items()}
    return {name: [*wanted, *there.get(name, ())] for name, wanted in resources.items()}


def judged(
    fleet: Fleet,
    resources: Mapping[str, Sequence[Resource]],
    found: Mapping[str, Sequence[Found]],
    *,
    what: str,
    guards: Mapping[str, Guard] | None = None,
) -> tuple[list[Change], int]:
    """Hold what was read of `guarded` resources against what is wanted.

    A guard is asked where something is to change and there is anything to look at, or where in doubt: one more round
    trip then. A file
    that has the wanted bytes is remembered by its sum and change time (`fleet.sums`).

    Returns:
        The changes, and how many resources are right already.
    """
    guards = guards or {}
    changes: dict[str, list[Change]] = {name: [] for name in resources}
    unchanged = 0
    for name, wanted in resources.items():
        for resource, state in zip(wanted, found[name], strict=False):
            change = resource.compare(state)
            if change:
                changes[name].append(replace(change, node=name))
            unchanged += change is None
            if isinstance(resource, File) and state.get("sha256") == resource.sha256:
                fleet.sums[name, resource.path] = state["ctime"], resource.sha256
    hints = {name: found[name][-1].get("guarded") for name in guards}
    asked = {name: [guards[name]] for name, hint in hints.items() if hint == "doubt" or (hint and changes[name])}
    for name, (state,) in (read(fleet, asked, what=what) if asked else {}).items():
        if change := guards[name].compare(state):
            changes[name].append(replace(change, node=name))
    return [change for of_node in changes.values() for change in of_node], unchanged


def compared(
    fleet: Fleet,
    resources: Mapping[str, Sequence[Resource]],
    *,
    what: str,
    guards: Mapping[str, Guard] | None = None,
) -> tuple[list[Change], int]:
    """Read the resources and judge them: the changes, and how many are right already.

    Raises:
        RunbookError: nodes could not be read; all of them are listed.
    """
    found = read(fleet, guarded(resources, guards), what=what)
    return judged(fleet, resources, found, what=what, guards=guards)


@dataclass(frozen=True)
class _There:
    """Whether there is anything for a guard to look at."""

    guard: Guard

    @property
    def label(self) -> str:
        return self.guard.label

    def looks(self) -> tuple[Look, ...]:
        return ()

    def probe(self) -> str:
        return self.guard.there()

    def compare(self, found: Found) -> None:
        """Never changes anything."""
