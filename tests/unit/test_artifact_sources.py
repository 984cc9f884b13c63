"""Where tarballs are looked for, and hostile ones."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING

import pytest
from release_site import ETCD, FILES, FLANNEL, tarball

from runbook.downloads.artifact_sources import RELEASE_SITES, Place, places, unpack
from runbook.errors import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

PLACE = Place("mirror https://m.example", ("https://m.example",), (), "its SHA256SUMS", "mend the mirror")
FOLDER = "etcd-v3.6.16-linux-amd64"


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    """Make a tar member by hand."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, target, size
    return made


def unpacked(tmp_path: Path, data: bytes) -> dict[str, bytes]:
    """Unpack a tarball of etcd; give what came out."""
    (tmp_path / "in.tar.gz").write_bytes(data)
    into = tmp_path / "into"
    into.mkdir()
    unpack(ETCD, tmp_path / "in.tar.gz", into, PLACE)
    return {path.name: path.read_bytes() for path in into.iterdir()}


def test_only_the_wanted_files_come_out(tmp_path: Path) -> None:
    """Of a release's tarball the wanted files come out, nothing else."""
    expected = {name: FILES[name] for name in ETCD.names}
    assert unpacked(tmp_path, tarball(ETCD)) == expected


@pytest.mark.parametrize(
    "hostile",
    [
        member("../escaped", size=3),
        member("/tmp/escaped", size=3),  # noqa: S108 - a name in a hostile archive
        member(f"{FOLDER}/../../etcd", size=3),
        member("etcd", size=3),
        member(f"{FOLDER}/README", tarfile.SYMTYPE, "/etc/passwd"),
        member(FOLDER, tarfile.SYMTYPE, "/etc"),
        member("dev", tarfile.CHRTYPE),
    ],
    ids=lambda made: made.name,
)
def test_other_members_become_no_path(hostile: tarfile.TarInfo, tmp_path: Path) -> None:
    """No name in a tarball is ever a path here: members that aren't wanted are passed over, whatever they are."""
    assert unpacked(tmp_path, tarball(ETCD, members=(hostile,))) == {name: FILES[name] for name in ETCD.names}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tar.gz", "into"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_wanted_name_on_something_else(kind: bytes, tmp_path: Path) -> None:
    """A link, folder, pipe or device under a wanted name is refused."""
    with pytest.raises(ArtifactError, match="is not one regular file") as refused:
        unpacked(tmp_path, tarball(ETCD, members=(member(f"{FOLDER}/etcd", kind, "/etc/passwd"),)))
    assert "mirror https://m.example" in str(refused.value)
    assert refused.value.remedy == "mend the mirror"


def test_wanted_name_twice(tmp_path: Path) -> None:
    """Two files of one wanted name are refused: which one counts would be a guess."""
    with pytest.raises(ArtifactError, match="is not one regular file"):
        unpacked(tmp_path, tarball(ETCD, members=(member(f"{FOLDER}/etcd", size=3),)))


def test_file_past_the_bound(tmp_path: Path) -> None:
    """A file that says it is larger than any release's is refused before it is read."""
    huge = io.BytesIO()
    with tarfile.open(fileobj=huge, mode="w") as archive:
        archive.addfile(member(f"{FOLDER}/etcd", size=1 << 40))
    with pytest.raises(ArtifactError, match="of a fair size"):
        unpacked(tmp_path, gzip.compress(huge.getvalue()))


def test_missing_file(tmp_path: Path) -> None:
    """A tarball without a wanted file is refused, and the file is named."""
    with pytest.raises(ArtifactError, match=f"holds no {FOLDER}/etcdutl"):
        unpacked(tmp_path, tarball(ETCD, leave_out="etcdutl"))


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>please log in</html>", tarball(ETCD)[:-20], gzip.compress(b"no tar"), gzip.compress(b"x" * 2048)],
    ids=["empty", "login page", "cut off", "short", "no tar"],
)
def test_no_archive(data: bytes, tmp_path: Path) -> None:
    """What isn't a whole gzip tar archive is refused, and said so."""
    with pytest.raises(ArtifactError, match=r"it is no whole gzip tar archive|it holds no"):
        unpacked(tmp_path, data)


def test_order_of_places(tmp_path: Path) -> None:
    """The operator's own tarball comes first, then the mirrors as they are given, then the release sites."""
    (tmp_path / ETCD.tarball).touch()
    found = places(
        ETCD, tmp_path, ["https://u:secret@m.example/etcd/", "/srv/mirror"], RELEASE_SITES["etcd"], offline=False
    )
    assert [place.label for place in found] == [
        str(tmp_path / ETCD.tarball),
        "mirror https://m.example/etcd",
        "mirror /srv/mirror",
        "release site github.com",
        "release site storage.googleapis.com",
    ]
    assert found[1].folders == ("https://u:secret@m.example/etcd/v3.6.16", "https://u:secret@m.example/etcd")
    assert [address for address, _ in found[1].sums] == [f"{site}/v3.6.16/SHA256SUMS" for site in RELEASE_SITES["etcd"]]


def test_offline_places(tmp_path: Path) -> None:
    """Offline nothing is asked that needs a network, the sums neither."""
    mirrors = ["https://m.example", "/srv/mirror", "file:///srv/other"]
    found = places(ETCD, tmp_path, mirrors, RELEASE_SITES["etcd"], offline=True)
    assert [place.label for place in found] == ["mirror /srv/mirror", "mirror file:///srv/other"]
    assert [place.sums for place in found] == [(), ()]


def test_flannel_has_no_published_sums(tmp_path: Path) -> None:
    """Flannel publishes no SHA256SUMS, so its site isn't asked for one on a mirror's behalf."""
    found = places(FLANNEL, tmp_path, ["https://m.example"], RELEASE_SITES["flannel"], offline=False)
    assert found[0].sums == ()
