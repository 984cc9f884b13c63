"""What the go command is told, and how its refusals are put. The builds themselves run for the practice cluster."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from runbook.downloads import gobuild
from runbook.downloads.download import FetchFailed
from runbook.downloads.releases import Release

if TYPE_CHECKING:
    from collections.abc import Callable

MODULES = sorted((Path(gobuild.__file__).parent / "gomodules").iterdir())
ETCD = Release("etcd", "3.6.16", "amd64")
FLANNEL = Release("flannel", "0.26.7", "amd64")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    work, into = tmp_path / "work", tmp_path / "into"
    work.mkdir()
    into.mkdir()
    return work, into


@pytest.fixture
def lines() -> list[str]:
    return []


def fake_go(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Put a script in the go command's place."""
    (folder / "bin").mkdir()
    go = folder / "bin" / "go"
    go.write_text(f"#!/bin/sh\n{script}\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:/usr/bin:/bin")
    return go


def test_pinned_modules() -> None:
    """Four releases can be built; the names of their folders are the only list of them."""
    assert [folder.name for folder in MODULES] == ["etcd-3.5.21", "etcd-3.6.16", "flannel-0.17.0", "flannel-0.26.7"]


@pytest.mark.parametrize("folder", MODULES, ids=lambda folder: folder.name)
def test_module_pins_its_release(folder: Path) -> None:
    """A go.mod requires exactly its release and replaces nothing; its go.sum has the sum of each required source."""
    product, _, version = folder.name.partition("-")
    gomod, gosum = (folder / "go.mod").read_text(), (folder / "go.sum").read_text()
    required = re.findall(r"^(?:require )?\s*(\S+\.\S+/\S+) (v\S+)$", gomod, re.MULTILINE)
    assert {name for name, _ in required} == (set(gobuild._ETCD) if product == "etcd" else {gobuild._FLANNEL})
    assert {found for _, found in required} == {f"v{version}"}
    assert not re.search(r"replace|exclude|toolchain|://", gomod)
    for name, found in required:
        assert re.search(rf"^{re.escape(name)} {re.escape(found)} h1:\S{{43}}=$", gosum, re.MULTILINE)
    assert gobuild.needed_go(gomod) >= (1, 21)
    assert gobuild.pinned_module(Release(product, version, "arm64")) is not None


@pytest.mark.parametrize(
    ("text", "expected"), [("module x\n\ngo 1.23.6\n", (1, 23, 6)), ("go 1.21\n", (1, 21)), ("module go 1.2 x\n", ())]
)
def test_needed_go(text: str, expected: tuple[int, ...]) -> None:
    """The go line of a go.mod is the version that is needed."""
    assert gobuild.needed_go(text) == expected


def test_etcd_recipe() -> None:
    """Etcd is built without C, for the nodes' architecture, from the pinned sums only."""
    steps = gobuild.recipe(Release("etcd", "3.6.16", "arm64"))
    assert steps.environment == {
        "GOOS": "linux",
        "GOARCH": "arm64",
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    assert steps.outputs == {"server": "etcd", "etcdctl": "etcdctl", "etcdutl": "etcdutl"}
    assert "-trimpath" in steps.arguments


@pytest.mark.parametrize(("version", "package"), [("0.17.0", "version"), ("0.26.7", "pkg/version")])
def test_flannel_recipe(version: str, package: str) -> None:
    """Flannel is static with C, and told its version, which lies in another package in each line."""
    steps = gobuild.recipe(Release("flannel", version, "amd64"), "gcc")
    flags = steps.arguments[steps.arguments.index("-ldflags") + 1]
    assert flags.endswith(f"-extldflags -static -X github.com/flannel-io/flannel/{package}.Version=v{version}")
    assert (steps.environment["CGO_ENABLED"], steps.environment["CC"]) == ("1", "gcc")


def test_every_pinned_flannel_has_a_recipe() -> None:
    """No pinned module lacks its way to be built."""
    versions = {folder.name.removeprefix("flannel-") for folder in MODULES if folder.name.startswith("flannel-")}
    assert versions == set(gobuild._VERSION_PACKAGE)


def test_release_without_module(folders: tuple[Path, Path], lines: list[str]) -> None:
    """A release whose modules aren't pinned is never built."""
    release = Release("flannel", "0.27.4", "amd64")
    with pytest.raises(FetchFailed, match="not offered: this package pins no Go modules") as refused:
        gobuild.build(release, *folders, lines.append)
    assert refused.value.remedy == ""
    assert lines == []


def test_no_go_command(folders: tuple[Path, Path], lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a go command the reason is said, and the remedy names the version that is needed."""
    monkeypatch.setenv("PATH", str(folders[0]))
    with pytest.raises(FetchFailed, match="no go command") as refused:
        gobuild.build(ETCD, *folders, lines.append)
    assert refused.value.remedy == "install Go 1.26.0 or newer here"


def test_old_go_by_a_fake_go(
    folders: tuple[Path, Path], lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A go command that is too old is named with what is needed, before it is let loose on the modules."""
    go = fake_go(tmp_path, monkeypatch, "echo go1.19.8")
    with pytest.raises(FetchFailed, match=re.escape(f"needs Go 1.26.0 or newer; {go} is go1.19.8")):
        gobuild.build(ETCD, *folders, lines.append)
    assert lines == []


def test_failed_build_by_a_fake_go(
    folders: tuple[Path, Path], lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a build that failed the last lines are shown, without the list of downloads."""
    script = """[ "$1" = env ] && { echo go1.26.0; exit; }
    for number in 1 2 3 4 5 6 7 8 9 10; do echo "go: downloading x v$number" >&2; echo "reason $number" >&2; done
    exit 3"""
    fake_go(tmp_path, monkeypatch, script)
    with pytest.raises(FetchFailed) as failed:
        gobuild.build(ETCD, *folders, lines.append)
    assert str(failed.value).startswith("go build ended with 3: reason 3\n")
    assert str(failed.value).endswith("reason 10")
    assert "downloading" not in str(failed.value)
    assert lines == [
        "building etcd 3.6.16 for linux/amd64 from the Go module proxy with go1.26.0; this takes some minutes"
    ]


def test_build_past_its_deadline_by_a_fake_go(
    folders: tuple[Path, Path], lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A build that hangs is ended at its deadline, with the processes it started."""
    script = f"""[ "$1" = env ] && {{ echo go1.26.0; exit; }}
    sleep 600 & echo $! > {tmp_path}/child; wait"""
    fake_go(tmp_path, monkeypatch, script)
    monkeypatch.setattr(gobuild, "BUILD_S", 0.5)
    started = time.monotonic()
    with pytest.raises(FetchFailed, match=re.escape("go build was not done within 0.5 s")):
        gobuild.build(ETCD, *folders, lines.append)
    assert time.monotonic() - started < 10
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while _running(child) and time.monotonic() < deadline:
        os.sched_yield()
    assert not _running(child)


def _running(pid: int) -> bool:
    """Whether a process is alive; one that ended and waits to be reaped is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_flannel_for_another_machine_needs_a_cross_compiler(
    folders: tuple[Path, Path], lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Flannel has C in it: for another architecture it needs that one's compiler, and the error names it."""
    fake_go(tmp_path, monkeypatch, "echo go1.26.0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(FetchFailed, match="for amd64 needs the C cross compiler x86_64-linux-gnu-gcc") as refused:
        gobuild.build(FLANNEL, *folders, lines.append)
    assert refused.value.remedy == "install x86_64-linux-gnu-gcc here"
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(FetchFailed, match="for amd64 needs the C compiler gcc"):
        gobuild.build(FLANNEL, *folders, lines.append)


def test_files_of_a_build_by_a_fake_go(
    folders: tuple[Path, Path], lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the build leaves gets the names of a release; the script comes out of the module's folder."""
    (tmp_path / "module" / "dist").mkdir(parents=True)
    (tmp_path / "module" / "dist" / "mk-docker-opts.sh").write_text("#!/bin/sh\n")
    script = f"""case "$1" in
    env) echo go1.26.0 ;;
    list) echo {tmp_path}/module ;;
    build) [ -f go.mod ] && [ -f go.sum ] && [ "$GOFLAGS" = -mod=readonly ] && echo built > out/flannel ;;
    esac"""
    fake_go(tmp_path, monkeypatch, script)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("CC", "true")
    assert gobuild.build(FLANNEL, *folders, lines.append) == "Go module proxy, built with go1.26.0"
    assert sorted(path.name for path in folders[1].iterdir()) == ["flanneld", "mk-docker-opts.sh"]


def test_real_go_refuses_what_is_not_pinned(
    folders: tuple[Path, Path], tmp_path: Path, prerequisite: Callable[[str], NoReturn]
) -> None:
    """The real go command, with our settings, refuses a source that has no line in go.sum, before it asks a proxy."""
    if shutil.which("go") is None:
        prerequisite("the go command")
    work = folders[0]
    environment = gobuild.recipe(ETCD).environment | {"GOPROXY": "off", "GOMODCACHE": str(tmp_path / "modules")}
    (work / "go.mod").write_text("module tiny.invalid/tiny\n\ngo 1.21\n\nrequire go.etcd.io/etcd/server/v3 v3.6.16\n")
    (work / "main.go").write_text('package main\n\nimport _ "go.etcd.io/etcd/server/v3/etcdmain"\n\nfunc main() {}\n')
    with pytest.raises(FetchFailed, match=r"go build ended with 1: .*missing go\.sum entry"):
        gobuild._run(("go", "build", "-o", str(tmp_path / "tiny")), work, environment, 60)
