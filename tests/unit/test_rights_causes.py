"""runbook.diagnosis.rights_causes: what etcd's users, roles and auth explain."""

from __future__ import annotations

from typing import Any

import pytest
from etcd_users import NETWORK, answers, limited
from seen_nodes import HEALTHY, Seen, seen

DENIED = "Error: etcdserver: user name not found\n"
LACKS = ("(cluster)", "flannel's certificate lacks a right in etcd")


def shown(model: dict[str, Any] | None, *, rbac: bool = True, journal: str = "") -> Seen:
    """A healthy cluster whose members say this of their users (None: they are refused); node2's flanneld says that."""
    one = seen(HEALTHY)
    flannel = one.cluster.flannel.model_copy(update={"rbac": rbac})
    one.cluster = one.cluster.model_copy(update={"flannel": flannel})
    said = answers(model or {})
    text = said["auth"]
    if model and model["enabled"]:
        text += f"@\n{said['user.flanneld']}@\n{said['role']}"
    for node in one.nodes.values():
        assert node
        node["auth"] = DENIED if model is None else text
    if journal:
        one.change("node2", "unit_flanneld", "ActiveState=active", "ActiveState=activating")
        node = one.nodes["node2"]
        assert node
        node["journal_flanneld"] = f"10.1 systemd[1]: Starting flanneld.service\n10.2 flanneld[7]: {journal}"
    return one


REFUSED = "E1123 main.go:464] Couldn't fetch network config: etcdserver: permission denied"


def test_all_is_as_it_should_be() -> None:
    """With the option and auth on, and without both: nothing is told."""
    assert shown(limited()).told() == {}
    assert shown(limited(enabled=False), rbac=False).told() == {}
    assert shown(limited(), rbac=False).told() == {}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"perm": list(NETWORK)}, "role flannel lacks: readwrite /kubernetes/network/subnets/*"),
        ({"perm": []}, "role flannel lacks: read /kubernetes/network/*; readwrite /kubernetes/network/subnets/*"),
        ({"users": {"root": ["root"]}}, "user flanneld lacks the role flannel"),
        ({"users": {"flanneld": []}}, "user flanneld lacks the role flannel"),
    ],
)
def test_a_right_that_is_gone(change: dict[str, Any], why: str) -> None:
    """What lacks is named, before flanneld is restarted and after it; its journal's line is no second cause."""
    for journal in ("", REFUSED):
        found = shown({**limited(), **change}, journal=journal).told()
        assert list(found) == [LACKS]
        assert why in found[LACKS]


def test_without_the_option_a_right_is_only_missed_where_flanneld_was_refused() -> None:
    """Somebody else's roles may have other names: they are no fault by themselves."""
    model = {**limited(), "perm": []}
    assert shown(model, rbac=False).told() == {}
    assert list(shown(model, rbac=False, journal=REFUSED).told()) == [LACKS]


def test_auth_that_keeps_the_members_out() -> None:
    """It is told once, with what etcd said and the commands that let them in; what follows from it is left out."""
    found = shown(None, journal=REFUSED).told()
    assert list(found) == [("(cluster)", "etcd's auth keeps the members out")]
    assert "etcdserver: user name not found" in next(iter(found.values()))


def test_auth_that_is_off_is_told_where_it_should_be_on() -> None:
    """Only once flannel is there: before, phase 07 is still to come."""
    one = shown(limited(enabled=False))
    assert list(one.told()) == [("(cluster)", "etcd's auth is off")]
    for node in one.nodes.values():
        assert node
        node["unit_flanneld"] = "LoadState=not-found"
    assert ("(cluster)", "etcd's auth is off") not in one.told()


def test_a_refusal_with_all_rights_in_place_is_the_journals() -> None:
    """Its line is known: etcd refuses flannel's certificate, as flanneld of that node said."""
    found = shown(limited(), journal=REFUSED).told()
    assert list(found) == [("node2", "etcd refuses flannel's certificate")]
