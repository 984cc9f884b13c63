"""flannel held to its prefix by etcd's users and roles: from scratch, on and off again, broken off, and by others."""

from __future__ import annotations

import http.client
import json
import ssl
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from faults import KEPT, Told, certificate, etcdctl_on, finishes, found, pki_folder, restart
from practice import NODES, Practice, apply, cluster_of, table, until, wrong

from runbook import errors, etcd_access, etcdctl, flannel, record, show

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbook.fleet import Fleet
    from runbook.plan import Plan

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-5")]

PREFIX = "/kubernetes/network"
ETCDCTL = "/opt/k8s/bin/etcdctl"
OLDER = {"version": "3.5.21"}
ROLE = ("(cluster)", "flannel's certificate lacks a right in etcd")
ATTEMPTS = {
    (f"{PREFIX}/config", "read"): "allowed",
    (f"{PREFIX}/subnets/0.0.0.0-0", "write"): "allowed",
    (f"{PREFIX}/config", "write"): "refused",
    (f"{PREFIX}-outside", "write"): "refused",
    ("every key", "read"): "refused",
    ("users and roles", "read"): "refused",
}
"""What each node's certificate of flannel's is tried for, and what comes of it."""


def on(practice: Practice, **overrides: Any) -> Path:  # noqa: ANN401 - plain YAML values
    """Params that ask for it."""
    return practice.params(flannel={"rbac": True}, **overrides)


def rows(plan: Plan) -> list[tuple[str, str]]:
    """What a plan would do to what."""
    return [(change.resource, change.action) for change in plan.changes]


def tried(some: list[dict[str, Any]]) -> dict[str, dict[tuple[str, str], str]]:
    """What came of each attempt, by node."""
    assert all(row["ok"] for row in some), some
    return {node: {(r["path"], r["action"]): r["found"] for r in some if r["node"] == node} for node in NODES}


def auth(practice: Practice, path: Path) -> bool:
    """Whether etcd's auth is on."""
    return json.loads(etcdctl_on(practice, path, "auth", "status", "-w", "json")).get("enabled") is True


def as_flannel(practice: Practice, path: Path, *words: str) -> str:
    """What etcdctl says to flannel's certificate of node2, its errors too."""
    return practice.on("node2", f"{etcdctl.command(cluster_of(path), *words, as_flannel=True)} 2>&1 || true")


@pytest.fixture(scope="module")
def params(practice: Practice) -> Path:
    """The params of a cluster that `runbook run` built with it from scratch."""
    practice.make_virgin()
    path = on(practice)
    done = practice.cli("run", path, "--approve", "--records", practice.folder / "first")
    assert done.returncode == 0, done.stdout + done.stderr
    return path


@pytest.fixture
def kept(practice: Practice, params: Path, fleet: Fleet) -> Iterator[None]:
    """Nothing is wrong before a test; what was written before it, and each node's lease, are the same after it."""
    until(lambda: found(fleet) == {})
    etcdctl_on(practice, params, "put", KEPT, "value")
    before = {row["lease"]: row["node"] for row in show.rows(flannel.leases(fleet))}
    yield
    assert etcdctl_on(practice, params, "get", KEPT, "--print-value-only") == "value"
    assert {row["lease"]: row["node"] for row in show.rows(flannel.leases(fleet))} == before


def test_built_from_scratch(practice: Practice, fleet: Fleet) -> None:
    """The record has users, role and auth as rows, auth last, and what each node's certificate was tried for."""
    assert wrong(fleet, "04-05,07,09-10") == []
    assert found(fleet) == {}
    (folder,) = (practice.folder / "first").glob("*/*")
    plan = table(folder, 7, "flannel config: 8 of 8")
    assert [row["resource"] for row in plan] == [
        f"{PREFIX}/config", "etcd user root", *(f"etcd user {name}" for name in NODES), "etcd role flannel",
        "etcd user flanneld", "etcd auth",
    ]  # fmt: skip
    assert tried(table(folder, 7, "What flannel's certificate")) == dict.fromkeys(NODES, ATTEMPTS)


def test_a_second_run_changes_nothing(practice: Practice, params: Path) -> None:
    """No plan has a row, nothing restarts, and the plan's one look is all that it costs."""
    before = practice.starts()
    done = practice.cli("run", params, "--approve", "--records", practice.folder / "second")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was to change" in done.stdout
    (folder,) = (practice.folder / "second").glob("*/*")
    assert record.read(folder / "07_flannel_config.ipynb").changes == 0
    assert practice.starts() == before


def test_flannels_certificate_is_held_to_its_prefix(practice: Practice, params: Path) -> None:
    """With it etcdctl reads what is below the prefix; other keys, the config, users and members are not its own."""
    etcdctl_on(practice, params, "put", KEPT, "value")
    said = as_flannel(practice, params, "get", f"{PREFIX}/", "--prefix", "--keys-only").split()
    assert len(said) == 1 + len(NODES), said
    for words in (
        ("get", KEPT), ("put", KEPT, "x"), ("del", KEPT), ("get", "", "--prefix"), ("put", f"{PREFIX}/config", "{}"),
        ("del", f"{PREFIX}/config"), ("put", PREFIX, "x"), ("auth", "disable"), ("user", "add", "x", "--no-password"),
        ("role", "grant-permission", "flannel", "readwrite", "/"), ("member", "remove", "1"),
    ):  # fmt: skip
        assert "permission denied" in as_flannel(practice, params, *words), words
    assert etcdctl_on(practice, params, "get", KEPT, "--print-value-only") == "value"


def test_the_gateway_gives_nobody_a_members_rights(practice: Practice, params: Path, tmp_path: Path) -> None:
    """A certificate without a name, over HTTP: etcd would answer with its own certificate's rights."""
    pem, key = certificate(pki_folder(params), "nobody", ("nobody",), common_name=None)
    (tmp_path / "pair.pem").write_bytes(pem + key)
    context = ssl.create_default_context(cafile=str(pki_folder(params) / "ca.pem"))
    context.load_cert_chain(tmp_path / "pair.pem")
    for node in NODES:
        with closing(http.client.HTTPSConnection(practice.address(node), 2379, timeout=10, context=context)) as line:
            line.request("POST", "/v3/kv/range", body='{"key": "AA==", "range_end": "AA=="}')
            with closing(line.getresponse()) as answer:
                assert (answer.status, b"kvs" in answer.read()) == (404, False)


@pytest.mark.usefixtures("kept")
def test_a_right_that_is_gone(practice: Practice, params: Path, fleet: Fleet) -> None:
    """Its role may no longer read the config: diagnosed with what lacks, by `diagnose` too; phase 07 grants it."""
    etcdctl_on(practice, params, "role", "revoke-permission", "flannel", f"{PREFIX}/", "--prefix")
    restart(practice, "node2", "flanneld")
    told = Told(fleet, ROLE)
    assert f"role flannel lacks: read {PREFIX}/*" in told.why("(cluster)")
    assert "run phase 07" in told.remedy("(cluster)")
    until(lambda: "etcdserver: permission denied" in practice.on("node2", "journalctl -u flanneld -n 5 -o cat"))
    assert practice.cli("diagnose", params).returncode == 1
    refused = {(row["node"], row["path"]) for row in wrong(fleet, "07") if row.get("action") == "read"}
    assert refused == {(node, f"{PREFIX}/config") for node in NODES}
    plan = flannel.config(fleet)
    assert rows(plan) == [("etcd role flannel", "change")]
    assert f"+read {PREFIX}/*" in plan.changes[0].diff.splitlines()
    finishes(fleet)


@pytest.mark.usefixtures("kept")
def test_rights_that_are_too_wide_are_taken_back(practice: Practice, params: Path, fleet: Fleet) -> None:
    """Another range of its role, another role of its user, the config writable: each is a row, and gone after it."""
    for words in (
        ("role", "grant-permission", "flannel", "readwrite", "/registry/", "--prefix"),
        ("role", "grant-permission", "flannel", "readwrite", f"{PREFIX}/", "--prefix"),
        ("role", "grant-permission", "flannel", "read", "", "--prefix"),
        ("user", "grant-role", "flanneld", "root"),
    ):
        etcdctl_on(practice, params, *words)
    assert {row["path"] for row in wrong(fleet, "07")} >= {"every key", "users and roles", f"{PREFIX}-outside"}
    assert rows(flannel.config(fleet)) == [("etcd role flannel", "change"), ("etcd user flanneld", "change")]
    finishes(fleet)
    assert tried(show.rows(flannel.rights(fleet))) == dict.fromkeys(NODES, ATTEMPTS)


@pytest.mark.usefixtures("kept")
def test_auth_turned_off_by_hand(practice: Practice, params: Path, fleet: Fleet) -> None:
    """A diagnosis says that flannel may do all; phase 07 turns it on again."""
    etcdctl_on(practice, params, "auth", "disable")
    told = Told(fleet, ("(cluster)", "etcd's auth is off"))
    assert "may read and write every key" in told.why("(cluster)")
    plan = flannel.config(fleet)
    assert rows(plan) == [("etcd auth", "enable")]
    assert "keys that are not flannel's: 1," in plan.changes[0].why
    finishes(fleet)
    assert auth(practice, params)


# ---- auth by somebody else


@contextmanager
def administrator(practice: Practice, params: Path) -> Iterator[str]:
    """The certificate of an administrator who is no member, on node3; its etcdctl's options."""
    folder = practice.root("node3") / "srv/admin"
    folder.mkdir()
    pem, key = certificate(pki_folder(params), "root", ("root",), common_name=etcd_access.ADMIN)
    (folder / "root.pem").write_bytes(pem)
    (folder / "root-key.pem").write_bytes(key)
    ca = "/etc/etcd/cert/ca.pem"
    yield (
        f"{ETCDCTL} --endpoints=https://{practice.address('node3')}:2379 --cacert={ca} --cert=/srv/admin/root.pem"
        " --key=/srv/admin/root-key.pem"
    )
    practice.on("node3", "rm -r /srv/admin")


@pytest.mark.usefixtures("kept")
def test_auth_that_somebody_else_turned_on(practice: Practice, params: Path, fleet: Fleet) -> None:
    """Users that know no member: refused with the commands that let us in, nothing changed; after them all goes on."""
    off = practice.params()
    with administrator(practice, params) as admin:
        gone = " ".join([*NODES, "flanneld"])
        practice.on("node3", f"{admin} user add app --no-password; for u in {gone}; do {admin} user delete $u; done")
        listed = practice.on("node3", f"{admin} user list")
        assert listed.split() == ["app", "root"]
        for path in (params, off):
            with practice.fleet(path) as own:
                plan = flannel.config(own)
                assert len(plan.refusals) == 1
                assert "somebody else turned it on" in plan.refusals[0]
                with pytest.raises(errors.PlanRefused, match="nothing was changed"):
                    apply(own, "07")
                told = Told(own, ("(cluster)", "etcd's auth keeps the members out"))
        assert practice.on("node3", f"{admin} user list") == listed
        (commands,) = [text for text in told.remedy("(cluster)").split("`") if text.startswith("for u in")]
        practice.on("node3", commands.replace("etcdctl", admin))
    assert auth(practice, params)
    with practice.fleet(off) as own:
        plan = flannel.config(own)
        assert (rows(plan), plan.notes) == ([], [plan.notes[0]])
        assert "there are other users (app): somebody else's, so it stays on" in plan.notes[0]
    assert rows(flannel.config(fleet)) == [("etcd user flanneld", "create")]
    finishes(fleet)
    assert etcdctl_on(practice, params, "user", "list").split() == ["app", "flanneld", *NODES, "root"]
    etcdctl_on(practice, params, "user", "delete", "app")


# ---- off and on again


@pytest.mark.usefixtures("kept")
def test_off_and_on_again_broken_off_between_users_and_auth(practice: Practice, params: Path, fleet: Fleet) -> None:
    """Off: one row, and all as without. On: a run that dies before auth is on leaves all serving; the next finishes."""
    off = practice.params()
    with practice.fleet(off) as own:
        assert rows(flannel.config(own)) == [("etcd auth", "disable")]
        apply(own)
        assert not auth(practice, params)
        assert wrong(own, "05,07,10") == []
        assert "not limited" in show.rows(flannel.rights(own))[0]["found"]
        assert {name: len(results) for name, results in apply(own).items() if len(results)} == {}
    assert "denied" not in as_flannel(practice, params, "get", KEPT)
    for name in (*NODES, "flanneld", "root"):
        etcdctl_on(practice, params, "user", "delete", name)
    etcdctl_on(practice, params, "role", "delete", "flannel")
    apply(fleet, "03-04")
    assert len(flannel.config(fleet).changes) == 7
    dies = f'case "$*" in *"auth enable"*) kill -KILL $PPID; exit 1;; esac; exec {ETCDCTL}.real "$@"'
    shim = f"#!/bin/sh\n{dies}\n"
    practice.on("node1", f"mv {ETCDCTL} {ETCDCTL}.real")
    file = practice.root("node1") / ETCDCTL.lstrip("/")
    file.write_text(shim, encoding="ascii")
    file.chmod(0o755)
    with pytest.raises(errors.ApplyFailed, match="the connection broke in the middle"):
        apply(fleet, "07")
    practice.on("node1", f"mv -f {ETCDCTL}.real {ETCDCTL}")
    assert not auth(practice, params)
    assert wrong(fleet, "05,09-10") == []
    assert rows(flannel.config(fleet)) == [("etcd auth", "enable")]
    done = practice.cli("run", params, "--approve", "--records", practice.folder / "resumed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert auth(practice, params)
    assert tried(show.rows(flannel.rights(fleet))) == dict.fromkeys(NODES, ATTEMPTS)


def test_etcd_3_5(practice: Practice, params: Path) -> None:  # noqa: ARG001 - the order: this one begins anew
    """The same with the line before: users, role and auth by phase 07, and each attempt as it should be."""
    practice.sandbox.reset(*NODES)
    practice.make_virgin()
    path = on(practice, etcd=OLDER)
    with practice.fleet(path) as fleet:
        apply(fleet, "01-04,06-07")
        assert tried(show.rows(flannel.rights(fleet))) == dict.fromkeys(NODES, ATTEMPTS)
        assert apply(fleet, "07")["flannel_config"].empty
