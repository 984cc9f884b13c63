"""Where a run can be hit, and by what: each step that the journal names, the inside of a node's script, whole runs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from faultrun import Stop

Fault = Literal["SIGINT", "SIGTERM", "SIGKILL", "error here", "session killed", "network cut", "power off", "disk full"]
HERE: tuple[Fault, ...] = ("SIGINT", "SIGTERM", "SIGKILL", "error here")
"""What hits the run's own process."""

THERE: tuple[Fault, ...] = ("session killed", "network cut", "power off")
"""What hits a node."""

NODE = "node2"
"""The node that is hit."""

ALL = ("node1", "node2", "node3")


@dataclass(frozen=True)
class Inside:
    """A moment inside a node's script: before the n-th call of a program, which has another meaning nowhere else.

    `head` counts where it writes a staged file.

    Attributes:
        program: Its name.
        number: Which call.
    """

    program: str
    number: int


@dataclass(frozen=True)
class Point:
    """One row of the sweep.

    Attributes:
        phase: Its number.
        where: The moment in words, as in the table.
        at: The moment.
        fault: What happens there.
        anew: On nodes that have nothing of this phase and those after it; else only the node that is hit has not.
        whole: It is a `runbook run` with notebooks and record, not the phase's plan alone.
    """

    phase: int
    where: str
    at: Stop | Inside
    fault: Fault
    anew: bool = False
    whole: bool = False

    @property
    def name(self) -> str:
        """Names it for tests and for `--only`."""
        kind = "run" if self.whole else "phase"
        return f"{kind} {self.phase:02d}, {self.where}, {self.fault}"


_FILES = {1: "binaries", 2: "etcd certificates", 3: "etcd units", 6: "flannel certificates", 8: "flannel units"}
_UNITS = {4: "etcd", 9: "flanneld"}
#: Files travel while its units start.
_BESIDE = 4
_MADE = "create|change|renew"


def _steps(phase: int) -> list[tuple[str, Stop]]:
    """The moments that the journal names, in the order in which they come."""
    begun = ("the plan is approved", Stop("", "apply ", "started"))
    ended = ("the plan is made", Stop("", "apply ", "done"))
    if phase in _UNITS:
        started, ready = Stop(NODE, "start ", "started"), Stop(NODE, "start ", "done")
        beside = [("the node has received", Stop(NODE, "received", "done"))] if phase == _BESIDE else []
        return [begun, ("the unit is to start", started), *beside, ("the unit runs", ready), ended]
    if phase == 7:
        return [begun, ("the node begins", Stop("node1", "apply$", "started")), ended]
    return [
        begun,
        ("the node begins", Stop(NODE, "apply$", "started")),
        ("the node has received", Stop(NODE, "received", "done")),
        ("a change is noted", Stop(NODE, _MADE, "done")),
        ("the node has done", Stop(NODE, "apply$", "done")),
        ended,
    ]


def _insides(phase: int) -> list[tuple[str, Inside]]:
    """The moments inside a node's script."""
    several = phase in (1, 2, _BESIDE, 6)
    program = "zstd" if phase in (1, _BESIDE) else "head"
    return [
        ("while it receives", Inside(program, 2 if several else 1)),
        ("all is summed, nothing renamed", Inside("sync", 1)),
        ("half is renamed" if several else "before the rename", Inside("mv", 2 if several else 1)),
    ]


def _made() -> list[Point]:
    """Every step with one of the faults of this side in turn, every inside with some of the node's."""
    points, here, there = [], itertools.cycle(HERE), itertools.cycle((*THERE, "SIGKILL"))
    for phase in (*_FILES, *_UNITS, 7):
        first = True
        for where, at in _steps(phase):
            points.append(Point(phase, where, at, next(here), anew=first or phase == 7))
            first = False
        if phase in (*_FILES, _BESIDE):
            faults: tuple[Fault, ...] = (*THERE, "SIGKILL")
            for number, (where, inside) in enumerate(_insides(phase)):
                # All of them at one moment of the binaries and of the keys, one in turn elsewhere.
                some = faults if (phase, number) in ((1, 0), (2, 1), (_BESIDE, 0)) else (next(there),)
                points += [Point(phase, where, inside, fault) for fault in some]
        if phase in _UNITS:
            started = Stop(NODE, "start ", "started")
            points += [Point(phase, "the unit is to start", started, fault) for fault in THERE]
        if phase in (1, 2, 6):
            points.append(Point(phase, "the node begins", Stop(NODE, "apply$", "started"), "disk full"))
    runs: tuple[Fault, ...] = ("SIGINT", "SIGTERM", "SIGKILL")
    for phase, fault in zip((1, 3, 2), runs, strict=True):
        points.append(Point(phase, "all is summed, nothing renamed", Inside("sync", 1), fault, whole=True))
    points.append(Point(1, "while it receives", Inside("zstd", 2), "network cut", whole=True))
    points.append(Point(6, "half is renamed", Inside("mv", 2), "power off", whole=True))
    points.append(Point(8, "before the rename", Inside("mv", 1), "SIGKILL", whole=True))
    return sorted(points, key=lambda point: (point.whole, point.phase))


POINTS = tuple(_made())
"""All of them, in the order of the phases; whole runs last."""


def chosen() -> tuple[Point, ...]:
    """Those that belong to the tests of every day: each fault and each phase once, and one whole run."""
    wanted = {
        "phase 01, while it receives, network cut",
        "phase 02, all is summed, nothing renamed, power off",
        "phase 03, the plan is approved, SIGINT",
        "phase 04, while it receives, session killed",
        "phase 06, the node begins, disk full",
        "phase 07, the plan is approved, error here",
        "phase 08, the node has received, SIGKILL",
        "phase 09, the unit runs, SIGTERM",
        "run 02, all is summed, nothing renamed, SIGKILL",
    }
    return tuple(point for point in POINTS if point.name in wanted)
