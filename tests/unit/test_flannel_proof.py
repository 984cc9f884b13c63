"""runbook.flannel_proof: what flannel's certificate was tried for, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from etcd_users import answers, limited
from local_node import NODES, cluster_of, fleet_of, local

from runbook import expect, flannel, show
from runbook.errors import CheckFailed

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.fleet import Fleet

ETCDCTL = """#!/bin/sh
# Stands in for etcdctl with flannel's certificate: what it may do, and what it is refused.
here=$(dirname "$0")
echo "$*" >>"$here/asked"
denied() { [ ! -e "$here/open" ] || exit 0; echo 'Error: etcdserver: permission denied' >&2; exit 1; }
[ ! -e "$here/down" ] || { echo 'Error: context deadline exceeded' >&2; exit 1; }
case "$*" in
*" txn") txn=$(cat); case $txn in *'put "/kubernetes/network/subnets/'*) echo FAILURE;; *) denied;; esac;;
*" get /kubernetes/network/config "*) [ -e "$here/blind" ] && denied; echo /kubernetes/network/config;;
*) denied;;
esac
"""


def fleet(folder: Path, *, roles: tuple[list[str], ...] = (["etcd", "flannel"],) * 3) -> Fleet:
    """Stand-ins for three nodes whose etcdctl is the one above."""
    (folder / "etcdctl").write_text(ETCDCTL)
    (folder / "etcdctl").chmod(0o755)
    nodes = [{**node, "roles": own} for node, own in zip(NODES, roles, strict=True)]
    cluster = cluster_of(nodes=nodes, flannel={"rbac": True}).model_copy(update={"bin_dir": str(folder)})
    return fleet_of(cluster, folder)


def test_each_attempt_is_a_row_of_each_node(tmp_path: Path) -> None:
    """Allowed below the prefix, refused beyond it; each with flannel's own certificate."""
    rows = show.rows(expect(flannel.rights(fleet(tmp_path)), "it holds"))
    assert [row["node"] for row in rows] == [node for node in ("node1", "node2", "node3") for _ in range(6)]
    assert [(row["action"], row["found"]) for row in rows[:6]] == [
        ("read", "allowed"), ("write", "allowed"), ("write", "refused"), ("write", "refused"), ("read", "refused"),
        ("read", "refused"),
    ]  # fmt: skip
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == len(rows)
    assert all("--cert=/etc/flanneld/cert/flanneld.pem --key=/etc/flanneld/cert/flanneld-key.pem" in a for a in asked)
    assert not any(word in line.split() for line in asked for word in ("put", "del"))


def test_a_node_without_etcdctl_tries_nothing(tmp_path: Path) -> None:
    """Only nodes with both roles have the binary and the certificate."""
    table = flannel.rights(fleet(tmp_path, roles=(["etcd"], ["etcd", "flannel"], ["flannel"])))
    assert {row["node"] for row in show.rows(table)} == {"node2"}


@pytest.mark.parametrize(
    ("fault", "found", "count", "why"),
    [
        ("open", "allowed", 4, "write /kubernetes/network/config is allowed, expected refused"),
        ("blind", "refused", 1, "read /kubernetes/network/config is refused, expected allowed: Error: etcdserver"),
        ("down", "unknown", 6, "is unknown, expected allowed: Error: context deadline exceeded"),
    ],
)
def test_what_differs_is_a_row_that_does_not_hold(tmp_path: Path, fault: str, found: str, count: int, why: str) -> None:
    """Too much, too little and no answer at all are told apart, and phase 07 is the remedy."""
    (tmp_path / fault).touch()
    table = flannel.rights(fleet(tmp_path))
    wrong = [row for row in show.rows(table) if not row["ok"] and row["node"] == "node1"]
    assert [row["found"] for row in wrong] == [found] * count
    assert why in wrong[0]["why"]
    assert "phase 07" in wrong[0]["remedy"]
    with pytest.raises(CheckFailed, match="phase 07"):
        expect(table, "it holds", ok="ok")


def test_a_node_that_fails_hides_no_other(tmp_path: Path) -> None:
    """Its row says why, the others have theirs."""
    made = fleet(tmp_path)

    def lost(*_: object, **__: object) -> None:
        raise OSError("the line is cut")

    local(made)["node2"].run = lost  # type: ignore[method-assign, assignment]
    rows = show.rows(flannel.rights(made))
    assert [row["why"] for row in rows if row["node"] == "node2"] != [""]
    assert sum(row["ok"] for row in rows) == 12


@pytest.mark.parametrize(("model", "ok"), [(limited(), True), (limited(enabled=False), False), ({}, False)])
def test_without_a_node_of_both_roles_etcd_is_asked(tmp_path: Path, model: dict[str, object], ok: bool) -> None:  # noqa: FBT001
    """Then the row is what etcd has of flannel's user and role."""
    made = fleet(tmp_path, roles=(["etcd"], ["etcd"], ["flannel"]))
    for key, text in answers(model).items():
        (tmp_path / f"said.{key}").write_text(text)
    (tmp_path / "etcdctl").write_text("""#!/bin/sh
case "$*" in *" auth status "*) key=auth;; *" user list "*) key=users;; *" role get "*) key=role;; *" get "*count-only*)
key=keys;; *) key=user.${*##* user get }; key=${key%% *};; esac
cat "$(dirname "$0")/said.$key"
""")
    (row,) = show.rows(flannel.rights(made))
    assert (row["node"], row["ok"]) == ("(cluster)", ok)
    assert row["expected"] == (
        "auth on; roles: flannel; read /kubernetes/network/*; readwrite /kubernetes/network/subnets/*"
    )


def test_without_the_option_the_record_says_so(tmp_path: Path) -> None:
    """One row, and no node is asked."""
    made = fleet_of(cluster_of(), tmp_path)
    (row,) = show.rows(expect(flannel.rights(made), "it holds"))
    assert row["found"] == "not limited: flannel.rbac is false"
    assert [one.scripts for one in local(made).values()] == [[]] * 3
