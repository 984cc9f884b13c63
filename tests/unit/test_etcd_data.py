"""runbook.etcd_data: which data a member may be started on, by what a probe printed."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_node import cluster_of

from runbook import errors, etcd, params, units
from runbook.etcd_data import MemberData, written_by

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.resources import Found

DATA, WAL = "/data/k8s/etcd/data", "/data/k8s/etcd/wal"
UNIT = f"""[Unit]
Description=etcd 3.6.16, member node1 of cluster c
[Service]
ExecStart=/opt/k8s/bin/etcd \\
  --name=node1 \\
  --data-dir={DATA} \\
  --wal-dir={WAL} \\
  --initial-cluster-token=etcd-cluster-0
"""
PEERS = '"peerURLs":["https://198.18.0.11:2380"\n"peerURLs":["https://198.18.0.12:2380"\n'


def printed(**fields: str) -> Found:
    """What the probe prints of a member of ours that is stopped, with other fields; an empty one is left out."""
    plain = {"db": "there", "runs": ""}
    texts = {
        "wal": f"{WAL}/0.wal\n",
        "old_wal": f"{WAL}/0.wal\n",
        "unit": UNIT,
        "written": "clusterVersion3.6.\nstorageVersion3.6.\n",
        "peers": PEERS,
    }
    found = {**plain, **texts, **fields}
    coded = {key: base64.b64encode(value.encode()).decode() for key, value in found.items() if key not in plain}
    return {**{key: found[key] for key in plain if found[key]}, **{key: value for key, value in coded.items() if value}}


def refusal(found: Found, *, whose: bool = True, **etcd: object) -> str:
    """Why these data may not be served by a member with these settings, or ''."""
    cluster = cluster_of(etcd=etcd)
    change = MemberData(cluster, cluster.nodes[0], whose=whose).compare(found)
    if change is None:
        return ""
    assert change.refusal
    assert (change.action, change.before, change.after, tuple(change.payloads())) == ("keep", "", "", ())
    return change.refusal


def status(storage: str | None) -> str:
    """What `etcdctl endpoint status` prints, with or without a storage version."""
    return json.dumps([{"Status": {"version": "3.6.16", **({"storageVersion": storage} if storage else {})}}])


def test_data_that_fit_stay() -> None:
    """The member's own data, of the wanted version or one line below it, are no change."""
    assert refusal(printed()) == ""
    assert refusal(printed(), version="3.7.3") == ""
    assert refusal(printed(written="clusterVersion3.5."), version="3.6.16") == ""


def test_folders_without_data_stay() -> None:
    """Where no WAL is, nothing ran yet: any version, token and name may come."""
    empty: Found = {"wal": "", "old_wal": ""}
    assert refusal(empty, version="3.4.23", initial_cluster_token="x") == ""  # noqa: S106
    assert refusal(printed(wal="", old_wal="", db=""), initial_cluster_token="x") == ""  # noqa: S106


@pytest.mark.parametrize("whose", [True, False])
def test_a_downgrade_is_refused(whose: bool) -> None:  # noqa: FBT001
    """Older etcd over newer data is refused in every phase that looks, with the way back that etcd has."""
    told = refusal(printed(), whose=whose, version="3.5.21")
    assert "written by etcd 3.6, and etcd 3.5.21 can't read them" in told
    assert "`etcdctl downgrade enable 3.5`" in told
    assert "snapshot save" in told


def test_a_skipped_minor_line_is_refused() -> None:
    """Etcd takes one minor line at a time: the one between is named."""
    told = refusal(printed(written="clusterVersion3.4."), version="3.6.16")
    assert "newest 3.5" in told
    assert "one minor line at a time" in told


def test_what_the_data_are_of() -> None:
    """A running etcd of 3.6 tells it, an enabled downgrade too; else the database's newest page; else the process."""
    running = printed(runs="3.6.16", status=status("3.5.0"))
    assert written_by(running) == (3, 5)
    assert refusal(running, version="3.5.21") == ""
    assert written_by(printed(runs="3.6.16", status=status("3.6.0"))) == (3, 6)
    assert written_by(printed(runs="3.6.16", status=status(None))) is None
    assert written_by(printed(runs="3.5.21", status=status(None), written="clusterVersion3.4.")) == (3, 4)
    assert written_by(printed(runs="3.6.16", status="Error: timeout")) == (3, 6)
    assert written_by(printed(runs="3.6.16", status="", written="")) == (3, 6)
    assert written_by(printed(written="clusterVersion3.10.\nclusterVersion3.9.")) == (3, 10)
    assert written_by(printed(written="")) is None


FOREIGN = {
    "no unit": ({"unit": ""}, {}, "no etcd.service here tells whose they are"),
    "another token": ({}, {"initial_cluster_token": "new"}, "a cluster with the token etcd-cluster-0"),
    "the default token": (
        {"unit": UNIT.replace("  --initial-cluster-token=etcd-cluster-0\n", "")}, {}, "with the token etcd-cluster,"
    ),
    "another name": ({"unit": UNIT.replace("cluster c", "cluster old")}, {}, "of the cluster old, and the params"),
    "another folder": ({"unit": UNIT.replace(DATA, "/srv/old")}, {}, "etcd.service here is for the data in /srv/old"),
    "another's members": ({"peers": '"peerURLs":["http://127.0.0.1:12380"'}, {}, "members are http://127.0.0.1:12380"),
    "settings elsewhere": (
        {"unit": "[Service]\nEnvironmentFile=/etc/etcd.conf\nExecStart=/usr/bin/etcd\n"}, {}, "tells whose they are"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
def test_data_of_another_cluster_or_life_are_refused(case: str) -> None:
    """Each is refused with both ways out; that named folder, approved in the params, is taken as it is."""
    fields, settings, expected = FOREIGN[case]
    told = refusal(printed(**fields), **settings)
    assert expected in told
    assert f"`mv {DATA} {DATA}.old`" in told
    assert f"etcd.reuse_data: {DATA}" in told
    assert refusal(printed(**fields), whose=False, **settings) == ""
    assert refusal(printed(**fields), reuse_data=DATA, **settings) == ""


def test_an_approval_is_for_no_other_version() -> None:
    """Approving the folder does not make an older etcd read it."""
    assert "can't read them" in refusal(printed(), reuse_data=DATA, version="3.5.21")


@pytest.mark.parametrize("moved", [{"data_dir": "/data/new"}, {"wal_dir": "/data/new/wal"}])
def test_other_folders_are_refused_while_the_old_ones_hold_the_data(moved: dict[str, str]) -> None:
    """A changed folder would start a new member beside its own data: both places are named, approved or not."""
    found = printed(db="") if "data_dir" in moved else printed(wal="")
    for approved in ({}, {"reuse_data": moved.get("data_dir", DATA)}):
        told = refusal(found, **moved, **approved)
        assert f"data are in {DATA} and {WAL}" in told
        assert "would start as a new member" in told


def test_a_running_process_tells_more_than_the_unit() -> None:
    """A unit that is gone or rewritten while its process runs: the process's own flags count."""
    process = f"/opt/k8s/bin/etcd --name=node1 --data-dir {DATA} -wal-dir={WAL} --initial-cluster-token=etcd-cluster-0 "
    assert refusal(printed(unit="", process=process)) == ""
    assert "token t" in refusal(printed(process=process.replace("etcd-cluster-0", "t")))


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_what_a_node_prints_forges_nothing(text: str) -> None:
    """Whatever stands in a unit or a database, the refusal has no control character or line of its own making."""
    found = printed(unit=UNIT.replace("=etcd-cluster-0", f"={text}x"), peers=f'"peerURLs":["https://{text}"')
    assert not set(refusal(found)) & {"\x1b", "\n", "\r", "\x9b", "\u202e", "\u2066", "\x07"}


@pytest.mark.parametrize("version", ["3.4.23", "3.6.16"])
def test_the_probe_is_valid_sh(version: str) -> None:
    """Dash reads it, with and without variables before etcdctl."""
    cluster = cluster_of(etcd={"version": version}, flannel={"version": "0.26.7"})
    script = MemberData(cluster, cluster.nodes[0]).probe()
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({}, "yes"),
        ({"version": "3.5.21"}, "doubt"),
        ({"initial_cluster_token": "new"}, "doubt"),
        ({"data_dir": "/data/new"}, "doubt"),
        ({"wal_dir": "/data/new/wal"}, "doubt"),
    ],
)
def test_a_doubt_is_what_the_unit_there_does_not_say(changed: dict[str, str], hint: str, tmp_path: Path) -> None:
    """A member's own unit beside its data leaves none; one of another version, token or folder does."""
    ours, wanted = cluster_of(), cluster_of(etcd=changed)
    (tmp_path / "wal").mkdir()
    (tmp_path / "wal" / "0.wal").touch()
    text = units.render(
        "etcd.service.j2", version=ours.etcd.version, name="node1", cluster=ours.name, user="etcd", data_dir=DATA,
        bin_dir=ours.bin_dir, flags=etcd.flags(ours, ours.nodes[0]), writable=[], environment={},
    )  # fmt: skip
    (tmp_path / "etcd.service").write_bytes(text)
    script = MemberData(wanted, wanted.nodes[0]).there()
    script = script.replace(wanted.etcd.unit_dir, str(tmp_path)).replace("/data/k8s/etcd/wal/*", f"{tmp_path}/wal/*")
    done = subprocess.run(["sh"], input=script, text=True, check=True, capture_output=True)
    assert done.stdout.split()[-1] == f"guarded={hint}"
    (tmp_path / "etcd.service").unlink()
    (tmp_path / "wal" / "0.wal").unlink()
    assert subprocess.run(["sh"], input=script, text=True, check=True, capture_output=True).stdout == ""


def test_the_approval_names_the_data_folder() -> None:
    """A folder that is not data_dir is a fault of the params: an approval is never left behind for another one."""
    with pytest.raises(errors.ParamsError, match=r"reuse_data.*is not data_dir"):
        cluster_of(etcd={"reuse_data": "/srv/other"})
    assert params.load({"name": "c", "nodes": [{"name": "a", "host": "192.0.2.1"}]}).etcd.reuse_data is None
