"""runbook.plans.reading: what nodes answer, told apart, and held against what is wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_node import OWNER, LocalConnection, cluster_of, fleet_of, local

from runbook import errors
from runbook.fleet import Fleet
from runbook.plans import reading
from runbook.resources import Change, File, Found, Look

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runbook.transport.completed import Completed

CLUSTER = cluster_of()


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return fleet_of(CLUSTER, tmp_path)


def scripts(fleet: Fleet) -> int:
    """How many scripts were run."""
    return sum(len(one.scripts) for one in local(fleet).values())


class Says:
    """A resource whose probe is this script; it wants `type=right`."""

    def __init__(self, script: str) -> None:
        self.script = script
        self.label = "says"

    def looks(self) -> tuple[Look, ...]:
        return ()

    def probe(self) -> str:
        return self.script

    def compare(self, found: Found) -> Change | None:
        return None if found.get("type") == "right" else Change("says", "change", str(found))


def test_answers_come_in_the_order_of_the_resources(fleet: Fleet) -> None:
    """Each resource gets what its own probe printed, whether that ends with a newline or is nothing."""
    wanted = {"node1": [Says("echo a=1"), Says(""), Says("printf b=2"), Says("echo 'c=3=4'; echo noise")]}
    assert reading.read(fleet, wanted, what="read") == {"node1": [{"a": "1"}, {}, {"b": "2"}, {"c": "3=4"}]}
    assert scripts(fleet) == 1


@settings(max_examples=15)
@given(noise=st.text(st.sampled_from("@0123456789abcdef\n= "), max_size=80))
def test_output_of_one_probe_is_no_answer_of_another(noise: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever a probe prints, section marks of other runs included, its neighbours' answers stay theirs."""
    fleet = fleet_of(cluster_of(nodes=[{"name": "node1", "host": "198.18.0.11"}]), tmp_path_factory.mktemp("forged"))
    forged = Says("cat <<'END'\n" + noise + "\n@0123456789abcdef\ntype=right\nEND")
    found = reading.read(fleet, {"node1": [Says("echo a=1"), forged, Says("echo b=2")]}, what="read")["node1"]
    assert (found[0], found[2], found[1]["type"]) == ({"a": "1"}, {"b": "2"}, "right")


def test_answers_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    """Where a node repeats our marks the answers can't be told apart: an error, never a guess."""

    class Echo(LocalConnection):
        """Stands in for a node that prints everything twice."""

        def run(self, *args: Any, **options: Any) -> Completed:  # noqa: ANN401
            done = super().run(*args, **options)
            return replace(done, stdout=done.stdout * 2)

    fleet = Fleet(CLUSTER, {"node1": Echo(CLUSTER.nodes[0], tmp_path)})
    with pytest.raises(errors.CommandFailed, match=r"node1: read: [0-9]+ answers, expected 5"):
        reading.read(fleet, {"node1": [Says("echo a=1")]}, what="read")


def test_all_nodes_that_cannot_be_read_are_named(fleet: Fleet) -> None:
    """The error of one node doesn't hide another's."""
    with pytest.raises(errors.CommandFailed) as caught:
        reading.read(
            fleet, {"node1": [Says("exit 3")], "node2": [Says("true")], "node3": [Says("exit 4")]}, what="read"
        )
    assert "node1: read: ended with status 3" in str(caught.value)
    assert "node3: read: ended with status 4" in str(caught.value)
    assert "node2" not in str(caught.value)


def test_a_node_that_cannot_be_read_is_one_outcome(fleet: Fleet) -> None:
    """The others' answers are there beside it."""
    told = reading.outcomes(fleet, {"node1": [Says("echo a=1")], "node2": [Says("exit 3")]}, what="read")
    assert told["node1"].value == [{"a": "1"}]
    assert told["node2"].error is not None
    assert list(told) == ["node1", "node2"]


class Torn(LocalConnection):
    """Stands in for a node on which a file grows behind stat's back, as often as it is told."""

    times = 0

    def run(self, *args: Any, **options: Any) -> Completed:  # noqa: ANN401
        done = super().run(*args, **options)
        self.times -= 1
        return replace(done, stdout=done.stdout + b"x") if self.times >= 0 else done


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_file_that_changes_while_it_is_read_is_read_again(times: int, tmp_path: Path) -> None:
    """Once more, and then it is an error that names the file: never half of one and half of another."""
    path = tmp_path / "unit"
    path.write_bytes(b"text")
    node = Torn(CLUSTER.nodes[0], tmp_path)
    node.times = times
    wanted = {"node1": [File(str(path), b"text")]}
    if times == 2:
        with pytest.raises(errors.CommandFailed, match=f"changed while they were read: 5 bytes of {path}, expected 4"):
            reading.read(Fleet(CLUSTER, {"node1": node}), wanted, what="read")
        return
    (found,) = reading.read(Fleet(CLUSTER, {"node1": node}), wanted, what="read")["node1"]
    assert found["size"] == "4"
    assert len(node.scripts) == times + 1


# ---- guards


@dataclass(frozen=True)
class Guarding:
    """Refuses; where there is something to look at or not."""

    yes: str
    label: str = "data"

    def there(self) -> str:
        return f"echo guarded={self.yes}"

    def looks(self) -> tuple[Look, ...]:
        return ()

    def probe(self) -> str:
        return "echo looked=1"

    def compare(self, found: Found) -> Change | None:
        assert found == {"looked": "1"}
        return Change("data", "keep", "foreign", refusal="foreign")


def judged(fleet: Fleet, says: str, guards: Mapping[str, reading.Guard]) -> tuple[list[tuple[str, str]], int, int]:
    changes, unchanged = reading.compared(fleet, {"node1": [Says(says)]}, what="read", guards=guards)
    return [(one.node, one.resource) for one in changes], unchanged, scripts(fleet)


def test_a_guard_is_asked_where_something_is_to_change(fleet: Fleet) -> None:
    """It costs one more round trip there, and what it refuses is a change of that node."""
    assert judged(fleet, "echo x=1", {"node1": Guarding("yes")}) == ([("node1", "says"), ("node1", "data")], 0, 2)


def test_a_guard_is_not_asked_where_all_is_right(fleet: Fleet) -> None:
    """What is not touched needs no leave: one round trip."""
    assert judged(fleet, "echo type=right", {"node1": Guarding("yes")}) == ([], 1, 1)


def test_a_guard_in_doubt_is_asked_anyway(fleet: Fleet) -> None:
    """Also where nothing else would change: a plan is not called right that can't be."""
    assert judged(fleet, "echo type=right", {"node1": Guarding("doubt")}) == ([("node1", "data")], 1, 2)


def test_a_guard_with_nothing_to_look_at_is_not_asked(fleet: Fleet) -> None:
    """A first build has no data: reading its plan stays one round trip."""
    assert judged(fleet, "echo x=1", {"node1": Guarding("")}) == ([("node1", "says")], 0, 1)


def test_a_file_that_is_right_is_remembered(fleet: Fleet, tmp_path: Path) -> None:
    """Its change time and sum are kept for later looks; those of another file are not."""
    (tmp_path / "right").write_bytes(b"right")
    (tmp_path / "wrong").write_bytes(b"wrong")
    wanted = {"node1": [File(str(tmp_path / name), b"right", owner=OWNER) for name in ("right", "wrong")]}
    reading.compared(fleet, wanted, what="read")
    assert [path for _, path in fleet.sums] == [str(tmp_path / "right")]
