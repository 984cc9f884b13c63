"""What goes wrong on nodes and on the way: the error names node and cause, the rest is done, a second run finishes."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from practice import NODES, Practice, apply, loads, until, wrong

from runbook import errors, etcd, preflight, show
from runbook.sandbox.machine import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbook.fleet import Fleet

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-2")]

BIN_DIR = "/opt/k8s/bin"
SLOW_ZSTD = """#!/bin/sh
# Stops in the middle of what it receives until somebody lets it go on.
exec 3<&0
/usr/bin/zstd "$@" <&3 &
kill -STOP $!
echo $! >/var/tmp/stopped.new
mv /var/tmp/stopped.new /var/tmp/stopped
wait $!
"""
CAPACITY = {"node1": 3, "node2": 3, "node3": 3}
"""How many binaries a node gets in phase 01."""


def binaries(practice: Practice) -> dict[str, int]:
    """How many files there are in bin_dir of each node, half ones and hidden folders too."""
    look = f"find {BIN_DIR} -mindepth 1 2>/dev/null | wc -l"
    return {node: int(practice.on(node, look)) for node in NODES}


def failed_nodes(fleet: Fleet) -> set[str]:
    """The nodes that have a failed step in the journal."""
    return {step.node for step in fleet.journal.steps if step.state == "failed" and step.node}


@contextmanager
def small_disk(practice: Practice, node: str, folder: str, *, full: bool) -> Iterator[None]:
    """A file system of 8 MiB at a folder of a node."""
    practice.on(node, f"mkdir -p {folder} && mount -t tmpfs -o size=8m,mode=755 tmpfs {folder}")
    try:
        if full:
            practice.on(node, f"head -c 9m /dev/zero 2>/dev/null >{folder}/ballast || true")
        yield
    finally:
        practice.on(node, f"umount {folder}")


def test_a_node_that_is_down_ends_the_run_and_is_a_row_in_status(practice: Practice, built: Path) -> None:
    """`run` ends with 4 and names it; `status` shows its rows beside the others'; once it is up, all is well."""
    path = practice.params(ssh={"connect_timeout_s": 2})
    practice.sandbox.stop("node3")
    try:
        done = practice.cli("run", path, "--approve", "--records", practice.folder / "records")
        assert done.returncode == 4, done.stdout
        assert "Unreachable: node3" in done.stdout
        assert "Stopped at phase 00, 11 not begun" in done.stdout
        status = practice.cli("status", path, "--phases", "04-05,09", "--json")
        assert status.returncode in (1, 4), status.stderr
        tables = {one["caption"]: one["rows"] for one in loads(status)["tables"]}
        for caption in ("etcd.service on the nodes", "etcd endpoints", "flanneld.service on the nodes"):
            assert {row["node"]: row["ok"] for row in tables[caption]} == {"node1": True, "node2": True, "node3": False}
            assert all(row["why"] and row["remedy"] for row in tables[caption] if not row["ok"])
        for_people = practice.cli("status", path, "--phases", "10")
        assert for_people.returncode == status.returncode, for_people.stderr
        assert "node3" in for_people.stdout
    finally:
        practice.sandbox.start("node3")
    with practice.fleet(built) as fleet:
        apply(fleet)
        assert wrong(fleet) == []


def fingerprints(known_hosts: Path) -> dict[str, str]:
    """The fingerprints of the keys in a known_hosts file by address, as OpenSSH tells them."""
    said = run("ssh-keygen", "-l", "-f", str(known_hosts)).splitlines()
    lines = known_hosts.read_text(encoding="ascii").splitlines()
    return {line.split()[0]: told.split()[1] for line, told in zip(lines, said, strict=True)}


def test_another_host_key_is_refused(practice: Practice, tmp_path: Path) -> None:
    """Exit 4, HostKeyMismatch with the node and both fingerprints; `trust` doesn't replace the key either."""
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(tmp_path / "key"))
    other = (tmp_path / "key.pub").read_text(encoding="ascii").strip()
    known, address = tmp_path / "known_hosts", practice.address("node2")
    lines = practice.sandbox.known_hosts.read_text(encoding="ascii").splitlines()
    lines = [f"{address} {other}" if line.startswith(f"{address} ") else line for line in lines]
    known.write_text("\n".join(lines), encoding="ascii")
    path = practice.params(ssh={"known_hosts": str(known)})
    done = practice.cli("plan", path, "--phases", "01")
    assert done.returncode == 4
    assert "HostKeyMismatch" in done.stderr
    assert "node2:" in done.stderr
    assert fingerprints(practice.sandbox.known_hosts)[address] in done.stderr
    assert fingerprints(known)[address] in done.stderr
    assert "node1:" not in done.stderr
    trust = practice.cli("trust", path, "--yes")
    assert trust.returncode == 4
    assert "HostKeyMismatch" in trust.stderr
    assert known.read_text(encoding="ascii") == "\n".join(lines)


def test_an_unknown_host_key_is_told_and_can_be_trusted(practice: Practice, tmp_path: Path) -> None:
    """Exit 4 with every fingerprint; `trust --yes` writes the keys down, and then the nodes are reached."""
    known = tmp_path / "ssh" / "known_hosts"
    path = practice.params(ssh={"known_hosts": str(known)})
    done = practice.cli("plan", path, "--phases", "03")
    assert done.returncode == 4
    assert "HostKeyUnknown" in done.stderr
    keys = fingerprints(practice.sandbox.known_hosts).values()
    assert len(set(keys)) == 3
    assert [key for key in keys if key not in done.stderr] == []
    assert not known.exists()
    trust = practice.cli("trust", path, "--yes")
    assert trust.returncode == 0, trust.stderr
    assert [key for key in keys if key not in trust.stdout] == []
    assert fingerprints(known) == fingerprints(practice.sandbox.known_hosts)
    with practice.fleet(path) as fleet:
        assert fleet.table()["ok"].all()


def test_a_full_data_disk_fails_the_preflight(practice: Practice) -> None:
    """One row fails, of the node and the disk, with the remedy; `run` ends with 1 before anything is changed."""
    path = practice.params()
    with small_disk(practice, "node2", "/data", full=True):
        with practice.fleet(path) as fleet:
            rows = [row for row in show.rows(preflight.checks(preflight.facts(fleet), fleet)) if not row["ok"]]
        assert [(row["node"], row["check"]) for row in rows] == [("node2", "data disk"), ("node2", "wal disk")]
        assert all("0.0 GiB free" in row["why"] and "another disk" in row["remedy"] for row in rows)
        before = practice.traces()
        done = practice.cli("run", path, "--approve", "--records", practice.folder / "records")
        assert done.returncode == 1, done.stdout
        assert "CheckFailed" in done.stdout
        assert "node2 data disk" in done.stdout
        assert practice.traces() == before


def test_a_full_disk_while_binaries_come_leaves_nothing_half(virgin: Practice) -> None:
    """The node and `No space left` are named, no file of it is there, the other nodes are done; then it goes on."""
    with virgin.fleet(virgin.params()) as fleet:
        with small_disk(virgin, "node2", BIN_DIR, full=False):
            with pytest.raises(errors.ApplyFailed, match=r"(?s)node2 .*No space left on device") as caught:
                apply(fleet, "01")
            assert "node1" not in str(caught.value)
            assert failed_nodes(fleet) == {"node2"}
            assert binaries(virgin) == {**CAPACITY, "node2": 0}
        results = apply(fleet, "01")["binaries"]
        assert {row["node"] for row in show.rows(results)} == {"node2"}
        assert wrong(fleet, "01") == []
        assert binaries(virgin) == CAPACITY


def test_a_binary_with_a_wrong_checksum_reaches_no_node(virgin: Practice, tmp_path: Path) -> None:
    """Exit 1 and ArtifactError with the file, the sum found and the sum expected; approval or not, nothing is sent."""
    cache = tmp_path / "cache"
    cache.mkdir()
    tarball = cache / "etcd-v3.6.14-linux-amd64.tar.gz"
    tarball.write_bytes(b"not what was released")
    path = virgin.params(artifacts={"cache": str(cache), "offline": True}, etcd={"version": "3.6.14"})
    before = virgin.traces()
    done = virgin.cli("run", path, "--approve", "--phases", "01", "--records", virgin.folder / "records")
    assert done.returncode == 1, done.stdout
    assert "ArtifactError" in done.stdout
    assert tarball.name in done.stdout
    assert "02758d386b86bcc76abce950e0113962f5c99c19887bd07ee802909702f42317" in done.stdout
    assert "ffe840ff9295808e88cce2794a18a5ac87f12a5203c8314d0bf6aa119b41bac5" in done.stdout
    assert virgin.traces() == before


def test_a_start_that_fails_tells_what_its_journal_says(virgin: Practice) -> None:
    """Port 2379 is another's on one node: that node and the bind error are named, the others serve; then it goes on."""
    squat = f"systemd-run --quiet --unit=squatter --socket-property=ListenStream={virgin.address('node2')}:2379"
    with virgin.fleet(virgin.params()) as fleet:
        apply(fleet, "01-03")
        virgin.on("node2", f"{squat} sleep 600")
        try:
            checks = show.rows(preflight.checks(preflight.facts(fleet), fleet))
            taken = [(row["node"], row["check"], row["why"]) for row in checks if not row["ok"]]
            assert taken == [("node2", "port 2379/tcp", "taken by systemd (pid 1)")]
            with pytest.raises(errors.ApplyFailed, match=r"(?s)node2 .*bind: address already in use") as caught:
                apply(fleet, "04")
            assert "1 of 9 changes" in str(caught.value)  # three starts, two files of flannel's a node
            assert failed_nodes(fleet) == {"node2"}
            states = {row["node"]: row for row in show.rows(etcd.states(fleet))}
            assert [name for name in NODES if states[name]["ok"]] == ["node1", "node3"]
            assert "address already in use" in states["node2"]["why"]
        finally:
            virgin.on("node2", "systemctl stop squatter.socket squatter.service")
        apply(fleet, "04")
        assert wrong(fleet, "04-05") == []


def test_a_connection_that_breaks_in_the_middle_leaves_nothing_half(virgin: Practice) -> None:
    """The SSH session is killed while a node receives: its row fails, no half file stays there; then it goes on."""
    stopped = virgin.root("node2") / "var/tmp/stopped"
    virgin.on("node2", f"cat >/usr/local/bin/zstd <<'END'\n{SLOW_ZSTD}END\nchmod 755 /usr/local/bin/zstd")
    with virgin.fleet(virgin.params()) as fleet, ThreadPoolExecutor(1) as pool:
        applied = pool.submit(apply, fleet, "01")
        until(stopped.exists)
        (session,) = virgin.sessions("node2")
        os.kill(session, signal.SIGKILL)
        with pytest.raises(errors.ApplyFailed, match=r"(?s)node2 .*the connection broke in the middle") as caught:
            applied.result(timeout=60)
        assert "node1" not in str(caught.value)
        assert failed_nodes(fleet) == {"node2"}
        virgin.on("node2", f"kill -CONT {stopped.read_text(encoding='ascii').strip()}; rm /usr/local/bin/zstd")
        until(lambda: binaries(virgin)["node2"] == 0)
        assert binaries(virgin) == {**CAPACITY, "node2": 0}
        assert {row["node"] for row in show.rows(apply(fleet, "01")["binaries"])} == {"node2"}
        assert wrong(fleet, "01") == []
