"""runbook.settings.rbac_rules: what `flannel.rbac` needs of the other settings."""

from __future__ import annotations

from typing import Any

import pytest
from local_node import NODES, cluster_of

from runbook import errors
from runbook.settings import rbac_rules

OLD = {"etcd": {"version": "3.5.21"}, "flannel": {"version": "0.17.0", "rbac": True}}


def told(**values: object) -> list[tuple[Any, ...]]:
    """Where the faults are."""
    return [rule.loc for rule in rbac_rules.faults(values)]


def test_it_is_off_unless_asked_for() -> None:
    """Without it nothing is a fault; with it the default versions are right."""
    assert cluster_of().flannel.rbac is False
    assert cluster_of(flannel={"rbac": True}).flannel.rbac is True
    assert told(**{**OLD, "flannel": {"version": "0.17.0", "rbac": False}}) == []


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        (OLD, "speaks etcd's v2 API, which knows no users by certificate"),
        ({"etcd": {"version": "3.4.23"}, "flannel": {"rbac": True}}, "can't tell whether its auth is on"),
    ],
)
def test_versions_that_can_not_are_refused_with_the_reason(sections: dict[str, Any], why: str) -> None:
    """The v2 line of flannel, and an etcd before 3.5, are faults of the key itself, which say what to take."""
    with pytest.raises(errors.ParamsError) as caught:
        cluster_of(**sections)
    assert "flannel.rbac" in str(caught.value)
    assert why in str(caught.value)
    assert "or leave rbac out" in str(caught.value)


def test_no_member_may_have_flannels_name() -> None:
    """A member's name is its user in etcd: one called flanneld would share flannel's; a node without etcd may be."""
    nodes = [*NODES[:2], {**NODES[2], "name": "flanneld"}]
    with pytest.raises(errors.ParamsError, match="'flanneld' is flannel's user in etcd"):
        cluster_of(nodes=nodes, flannel={"rbac": True})
    nodes[2] = {**nodes[2], "roles": ["flannel"]}
    assert cluster_of(nodes=nodes, flannel={"rbac": True}).nodes[2].name == "flanneld"
    assert cluster_of(nodes=[*NODES[:2], {**NODES[2], "name": "flanneld"}]).nodes[2].name == "flanneld"


@pytest.mark.parametrize("value", [None, 3, "x", [], {"version": None, "rbac": True}])
def test_values_of_any_type_are_looked_past(value: object) -> None:
    """What has another type is a fault of its own, reported where it is; here it is none and no crash."""
    assert told(etcd=value, flannel=value, nodes=value) == []
    assert told(flannel={"rbac": True, "version": "0.26.7"}, etcd={"version": "x"}, nodes=[value, {"name": 1}]) == []
