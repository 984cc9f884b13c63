"""A release from each kind of place, by real files and a real HTTP server."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from release_site import ETCD, ETCD_PINNED, FILES, FLANNEL, Site, paths, sums, tarball

from runbook.artifacts import Binary, default_cache, fetch
from runbook.downloads import artifact_sources, checksums
from runbook.downloads.download import Limits
from runbook.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.downloads.releases import Release

GOOD, OTHER = tarball(ETCD), tarball(ETCD, b"other")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own cache and state folders, no proxy, and no go command on the PATH."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", str(tmp_path / "no-bin"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(artifact_sources, "TARBALL", Limits(wait_s=0.5, total_s=10))
    return tmp_path


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture
def mirror() -> Iterator[Site]:
    with Site() as running:
        yield running


def get(release: Release, **options: Any) -> tuple[Binary, ...]:  # noqa: ANN401 - passed on as they are
    """Fetch a release; from no site unless one is given."""
    return fetch(release.product, release.version, release.arch, **({"sites": ()} | options))


def check(found: tuple[Binary, ...], release: Release, extra: bytes = b"") -> None:
    """What was found is the release, in the cache."""
    assert [item.name for item in found] == list(release.names)
    for item in found:
        assert item.path.read_bytes() == FILES[item.name] + extra
        assert item.sha256 == hashlib.sha256(FILES[item.name] + extra).hexdigest()
    assert found[0].path.parent == default_cache() / release.folder


def cached() -> list[str]:
    """What lies in the cache, apart from locks."""
    return sorted(path.name for path in default_cache().iterdir() if path.suffix != ".lock")


def put(name: str, data: bytes) -> Path:
    """Put a file into the cache folder, as an operator does."""
    default_cache().mkdir(parents=True, exist_ok=True)
    (default_cache() / name).write_bytes(data)
    return default_cache() / name


def test_release_site_with_sums(site: Site) -> None:
    """A release comes from its site, compared with the sums beside it; a second time nothing is asked."""
    site.files = paths(ETCD, GOOD, listed=GOOD)
    lines: list[str] = []
    found = get(ETCD, sites=[site.url], report=lines.append)
    check(found, ETCD)
    assert {(item.source, item.compared_with) for item in found} == {
        ("release site 127.0.0.1", "SHA256SUMS of the release site 127.0.0.1")
    }
    assert lines == ["etcd-v3.6.16-linux-amd64.tar.gz came from release site 127.0.0.1"]
    asked = list(site.asked)
    assert get(ETCD, sites=[site.url]) == found
    assert site.asked == asked
    assert cached() == [ETCD.folder]


def test_pinned_sum_of_a_table_made_for_the_test(mirror: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pinned release is compared with its pin; what a mirror's SHA256SUMS says doesn't count, nor is it asked."""
    data = tarball(ETCD_PINNED)
    monkeypatch.setattr(checksums, "_table", lambda: {ETCD_PINNED.tarball: hashlib.sha256(data).hexdigest()})
    mirror.files = paths(ETCD_PINNED, data, listed=b"something else")
    found = get(ETCD_PINNED, mirrors=[mirror.url])
    check(found, ETCD_PINNED)
    assert found[0].compared_with == f"pinned SHA-256 of {ETCD_PINNED.tarball}"
    assert mirror.asked == [f"/v3.5.21/{ETCD_PINNED.tarball}"]
    assert checksums.noted(ETCD_PINNED.tarball) is None


def test_mirror_cannot_override_a_pin(mirror: Site, site: Site) -> None:
    """Wrong bytes for a pinned release stop the search at once, even where the mirror vouches for them."""
    data = tarball(ETCD_PINNED)
    mirror.files = paths(ETCD_PINNED, data, listed=data)
    site.files = paths(ETCD_PINNED, data, listed=data)
    with pytest.raises(ArtifactError) as wrong:
        get(ETCD_PINNED, mirrors=[mirror.url], sites=[site.url])
    text = str(wrong.value)
    assert f"{ETCD_PINNED.tarball} from mirror {mirror.url}: wrong checksum, nothing was kept" in text
    assert hashlib.sha256(data).hexdigest() in text
    assert f"expected {checksums.pinned(ETCD_PINNED.tarball)}, the pinned one" in text
    assert wrong.value.remedy.startswith("put the right file on the mirror")
    assert site.asked == []
    assert cached() == []


@pytest.mark.parametrize("layout", ["folder of the version", "flat"])
def test_mirror_is_held_against_the_release_site(layout: str, mirror: Site, site: Site) -> None:
    """A mirror may hold the tarball flat or by version; the release site's sums count before the mirror's own."""
    good = paths(ETCD, GOOD, listed=OTHER)
    mirror.files = good if layout != "flat" else {path.removeprefix("/v3.6.16"): data for path, data in good.items()}
    site.files = paths(ETCD, b"never asked for", listed=GOOD)
    found = get(ETCD, mirrors=[f"{mirror.url}/"], sites=[site.url])
    check(found, ETCD)
    assert found[0].compared_with == "SHA256SUMS of the release site 127.0.0.1"
    assert found[0].source == f"mirror {mirror.url}"
    assert site.asked == ["/v3.6.16/SHA256SUMS"]


def test_mirrors_own_sums(mirror: Site) -> None:
    """Where the release site can't be asked, a mirror's own sums are compared, and named as such."""
    mirror.files = paths(ETCD, GOOD, listed=GOOD)
    assert get(ETCD, mirrors=[mirror.url])[0].compared_with == f"SHA256SUMS of the mirror {mirror.url}"


def test_wrong_published_sum(site: Site) -> None:
    """A release that doesn't have the sum its site publishes is refused; nothing of it stays."""
    site.files = paths(ETCD, OTHER, listed=GOOD)
    with pytest.raises(ArtifactError, match=r"the one in SHA256SUMS of the release site 127\.0\.0\.1"):
        get(ETCD, sites=[site.url])
    assert cached() == []
    assert checksums.noted(ETCD.tarball) is None


def test_folder_as_mirror(home: Path) -> None:
    """A folder is a mirror too, by its path or as file://, also offline."""
    folder = home / "a mirror" / "v0.26.7"
    folder.mkdir(parents=True)
    (folder / FLANNEL.tarball).write_bytes(tarball(FLANNEL))
    check(get(FLANNEL, mirrors=[str(folder.parent)], offline=True), FLANNEL)
    found = get(FLANNEL, mirrors=[folder.parent.as_uri()], offline=True, cache=home / "second")
    assert found[0].path == home / "second" / FLANNEL.folder / "flanneld"


def test_noted_sum(site: Site) -> None:
    """Flannel publishes no sums: the first one is noted and said so, the same one passes later, another is an error."""
    site.files = paths(FLANNEL, tarball(FLANNEL))
    first = get(FLANNEL, sites=[site.url])
    assert re.fullmatch(
        r"noted at the first download on 20\d\d-\d\d-\d\d: upstream publishes none", first[0].compared_with
    )
    again = get(FLANNEL, sites=[site.url], cache=default_cache() / "second")
    assert re.fullmatch(r"the sum noted on 20\d\d-\d\d-\d\d: upstream publishes none", again[0].compared_with)
    site.files = paths(FLANNEL, tarball(FLANNEL, b"changed"))
    with pytest.raises(ArtifactError, match=r"wrong checksum.*the one noted in \S+/checksums.json on 20"):
        get(FLANNEL, sites=[site.url], cache=default_cache() / "third")


def test_published_sum_is_noted_too(site: Site) -> None:
    """A release never changes, even where its site publishes a new sum with it."""
    site.files = paths(ETCD, GOOD, listed=GOOD)
    get(ETCD, sites=[site.url])
    site.files = paths(ETCD, OTHER, listed=OTHER)
    with pytest.raises(ArtifactError, match="the one noted in"):
        get(ETCD, sites=[site.url], cache=default_cache() / "second")


def test_login_page_is_not_noted(site: Site) -> None:
    """What isn't a release never becomes the noted one."""
    site.files = paths(FLANNEL, b"<html>please log in</html>")
    with pytest.raises(ArtifactError, match="no whole gzip tar archive"):
        get(FLANNEL, sites=[site.url])
    assert checksums.noted(FLANNEL.tarball) is None
    assert cached() == []


def test_operators_tarball_offline(site: Site) -> None:
    """A tarball and SHA256SUMS in the cache folder do for a site without a network."""
    put(ETCD.tarball, GOOD)
    put("SHA256SUMS", sums({ETCD.tarball: GOOD, "other": b""}))
    found = get(ETCD, offline=True, sites=[site.url])
    check(found, ETCD)
    assert found[0].compared_with == "SHA256SUMS in the cache folder"
    assert found[0].source == str(default_cache() / ETCD.tarball)
    assert site.asked == []
    assert cached() == ["SHA256SUMS", ETCD.folder, ETCD.tarball]


def test_operators_tarball_is_wrong() -> None:
    """The operator's own tarball is refused when its sum is wrong, and left where it was put."""
    path = put(ETCD_PINNED.tarball, tarball(ETCD_PINNED))
    with pytest.raises(ArtifactError, match="the pinned one") as wrong:
        get(ETCD_PINNED, offline=True)
    assert wrong.value.remedy == f"remove or replace {path}"
    assert path.exists()


def test_every_place_is_told(site: Site, mirror: Site) -> None:
    """Where no place has it, the error lists each with how it failed, and what to do."""
    path = f"/v3.6.16/{ETCD.tarball}"
    mirror.files, mirror.halved = paths(ETCD, GOOD), {path}
    mirror.go_on.set()
    site.hanging = {path}
    lines: list[str] = []
    with pytest.raises(ArtifactError) as nowhere:
        get(ETCD, mirrors=[mirror.url.replace("//", "//u:secret@"), "relative"], sites=[site.url], report=lines.append)
    half = f"the connection ended after {len(GOOD) // 2} of {len(GOOD)} bytes"
    assert str(nowhere.value).splitlines() == [
        "etcd 3.6.16 for linux/amd64: no place has it:",
        f"  - cache {default_cache() / ETCD.folder}: not there",
        f"  - mirror {mirror.url}: {half}",
        "  - mirror relative: neither an http or https address nor an absolute path",
        "  - release site 127.0.0.1: no answer within 0.5 s",
        "  - build from Go modules: no go command on the PATH",
        f"  -> {nowhere.value.remedy}",
    ]
    for way in (f"{ETCD.tarball} (and upstream's SHA256SUMS", str(default_cache()), "artifacts.mirrors", "Go 1.26.0"):
        assert way in nowhere.value.remedy
    assert len(lines) == 3
    assert "secret" not in str(nowhere.value) + "".join(lines)
    assert cached() == []


def test_next_place_after_one_that_failed(mirror: Site, site: Site) -> None:
    """A place that lacks the release or breaks off doesn't stop the search."""
    site.files = paths(ETCD, GOOD, listed=GOOD)
    found = get(ETCD, mirrors=[mirror.url], sites=[site.url])
    assert found[0].source == "release site 127.0.0.1"
    assert mirror.asked == [f"/v3.6.16/{ETCD.tarball}", f"/{ETCD.tarball}"]


def test_offline_asks_nothing(site: Site, mirror: Site) -> None:
    """Offline, no address is asked, and the error says so."""
    with pytest.raises(ArtifactError) as nowhere:
        get(ETCD, mirrors=[mirror.url], sites=[site.url], offline=True)
    assert site.asked == mirror.asked == []
    assert f"mirror {mirror.url}: not asked (artifacts.offline)" in str(nowhere.value)
    assert "build from Go modules: not asked" in str(nowhere.value)
    assert "install Go" not in nowhere.value.remedy


def test_damaged_cache_is_told_and_fetched_again(site: Site) -> None:
    """A damaged file in the cache is never used: it is told, and fetched again."""
    site.files = paths(ETCD, GOOD, listed=GOOD)
    first = get(ETCD, sites=[site.url])
    first[1].path.write_bytes(b"damaged")
    lines: list[str] = []
    check(get(ETCD, sites=[site.url], report=lines.append), ETCD)
    assert lines[0].startswith(f"{default_cache() / ETCD.folder} is damaged and will be fetched again: etcdctl has")
    assert cached() == [ETCD.folder]


def test_damaged_cache_offline_is_an_error(site: Site) -> None:
    """Offline, a damaged cache is an error that tells what is wrong with which file."""
    site.files = paths(ETCD, GOOD, listed=GOOD)
    get(ETCD, sites=[site.url])[0].packed.unlink()
    with pytest.raises(ArtifactError, match=r"etcd\.gz: No such file"):
        get(ETCD, offline=True)


def test_cache_that_cannot_be_made(home: Path) -> None:
    """A cache folder that can't be made is an error with its path, not a traceback."""
    (home / "file").touch()
    with pytest.raises(ArtifactError, match="the cache can't be used: Not a directory") as failed:
        get(ETCD, cache=home / "file" / "cache", offline=True)
    assert str(home / "file" / "cache") in str(failed.value)


PROCESS = """
import sys
from runbook.artifacts import fetch
for item in fetch("etcd", "3.6.16", "amd64", sites=[sys.argv[1]], report=lambda line: print(line, flush=True)):
    print(item.sha256, flush=True)
"""


def start(site: Site) -> subprocess.Popen[str]:
    """Start a process that fetches etcd."""
    root = Path(checksums.__file__).parents[1]
    return subprocess.Popen([sys.executable, "-c", PROCESS, site.url], stdout=subprocess.PIPE, text=True, cwd=root)


def test_two_processes_at_once(site: Site) -> None:
    """Of two processes that want the same release one brings it; the other waits, then finds it in the cache."""
    path = f"/v3.6.16/{ETCD.tarball}"
    site.files, site.late = paths(ETCD, GOOD, listed=GOOD), {path}
    with start(site) as first:
        assert site.was_asked.wait(30)
        with start(site) as second:
            assert first.stdout is not None
            assert second.stdout is not None
            waiting = second.stdout.readline()
            site.go_on.set()
            first_lines, second_lines = first.stdout.readlines(), second.stdout.readlines()
    assert waiting == "another process is fetching etcd 3.6.16 for linux/amd64; waiting for it\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert second_lines == [f"{hashlib.sha256(FILES[name]).hexdigest()}\n" for name in ETCD.names]
    assert first_lines[1:] == second_lines
    assert site.asked.count(path) == 1


def test_killed_fetch_leaves_nothing(site: Site) -> None:
    """After a fetch that was killed halfway nothing looks like a release, and the next fetch clears up and works."""
    path = f"/v3.6.16/{ETCD.tarball}"
    site.files, site.halved = paths(ETCD, GOOD, listed=GOOD), {path}
    with start(site) as process:
        assert site.was_asked.wait(30)
        process.kill()
    assert ETCD.folder not in cached()
    assert len(cached()) == 1
    site.halved = set()
    check(get(ETCD, sites=[site.url]), ETCD)
    assert cached() == [ETCD.folder]
