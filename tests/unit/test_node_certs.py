"""runbook.node_certs: certificates on nodes, planned, issued, renewed and told; real ones, by a real CA."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from local_node import OWNER, cluster_of, fleet_of, local

from runbook import errors, node_certs, pki, show, state
from runbook.node_certs import Leaf

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.fleet import Fleet
    from runbook.params import Node
    from runbook.plan import Plan

CLUSTER = cluster_of()


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return fleet_of(CLUSTER, tmp_path)


def profile(node: Node) -> pki.Profile:
    return pki.Profile(node.name, (node.host, "localhost"), server=True, client=True)


def planned(fleet: Fleet, folder: Path, owner: str = OWNER) -> Plan:
    """A plan for node1 alone: the stand-ins share this machine's folders."""
    return node_certs.certificates_plan("certs", fleet, CLUSTER.nodes[:1], str(folder), "etcd", profile, owner=owner)


def applied(one: Plan) -> show.Table:
    return asyncio.run(one.apply(True))  # noqa: FBT003 - the notebooks' parameter


def test_the_first_plan_makes_the_ca(fleet: Fleet, tmp_path: Path) -> None:
    """Without a CA it is the plan's first row, on this side; nothing is made before the plan is applied."""
    one = planned(fleet, tmp_path / "cert")
    directory = state.pki_dir(CLUSTER, create=False)
    assert [(c.node, c.resource.rsplit("/", 1)[-1], c.action) for c in one.changes] == [
        ("", "ca.pem", "create"),
        ("node1", "", "create"),
        ("node1", "etcd.pem", "create"),
        ("node1", "ca.pem", "create"),
    ]
    assert not directory.exists()
    assert one.id == planned(fleet, tmp_path / "cert").id


def test_what_is_issued_is_right(fleet: Fleet, tmp_path: Path) -> None:
    """The pair is on the node, the key 0600, the certificate for this node by this CA; then nothing is to do."""
    folder = tmp_path / "cert"
    table = applied(planned(fleet, folder))
    assert set(table["result"]) == {"done"}
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "ca.pem": 0o644, "etcd.pem": 0o644, "etcd-key.pem": 0o600,
    }  # fmt: skip
    certificate = x509.load_pem_x509_certificate((folder / "etcd.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name) for name in names.get_values_for_type(x509.IPAddress)] == ["198.18.0.11"]
    again = planned(fleet, folder)
    assert (again.empty, again.unchanged) == (True, 3)
    told = node_certs.table(fleet, CLUSTER.nodes[:1], str(folder), "etcd")
    assert told["ok"].all()
    assert (told["key_matches"][0], told["chain_verifies"][0]) == (True, True)


def test_no_private_key_is_shown(fleet: Fleet, tmp_path: Path) -> None:
    """Neither plan, table, results, journal nor the scripts sent hold a private key."""
    folder = tmp_path / "cert"
    first = planned(fleet, folder)
    results = applied(first)
    (folder / "etcd.pem").unlink()
    second = planned(fleet, folder)
    told = node_certs.table(fleet, CLUSTER.nodes[:1], str(folder), "etcd")
    scripts = [script for one in local(fleet).values() for script in one.scripts]
    texts = [repr(first), repr(second), repr(results), told._repr_html_(), str(fleet.journal.steps), *scripts]
    secret = (folder / "etcd-key.pem").read_text().splitlines()[1]
    assert not [text for text in texts if secret in text or "PRIVATE KEY" in text]


@pytest.mark.parametrize(
    ("damage", "action"),
    [
        (lambda folder: (folder / "etcd.pem").unlink(), "create"),
        (lambda folder: (folder / "etcd-key.pem").unlink(), "renew"),
        (lambda folder: (folder / "etcd-key.pem").write_text("garbage"), "renew"),
        (lambda folder: (folder / "etcd.pem").write_bytes(b"\0\xff"), "renew"),
        (
            lambda folder: ((folder / "etcd-key.pem").unlink(), (folder / "etcd-key.pem").symlink_to("/etc/hostname")),
            "renew",
        ),
    ],
    ids=["no certificate", "no key", "key garbage", "certificate garbage", "key a link"],
)
def test_a_damaged_pair_is_issued_anew(fleet: Fleet, tmp_path: Path, damage: object, action: str) -> None:
    """Whatever is wrong with a pair, both are made anew, the CA stays, and then all is right."""
    folder = tmp_path / "cert"
    applied(planned(fleet, folder))
    ca = (folder / "ca.pem").read_bytes()
    damage(folder)  # type: ignore[operator]
    assert not node_certs.table(fleet, CLUSTER.nodes[:1], str(folder), "etcd")["ok"].any()
    one = planned(fleet, folder)
    assert [change.resource for change in one.changes] == [str(folder / "etcd.pem")]
    assert one.changes[0].action in {action, "create"}
    applied(one)
    assert planned(fleet, folder).empty
    assert (folder / "ca.pem").read_bytes() == ca


def test_an_open_key_is_closed_and_kept(fleet: Fleet, tmp_path: Path) -> None:
    """A key with another mode is closed again, not issued anew; the table told it."""
    folder = tmp_path / "cert"
    applied(planned(fleet, folder))
    key = (folder / "etcd-key.pem").read_bytes()
    (folder / "etcd-key.pem").chmod(0o644)
    told = node_certs.table(fleet, CLUSTER.nodes[:1], str(folder), "etcd")
    assert list(told["why"]) == ["the key's mode is 644, expected 600"]
    one = planned(fleet, folder)
    assert [(change.action, change.why) for change in one.changes] == [
        ("change", "key: mode 0644, wanted 0600"),
    ]
    applied(one)
    assert (folder / "etcd-key.pem").stat().st_mode & 0o777 == 0o600
    assert (folder / "etcd-key.pem").read_bytes() == key


def test_another_ca_on_the_node_is_told(fleet: Fleet, tmp_path: Path) -> None:
    """A ca.pem that is not this cluster's is told in the table, and never written over: the plan refuses."""
    folder = tmp_path / "cert"
    applied(planned(fleet, folder))
    (folder / "ca.pem").write_text("other")
    told = node_certs.table(fleet, CLUSTER.nodes[:1], str(folder), "etcd")
    assert not told["ok"].any()
    (change,) = planned(fleet, folder).changes
    assert change.resource == str(folder / "ca.pem")
    assert "another CA's certificate" in change.refusal


def test_a_machine_without_the_ca_changes_no_node_that_has_one(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this side has lost its CA, or never had it, no new one is made for a cluster that trusts another."""
    folder = tmp_path / "cert"
    applied(planned(fleet, folder))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    one = planned(fleet, folder)
    refused = [change for change in one.changes if change.refusal]
    assert [change.resource for change in refused] == [str(folder / "ca.pem")]
    assert "bring that CA here" in refused[0].refusal
    with pytest.raises(errors.PlanRefused, match="another CA"):
        applied(one)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not list((tmp_path / "another machine").rglob("ca*.pem"))


def test_a_node_without_certificates_has_a_row(fleet: Fleet, tmp_path: Path) -> None:
    """Before the phase ran, and on a node that is down, there is a row that does not hold."""
    (row,) = show.rows(node_certs.table(fleet, CLUSTER.nodes[:1], str(tmp_path / "none"), "etcd"))
    assert row["ok"] is False
    assert row["why"]
    assert row["remedy"] == "run the certificates phase again"


def test_nothing_is_issued_to_compare() -> None:
    """Comparing asks why the pair may not stay; it never issues one."""
    leaf = Leaf("/c", "etcd", "etcd:etcd", lambda *_: "", lambda: pytest.fail("issued"), "CN=node1")
    good = {"type": "file", "mode": "644", "owner": "etcd:etcd", "key_mode": "600", "key_owner": "etcd:etcd"}
    assert leaf.compare(good) is None
    renewed = Leaf("/c", "etcd", "etcd:etcd", lambda *_: "missing", lambda: pytest.fail("issued"), "CN=node1")
    change = renewed.compare({"type": "none", "key_type": "none"})
    assert change is not None
    assert change.action == "create"
