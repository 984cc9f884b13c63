"""runbook.clocks: a node's time, and how far off it is at least."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from local_node import cluster_of, fleet_of, local

from runbook import clocks

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("begun", "answered", "offset"),
    [(-3.0, 0.5, 0.0), (-3.0, -1.0, 1000.0), (2.0, 5.0, -2000.0), (0.0, 0.0, 0.0)],
)
def test_a_slow_link_is_no_clock_that_is_off(begun: float, answered: float, offset: float) -> None:
    """The node told its time between the two times on this side: it is off by what lies outside of them."""
    assert clocks.offset_ms(1000.0, 1000.0 + begun, 1000.0 + answered) == offset


def test_the_times_are_before_and_after_the_first_line(tmp_path: Path) -> None:
    """What the node prints after its time does not widen what is known of it; nothing printed is known the least."""
    node = local(fleet_of(cluster_of(), tmp_path))["node1"]
    before = time.time()
    text, (begun, answered) = clocks.asked(node, "date +%s.%N; echo more", what="look")
    there, _, rest = text.partition("\n")
    assert before <= begun <= float(there) + 0.001
    assert float(there) - 0.001 <= answered <= time.time()
    assert rest == "more\n"
    _, (begun, answered) = clocks.asked(node, ":", what="look")
    assert begun <= answered
