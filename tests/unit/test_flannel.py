"""runbook.flannel: the network config in etcd, flags and units."""

from __future__ import annotations

import base64
import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from certificate_cases import our_member
from etcd_users import answers, limited
from hypothesis import given
from hypothesis import strategies as st
from local_node import NODES, cluster_of, fleet_of, local

from runbook import flannel
from runbook.flannel_config import EtcdKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runbook.fleet import Fleet

HERE = Path(__file__).parent / "test_flannel"
NEW, OLD = cluster_of(), cluster_of(etcd={"version": "3.5.21"}, flannel={"version": "0.17.0"})
WANTED = '{"Backend": {"Type": "vxlan"}, "Network": "172.30.0.0/16", "SubnetLen": 21}'
PREFIX = "/kubernetes/network/subnets"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def captured() -> dict[str, str]:
    """What the probe printed on a practice node with the config and three leases."""
    return dict(line.split("=", 1) for line in (HERE / "config.txt").read_text().splitlines())


def v3(value: str | None, *leases: str, error: str = "", status: int = 0) -> dict[str, str]:
    """An answer of the v3 API."""
    kvs = {} if value is None else {"kvs": [{"key": encoded("/x/config"), "value": encoded(value)}]}
    names = "\n\n".join(f"{PREFIX}/{lease}" for lease in leases)
    return {
        "status": str(status),
        "config": encoded(json.dumps({"header": {}, **kvs})),
        "error": encoded(error),
        "leases": encoded(names),
    }


def v2(value: str | None, *leases: str) -> dict[str, str]:
    """An answer of the v2 API."""
    names = encoded("\n".join(f"{PREFIX}/{lease}" for lease in leases))
    if value is None:
        return {
            "status": "4",
            "config": "",
            "error": encoded("Error:  100: Key not found (/kubernetes) [5]\n"),
            "leases": names,
        }
    node = json.dumps({"action": "get", "node": {"key": "/x/config", "value": value}})
    return {"status": "0", "config": encoded(node), "error": "", "leases": names}


# ---- the config in etcd


def test_the_captured_config_is_right() -> None:
    """The config of a good cluster calls for nothing."""
    assert EtcdKey(NEW).compare(captured()) is None


@pytest.mark.parametrize("found", [v3(WANTED), v3(json.dumps(json.loads(WANTED), indent=3))])
def test_the_same_config_stays_however_it_is_written(found: dict[str, str]) -> None:
    """Order and spaces of JSON don't matter."""
    assert EtcdKey(NEW).compare(found) is None


@pytest.mark.parametrize(("cluster", "found"), [(NEW, v3(None)), (OLD, v2(None))])
def test_a_missing_config_is_created(cluster: object, found: dict[str, str]) -> None:
    """Where there is none it is created, by the API that this flannel speaks."""
    change = EtcdKey(cluster).compare(found)  # type: ignore[arg-type]
    assert change is not None
    assert (change.resource, change.action, change.why, change.refusal) == (
        "/kubernetes/network/config",
        "create",
        "missing",
        "",
    )
    assert json.loads(change.desired) == json.loads(WANTED)
    assert '+  "Network": "172.30.0.0/16",' in change.diff.splitlines()


@pytest.mark.parametrize("other", ['{"Network": "10.0.0.0/8"}', "not JSON", "[]", ""])
def test_another_config_is_shown_and_changed(other: str) -> None:
    """A different value is changed, with a diff of what was there; garbage too."""
    for cluster, found in ((NEW, v3(other)), (OLD, v2(other))):
        change = EtcdKey(cluster).compare(found)
        assert change is not None
        assert (change.action, change.why, change.current) == ("change", "another config is there", other)
        assert change.diff


def test_an_etcd_that_does_not_answer_is_a_refusal() -> None:
    """Without an answer nothing is known: the plan says which phases come first, and is never applied."""
    for error, text in (("dial tcp 198.18.0.11:2379: connection refused", "connection refused"), ("", "no answer")):
        change = EtcdKey(NEW).compare(v3(None, error=error, status=1))
        assert change is not None
        assert "phases 04 and 05 come first" in change.refusal
        assert text in change.refusal
    assert EtcdKey(NEW).compare({}) is not None


@pytest.mark.parametrize("api", [v3, v2])
def test_live_leases_are_never_shrunk(api: object) -> None:
    """A config under which a lease would fall out is refused, and the leases are named."""
    cluster = NEW if api is v3 else OLD
    other = '{"Network": "10.1.0.0/16", "SubnetLen": 24}'
    change = EtcdKey(cluster).compare(api(other, "172.30.8.0-21", "10.1.1.0-24", "172.30.16.0-24"))  # type: ignore[operator]
    assert change is not None
    assert "10.1.1.0/24, 172.30.16.0/24" in change.refusal
    assert "172.30.8.0/21" not in change.refusal
    kept = EtcdKey(cluster).compare(api(other, "172.30.8.0-21"))  # type: ignore[operator]
    assert kept is not None
    assert kept.refusal == ""


@given(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=20))
def test_a_lease_that_cannot_be_read_is_in_the_way(name: str) -> None:
    """What can't be judged harmless is refused, whatever it is called."""
    change = EtcdKey(NEW).compare(v3("{}", name))
    assert change is not None
    fits = re.fullmatch(r"172\.30\.\d+\.\d+-21", name.rsplit("/", 1)[-1])
    assert fits or change.refusal


def test_a_write_in_between_is_not_lost() -> None:
    """The change is written only if the key is still as the plan saw it, by either API."""
    created = EtcdKey(NEW).compare(v3(None))
    changed = EtcdKey(NEW).compare(v3('{"a": "x y"}'))
    assert created is not None
    assert changed is not None
    assert 'mod("/kubernetes/network/config") = "0"' in created.after
    words = shlex.split(changed.after)
    assert words[2].splitlines()[0] == r'value("/kubernetes/network/config") = "{\"a\": \"x y\"}"'
    assert words[2].splitlines()[2] == f'put "/kubernetes/network/config" {json.dumps(WANTED)}'
    swapped = EtcdKey(OLD).compare(v2('{"a": 1}'))
    assert swapped is not None
    words = shlex.split(swapped.after)
    assert words[words.index("set") :] == [
        "set", "--swap-with-value", '{"a": 1}', "/kubernetes/network/config", WANTED, ">/dev/null",
    ]  # fmt: skip


ETCDCTL = """#!/bin/sh
# Stands in for etcdctl: keeps one key in a file, and says what a real one says.
here=$(dirname "$0")
case "$*" in
*" txn") cat >"$here/txn"; [ -e "$here/changed" ] && echo FAILURE || echo SUCCESS;;
*--keys-only) ;;
*" get "*) cat "$here/config" 2>/dev/null || echo '{"header":{}}';;
esac
"""


def test_the_plan_writes_by_etcdctl(tmp_path: Path) -> None:
    """Applied on a node the change goes through etcdctl, and a key that was changed meanwhile is an error."""
    (tmp_path / "etcdctl").write_text(ETCDCTL)
    (tmp_path / "etcdctl").chmod(0o755)
    fleet = fleet_of(NEW.model_copy(update={"bin_dir": str(tmp_path)}), tmp_path)
    plan = flannel.config(fleet)
    assert [(c.node, c.action, c.refusal) for c in plan.changes] == [("node1", "create", "")]
    done = fleet.run(plan.changes[0].after, what="put", nodes=fleet.cluster.nodes[:1])["node1"].value
    assert done is not None
    assert (done.status, done.stderr) == (0, b"")
    assert (tmp_path / "txn").read_text().splitlines()[0] == 'mod("/kubernetes/network/config") = "0"'
    (tmp_path / "changed").touch()
    done = fleet.run(plan.changes[0].after, what="put", nodes=fleet.cluster.nodes[:1])["node1"].value
    assert done is not None
    assert done.status == 1
    assert b"was changed by someone else meanwhile" in done.stderr
    table = flannel.config_there(fleet)
    assert (table["ok"][0], table["why"][0], table["remedy"][0]) == (False, "there is none", "run phase 07")


# ---- users, role and auth

USERS = """#!/bin/sh
# Stands in for etcdctl with the answers of the files beside it; a login fails where auth is on.
here=$(dirname "$0")
echo "$*" >>"$here/asked"
case "$*" in
*" --user="*) [ ! -e "$here/login" ] || { echo 'Error: etcdserver: authentication failed' >&2; exit 1; };;
esac
case "$*" in
*count-only*) key=keys;; *" auth status "*) key=auth;; *" user list "*) key=users;; *" role get "*) key=role;;
*" user get "*) key=user.${*##* user get }; key=${key%% *};; *--keys-only) exit;; *" get "*) key=config;;
esac
cat "$here/said.$key"
"""


def of_users(folder: Path, model: Mapping[str, Any] | None, *, rbac: bool) -> Fleet:
    """Stand-ins whose etcd has the config, and these users and roles; None is an etcd that is never asked for them."""
    (folder / "etcdctl").write_text(USERS)
    (folder / "etcdctl").chmod(0o755)
    said = {**answers(model or {}), "config": json.dumps({"header": {}, "kvs": [{"value": encoded(WANTED)}]})}
    for key, text in said.items():
        if model is not None or key == "config":
            (folder / f"said.{key}").write_text(text)
    cluster = cluster_of(flannel={"rbac": rbac})
    certs = folder / "cert"
    certs.mkdir()
    (certs / "etcd.pem").write_bytes(our_member().certificate)  # its name is etcd
    nodes = (cluster.nodes[0].model_copy(update={"name": "etcd"}),)
    etcd = cluster.etcd.model_copy(update={"cert_dir": str(certs)})
    return fleet_of(cluster.model_copy(update={"bin_dir": str(folder), "etcd": etcd, "nodes": nodes}), folder)


def asked(folder: Path) -> list[str]:
    """The calls of etcdctl, without what all of them have."""
    return [line.partition("--command-timeout=10s ")[2] for line in (folder / "asked").read_text().splitlines()]


def test_without_rbac_no_call_is_made_for_it(tmp_path: Path) -> None:
    """The config's own read tells whether auth is on: the same two calls as ever, in one round trip."""
    fleet = of_users(tmp_path, None, rbac=False)
    assert flannel.config(fleet).empty
    assert asked(tmp_path) == [
        "--user=is-auth-on:asked-by-runbook get /kubernetes/network/config -w json",
        "get /kubernetes/network/subnets/ --prefix --keys-only",
    ]
    assert [len(one.scripts) for one in local(fleet).values()] == [1]


def test_an_etcd_that_was_never_limited_is_not_asked_at_all() -> None:
    """The v2 line, and an etcd before 3.5, can't have been: there the read has no login."""
    assert "--user" not in EtcdKey(OLD).probe()
    assert "--user" not in EtcdKey(cluster_of(etcd={"version": "3.4.23"})).probe()
    assert "--user" not in EtcdKey(cluster_of(flannel={"rbac": True})).probe()
    assert "--user" in EtcdKey(NEW).probe()
    assert "--user" not in EtcdKey(NEW).probe_value()


def test_auth_that_is_on_is_found_and_turned_off(tmp_path: Path) -> None:
    """Where the login is refused, the config is read without one, and users and roles are looked at."""
    model = limited()
    model["users"] = {"root": ["root"], "etcd": ["root"], "flanneld": ["flannel"]}
    fleet = of_users(tmp_path, model, rbac=False)
    (tmp_path / "said.user.etcd").write_text(answers(limited())["user.root"])
    (tmp_path / "login").touch()
    plan = flannel.config(fleet)
    assert [(c.node, c.resource, c.action, c.refusal) for c in plan.changes] == [("etcd", "etcd auth", "disable", "")]
    assert plan.unchanged == 1


def test_rbac_is_read_with_the_config_in_one_round_trip(tmp_path: Path) -> None:
    """Users, role and auth are rows beside the config; the member's own certificate is looked at as well."""
    fleet = of_users(tmp_path, {}, rbac=True)
    (tmp_path / "said.user.etcd").write_text(answers({})["user.root"])
    plan = flannel.config(fleet)
    rows = [change.resource for change in plan.changes]
    assert rows == ["etcd user root", "etcd user etcd", "etcd role flannel", "etcd user flanneld", "etcd auth"]
    assert {change.node for change in plan.changes} == {"etcd"}
    assert (plan.unchanged, plan.refusals, len(plan.notes)) == (2, [], 1)
    assert [len(one.scripts) for one in local(fleet).values()] == [1]
    (tmp_path / "cert" / "etcd.pem").write_bytes(b"")
    plan.read_again()
    assert ["run phase 02 first" in text for text in plan.refusals] == [True]


def test_a_config_that_auth_keeps_from_us_says_so() -> None:
    """It is not an etcd that does not answer yet: the row has the commands that let the members in."""
    change = EtcdKey(NEW).compare(v3(None, error="Error: etcdserver: permission denied", status=1))
    assert change is not None
    assert "somebody else turned it on" in change.refusal
    assert "phases 04 and 05" not in change.refusal


def test_flannels_own_keys_are_counted() -> None:
    """The config where there is one, and each lease."""
    assert EtcdKey(NEW).own_keys(v3(WANTED, "172.30.8.0-21", "172.30.16.0-21")) == 3
    assert EtcdKey(NEW).own_keys(v3(None)) == 0


# ---- flags and units


@pytest.mark.parametrize("version", ["0.10.0", "0.17.0", "0.26.7"])
def test_flags_are_those_that_every_flannel_knows(version: str) -> None:
    """The tutorial's flags, none without a value: flannel 0.10 and all since have them, so none stops a version."""
    etcd = {"version": "3.5.21"}
    cluster = cluster_of(etcd=etcd, flannel={"version": version})
    flags = flannel.flags(cluster, cluster.nodes[1])
    assert flags == {
        "etcd-cafile": "/etc/flanneld/cert/ca.pem", "etcd-certfile": "/etc/flanneld/cert/flanneld.pem",
        "etcd-keyfile": "/etc/flanneld/cert/flanneld-key.pem",
        "etcd-endpoints": "https://198.18.0.11:2379,https://198.18.0.12:2379,https://198.18.0.13:2379",
        "etcd-prefix": "/kubernetes/network", "iface": "198.18.0.12", "ip-masq": "true",
    }  # fmt: skip


def test_an_interface_can_be_chosen_for_all_or_one() -> None:
    """The node's own choice beats the cluster's, which beats the node's address."""
    nodes = [{**NODES[0], "iface": "bond0"}, NODES[1]]
    cluster = cluster_of(nodes=nodes, flannel={"iface": "eth1"})
    assert [flannel.flags(cluster, node)["iface"] for node in cluster.nodes] == ["bond0", "eth1"]


def test_a_rendered_unit_is_whole(tmp_path: Path) -> None:
    """The unit has every flag on a line that goes on, the docker options, and only the two capabilities."""
    plan = flannel.units(fleet_of(NEW, tmp_path))
    change = next(c for c in plan.changes if c.node == "node3" and c.resource.endswith("flanneld.service"))
    (payload,) = change.payloads()
    assert isinstance(payload.source, bytes)
    unit = payload.source.decode()
    command = re.search(r"^ExecStart=.*(?:\n  -.*)*", unit, re.MULTILINE)
    assert command is not None
    lines = command[0].splitlines()
    assert lines[0] == "ExecStart=/opt/k8s/bin/flanneld \\"
    assert all(re.fullmatch(r"  -[a-z-]+=\S+ \\", line) for line in lines[1:-1])
    assert re.fullmatch(r"  -[a-z-]+=\S+", lines[-1])
    assert not re.search(r"\{[{%]|[%}]\}|None", unit)
    for line in (
        "ExecStartPost=/opt/k8s/bin/mk-docker-opts.sh -k DOCKER_NETWORK_OPTIONS -d /run/flannel/docker",
        "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW", "Before=docker.service", "RequiredBy=docker.service",
        "Restart=always",
    ):  # fmt: skip
        assert f"\n{line}\n" in f"{unit}\n", line
    assert unit.endswith("\n")
