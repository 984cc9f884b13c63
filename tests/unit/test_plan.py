"""runbook.plan: what would change, and that nothing else ever does."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_node import OWNER, cluster_of, fleet_of, local

from runbook import errors, plan, show
from runbook.certs.secret import Secret
from runbook.fleet import Fleet
from runbook.plan import Plan
from runbook.plans import apply
from runbook.resources import Change, Directory, File, Payload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import NoReturn

    from runbook.plans.rollout import Stop

CLUSTER = cluster_of()
NO_NODES = Fleet(CLUSTER, {})


def applied(one: Plan, approve: bool | str = True) -> show.Table:  # noqa: FBT001, FBT002 - as in Plan.apply
    return asyncio.run(one.apply(approve))


def plan_of(*changes: Change, title: str = "units", fleet: Fleet = NO_NODES) -> Plan:
    return Plan(title, fleet, lambda: (list(changes), [], 0))


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return fleet_of(CLUSTER, tmp_path)


def files_plan(fleet: Fleet, folder: Path, text: bytes = b"new\n") -> Plan:
    """A plan for one file on each node, in a folder of the node's own."""
    wanted = {}
    for node in fleet.cluster.nodes:
        etc = folder / node.name / "etc"
        wanted[node.name] = [Directory(str(etc), owner=OWNER), File(str(etc / "unit"), text, owner=OWNER)]
    return plan.of_resources("units", fleet, wanted)


def scripts(fleet: Fleet, what: str = "flock") -> int:
    """How many scripts that hold `what` were run: those that change something take the lock."""
    return sum(what in script for one in local(fleet).values() for script in one.scripts)


# ---- its id


changes_of_a_plan = st.lists(
    st.builds(
        Change,
        resource=st.text(max_size=5),
        action=st.sampled_from(["create", "change"]),
        why=st.text(max_size=5),
        digest=st.text(max_size=5),
        node=st.sampled_from(["", "node1", "node2"]),
    ),
    max_size=5,
)


@settings(max_examples=30)
@given(changes=changes_of_a_plan, seed=st.integers(0, 99))
def test_an_id_does_not_depend_on_order(changes: list[Change], seed: int) -> None:
    """The same changes have the same id, in whatever order nodes answered."""
    other = random.Random(seed).sample(changes, len(changes))  # noqa: S311 - a shuffle that can be repeated
    assert plan_of(*changes).id == plan_of(*other).id


@settings(max_examples=50)
@given(one=changes_of_a_plan, other=changes_of_a_plan)
def test_other_changes_have_another_id(one: list[Change], other: list[Change]) -> None:
    """Two plans have the same id exactly when they make the same changes."""

    def key(changes: list[Change]) -> list[tuple[str, ...]]:
        return sorted((c.node, c.resource, c.action, c.digest) for c in changes)

    assert (plan_of(*one).id == plan_of(*other).id) == (key(one) == key(other))


def test_an_id_is_that_of_its_cluster_and_title() -> None:
    """The approval of a plan is not one for another cluster, or another phase."""
    change = Change("/x", "create", "missing", digest="1")
    other = Fleet(CLUSTER.model_copy(update={"name": "d"}), {})
    assert len({plan_of(change).id, plan_of(change, title="t").id, plan_of(change, fleet=other).id}) == 3


def test_random_keys_are_not_in_an_id() -> None:
    """A key is made when the plan is applied; reading a plan, its id and its text makes none."""

    def payloads() -> NoReturn:
        raise AssertionError("a key was made before the plan was applied")

    one = plan_of(Change("etcd.pem", "create", "missing", digest="CN=node1", payloads=payloads, node="node1"))
    assert one.id == plan_of(Change("etcd.pem", "create", "missing", digest="CN=node1", node="node1")).id
    assert "etcd.pem" in repr(one)


def test_a_refusal_that_comes_later_changes_the_id() -> None:
    """A change that must not be made any more is another plan than the one that was approved."""
    change = Change("/data/", "change", "mode", digest="0700")
    assert plan_of(change).id != plan_of(replace(change, refusal="others use it")).id


# ---- applying


def test_a_plan_is_made_true_and_then_is_empty(fleet: Fleet, tmp_path: Path) -> None:
    """What is applied is there; the next plan is empty, needs no approval and runs nothing."""
    one = files_plan(fleet, tmp_path)
    assert [(c.node, c.action) for c in one.changes] == [(f"node{n}", "create") for n in (1, 1, 2, 2, 3, 3)]
    table = applied(one)
    assert list(table["result"]) == ["done"] * 6
    assert table.caption == "units: 6 of 6 changes made"
    assert [(tmp_path / node.name / "etc/unit").read_bytes() for node in CLUSTER.nodes] == [b"new\n"] * 3
    again = files_plan(fleet, tmp_path)
    assert (again.empty, again.unchanged) == (True, 6)
    ran = scripts(fleet)
    assert len(applied(again, approve=False)) == 0
    assert scripts(fleet) == ran


def test_a_plan_that_was_applied_makes_nothing_twice(fleet: Fleet, tmp_path: Path) -> None:
    """Applied again it is read again: only what is missing is made, and then it is empty and asks nobody."""
    one = files_plan(fleet, tmp_path)
    applied(one)
    (tmp_path / "node2" / "etc/unit").unlink()
    assert [(row["node"], row["resource"]) for row in show.rows(applied(one))] == [
        ("node2", str(tmp_path / "node2" / "etc/unit")),
    ]  # fmt: skip
    ran = scripts(fleet)
    table = applied(one, approve=False)
    assert (len(table), "nothing to change" in table.caption) == (0, True)
    assert scripts(fleet) == ran


def test_what_was_not_approved_is_not_made_by_an_old_yes(fleet: Fleet, tmp_path: Path) -> None:
    """Where the nodes ask for another change after an apply than the one that was approved, it is shown first."""
    one = files_plan(fleet, tmp_path)
    applied(one)
    (tmp_path / "node2" / "etc/unit").write_bytes(b"by hand\n")
    with pytest.raises(errors.PlanChanged):
        applied(one)
    assert (tmp_path / "node2" / "etc/unit").read_bytes() == b"by hand\n"


def test_nothing_is_changed_before_it_is_approved(fleet: Fleet, tmp_path: Path) -> None:
    """Headless and without approval a plan ends with its id in the remedy, and nothing was run."""
    one = files_plan(fleet, tmp_path)
    with pytest.raises(errors.ApprovalRequired) as caught:
        applied(one, approve=False)
    assert type(caught.value) is errors.ApprovalRequired
    assert caught.value.remedy == f"-p approve {one.id}"
    assert scripts(fleet) == 0
    assert not (tmp_path / "node1" / "etc").exists()


def test_the_id_of_a_plan_approves_that_plan_only(fleet: Fleet, tmp_path: Path) -> None:
    """Another plan's id changes nothing; its own does."""
    one, other = files_plan(fleet, tmp_path), files_plan(fleet, tmp_path, b"other\n")
    with pytest.raises(errors.PlanChanged, match=f"plan {other.id} was approved.*is plan {one.id}"):
        applied(one, approve=other.id)
    assert scripts(fleet) == 0
    assert list(applied(one, approve=one.id)["result"]) == ["done"] * 6


def test_a_plan_with_a_refusal_is_never_applied(fleet: Fleet) -> None:
    """One change that would do harm stops the whole plan, approved or not, and each reason is told."""
    good = Change("/a", "create", "missing", before="touch x", node="node1")
    bad = [Change(f"/{name}", "change", "", refusal=f"{name} is in use", node="node2") for name in "bc"]
    with pytest.raises(errors.PlanRefused) as caught:
        applied(plan_of(good, *bad, fleet=fleet))
    assert caught.value.message == "nothing was changed:\nnode2 /b: b is in use\nnode2 /c: c is in use"
    assert scripts(fleet, "") == 0


def test_a_plan_that_is_stale_is_read_again(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that was looked at for long is read again: as it was, it is applied; else nothing is changed."""
    one = files_plan(fleet, tmp_path)
    monkeypatch.setattr(plan, "_STALE_AFTER_S", 0.0)
    (tmp_path / "node2" / "etc").mkdir()
    shown = one.id
    with pytest.raises(errors.PlanChanged, match=f"since plan {shown} was shown; it would be (?!{shown})"):
        applied(one)
    assert scripts(fleet) == 0
    assert list(applied(files_plan(fleet, tmp_path))["result"]) == ["done"] * 5


def test_a_plan_that_was_just_read_is_not_read_again(fleet: Fleet, tmp_path: Path) -> None:
    """At once after the plan each node has one more round trip: the one that changes it."""
    applied(files_plan(fleet, tmp_path))
    assert scripts(fleet, "") == 2 * 3


def test_a_refusal_that_came_since_stops_a_stale_plan(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others moved into a folder since the plan was shown, it is not taken over."""
    folder = tmp_path / "node1" / "data"
    folder.mkdir(mode=0o755)
    wanted = {"node1": [Directory(str(folder), 0o700, "nobody:nogroup", may_hold=())]}
    one = plan.of_resources("units", fleet, wanted)
    monkeypatch.setattr(plan, "_STALE_AFTER_S", 0.0)
    (folder / "of-others").touch()
    with pytest.raises((errors.PlanChanged, errors.PlanRefused)):
        applied(one)
    assert folder.stat().st_mode & 0o777 == 0o755


def test_every_node_has_its_rows_when_one_fails(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a node fails part-way the others go on; the table that is shown has all rows, the error the causes."""
    shown: list[show.Table] = []
    monkeypatch.setattr(show, "display", shown.append)
    one = files_plan(fleet, tmp_path)
    local(fleet)["node2"].shim("mv", "echo 'mv: disk error' >&2; exit 1")
    with pytest.raises(errors.ApplyFailed) as caught:
        applied(one)
    assert caught.value.message == (f"1 of 6 changes were not made:\nnode2 {tmp_path}/node2/etc/unit: mv: disk error")
    (table,) = shown
    assert list(table["node"]) == ["node1", "node1", "node2", "node2", "node3", "node3"]
    assert list(table["result"]) == ["done", "done", "done", "failed", "done", "done"]
    # Run again, it goes on from there.
    (tmp_path / "node2" / "shims" / "mv").unlink()
    rest = files_plan(fleet, tmp_path)
    assert [(c.node, c.why) for c in rest.changes] == [("node2", "missing")]
    assert list(applied(rest)["result"]) == ["done"]


def test_a_node_that_is_lost_is_in_the_table(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that goes away between plan and apply has its rows, with the reason."""
    one = files_plan(fleet, tmp_path)

    def lost(*_: object, **__: object) -> NoReturn:
        raise errors.ConnectionLost("the connection broke", node="node3")

    monkeypatch.setattr(local(fleet)["node3"], "run", lost)
    with pytest.raises(errors.ApplyFailed, match=r"node3 .*: the connection broke"):
        applied(one)
    assert (tmp_path / "node1" / "etc" / "unit").is_file()


def test_payloads_that_cannot_be_made_are_that_nodes_failure(fleet: Fleet) -> None:
    """Where a certificate can't be issued, the node's rows say why, and the other nodes are done."""

    def payloads() -> NoReturn:
        raise errors.PkiError("the CA has expired")

    bad = Change("etcd.pem", "create", "missing", payloads=payloads, node="node1")
    good = Change("x", "create", "missing", before="true", node="node2")
    with pytest.raises(errors.ApplyFailed, match=r"1 of 2 changes .*\nnode1 etcd.pem: the CA has expired"):
        applied(plan_of(bad, good, fleet=fleet))


def test_this_sides_changes_come_first(fleet: Fleet, tmp_path: Path) -> None:
    """What is made here (the CA) is there before any node is touched; where it fails no node is."""
    order: list[str] = []

    def issue() -> tuple[Payload, ...]:
        order.append("certificate")
        return (Payload(str(tmp_path / "key"), 0o600, OWNER, Secret(b"k")),)

    certificate = Change("etcd.pem", "create", "missing", payloads=issue, node="node1")
    table = applied(plan_of(certificate, Change("ca.pem", "create", "", here=lambda: order.append("CA")), fleet=fleet))
    assert order == ["CA", "certificate"]
    assert sorted(table["node"]) == ["(here)", "node1"]

    def fails() -> NoReturn:
        raise errors.PkiError("no space left")

    ran = scripts(fleet)
    with pytest.raises(errors.RunbookError, match="no space left"):
        applied(plan_of(certificate, Change("ca.pem", "create", "", here=fails), fleet=fleet))
    assert scripts(fleet) == ran


def test_the_journal_tells_who_approved_and_what_came_of_it(fleet: Fleet, tmp_path: Path) -> None:
    """The journal has the start with how it was approved, each change, and the end."""
    one = files_plan(fleet, tmp_path)
    applied(one, approve=one.id)
    steps = [(step.node, step.state) for step in fleet.journal.steps]
    assert steps[0] == ("", "started")
    assert fleet.journal.steps[0].detail == f"approved by parameter: approve = {one.id}"
    assert fleet.journal.steps[-1].detail == "6 of 6"
    assert {(node.name, "done") for node in CLUSTER.nodes} <= set(steps)


# ---- what is shown


HOSTILE = "\x1b[31m<script>alert(1)</script>[red]&"


@pytest.mark.parametrize(
    "shown", [repr, lambda one: one._repr_html_(), lambda one: one._repr_mimebundle_()["text/plain"]]
)
def test_nothing_of_a_node_gets_through_unescaped(shown: Callable[[Plan], str]) -> None:
    """Diffs, notes and cells hold no control characters, and in HTML no tags of others."""
    one = plan_of(Change(HOSTILE, "create", HOSTILE, HOSTILE, HOSTILE, diff=f"+{HOSTILE}", node="node1"))
    one.notes = [HOSTILE]
    text = shown(one)
    assert "\x1b" not in text
    assert "alert(1)" in text
    assert "[red]" in text
    if text.startswith("<"):
        assert "<script>" not in text


def test_an_empty_plan_says_so() -> None:
    """A plan without changes says it in words, as text and as HTML."""
    one = Plan("etcd units", NO_NODES, lambda: ([], ["a note"], 12))
    assert one.headline == "etcd units: nothing to change; 12 right already."
    assert repr(one) == f"{one.headline}\na note"
    assert "nothing to change" in one._repr_html_()


@pytest.mark.parametrize("changes", [[], [Change("/etc/x", "create", "missing", node="node1")]])
def test_a_note_is_no_warning(changes: list[Change]) -> None:
    """Where binaries come from, or that members restart one by one, stands beside a plan as a note."""
    one = Plan("etcd units", NO_NODES, lambda: (changes, ["a note"], 12))
    assert f"{show.chip('note')} a note" in one._repr_html_()


def test_a_headline_counts() -> None:
    """The headline says how many changes of which kind on how many nodes, and the plan's id."""
    one = plan_of(
        Change("ca.pem", "create", ""), Change("a", "create", "", node="node1"), Change("b", "renew", "", node="node2")
    )
    told = "2 to create, 1 to renew on 2 nodes; restarts nothing; 0 right already"
    assert one.headline == f"units: {told}. Plan {one.id}."
    assert plan_of(Change("ca.pem", "create", "")).headline.startswith("units: 1 to create on this side;")


def test_a_plan_for_programs_has_its_diffs_and_no_payloads() -> None:
    """As data a plan has title, id, and each change with its diff and refusal, and can be written as JSON."""
    one = plan_of(Change("a", "create", "missing", diff="+x", node="node1", payloads=lambda: ()))
    data = one.as_dict()
    assert (data["title"], data["id"], data["unchanged"]) == ("units", one.id, 0)
    assert data["changes"] == [
        {"node": "node1", "resource": "a", "action": "create", "why": "missing", "current": "", "desired": "",
         "diff": "+x", "refusal": ""}
    ]  # fmt: skip


def test_results_of_a_rollout_of_its_own_are_judged_the_same(fleet: Fleet) -> None:
    """A plan that rolls by itself fails in the same way when a row is not done."""
    change = Change("etcd.service", "restart", "changed", node="node1")

    def rollout(_fleet: Fleet, changes: object, _stop: Stop) -> list[apply.Result]:
        assert changes == [change]
        return apply.not_done([change], "not begun: another node failed")

    one = Plan("etcd start", fleet, lambda: ([change], [], 0), rollout=rollout)
    with pytest.raises(errors.ApplyFailed, match="not begun: another node failed"):
        applied(one)
