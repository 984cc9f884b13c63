"""Release binaries of etcd and flannel: from the cache, a mirror, the release site, or built from Go modules.

A checksum is always compared, and what it was compared with stays with the file. Wrong bytes stop the search at once;
a place that can't be reached doesn't.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from runbook.downloads import artifact_cache, artifact_sources, gobuild, zstd_packed
from runbook.downloads.artifact_cache import Binary, NotInCache
from runbook.downloads.download import FetchFailed, local_path, shown
from runbook.downloads.releases import Product, Release, arch, names
from runbook.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runbook.downloads.releases import Arch

__all__ = ["Binary", "Product", "arch", "default_cache", "fetch", "names"]


def _silent(_line: str) -> None:
    """Report nothing."""


def default_cache() -> Path:
    """Return the folder in which binaries are kept unless the params name another one."""
    return user_cache_path("runbook") / "artifacts"


def fetch(
    product: Product,
    version: str,
    arch: Arch,
    *,
    cache: Path | None = None,
    mirrors: Sequence[str] = (),
    offline: bool = False,
    report: Callable[[str], None] = _silent,
    sites: Sequence[str] | None = None,
    unread: bool = False,
) -> tuple[Binary, ...]:
    """Have the files of a release in the cache, each raw and packed, by gzip and by zstd; what travels is checked.

    Asked in order: the cache, a tarball that lies in the cache folder, the mirrors, the release sites, the Go modules.

    Args:
        product: etcd or flannel.
        version: Such as 3.6.16.
        arch: The nodes' architecture, as `arch` names it.
        cache: The folder to keep them in; by default `default_cache()`.
        mirrors: Addresses, or absolute paths, of folders that hold `TARBALL` or `vVERSION/TARBALL`.
        offline: Use nothing that needs a network.
        report: Gets a line of progress now and then.
        sites: Other release sites than upstream's.
        unread: Don't read what lies in the cache: its manifest tells what nodes should have; who sends one compares it.

    Returns:
        One `Binary` a file, in the order of `names(product, version)`.

    Raises:
        ArtifactError: A checksum is wrong, or no place has the release; then every place is listed with how it failed.
    """
    release = Release(product, version, arch)
    root = (default_cache() if cache is None else cache).absolute()
    upstream = artifact_sources.RELEASE_SITES[product] if sites is None else sites
    had = _had(release, root, mirrors, upstream, report, offline=offline, unread=unread)
    return zstd_packed.added(root, release, had, report, unread=unread)


def _had(
    release: Release,
    root: Path,
    mirrors: Sequence[str],
    upstream: Sequence[str],
    report: Callable[[str], None],
    *,
    offline: bool,
    unread: bool,
) -> tuple[Binary, ...]:
    """The release from the cache, where it is put first if it is not there."""
    try:
        return artifact_cache.load(root, release, unread=unread)
    except NotInCache:
        pass
    try:
        with artifact_cache.locked(root, release, report):
            try:
                return artifact_cache.load(root, release, unread=unread)  # another process may have put it there
            except NotInCache as error:
                if error.damage:
                    report(f"{root / release.folder} is damaged and will be fetched again: {error.damage}")
                missed = [f"cache {root / release.folder}: {error}"]
            return _obtain(release, root, mirrors, upstream, report, missed, offline=offline)
    except OSError as error:
        raise ArtifactError(
            f"the cache can't be used: {error.strerror or error}",
            subject=str(error.filename or root),
            remedy="make room there and make it writable for you, or set artifacts.cache in the params",
        ) from error


def _obtain(
    release: Release,
    root: Path,
    mirrors: Sequence[str],
    sites: Sequence[str],
    report: Callable[[str], None],
    missed: list[str],
    *,
    offline: bool,
) -> tuple[Binary, ...]:
    for place in artifact_sources.places(release, root, mirrors, sites, offline=offline):
        with artifact_cache.workplace(root, release) as work:
            into = work / "files"
            into.mkdir()
            try:
                compared_with = artifact_sources.take(release, place, work, into, report)
            except FetchFailed as error:
                missed.append(f"{place.label}: {error}")
                report(missed[-1])
                continue
            return artifact_cache.store(root, release, into, place.label, compared_with)
    remedy = ""
    if not offline:
        with artifact_cache.workplace(root, release) as work:
            into, module = work / "files", work / "module"
            into.mkdir()
            module.mkdir()
            try:
                source = gobuild.build(release, module, into, report)
            except FetchFailed as error:
                missed.append(f"build from Go modules: {error}")
                remedy = error.remedy
            else:
                return artifact_cache.store(root, release, into, source, "go.sum of the pinned module")
    raise _nowhere(release, root, mirrors, missed, remedy, offline=offline)


def _nowhere(
    release: Release, root: Path, mirrors: Sequence[str], missed: list[str], remedy: str, *, offline: bool
) -> ArtifactError:
    if offline:
        unasked = [f"mirror {shown(mirror)}" for mirror in mirrors if local_path(mirror) is None]
        unasked += ["release sites", "build from Go modules"]
        missed = [*missed, *(f"{place}: not asked (artifacts.offline)" for place in unasked)]
    ways = [
        f"put {release.tarball} (and upstream's SHA256SUMS, where there is one) into {root}",
        "name a folder or address that has it in artifacts.mirrors",
        remedy,
    ]
    return ArtifactError(
        "no place has it:\n" + "\n".join(f"  - {line}" for line in missed),
        subject=str(release),
        remedy="; or ".join(way for way in ways if way),
    )
