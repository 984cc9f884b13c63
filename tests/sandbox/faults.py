"""Faults made for real on practice nodes, and what a diagnosis says of them."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from practice import Practice, apply, cluster_of, until, wrong

from runbook import diagnose, etcdctl, show, state
from runbook.diagnosis import symptom_script
from runbook.transport import answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.fleet import Fleet

KEPT = "/kept/before"
UNITS = "/etc/systemd/system"
DATA, WAL = "/data/k8s/etcd/data", "/data/k8s/etcd/wal"
NOT_BUILT = ("flanneld is not installed",)


def etcdctl_on(practice: Practice, path: Path, *words: str, api: int = 3, node: str = "node1") -> str:
    """What etcdctl prints on a node."""
    return practice.on(node, etcdctl.command(cluster_of(path), *words, api=api))


def found(fleet: Fleet) -> dict[tuple[str, str], dict[str, str]]:
    """The causes by node and name; that flannel is not built yet is none."""
    rows = show.rows(diagnose.diagnose(fleet))
    return {(row["node"], row["cause"]): row for row in rows if row["cause"] not in NOT_BUILT}


def capture(fleet: Fleet, folder: Path, expected: tuple[tuple[str, str], ...]) -> None:
    """Keep what the nodes show as a file for the unit tests: RUNBOOK_CAPTURE names the folder."""
    outcomes = fleet.run(lambda node: symptom_script.script(fleet.cluster, node), what="capture")
    nodes = {name: one.value and _short(one.value.text) for name, one in outcomes.items()}
    cluster = {
        "nodes": [{"name": node.name, "host": node.host} for node in fleet.cluster.nodes],
        "etcd": {"version": fleet.cluster.etcd.version},
        "flannel": {"version": fleet.cluster.flannel.version, "rbac": fleet.cluster.flannel.rbac},
    }
    test = os.environ["PYTEST_CURRENT_TEST"].split("::")[-1].split(" ")[0]
    kept = {"now": time.time(), "cluster": cluster, "nodes": nodes, "causes": sorted(expected)}
    name = re.sub(r"\W+", "_", test.removeprefix("test_")).strip("_").lower()
    (folder / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _short(text: str) -> dict[str, str]:
    """What the script printed, by key; journals only as far as they are read: little of a unit that runs."""
    said = answers.parse(text)
    said["kernel"] = "6.1.0"  # the testing machine's own
    for unit in ("etcd", "flanneld"):
        lines = 2 if "ActiveState=active" in said.get(f"unit_{unit}", "") else 30
        journal = [line[:500] for line in said.get(f"journal_{unit}", "").splitlines()[-lines:]]
        said[f"journal_{unit}"] = "\n".join(journal)
    return said


class Told:
    """Looks until a diagnosis tells these causes and no others.

    Attributes:
        rows: The rows by node and cause.
    """

    def __init__(self, fleet: Fleet, *expected: tuple[str, str]) -> None:
        self.rows: dict[tuple[str, str], dict[str, str]] = {}

        def told() -> bool:
            self.rows = found(fleet)
            return set(self.rows) == set(expected)

        try:
            until(told, within_s=25)
        except AssertionError as error:
            raise AssertionError(f"expected {sorted(expected)}, the last look told {self.rows}") from error
        assert all(row["why"] and row["remedy"] and row["section"] for row in self.rows.values())
        if folder := os.environ.get("RUNBOOK_CAPTURE"):
            capture(fleet, Path(folder), expected)

    def why(self, node: str) -> str:
        """What was found on a node."""
        return "; ".join(row["why"] for (name, _), row in self.rows.items() if name == node)

    def remedy(self, node: str) -> str:
        """What to do on a node."""
        return "; ".join(row["remedy"] for (name, _), row in self.rows.items() if name == node)


def finishes(fleet: Fleet, only: str = "") -> None:
    """A plain second run of these phases finishes, and then a diagnosis finds nothing."""
    apply(fleet, only)
    looks = "04-05" if only else "04-05,09-10"
    until(lambda: wrong(fleet, looks) == [])
    assert found(fleet) == {}


def write(practice: Practice, node: str, path: str, content: bytes) -> None:
    """Put other bytes into a file of a node; its owner and mode stay."""
    (practice.root(node) / path.lstrip("/")).write_bytes(content)


def edit_unit(practice: Practice, node: str, unit: str, expression: str) -> None:
    """Change a unit file by hand (a sed expression), and restart what it starts, at once and not gracefully."""
    practice.on(node, f"sed -i {expression!r} {UNITS}/{unit}.service && systemctl daemon-reload")
    restart(practice, node, unit)


def restart(practice: Practice, node: str, unit: str) -> None:
    """Kill a unit's processes and start it again, without waiting for it."""
    practice.on(node, f"systemctl kill -s KILL {unit} || true; systemctl restart --no-block {unit}")


def stop(practice: Practice, node: str, unit: str = "etcd") -> None:
    """Stop a unit without its graceful end, which waits for open watches."""
    practice.on(
        node, f"systemctl kill -s KILL {unit} || true; systemctl stop {unit}; systemctl reset-failed {unit} || true"
    )


def aside(practice: Practice, node: str) -> None:
    """Move a member's data folders aside, as remedies say; their empty folders come with phase 03."""
    practice.on(node, f"systemctl stop etcd; for d in {DATA} {WAL}; do rm -rf $d.old; mv $d $d.old; done")


def anew(practice: Practice) -> None:
    """Members that were never started: all of them stopped, with empty data folders."""
    for row in practice.sandbox.status():
        stop(practice, row.node)
        practice.on(row.node, f"rm -rf {DATA} {WAL} {DATA}.old {WAL}.old")


def certificate(
    folder: Path, node: str, sans: tuple[str, ...], *, days: tuple[int, int] = (-1, 30), common_name: str | None = ""
) -> tuple[bytes, bytes]:
    """A certificate and its key, by the CA in a folder, valid from `days[0]` to `days[1]` from now.

    Its common name is the node's, unless another one is given; with None it has none.
    """
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((folder / "ca-key.pem").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    names: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(one)) if one[0].isdecimal() else x509.DNSName(one) for one in sans
    ]
    named = (NameOID.ORGANIZATION_NAME, node) if common_name is None else (NameOID.COMMON_NAME, common_name or node)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(*named)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False)  # noqa: FBT003
        .sign(signer, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(serialization.Encoding.PEM), pem


def put_certificate(practice: Practice, node: str, pair: tuple[bytes, bytes], ca: bytes | None = None) -> None:
    """Put another pair in the place of a node's etcd certificate, and restart its member."""
    write(practice, node, "/etc/etcd/cert/etcd.pem", pair[0])
    write(practice, node, "/etc/etcd/cert/etcd-key.pem", pair[1])
    if ca:
        write(practice, node, "/etc/etcd/cert/ca.pem", ca)
    restart(practice, node, "etcd")


def pki_folder(path: Path) -> Path:
    """Where the CA of a params file's cluster is on this side."""
    return state.pki_dir(cluster_of(path), create=False)


@contextmanager
def wrapped(practice: Practice, node: str, program: str, script: str) -> Iterator[None]:
    """A script of our own before a program of the node, for as long as this lasts."""
    file = practice.root(node) / "usr/local/bin" / program
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    file.chmod(0o755)
    try:
        yield
    finally:
        file.unlink()
