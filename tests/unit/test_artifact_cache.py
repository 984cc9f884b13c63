"""The cache: whole or not there, checked at every use."""

from __future__ import annotations

import gzip
import json
import os
import threading
from typing import TYPE_CHECKING

import pytest
from release_site import ETCD, FILES, FLANNEL

from runbook.downloads import artifact_cache, checksums
from runbook.downloads.artifact_cache import NotInCache, load, locked, store, workplace
from runbook.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runbook.downloads.artifact_cache import Binary


def _silent(_line: str) -> None:
    """Report nothing."""


def put(root: Path, extra: bytes = b"") -> tuple[Binary, ...]:
    """Store a release of etcd."""
    with workplace(root, ETCD) as work:
        staged = work / "files"
        staged.mkdir()
        for name in ETCD.names:
            (staged / name).write_bytes(FILES[name] + extra)
        return store(root, ETCD, staged, "a source", "a sum")


def test_stored_is_loaded(tmp_path: Path) -> None:
    """What was stored is found again, with where it came from; packed and raw hold the same bytes."""
    stored = put(tmp_path)
    assert load(tmp_path, ETCD) == stored
    assert [item.name for item in stored] == ["etcd", "etcdctl", "etcdutl"]
    for item in stored:
        assert item.path.read_bytes() == gzip.decompress(item.packed.read_bytes()) == FILES[item.name]
        assert item.path.stat().st_mode & 0o777 == 0o755
        assert (item.size, item.packed_size) == (item.path.stat().st_size, item.packed.stat().st_size)
        assert item.sha256 == checksums.of_file(item.path)
        assert (item.source, item.compared_with) == ("a source", "a sum")
    assert [path.name for path in tmp_path.iterdir()] == [ETCD.folder]


def test_packing_is_repeatable(tmp_path: Path) -> None:
    """The same file packs to the same bytes, whenever and wherever."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = put(tmp_path / "a"), put(tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.packed.read_bytes() == other.packed.read_bytes()
        assert one.packed.read_bytes()[3:9] == bytes([0, 0, 0, 0, 0, 0])  # no name, no time


def test_not_there(tmp_path: Path) -> None:
    """An empty cache is no damage."""
    with pytest.raises(NotInCache) as missing:
        load(tmp_path, ETCD)
    assert missing.value.damage == ""


def damage_byte(folder: Path) -> None:
    data = bytearray((folder / "etcdctl.gz").read_bytes())
    data[-1] ^= 1
    stat = (folder / "etcdctl.gz").stat()
    (folder / "etcdctl.gz").write_bytes(data)
    os.utime(folder / "etcdctl.gz", ns=(stat.st_atime_ns, stat.st_mtime_ns))


def damage_packed(folder: Path) -> None:
    (folder / "etcd.gz").write_bytes(b"")


def damage_missing(folder: Path) -> None:
    (folder / "etcd").unlink()


def damage_no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def damage_other_release(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"release": "etcd 3.6.15 for linux/amd64"}))


def damage_path_in_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../etc/passwd"] = manifest["files"].pop("etcd")
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (damage_byte, "etcdctl.gz has the SHA-256"),
        (damage_packed, "etcd.gz has 0 bytes, expected"),
        (damage_missing, "etcd: No such file"),
        (damage_no_manifest, "it has no manifest"),
        (damage_manifest, "its manifest can't be read"),
        (damage_other_release, "its manifest is that of etcd 3.6.15"),
        (damage_path_in_manifest, "its manifest is that of"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_damage_is_seen(damage: Callable[[Path], None], expected: str, tmp_path: Path) -> None:
    """A release that isn't what was put there is refused, also just after it was found good."""
    put(tmp_path)
    load(tmp_path, ETCD)
    damage(tmp_path / ETCD.folder)
    with pytest.raises(NotInCache, match=expected) as found:
        load(tmp_path, ETCD)
    assert found.value.damage


def test_second_use_reads_no_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that didn't change since its sum was computed isn't read again."""
    put(tmp_path)
    expected = load(tmp_path, ETCD)

    def read(path: Path) -> str:
        pytest.fail(f"{path} was read again")

    monkeypatch.setattr(checksums, "of_file", read)
    assert load(tmp_path, ETCD) == expected


@pytest.mark.parametrize("damage", [damage_packed, damage_missing, damage_no_manifest, damage_manifest])
def test_unread_believes_the_manifest(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is to travel no file is read; one that is missing, or has another size, is seen all the same."""
    expected = put(tmp_path)

    def read(path: Path) -> str:
        pytest.fail(f"{path} was read")

    monkeypatch.setattr(checksums, "of_file", read)
    assert load(tmp_path, ETCD, unread=True) == expected
    damage(tmp_path / ETCD.folder)
    with pytest.raises(NotInCache):
        load(tmp_path, ETCD, unread=True)


def test_damaged_one_is_replaced(tmp_path: Path) -> None:
    """A new release takes a damaged one's place, and nothing of that one stays."""
    put(tmp_path)
    damage_byte(tmp_path / ETCD.folder)
    (tmp_path / ETCD.folder / "stray").write_text("x")
    stored = put(tmp_path, b"new")
    assert load(tmp_path, ETCD) == stored
    assert [path.name for path in tmp_path.iterdir()] == [ETCD.folder]
    assert len(list((tmp_path / ETCD.folder).iterdir())) == 7


def test_left_work_is_removed(tmp_path: Path) -> None:
    """What a killed process left of this release is removed by the next one, what others work on isn't."""
    (tmp_path / f".{ETCD.folder}.work-x" / "files").mkdir(parents=True)
    (tmp_path / f".{FLANNEL.folder}.work-x").mkdir()
    with workplace(tmp_path, ETCD) as work:
        assert len(list(tmp_path.iterdir())) == 2
        assert list(work.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == [f".{FLANNEL.folder}.work-x"]


def test_lock_is_waited_for(tmp_path: Path) -> None:
    """One at a time holds a release's lock; who waits says so; another release's lock is another."""
    waits = threading.Event()
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path, ETCD, lambda line: (order.append(line), waits.set())[0]):
            order.append("second")

    with locked(tmp_path, ETCD, _silent), locked(tmp_path, FLANNEL, _silent):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        order.append("first done")
    thread.join()
    assert order == [
        "another process is fetching etcd 3.6.16 for linux/amd64; waiting for it",
        "first done",
        "second",
    ]


def test_lock_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is never given back is an error that names it."""
    monkeypatch.setattr(artifact_cache, "LOCK_S", 0.2)
    with (
        locked(tmp_path, ETCD, _silent),
        pytest.raises(ArtifactError, match=r"another process has held the lock"),
        locked(tmp_path, ETCD, _silent),
    ):
        pytest.fail("the lock was given twice")
