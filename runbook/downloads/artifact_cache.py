"""The folder in which release binaries are kept: one folder a release, whole or not there, checked before it travels.

artifacts/etcd-3.6.16-amd64/etcd  etcd.gz  …  manifest.json
artifacts/etcd-v3.6.16-linux-amd64.tar.gz   a tarball that the operator put there, with SHA256SUMS if wanted
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from runbook import file_lock
from runbook.downloads import checksums
from runbook.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runbook.downloads.releases import Release

LOCK_S = 1800.0
_PACK_LEVEL = 6
_Seen = tuple[int, int, int, int, str]
_verified: dict[Path, _Seen] = {}  # what a file was when its sum was last computed: reading 60 MB again tells no more


@dataclass(frozen=True)
class Packed:
    """A packed form of a file: its size in bytes, its checksum, and the node's command that unpacks it."""

    path: Path
    size: int
    sha256: str
    unpack: str


@dataclass(frozen=True)
class Binary:
    """One file of a release in the cache: `path` is what a node gets, `packed` the same by gzip, which travels.

    Sizes are in bytes; `sha256` is that of `path`, `packed_sha256` that of `packed`; `compared_with` says what vouches
    for them; `zstd` is the same by zstd, where there is one; `unpack` the node's command for `packed`.
    """

    name: str
    product: str
    version: str
    arch: str
    path: Path
    packed: Path
    sha256: str
    size: int
    packed_size: int
    source: str
    compared_with: str
    packed_sha256: str
    unpack: str = "gzip -dc"
    zstd: Packed | None = None

    def by_zstd(self) -> Binary:
        """The same, sent as zstd packed it, where that is there: for a node that has zstd."""
        if self.zstd is None:
            return self
        packed = self.zstd
        return replace(
            self, packed=packed.path, packed_size=packed.size, packed_sha256=packed.sha256, unpack=packed.unpack
        )


class NotInCache(Exception):
    """A release isn't there, or (`damage` says how) isn't what was put there."""

    def __init__(self, damage: str = "") -> None:
        super().__init__(damage or "not there")
        self.damage = damage


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: checksums.Sha256
    size: NonNegativeInt
    packed_sha256: checksums.Sha256
    packed_size: NonNegativeInt


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    release: str
    source: str
    compared_with: str
    time: str
    files: dict[str, _File]


def load(root: Path, release: Release, *, unread: bool = False) -> tuple[Binary, ...]:
    """Return a release's files, the checksum of what travels, the packed ones, compared with the manifest's.

    Args:
        root: The cache.
        release: What it is.
        unread: Believe the manifest, if the files are there and as large as it says: nothing is to travel yet.

    Raises:
        NotInCache: The release isn't there, or is damaged.
    """
    folder = root / release.folder
    try:
        manifest = _Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    except FileNotFoundError:
        raise NotInCache("it has no manifest" if folder.exists() else "") from None
    except (OSError, ValidationError) as error:
        raise NotInCache(f"its manifest can't be read: {str(error).splitlines()[0]}") from None
    if manifest.release != str(release) or set(manifest.files) != set(release.names):
        raise NotInCache(f"its manifest is that of {manifest.release} with {', '.join(manifest.files) or 'no files'}")
    for name, file in manifest.files.items():
        check_size(folder / name, file.size)
        check_size(folder / f"{name}.gz", file.packed_size)
    if not unread:
        verify({folder / f"{name}.gz": file.packed_sha256 for name, file in manifest.files.items()})
    return _binaries(folder, release, manifest)


def store(root: Path, release: Release, staged: Path, source: str, compared_with: str) -> tuple[Binary, ...]:
    """Pack the files that lie in a folder on the cache's file system, and make that folder the release's.

    Args:
        root: The cache; its lock for the release is held.
        release: What it is.
        staged: A folder that holds the release's files and nothing else; it is gone afterwards.
        source: Where they came from.
        compared_with: What vouches for them.
    """
    files = {}
    for name in release.names:
        path, packed = staged / name, staged / f"{name}.gz"
        path.chmod(0o755)
        _pack(path, packed)
        files[name] = _File(
            sha256=checksums.of_file(path),
            size=path.stat().st_size,
            packed_sha256=checksums.of_file(packed),
            packed_size=packed.stat().st_size,
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = _Manifest(release=str(release), source=source, compared_with=compared_with, time=now, files=files)
    (staged / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    sync(staged)
    staged.chmod(0o755)
    folder = root / release.folder
    if folder.exists():
        # A damaged one: a rename can't replace a folder that holds files, and a reader must not find it half removed.
        folder.rename(staged.with_suffix(".damaged"))
    staged.rename(folder)
    return _binaries(folder, release, manifest)


@contextmanager
def locked(root: Path, release: Release, report: Callable[[str], None]) -> Iterator[None]:
    """Hold a release's lock in the cache, so that two processes don't fetch it at once.

    Raises:
        ArtifactError: Another process held the lock for half an hour.
        OSError: The cache can't be written.
    """
    path = root / f".{release.folder}.lock"
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not file_lock.take(
            descriptor, LOCK_S, waiting=lambda: report(f"another process is fetching {release}; waiting for it")
        ):
            raise ArtifactError(
                f"another process has held the lock of {release} for {LOCK_S / 60:g} minutes",
                subject=str(path),
                remedy=f"end it (fuser {path} shows which), then run again",
            )
        yield
    finally:
        os.close(descriptor)


@contextmanager
def workplace(root: Path, release: Release) -> Iterator[Path]:
    """Give an empty folder beside the cache's, gone afterwards; the release's lock is held."""
    prefix = f".{release.folder}.work-"
    for left in root.glob(f"{prefix}*"):  # by a process that was killed: we hold its lock
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=root) as folder:
        yield Path(folder)


def check_size(path: Path, expected: int) -> None:
    """Hold a file of the cache against the size that it should have, in bytes, without reading it.

    Raises:
        NotInCache: It is another, or there is no such file.
    """
    try:
        found = path.lstat().st_size
    except OSError as error:
        raise NotInCache(f"{path.name}: {error.strerror}") from None
    if found != expected:
        raise NotInCache(f"{path.name} has {found} bytes, expected {expected}")


def verify(sums: Mapping[Path, str]) -> None:
    """Compare files of the cache with their checksums, on all cores.

    Raises:
        NotInCache: One is another, or can't be read: the first of them.
    """
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="runbook-sum") as pool:
        for _ in pool.map(verify_file, sums.keys(), sums.values()):
            pass


def verify_file(path: Path, expected: str) -> None:
    """Compare a file of the cache with its checksum; what this process has compared and has not changed counts.

    Raises:
        NotInCache: It is another, or can't be read.
    """
    try:
        stat = path.lstat()
        seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, expected)
        if _verified.get(path) == seen:
            return
        found = checksums.of_file(path)
    except OSError as error:
        raise NotInCache(f"{path.name}: {error.strerror}") from None
    if found != expected:
        raise NotInCache(f"{path.name} has the SHA-256 {found}, expected {expected}")
    _verified[path] = seen


def _pack(path: Path, packed: Path) -> None:
    # No name and no time in it: the same file always packs to the same bytes.
    with (
        path.open("rb") as raw,
        packed.open("xb") as sink,
        gzip.GzipFile(filename="", mode="wb", compresslevel=_PACK_LEVEL, fileobj=sink, mtime=0) as stream,
    ):
        shutil.copyfileobj(raw, stream, 1 << 20)


def sync(folder: Path) -> None:
    """Have a folder's files on the disk before they get their names."""
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _binaries(folder: Path, release: Release, manifest: _Manifest) -> tuple[Binary, ...]:
    return tuple(
        Binary(
            name=name,
            product=release.product,
            version=release.version,
            arch=release.arch,
            path=folder / name,
            packed=folder / f"{name}.gz",
            sha256=manifest.files[name].sha256,
            size=manifest.files[name].size,
            packed_size=manifest.files[name].packed_size,
            source=manifest.source,
            compared_with=manifest.compared_with,
            packed_sha256=manifest.files[name].packed_sha256,
        )
        for name in release.names
    )
