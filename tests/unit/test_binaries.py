"""runbook.binaries: release binaries put on nodes; files of a stand-in for the cache."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from local_node import NODES, OWNER, cluster_of, fleet_of, local

from runbook import artifacts, binaries, show
from runbook.artifacts import Binary
from runbook.downloads import artifact_cache
from runbook.downloads.artifact_cache import Packed
from runbook.plan import Plan
from runbook.plans import beside

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runbook.fleet import Fleet

FILES = {"etcd": ("etcd", "etcdctl", "etcdutl"), "flannel": ("flanneld", "mk-docker-opts.sh")}


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Stands in for the artifacts: small scripts that tell a version; notes what was asked for."""
    asked: list[tuple[str, str, str]] = []

    def fetch(product: str, version: str, arch: str, **options: object) -> tuple[Binary, ...]:
        asked.append((product, version, arch))
        assert callable(options["report"])
        return tuple(make(tmp_path, name, product, version, arch) for name in FILES[product])

    monkeypatch.setattr(artifacts, "fetch", fetch)
    return asked


def make(folder: Path, name: str, product: str, version: str, arch: str) -> Binary:
    path, packed = folder / f"cached-{name}-{arch}", folder / f"cached-{name}-{arch}.gz"
    path.write_bytes(f"#!/bin/sh\necho {name} Version: {version} {arch}\n".encode())
    packed.write_bytes(gzip.compress(path.read_bytes()))
    sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, packed)]
    sizes = path.stat().st_size, packed.stat().st_size
    return Binary(name, product, version, arch, path, packed, sums[0], *sizes, "mirror x", "pin", sums[1])


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """One node of both roles, whose bin_dir is in a folder of the test."""
    cluster = cluster_of(nodes=NODES[:1]).model_copy(update={"bin_dir": str(tmp_path / "bin")})
    return fleet_of(cluster, tmp_path)


def flannels(fleet: Fleet) -> Plan:
    """What phase 04 does beside the start."""
    together = beside.Together(fleet, binaries.part(fleet, "flannel"))
    return Plan("flannel binaries", fleet, together.make, rollout=together.rollout)


def machine(fleet: Fleet, name: str) -> None:
    for connection in local(fleet).values():
        connection.shim("uname", f"echo {name}")


def test_binaries_are_put_and_then_stay(
    fleet: Fleet, fetched: list[tuple[str, str, str]], tmp_path: Path, prerequisite: Callable[[str], None]
) -> None:
    """Each product's files are there, 0755; a second plan is empty; the notes say where they come from."""
    if OWNER != "root:root":
        prerequisite("root, to whom the binaries belong")
    machine(fleet, "x86_64")
    one = binaries.install(fleet)
    assert one.notes == [
        "etcd 3.6.16 amd64: from mirror x, checked against pin",
        "flannel 0.26.7 amd64: from mirror x, checked against pin; it travels in phase 04",
    ]  # fmt: skip
    assert set(asyncio.run(one.apply(True))["result"]) == {"done"}  # noqa: FBT003 - the notebooks' parameter
    assert {path.name for path in (tmp_path / "bin").iterdir()} == set(FILES["etcd"])
    two = flannels(fleet)
    assert two.notes == ["flannel 0.26.7 amd64: from mirror x, checked against pin"]
    assert set(asyncio.run(two.apply(True))["result"]) == {"done"}  # noqa: FBT003 - the notebooks' parameter
    there = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "bin").iterdir()}
    assert there == dict.fromkeys(("etcd", "etcdctl", "etcdutl", "flanneld", "mk-docker-opts.sh"), 0o755)
    assert (binaries.install(fleet).empty, flannels(fleet).empty) == (True, True)
    for product, names in FILES.items():
        rows = show.rows(binaries.versions(fleet, cast("artifacts.Product", product)))
        assert [row["path"].rsplit("/", 1)[-1] for row in rows] == list(names)
    table = binaries.versions(fleet)
    assert table["ok"].all()
    assert {row["path"].rsplit("/", 1)[-1]: row["version"] for row in show.rows(table)} == {
        "etcd": "3.6.16", "etcdctl": "3.6.16", "etcdutl": "3.6.16", "flanneld": "0.26.7", "mk-docker-opts.sh": "script",
    }  # fmt: skip
    assert ("etcd", "3.6.16", "amd64") in fetched


@pytest.mark.parametrize(("has", "unpack"), [("exit 0", "zstd -dc"), ("exit 1", "gzip -dc")])
def test_a_node_with_zstd_gets_what_that_packed(
    fleet: Fleet, fetched: list[tuple[str, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: str,
    unpack: str,
) -> None:  # fmt: skip
    """A node tells together with its machine whether it has zstd: then it is sent that form, another one gzip's."""
    packed, fetch = Packed(tmp_path / "x.zst", 7, "0" * 64, "zstd -dc"), artifacts.fetch

    def both(*asked: Any, **options: Any) -> list[Binary]:  # noqa: ANN401 - as it is called
        return [replace(one, zstd=packed) for one in fetch(*asked, **options)]

    monkeypatch.setattr(artifacts, "fetch", both)
    machine(fleet, "x86_64")
    probe = binaries._Machine().probe()
    monkeypatch.setattr(binaries._Machine, "probe", lambda _: probe.replace("command -v zstd", f"( {has} )"))
    sources = [payload.source for change in binaries.install(fleet).changes for payload in change.payloads()]
    assert {one.unpack for one in sources if isinstance(one, Binary)} == {unpack}
    assert ("etcd", "3.6.16", "amd64") in fetched


@pytest.mark.usefixtures("fetched")
def test_the_cache_is_only_read_for_what_travels(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a binary that is to be sent the packed form that travels is summed; else the cache is believed."""
    machine(fleet, "x86_64")
    unread: list[bool] = []
    summed: list[str] = []
    fetch, verify = artifacts.fetch, artifact_cache.verify
    monkeypatch.setattr(
        artifacts, "fetch", lambda *asked, **told: unread.append(told["unread"]) or fetch(*asked, **told)
    )
    monkeypatch.setattr(
        artifact_cache, "verify", lambda sums: summed.extend(path.name for path in sums) or verify(sums)
    )
    assert any(change.payloads() for change in binaries.install(fleet).changes)
    assert (unread, set(summed)) == ([True, True], {f"cached-{name}-amd64.gz" for name in FILES["etcd"]})
    put(tmp_path, *FILES["etcd"], *FILES["flannel"])
    unread.clear()
    summed.clear()
    assert not any(change.payloads() for change in binaries.install(fleet).changes)
    assert (unread, summed) == ([True, True], [])


@pytest.mark.usefixtures("fetched")
def test_a_damaged_cache_is_read_as_a_whole(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to travel has another sum: then the artifacts are asked again, and mend what is in the cache."""
    machine(fleet, "x86_64")
    unread: list[bool] = []
    fetch = artifacts.fetch

    def damaged(*asked: Any, **told: Any) -> list[Binary]:  # noqa: ANN401 - as it is called
        unread.append(told["unread"])
        return [replace(one, packed_sha256="0" * 64) if unread[-1] else one for one in fetch(*asked, **told)]

    monkeypatch.setattr(artifacts, "fetch", damaged)
    sources = [payload.source for change in binaries.install(fleet).changes for payload in change.payloads()]
    assert unread == [True, True, False, False]
    assert "0" * 64 not in {one.packed_sha256 for one in sources if isinstance(one, Binary)}


def test_a_node_tells_its_machine_and_zstd(fleet: Fleet) -> None:
    """Both by what its own shell finds."""
    machine(fleet, "aarch64")
    (connection,) = local(fleet).values()
    connection.shim("zstd", "exit 0")
    assert connection.run(binaries._Machine().probe(), what="probe").check().text == "machine=aarch64\nzstd=yes\n"


def test_other_bytes_are_told(fleet: Fleet, fetched: list[tuple[str, str, str]], tmp_path: Path) -> None:
    """A file with other bytes, and one that is missing, are rows that don't hold."""
    machine(fleet, "aarch64")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "etcd").write_text("#!/bin/sh\necho 'old|one'\n")
    (tmp_path / "bin" / "etcd").chmod(0o755)
    rows = {row["path"].rsplit("/", 1)[-1]: row for row in show.rows(binaries.versions(fleet))}
    assert not any(row["ok"] for row in rows.values())
    assert rows["etcd"]["why"].startswith("sha256 ")
    assert (rows["etcd"]["version"], rows["etcd"]["told_by"]) == ("old|one", "the binary")
    assert "expected" in rows["flanneld"]["why"]
    assert {arch for _, _, arch in fetched} == {"arm64"}


@pytest.mark.usefixtures("fetched")
def test_a_binary_that_must_not_be_run_is_told(
    fleet: Fleet, tmp_path: Path, prerequisite: Callable[[str], None]
) -> None:
    """The right bytes on a file system that is mounted noexec: told at once, not only when a unit does not start."""
    if OWNER != "root:root":
        prerequisite("root, who may mount")
    machine(fleet, "x86_64")
    put(tmp_path, *FILES["etcd"], *FILES["flannel"])
    assert binaries.versions(fleet)["ok"].all()
    folder = str(tmp_path / "bin")
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,noexec", folder], check=True)
        rows = show.rows(binaries.versions(fleet))
    finally:
        subprocess.run(["umount", folder], check=True)
    assert not any(row["ok"] for row in rows)
    assert {row["why"][:35] for row in rows} == {"the node does not let it be run: it"}
    assert all(f"-T {folder}" in row["remedy"] for row in rows)


def test_what_a_plan_has_summed_is_summed_again_only_when_it_changed(
    fleet: Fleet, fetched: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    """A file's sum counts as long as its change time does; a changed file is told although a plan has seen it right."""
    assert fetched == []
    machine(fleet, "x86_64")
    (tmp_path / "bin").mkdir()
    path = tmp_path / "bin" / "mk-docker-opts.sh"
    path.write_bytes(make(tmp_path, path.name, "flannel", "0.26.7", "amd64").path.read_bytes())
    flannels(fleet)
    ctime, sha256 = fleet.sums["node1", str(path)]
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    fleet.sums["node1", str(path)] = ctime, "seen"
    told = {row["path"]: row["sha256"] for row in show.rows(binaries.versions(fleet))}
    assert told[str(path)] == "seen"
    path.write_text("#!/bin/sh\necho other\n")
    told = {row["path"]: row["sha256"] for row in show.rows(binaries.versions(fleet))}
    assert told[str(path)] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_a_plan_has_put_is_summed_when_it_changed(
    fleet: Fleet, fetched: list[tuple[str, str, str]], tmp_path: Path, prerequisite: Callable[[str], None]
) -> None:
    """It was summed when it arrived: a look at it starts no sum, until it is another file than was put there."""
    if OWNER != "root:root":
        prerequisite("root, to whom the binaries belong")
    assert fetched == []
    machine(fleet, "x86_64")
    for plan in (binaries.install(fleet), flannels(fleet)):
        asyncio.run(plan.apply(True))  # noqa: FBT003 - the notebooks' parameter
    for name in ("sha256sum", "openssl"):
        local(fleet)["node1"].shim(name, f'echo "$@" >>{tmp_path}/summed; exec {shutil.which(name)} "$@"')
    rows = show.rows(binaries.versions(fleet))
    assert [(row["ok"], row["version"], row["told_by"]) for row in rows] == [
        *[(True, "3.6.16", "its sha256")] * 3, (True, "0.26.7", "its sha256"), (True, "script", ""),
    ]  # fmt: skip
    assert not (tmp_path / "summed").exists()
    (tmp_path / "bin" / "etcd").write_text("#!/bin/sh\necho etcd Version: 3.4.1\n")
    (etcd,) = (row for row in show.rows(binaries.versions(fleet)) if not row["ok"])
    assert (etcd["path"], etcd["version"], etcd["told_by"]) == (f"{tmp_path}/bin/etcd", "3.4.1", "the binary")
    summed = (tmp_path / "summed").read_text()
    assert "/bin/etcd\n" in summed
    assert "/bin/etcdctl" not in summed


def put(folder: Path, *names: str) -> None:
    """Put the stand-ins where a plan would."""
    (folder / "bin").mkdir()
    for name in names:
        product = "flannel" if name in FILES["flannel"] else "etcd"
        version = "0.26.7" if product == "flannel" else "3.6.16"
        (folder / "bin" / name).write_bytes(make(folder, name, product, version, "amd64").path.read_bytes())
        (folder / "bin" / name).chmod(0o755)


def told(fleet: Fleet) -> dict[str, tuple[str, str]]:
    """Each file's version, and who told it."""
    rows = show.rows(binaries.versions(fleet))
    return {row["path"].rsplit("/", 1)[-1]: (row["version"], row["told_by"]) for row in rows}


def test_a_version_is_known_by_the_sum_or_told_by_the_binary(
    fleet: Fleet, fetched: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    """What a plan has found to have the release's bytes is not asked again; what it has not, and what changed, is."""
    assert fetched == []
    machine(fleet, "x86_64")
    put(tmp_path, "etcd", "etcdctl", "mk-docker-opts.sh")
    assert told(fleet)["etcd"] == ("3.6.16", "the binary")
    binaries.install(fleet)
    known = told(fleet)
    assert (known["etcd"], known["etcdctl"]) == (("3.6.16", "its sha256"), ("3.6.16", "its sha256"))
    assert known["mk-docker-opts.sh"] == ("script", "")
    (tmp_path / "bin" / "etcd").write_text("#!/bin/sh\necho etcd Version: 3.4.1\n")
    assert (told(fleet)["etcd"], told(fleet)["etcdctl"]) == (("3.4.1", "the binary"), ("3.6.16", "its sha256"))


def test_a_plan_is_read_in_one_round_trip(fleet: Fleet, fetched: list[tuple[str, str, str]], tmp_path: Path) -> None:
    """Which binaries are wanted depends on the architecture; it is asked beside them."""
    machine(fleet, "x86_64")
    put(tmp_path, "etcd")
    binaries.install(fleet)
    assert len(local(fleet)["node1"].scripts) == 1
    assert {arch for _, _, arch in fetched} == {"amd64"}


def test_a_node_gets_what_its_roles_need(fetched: list[tuple[str, str, str]], tmp_path: Path) -> None:
    """Etcd's files on etcd nodes, flannel's on flannel nodes; each release is asked for once by a plan."""
    nodes = [{**NODES[0], "roles": ["etcd"]}, {**NODES[1], "roles": ["flannel"]}, NODES[2]]
    fleet = fleet_of(cluster_of(nodes=nodes), tmp_path)
    machine(fleet, "x86_64")
    named: dict[str, set[str]] = {}
    for change in [*binaries.install(fleet).changes, *flannels(fleet).changes]:
        named.setdefault(change.node, set()).add(change.resource.rsplit("/", 1)[-1])
    etcd, flannel = set(FILES["etcd"]), set(FILES["flannel"])
    assert {node: names - {""} for node, names in named.items()} == {
        "node1": etcd,
        "node2": flannel,
        "node3": etcd | flannel,
    }
    assert [product for product, _, _ in fetched] == ["etcd", "flannel", "flannel"]
