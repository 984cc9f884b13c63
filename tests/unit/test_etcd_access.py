"""runbook.etcd_access: what etcd's users and roles should be, and what etcdctl said of them."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from etcd_users import answers, limited
from hypothesis import given
from hypothesis import strategies as st
from local_node import NODES, cluster_of, fleet_of

from runbook import etcd_access
from runbook.etcd_access import Permission
from runbook.resources import content

if TYPE_CHECKING:
    from pathlib import Path

CLUSTER = cluster_of(flannel={"rbac": True})


def test_flannel_reads_its_prefix_and_writes_leases() -> None:
    """Two ranges below the prefix, both end with the slash: a key that only begins like it is none of flannel's."""
    assert etcd_access.told(etcd_access.permissions(CLUSTER)) == (
        "read /kubernetes/network/*; readwrite /kubernetes/network/subnets/*"
    )
    ranges = {(one.key, one.end) for one in etcd_access.permissions(CLUSTER)}
    assert ranges == {
        (b"/kubernetes/network/", b"/kubernetes/network0"),
        (b"/kubernetes/network/subnets/", b"/kubernetes/network/subnets0"),
    }


def test_each_member_is_an_administrator_and_flannel_is_none() -> None:
    """Users are named as the certificates' common names are; only etcd nodes are members."""
    nodes = [{**NODES[0], "roles": ["flannel"]}, *NODES[1:]]
    cluster = cluster_of(nodes=nodes, flannel={"rbac": True})
    assert etcd_access.users(cluster) == {"root": "root", "node2": "root", "node3": "root", "flanneld": "flannel"}


@pytest.mark.parametrize(
    ("one", "text", "words"),
    [
        (Permission("read", b"/a"), "read /a", ["/a"]),
        (Permission("readwrite", b"/a/", b"/a0"), "readwrite /a/*", ["/a/", "/a0"]),
        (Permission("write", b"/a", b"/c"), "write /a to /c", ["/a", "/c"]),
        (Permission("read", b"/a", b"\0"), "read /a and all keys after it", ["/a", "--from-key"]),
        (Permission("read", b"\0", b"\0"), "read every key", ["", "--prefix"]),
        (Permission("readwrite", b"", b"\0"), "readwrite every key", ["", "--prefix"]),
        (Permission("read", b"\xff"), "read \ufffd", []),
        (Permission("read", b"a\0b"), "read a\0b", []),
    ],
)
def test_a_range_in_words_and_as_arguments(one: Permission, text: str, words: list[str]) -> None:
    """As etcdctl takes each kind of range (tried with 3.5.21 and 3.6.16); bytes that no command line holds are none."""
    assert (str(one), one.words) == (text, words)


@given(st.sampled_from([0, 1, 2]), st.binary(max_size=8), st.binary(max_size=8))
def test_permissions_are_read_as_etcd_wrote_them(kind: int, key: bytes, end: bytes) -> None:
    """JSON leaves out a kind of 0 and empty bytes; whatever the bytes are, words and arguments can be had of them."""
    perm = {"permType": kind, "key": base64.b64encode(key).decode(), "range_end": base64.b64encode(end).decode()}
    (one,) = etcd_access.granted({"perm": [{name: value for name, value in perm.items() if value}]})
    assert one[1:] == (key, end)
    assert one.kind == ["read", "write", "readwrite"][kind]
    assert isinstance(str(one), str)
    assert all(isinstance(word, str) for word in one.words)
    assert etcd_access.granted({}) == frozenset()


def test_what_etcd_has() -> None:
    """Whether auth is on, our users' roles, other users, the role's ranges, the number of keys."""
    seen = etcd_access.parse(CLUSTER, answers(limited(others=["app"], keys=7)))
    assert (seen.enabled, seen.error, seen.others, seen.keys) == (True, "", ("app",), 7)
    assert seen.users == {name: frozenset({role}) for name, role in etcd_access.users(CLUSTER).items()}
    assert seen.role == etcd_access.permissions(CLUSTER)


def test_what_etcd_has_not() -> None:
    """A user or a role that is not there is missing, and no error; auth that is off says so by leaving it out."""
    seen = etcd_access.parse(CLUSTER, answers({}))
    assert (seen.enabled, seen.error, seen.users, seen.role, seen.others, seen.keys) == (False, "", {}, None, (), 0)
    assert etcd_access.parse(CLUSTER, {}).enabled is None


@pytest.mark.parametrize("key", ["auth", "users", "role", "keys", "user.node2"])
def test_what_can_not_be_read_is_an_error_and_never_missing(key: str) -> None:
    """A refusal or a deadline at any of the questions: nothing is concluded from the others."""
    said = answers(limited())
    for text in ("Error: etcdserver: permission denied", "Error: context deadline exceeded"):
        seen = etcd_access.parse(CLUSTER, {**said, key: f'{{"level":"warn"}}\n{text}\n'})
        assert (seen.error, seen.enabled) == (text.removeprefix("Error: "), None)
    assert etcd_access.parse(CLUSTER, {**said, key: ""}).error == "no answer"


def test_log_lines_beside_an_answer_are_looked_past() -> None:
    """Warnings of etcdctl stand before its JSON; garbage is no answer."""
    header = json.dumps({"header": {}, "roles": ["root"]}, separators=(",", ":"))
    assert etcd_access.answer(f'{{"level":"warn","msg":"x"}}\n{header}\n') == {"header": {}, "roles": ["root"]}
    assert etcd_access.answer('{"header"') is None


def test_the_probe_asks_all_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    """Each question's output is a line by its key, errors too, and the folder that it waited in is gone."""
    ctl = tmp_path / "etcdctl"
    ctl.write_text(
        '#!/bin/sh\ncase "$*" in *" user get node2"*) echo "Error: etcdserver: x" >&2;; *) echo "$*";; esac\n'
    )
    ctl.chmod(0o755)
    cluster = CLUSTER.model_copy(update={"bin_dir": str(tmp_path)})
    fleet = fleet_of(cluster, tmp_path)
    script = f"TMPDIR={tmp_path}; export TMPDIR\n{etcd_access.probe(cluster)}"
    done = fleet.run(script, what="probe", nodes=cluster.nodes[:1])["node1"].value
    assert done is not None
    found = dict(line.split("=", 1) for line in done.text.splitlines())
    assert set(found) == {"auth", "users", "role", "keys", *(f"user.{name}" for name in etcd_access.users(cluster))}
    assert content(found, "user.node2") == b"Error: etcdserver: x\n"
    assert b" auth status -w json" in (content(found, "auth") or b"")
    assert {path.name for path in tmp_path.iterdir()} == {"etcdctl", "node1", "node2", "node3"}
