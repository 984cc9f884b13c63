"""Build a release from the Go module proxy, where no release site can be reached.

A small module of our own requires the tool; its go.mod and go.sum are kept in `gomodules/`, so the go command refuses
any source that isn't the one that was pinned. Only the releases that have such a folder can be built.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from runbook.downloads.download import FetchFailed
from runbook.downloads.releases import Release
from runbook.downloads.releases import arch as arch_of
from runbook.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.resources.abc import Traversable
    from pathlib import Path

BUILD_S = 900.0
_QUICK_S = 60.0
_LAST_LINES = 8
_FLANNEL = "github.com/flannel-io/flannel"
_ETCD = {
    f"go.etcd.io/etcd/{part}/v3": name
    for part, name in (("server", "etcd"), ("etcdctl", "etcdctl"), ("etcdutl", "etcdutl"))
}
_VERSION_PACKAGE = {"0.17.0": "version", "0.26.7": "pkg/version"}
_CROSS_CC = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}


def pinned_module(release: Release) -> Traversable | None:
    """Return the folder with the release's pinned go.mod and go.sum, or None where it has none."""
    folder = resources.files("runbook.downloads").joinpath("gomodules", f"{release.product}-{release.version}")
    return folder if folder.is_dir() else None


def needed_go(gomod: str) -> tuple[int, ...]:
    """Read the lowest Go version that a go.mod asks for: `go 1.23.6` gives (1, 23, 6)."""
    found = re.search(r"^go (\d+(?:\.\d+)*)$", gomod, re.MULTILINE)
    return _numbers(found[1]) if found else ()


@dataclass(frozen=True)
class Recipe:
    """How to build one release: the go command's environment and arguments; `outputs` maps its names to ours."""

    environment: dict[str, str]
    arguments: tuple[str, ...]
    outputs: dict[str, str]


def recipe(release: Release, compiler: str = "") -> Recipe:
    """Give the way to build a release: etcd in pure Go, flannel static with C, as its udp backend is C.

    Args:
        release: One that has a pinned module.
        compiler: The C compiler, for flannel.
    """
    environment = {
        "GOOS": "linux",
        "GOARCH": release.arch,
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",  # a build never brings another Go than the one that is installed
    }
    common = ("build", "-trimpath", "-buildvcs=false")
    if release.product == "etcd":
        return Recipe(
            environment | {"CGO_ENABLED": "0"},
            (*common, "-ldflags", "-s -w", "-o", "out/", *_ETCD),
            {package.split("/")[-2]: name for package, name in _ETCD.items()},
        )
    stamp = f"-X {_FLANNEL}/{_VERSION_PACKAGE[release.version]}.Version=v{release.version}"
    flags = f"-s -w -linkmode external -extldflags -static {stamp}"
    return Recipe(
        environment | {"CGO_ENABLED": "1", "CC": compiler},
        (*common, "-tags", "netgo,osusergo", "-ldflags", flags, "-o", "out/", _FLANNEL),
        {"flannel": "flanneld"},
    )


def build(release: Release, work: Path, into: Path, report: Callable[[str], None]) -> str:
    """Build the files of a release, and say what they were built by.

    Args:
        release: What to build.
        work: An empty folder for the module and what the compiler makes.
        into: The folder that gets the files.
        report: Gets a line of progress now and then.

    Raises:
        FetchFailed: It can't be built here, or the build failed; with the go command's last lines.
    """
    module = pinned_module(release)
    if module is None:
        raise FetchFailed("not offered: this package pins no Go modules for this version")
    needed = needed_go(module.joinpath("go.mod").read_text(encoding="utf-8"))
    go = shutil.which("go")
    if go is None:
        raise FetchFailed("no go command on the PATH", remedy=_install(needed))
    compiler = _compiler(release)
    for name in ("go.mod", "go.sum"):
        (work / name).write_bytes(module.joinpath(name).read_bytes())
    (work / "out").mkdir()
    steps = recipe(release, compiler)
    version = _check_go(go, work, needed, steps.environment)
    report(f"building {release} from the Go module proxy with {version}; this takes some minutes")
    _run((go, *steps.arguments), work, steps.environment, BUILD_S)
    for output, name in steps.outputs.items():
        (work / "out" / output).rename(into / name)
    if release.product == "flannel":
        listed = _run((go, "list", "-m", "-f", "{{.Dir}}", _FLANNEL), work, steps.environment, _QUICK_S)
        shutil.copyfile(os.path.join(listed.strip(), "dist", "mk-docker-opts.sh"), into / "mk-docker-opts.sh")  # noqa: PTH118
    return f"Go module proxy, built with {version}"


def _compiler(release: Release) -> str:
    if release.product == "etcd":
        return ""
    try:
        native = arch_of(platform.machine()) == release.arch
    except ArtifactError:
        native = False
    wanted = (os.environ.get("CC") or "gcc") if native else _CROSS_CC[release.arch]
    if shutil.which(wanted.split()[0]) is None:
        kind = "C compiler" if native else "C cross compiler"
        raise FetchFailed(
            f"flannel has C in it: a build for {release.arch} needs the {kind} {wanted}, not found here",
            remedy=f"install {wanted} here",
        )
    return wanted


def _check_go(go: str, work: Path, needed: Sequence[int], environment: dict[str, str]) -> str:
    # Asked outside the module: an older go command would refuse to read its go.mod.
    version = _run((go, "env", "GOVERSION"), work / "out", environment, _QUICK_S).strip()
    found = re.match(r"go(\d+(?:\.\d+)*)", version)
    if found and _numbers(found[1]) < tuple(needed):
        raise FetchFailed(f"needs Go {_dotted(needed)} or newer; {go} is {version}", remedy=_install(needed))
    return version


def _run(command: Sequence[str], work: Path, environment: dict[str, str], deadline_s: float) -> str:
    process = subprocess.Popen(
        command,
        cwd=work,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # so that its compilers end with it
    )
    with process:
        try:
            stdout, stderr = process.communicate(timeout=deadline_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise FetchFailed(f"go {command[1]} was not done within {deadline_s:g} s") from None
            raise
    if process.returncode != 0:
        lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith("go: downloading ")]
        raise FetchFailed(f"go {command[1]} ended with {process.returncode}: " + "\n    ".join(lines[-_LAST_LINES:]))
    return stdout


def _install(needed: Sequence[int]) -> str:
    return f"install Go {_dotted(needed)} or newer here"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _dotted(version: Sequence[int]) -> str:
    return ".".join(str(number) for number in version)
