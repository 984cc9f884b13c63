"""runbook.flannel_rights: what has to change of etcd's users, role and auth; nobody is ever locked out by it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from certificate_cases import our_member
from etcd_users import LEASES, NETWORK, OURS, answers, done, encoded, limited
from hypothesis import given
from hypothesis import strategies as st
from local_node import cluster_of, fleet_of

from runbook import etcd_access
from runbook.flannel_rights import MemberName, Rights
from runbook.plans import reading

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runbook.resources import Change

ON, OFF = cluster_of(flannel={"rbac": True}), cluster_of()
ROWS = [*(f"etcd user {name}" for name in OURS[:-1]), "etcd role flannel", "etcd user flanneld", "etcd auth"]


def changes(model: Mapping[str, Any], *, own_keys: int = 4, rights: Rights = Rights(ON)) -> list[Change]:  # noqa: B008
    """What has to change where etcd has this."""
    return rights.changes(encoded(answers(model)), own_keys)[0]


roles = st.lists(st.sampled_from(["root", "flannel", "app"]), unique=True)
ranges = st.sampled_from([*NETWORK, *LEASES, ("/a", "", 0), ("/a/", "/a0", 2), ("/k", "\0", 1), ("\0", "\0", 0)])
models = st.fixed_dictionaries(
    {"users": st.dictionaries(st.sampled_from([*OURS, "other"]), roles), "keys": st.integers(0, 9)},
    optional={"perm": st.lists(ranges, unique_by=lambda one: one[:2]), "enabled": st.sampled_from([False])},
)


def test_all_that_is_missing_is_made_and_auth_is_turned_on_last() -> None:
    """A row for each user, the role and auth, each with what it comes to; the role's ranges as a diff."""
    found, notes, right = Rights(ON).changes(encoded(answers({})))
    assert [one.resource for one in found] == ROWS
    assert [one.action for one in found] == [*["create"] * 6, "enable"]
    assert all(one.why and one.desired and one.after and not one.refusal for one in found)
    assert found[4].diff.splitlines()[-2:] == [
        "+read /kubernetes/network/*",
        "+readwrite /kubernetes/network/subnets/*",
    ]
    assert (right, len(notes)) == (0, 1)
    assert "only clients whose certificate's common name is one of its users" in notes[0]


def test_what_is_right_is_no_row() -> None:
    """Nothing to do, nothing to tell, and each thing counted; other users and an administrator's other roles stay."""
    model = limited(others=["app"])
    model["users"]["node2"] = ["app", "root"]
    assert Rights(ON).changes(encoded(answers(model))) == ([], [], len(ROWS))


@given(models, st.integers(0, 8))
def test_any_state_is_mended_however_often_it_breaks_off(model: dict[str, Any], broken_after: int) -> None:
    """Whatever there is, the changes are ones that etcd takes; broken off anywhere, the next plan makes the rest.

    Auth is never on before the member that asks is an administrator, and flannel can do what it must.
    """
    for change in changes(model)[:broken_after]:
        model = done(model, change.after)
        if model.get("enabled"):
            assert all("root" in model["users"][name] for name in OURS[:-1])
            assert "flannel" in model["users"]["flanneld"]
    rest = changes(model)
    assert (rest == []) or rest[-1].resource != "etcd auth" or rest[-1].action == "enable"
    for change in rest:
        assert change.refusal == ""
        model = done(model, change.after)
    assert changes(model) == []
    seen = etcd_access.parse(ON, answers(model))
    assert (seen.enabled, seen.role) == (True, etcd_access.permissions(ON))
    assert seen.users["flanneld"] == {"flannel"}


def test_a_wider_right_is_a_row_and_told() -> None:
    """What the role may do beyond its own, and another role of flannel's user, are named and taken away."""
    model = limited()
    model["perm"].append(("/registry/", "/registry0", 2))
    model["users"]["flanneld"] = ["flannel", "root"]
    role, user = changes(model)
    assert (role.resource, role.why) == ("etcd role flannel", "it has more: readwrite /registry/*")
    assert "-readwrite /registry/*" in role.diff.splitlines()
    assert (user.resource, user.why, user.current) == (
        "etcd user flanneld", "it has more roles: root", "roles: flannel, root",
    )  # fmt: skip


def test_a_range_that_no_command_can_name_is_refused() -> None:
    """Nothing is guessed: the row says what is to be removed by hand."""
    model = limited()
    model["perm"].append(("a\nb", "", 0))
    (change,) = changes(model)
    assert "remove by hand what can't be written in a command: read a\nb" in change.refusal


def test_other_keys_are_told_before_auth_is_turned_on() -> None:
    """Who else keeps keys there will need a user; flannel's own are not counted."""
    model = limited(enabled=False, keys=9)
    (change,) = changes(model, own_keys=4)
    assert "keys that are not flannel's: 5, whoever uses them needs a user, too" in change.why
    (change,) = changes(model, own_keys=9)
    assert "not flannel's" not in change.why


def test_a_plans_id_does_not_hang_on_the_number_of_keys() -> None:
    """Other clients write all the time: what was approved stays what it is."""
    one, other = (changes(limited(enabled=False, keys=keys))[0] for keys in (5, 6))
    assert one.why != other.why
    assert one.digest == other.digest


# ---- off


def test_without_the_option_nothing_is_asked_unless_auth_is_on() -> None:
    """The questions stand behind what the config's own probe found; without an answer nothing has to change."""
    assert Rights(OFF).changes({}) == ([], [], 0)
    script = f"etcdctl() {{ echo asked; }}\n{Rights(OFF).probe().replace('/opt/k8s/bin/etcdctl', 'etcdctl')}"
    for before, asked in (("", False), ("auth=on\n", True)):
        ran = subprocess.run(["sh", "-c", before + script], capture_output=True, text=True, check=True, timeout=20)
        assert (ran.stdout != "") is asked


def test_off_again_is_one_row() -> None:
    """Auth that is ours is turned off; users and roles stay."""
    (change,) = changes(limited(), rights=Rights(OFF))
    assert (change.resource, change.action, change.current, change.desired) == ("etcd auth", "disable", "on", "off")
    assert done(limited(), change.after) == limited(enabled=False)
    assert changes(limited(enabled=False), rights=Rights(OFF)) == []


@pytest.mark.parametrize("model", [limited(others=["app"]), {"enabled": True, "users": {"root": ["root"]}}])
def test_somebody_elses_auth_stays_on(model: dict[str, Any]) -> None:
    """With users that are not ours, or without flannel's role, it is left as it is, and that is told."""
    found, notes, _ = Rights(OFF).changes(encoded(answers(model)))
    assert found == []
    assert "somebody else's, so it stays on" in notes[0]


@pytest.mark.parametrize("rights", [Rights(ON), Rights(OFF)])
def test_auth_that_keeps_us_out_is_refused_with_the_commands(rights: Rights) -> None:
    """Nothing can be read, so nothing is concluded: the row says who can let the members in, and how."""
    said = dict.fromkeys(answers({}), "Error: etcdserver: user name not found\n")
    found, notes, right = rights.changes(encoded(said))
    assert [(one.current, notes, right) for one in found] == [("unknown", [], 0)]
    assert "somebody else turned it on" in found[0].refusal
    assert "for u in node1 node2 node3; do etcdctl user add $u --no-password" in found[0].refusal
    silent, *_ = rights.changes(encoded(dict.fromkeys(said, "Error: context deadline exceeded\n")))
    assert silent[0].refusal == "context deadline exceeded"


# ---- before auth is turned on


FAKE = """#!/bin/sh
case "$*" in
*" user get node1 "*) echo '{"header":{},"roles":["'"$(cat role)"'"]}';;
*) echo "$*" >>calls; [ ! -e broken ] || exit 1;;
esac
"""


@pytest.mark.parametrize(("role", "status", "calls"), [("root", 0, ["enable", "list"]), ("app", 1, [])])
def test_auth_is_only_turned_on_by_an_administrator(tmp_path: Path, role: str, status: int, calls: list[str]) -> None:
    """The member that would turn it on is looked at once more, in the very script; afterwards it is tried."""
    ctl = tmp_path / "etcdctl"
    ctl.write_text(FAKE)
    ctl.chmod(0o755)
    (tmp_path / "role").write_text(role)
    cluster = ON.model_copy(update={"bin_dir": str(tmp_path)})
    (change,) = changes(limited(enabled=False), rights=Rights(cluster))
    ran = subprocess.run(
        ["sh", "-euc", change.after], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=20
    )
    assert (ran.returncode, ran.stdout) == (status, "")
    assert ("it would lock us out" in ran.stderr) is (status == 1)
    kept = (tmp_path / "calls").read_text().split("\n") if calls else []
    assert [line.split()[-1] for line in kept if line] == calls


@pytest.mark.parametrize(("name", "there"), [("etcd", True), ("unknown", False)])
def test_a_member_with_another_name_is_refused(tmp_path: Path, name: str, *, there: bool) -> None:
    """Its certificate's name is its user: one that is not the node's would be locked out, so auth is not turned on."""
    cluster = ON.model_copy(update={"etcd": ON.etcd.model_copy(update={"cert_dir": str(tmp_path)})})
    (tmp_path / "etcd.pem").write_bytes(our_member().certificate if there else b"")
    member = MemberName(cluster, cluster.nodes[0])
    (found,) = reading.read(fleet_of(cluster, tmp_path), {"node1": [member]}, what="read")["node1"]
    change = member.compare(found)
    assert change is not None
    assert f"its common name is {name}, expected node1" in change.refusal
    renamed = MemberName(cluster, cluster.nodes[0].model_copy(update={"name": "etcd"}))
    assert (renamed.compare(found) is None) is there
