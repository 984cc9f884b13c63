"""A run that is hit in the middle ends, leaves nothing half, and the next finishes; `make faults` has all points."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING

import pytest
from faultpoints import POINTS, Fault, Point, chosen
from sweep import Sweep

from runbook import phases

if TYPE_CHECKING:
    from practice import Practice

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-6")]

MIN_POINTS = 60


@pytest.fixture(scope="module")
def sweep(practice: Practice) -> Sweep:
    """A cluster that is built, with the checksums of what it is to be."""
    made = Sweep(practice)
    made.begin()
    return made


def test_every_phase_that_changes_a_node_is_hit_by_everything() -> None:
    """The points have names of their own, reach each phase that has a plan, and hold every kind of fault."""
    faults = set(typing.get_args(Fault))
    changing = {phase.number for phase in phases.PHASES if phase.plan}
    assert len({point.name for point in POINTS}) == len(POINTS) >= MIN_POINTS
    assert {point.fault for point in POINTS} == {point.fault for point in chosen()} == faults
    assert {point.phase for point in POINTS} == {point.phase for point in chosen()} == changing


@pytest.mark.parametrize("point", chosen(), ids=lambda point: point.name)
def test_it_ends_and_the_next_run_finishes(sweep: Sweep, point: Point) -> None:
    """No half file, no open key, no unit without its binary; then three endpoints, leases, a mesh, and no leftovers."""
    assert sweep.hit(point).broken == ()
