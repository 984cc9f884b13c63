"""Other clusters than the practice cluster's own: another user, a CA that was there before, nodes with one role."""

from __future__ import annotations

import itertools
import subprocess
from typing import TYPE_CHECKING

import pytest
from practice import NODES, Practice, apply, wrong

from runbook import etcd, flannel, mesh, show

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-1")]

FIVE = {
    "node1": ["flannel"],
    "node2": ["etcd", "flannel"],
    "node3": ["etcd", "flannel"],
    "node4": ["flannel"],
    "node5": ["etcd", "flannel"],
}
"""The first node has no etcd: what asks etcd may not take the first one there is."""


def overlay(pings: show.Table) -> dict[tuple[str, str], float]:
    """The loss of each pair over flannel, in percent."""
    return {(row["node"], row["to"]): row["loss_pct"] for row in show.rows(pings) if row["network"] == "overlay"}


def openssl(*words: str | Path) -> str:
    """Run openssl; it must end with 0."""
    argv = ["openssl", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


def test_a_user_with_sudo_builds_all(virgin: Practice) -> None:
    """User ops with password-less sudo builds the same cluster as root; a second time there is nothing to change."""
    path = virgin.params(ssh={"user": "ops", "sudo": True})
    with virgin.fleet(path) as fleet:
        assert fleet.run("id -un; echo $SUDO_USER", what="id")["node1"].value.text.split() == ["root", "ops"]
        apply(fleet)
        assert wrong(fleet) == []
        assert {name: len(results) for name, results in apply(fleet).items() if len(results)} == {}


def test_a_ca_that_was_there_before_signs_all(virgin: Practice, tmp_path: Path) -> None:
    """With pki.ca_cert and pki.ca_key every leaf verifies against that CA by openssl, and the cluster runs on it."""
    certificate, key = tmp_path / "corp.pem", tmp_path / "corp-key.pem"
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
        "-subj", "/O=Corp/CN=Corp CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        "-keyout", key, "-out", certificate,
    )  # fmt: skip
    key.chmod(0o600)
    path = virgin.params(pki={"ca_cert": str(certificate), "ca_key": str(key), "valid_days": 20})
    with virgin.fleet(path) as fleet:
        apply(fleet, "01-06")
        assert wrong(fleet, "02,05,06") == []
    for node in NODES:
        for folder, name, purpose in (
            ("etcd", "etcd", "sslserver"),
            ("etcd", "etcd", "sslclient"),
            ("flanneld", "flanneld", "sslclient"),
        ):
            leaf = tmp_path / f"{node}-{name}.pem"
            leaf.write_text(virgin.on(node, f"cat /etc/{folder}/cert/{name}.pem"), encoding="ascii")
            assert openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", certificate, leaf)
        assert virgin.on(node, "cat /etc/etcd/cert/ca.pem") == certificate.read_text(encoding="ascii").strip()


def test_five_nodes_of_which_three_run_etcd(practice: Practice) -> None:
    """Members only where the role is, flannel on all five, a mesh of 5 x 5 without loss; the first node has no etcd."""
    practice.make_virgin(5)
    rows = [{**row, "roles": FIVE[row["name"]]} for row in practice.sandbox.params(5)["cluster"]["nodes"]]
    path = practice.params(name="five", nodes=rows)
    with practice.fleet(path) as fleet:
        apply(fleet)
        assert wrong(fleet) == []
        assert {row["node"] for row in show.rows(etcd.members(fleet))} == {"node2", "node3", "node5"}
        assert {row["node"] for row in show.rows(flannel.leases(fleet))} == set(FIVE)
        assert overlay(mesh.ping(fleet)) == dict.fromkeys(itertools.product(FIVE, FIVE), 0)
    for node in ("node1", "node4"):
        assert practice.on(node, "ls /etc/etcd /opt/k8s/bin/etcd 2>&1 || true").count("No such file") == 2
