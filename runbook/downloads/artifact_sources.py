"""Where a release's tarball may come from, and what its checksum is compared with before anything in it is used."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from runbook.downloads import checksums
from runbook.downloads.download import FetchFailed, Limits, fetch_file, fetch_text, local_path, shown
from runbook.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from runbook.downloads.releases import Release

# Each holds v{version}/{tarball}. etcd's release script uploads to both, with SHA256SUMS beside; flannel has one site.
RELEASE_SITES: Mapping[str, tuple[str, ...]] = {
    "etcd": ("https://github.com/etcd-io/etcd/releases/download", "https://storage.googleapis.com/etcd"),
    "flannel": ("https://github.com/flannel-io/flannel/releases/download",),
}
TARBALL = Limits()
_MEMBER_BYTES = 500 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Place:
    """One place that may have a tarball.

    Args:
        label: What it is called in reports and errors, without a secret.
        folders: Addresses or paths that may hold the tarball, and SHA256SUMS beside it; the first that has it counts.
        sums: More addresses of SHA256SUMS files, asked before those of `folders`, each with what it is called.
        own: What a SHA256SUMS beside the tarball is called.
        remedy: What to do about a wrong file there.
    """

    label: str
    folders: tuple[str, ...]
    sums: tuple[tuple[str, str], ...]
    own: str
    remedy: str


def places(
    release: Release, root: Path, mirrors: Sequence[str], sites: Sequence[str], *, offline: bool
) -> tuple[Place, ...]:
    """List the places that may have a release's tarball, in the order in which they are asked.

    Args:
        release: What is wanted.
        root: The cache, where the operator may have put the tarball.
        mirrors: Addresses, or absolute paths, of folders that hold `TARBALL` or `vVERSION/TARBALL`.
        sites: The addresses of the release sites.
        offline: Ask nothing that needs a network.
    """
    version = f"v{release.version}"
    official = tuple(
        (f"{site.rstrip('/')}/{version}/SHA256SUMS", f"SHA256SUMS of the release site {urlsplit(site).hostname}")
        for site in sites
        if release.product == "etcd" and not offline
    )
    found = []
    if (root / release.tarball).is_file():
        path = root / release.tarball
        found.append(Place(str(path), (str(root),), (), "SHA256SUMS in the cache folder", f"remove or replace {path}"))
    for mirror in mirrors:
        base = mirror.rstrip("/")
        if offline and local_path(mirror) is None:
            continue
        label = f"mirror {shown(base)}"
        remedy = "put the right file on the mirror, or take the mirror out of artifacts.mirrors"
        found.append(Place(label, (f"{base}/{version}", base), official, f"SHA256SUMS of the {label}", remedy))
    for site in () if offline else sites:
        label = f"release site {urlsplit(site).hostname}"
        remedy = (
            "look for a proxy that changes downloads; take the tarball from another network and put it in the cache"
        )
        found.append(Place(label, (f"{site.rstrip('/')}/{version}",), (), f"SHA256SUMS of the {label}", remedy))
    return tuple(found)


def take(release: Release, place: Place, work: Path, into: Path, report: Callable[[str], None]) -> str:
    """Bring a release's tarball from one place, compare its checksum, unpack its files; say what it was compared with.

    Args:
        release: What is wanted.
        place: Where to look.
        work: A folder to put the tarball in; it doesn't stay there.
        into: An empty folder that gets the release's files.
        report: Gets a line of progress now and then.

    Raises:
        FetchFailed: The place hasn't got it, or can't be asked; another place may do.
        ArtifactError: What came is wrong: no other place is asked, so that this doesn't go unseen.
    """
    tarball = work / release.tarball
    folder, sha256 = _bring(release, place, tarball)
    report(f"{release.tarball} came from {place.label}")
    try:
        compared_with, vouched = _compare(release, place, folder, sha256)
        unpack(release, tarball, into, place)
        if not vouched:
            note = checksums.note(release.tarball, sha256, shown(folder), compared_with)
            if note.sha256 != sha256:
                raise _wrong(release, place, sha256, note.sha256, f"the sum noted on {note.day}")
        return compared_with
    finally:
        tarball.unlink(missing_ok=True)


def unpack(release: Release, tarball: Path, into: Path, place: Place) -> None:
    """Copy the wanted files of a tarball, and nothing else, into a folder; no name in the tarball becomes a path.

    Raises:
        ArtifactError: It can't be read, lacks a wanted file, or has something else in a wanted file's place.
    """
    wanted = release.members
    missing = set(wanted)
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            for member in archive:
                inside = member.name.removeprefix("./")
                if inside not in wanted:
                    continue
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None or inside not in missing or member.size > _MEMBER_BYTES:
                    raise _unfit(release, place, f"{member.name} in it is not one regular file of a fair size")
                with (into / wanted[inside]).open("xb") as sink:
                    _copy(stream, sink)
                missing.discard(inside)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _unfit(release, place, f"it is no whole gzip tar archive ({error})") from None
    if missing:
        raise _unfit(release, place, f"it holds no {', '.join(sorted(missing))}")


def _bring(release: Release, place: Place, tarball: Path) -> tuple[str, str]:
    failed = FetchFailed("it has no address")
    for folder in place.folders:
        try:
            return folder, fetch_file(f"{folder}/{release.tarball}", tarball, TARBALL)
        except FetchFailed as error:
            failed = error
            if not error.missing:
                break
    raise failed


def _compare(release: Release, place: Place, folder: str, sha256: str) -> tuple[str, bool]:
    name = release.tarball
    if (pin := checksums.pinned(name)) is not None:
        if sha256 != pin:
            raise _wrong(release, place, sha256, pin, "the pinned one")
        return f"pinned SHA-256 of {name}", True
    note = checksums.noted(name)
    if note is not None and sha256 != note.sha256:
        raise _wrong(release, place, sha256, note.sha256, f"the one noted in {checksums.notes_file()} on {note.day}")
    for address, label in (*place.sums, (f"{folder}/SHA256SUMS", place.own)):
        try:
            listed = checksums.published(fetch_text(address), name)
        except FetchFailed:
            continue
        if listed is not None and sha256 != listed:
            raise _wrong(release, place, sha256, listed, f"the one in {label}")
        if listed is not None:
            return label, note is not None
    why = "upstream publishes none" if release.product == "flannel" else "no published one could be read"
    if note is not None:
        return f"the sum noted on {note.day}: {why}", True
    return f"noted at the first download on {datetime.now(UTC):%Y-%m-%d}: {why}", False


def _copy(stream: IO[bytes], sink: IO[bytes]) -> None:
    while chunk := stream.read(_CHUNK_BYTES):
        sink.write(chunk)


def _wrong(release: Release, place: Place, found: str, expected: str, what: str) -> ArtifactError:
    return ArtifactError(
        f"wrong checksum, nothing was kept: SHA-256 {found}, expected {expected}, {what}",
        subject=f"{release.tarball} from {place.label}",
        remedy=place.remedy,
    )


def _unfit(release: Release, place: Place, fault: str) -> ArtifactError:
    return ArtifactError(
        f"not what a release holds, nothing was kept: {fault}",
        subject=f"{release.tarball} from {place.label}",
        remedy=place.remedy,
    )
