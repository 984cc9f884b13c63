"""The cache's zstd forms: made once beside what is there, checked at every use, and done without where need be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import zstandard
from release_site import ETCD, FILES

from runbook.downloads import artifact_cache, checksums, zstd_packed

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.downloads.artifact_cache import Binary


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Binary, ...]:
    """A release as the cache gives it."""
    with artifact_cache.workplace(tmp_path, ETCD) as work:
        staged = work / "files"
        staged.mkdir()
        for name in ETCD.names:
            (staged / name).write_bytes(FILES[name])
        return artifact_cache.store(tmp_path, ETCD, staged, "a source", "a sum")


def added(root: Path, binaries: tuple[Binary, ...]) -> tuple[tuple[Binary, ...], list[str]]:
    """The binaries with their zstd forms, and what was reported."""
    told: list[str] = []
    return zstd_packed.added(root, ETCD, binaries, told.append), told


def test_both_forms_hold_the_same_bytes(tmp_path: Path, stored: tuple[Binary, ...]) -> None:
    """The zstd form unpacks to the file, with a checksum of its own in it; all else of the binary stays."""
    found, told = added(tmp_path, stored)
    assert told == []
    for before, binary in zip(stored, found, strict=True):
        sent = binary.by_zstd()
        data = sent.packed.read_bytes()
        assert zstandard.decompress(data) == FILES[binary.name] == binary.path.read_bytes()
        with pytest.raises(zstandard.ZstdError, match="checksum"):
            zstandard.decompress(data[:-1] + bytes([data[-1] ^ 1]))
        assert (sent.packed_size, sent.packed_sha256) == (len(data), checksums.of_file(sent.packed))
        assert sent.unpack == "zstd -dc"
        assert (binary.packed, binary.unpack) == (before.packed, "gzip -dc")
    assert before.by_zstd() == before  # where there is none it goes by gzip
    assert {path.name for path in tmp_path.iterdir()} == {ETCD.folder, f".{ETCD.folder}.lock"}


def test_they_are_made_once(tmp_path: Path, stored: tuple[Binary, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is used, and its checksums are compared; the cache of an earlier runbook loads as ever."""
    first, _ = added(tmp_path, stored)
    monkeypatch.setattr(zstd_packed, "_make", None)
    assert added(tmp_path, stored) == (first, [])
    assert artifact_cache.load(tmp_path, ETCD) == stored


@pytest.mark.parametrize("damage", ["etcdctl.zst", "zstd.json"])
def test_damage_is_mended(tmp_path: Path, stored: tuple[Binary, ...], damage: str) -> None:
    """Whatever is damaged is made anew from the file, whose own sum is right."""
    first, _ = added(tmp_path, stored)
    path = tmp_path / ETCD.folder / damage
    before = path.read_bytes()
    for bad in (b"", before[:-9]):
        path.write_bytes(bad)
        assert added(tmp_path, stored) == (first, [])
        assert path.read_bytes() == before


def test_they_are_not_made_of_a_damaged_file(tmp_path: Path, stored: tuple[Binary, ...]) -> None:
    """The file that is packed is compared with its checksum first; by gzip the release goes as it was fetched."""
    stored[0].path.write_bytes(b"x" * stored[0].size)
    found, (told,) = added(tmp_path, stored)
    assert found == stored
    assert "etcd has the SHA-256" in told
    assert not list(tmp_path.glob("*/*.zst"))


def test_unread_believes_the_list(tmp_path: Path, stored: tuple[Binary, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is to travel nothing is read, and what is missing is made anew."""
    first, _ = added(tmp_path, stored)
    with monkeypatch.context() as patch:
        patch.setattr(checksums, "of_file", None)
        assert zstd_packed.added(tmp_path, ETCD, stored, print, unread=True) == first
    (tmp_path / ETCD.folder / "etcd.zst").unlink()
    assert zstd_packed.added(tmp_path, ETCD, stored, print, unread=True) == first
    assert (tmp_path / ETCD.folder / "etcd.zst").is_file()


def test_a_list_of_other_files_is_not_used(tmp_path: Path, stored: tuple[Binary, ...]) -> None:
    """The list names the file that was packed by its sum: another one of the same name is packed anew."""
    added(tmp_path, stored)
    path = tmp_path / ETCD.folder / "zstd.json"
    path.write_text(path.read_text().replace(stored[0].sha256, "0" * 64))
    found, _ = added(tmp_path, stored)
    assert zstandard.decompress(found[0].by_zstd().packed.read_bytes()) == FILES["etcd"]


def test_a_cache_that_cannot_be_written_does_without(
    tmp_path: Path, stored: tuple[Binary, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that another user keeps has gzip's forms, and that is said."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zstd_packed, "_make", full)
    found, told = added(tmp_path, stored)
    assert found == stored
    assert told == [f"{ETCD} is not packed by zstd, but by gzip alone: [Errno 28] No space left on device"]
