"""How the practice cluster calls this machine's tools and keeps two of its own calls apart."""

from __future__ import annotations

import os
import shlex
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from runbook import file_lock
from runbook.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian keeps ip and debootstrap; a plain user's PATH lacks it."""

_MOUNT_POINT = 4
"""The field of a line of /proc/self/mountinfo that holds the mount point (proc(5))."""


def tool_path() -> str:
    """PATH with the folders of the administrator's tools."""
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_PATH}"


def run(*argv: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout_s: float = 30) -> str:
    """Run a tool of this machine; give what it printed.

    Raises:
        SandboxError: It ended with another status than 0, or passed its deadline; with what it said.
    """
    done = attempt(*argv, stdin=stdin, env=env, timeout_s=timeout_s)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise SandboxError(f"exit status {done.returncode}: {said}", subject=shlex.join(argv))
    return done.stdout


def attempt(
    *argv: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout_s: float = 30
) -> subprocess.CompletedProcess[str]:
    """As `run`, but an exit status other than 0 is the caller's to judge."""
    variables = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": tool_path(), **(env or {})}
    try:
        return subprocess.run(
            argv, input=stdin, capture_output=True, text=True, env=variables, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SandboxError(f"still running after {timeout_s:.0f} s", subject=shlex.join(argv)) from error
    except OSError as error:
        raise SandboxError(str(error), subject=shlex.join(argv)) from error


def mounts_below(folder: Path) -> list[Path]:
    """Mount points in and at `folder`, deepest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        escaped = line.split(" ")[_MOUNT_POINT]
        point = Path(escaped.encode().decode("unicode_escape").encode("latin-1").decode())
        if point == folder or folder in point.parents:
            found.append(point)
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def unmount_below(folder: Path) -> None:
    """Unmount everything in and at `folder`, also what is still in use (then it goes when the last user does)."""
    for point in mounts_below(folder):
        if attempt("umount", str(point)).returncode:
            run("umount", "--lazy", str(point))


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file whole, its mode set before its name appears."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    beside.replace(path)


@contextmanager
def lock(path: Path, *, wait_s: float) -> Iterator[None]:
    """Hold a lock file against other processes; it is released when this one ends, however it ends.

    Raises:
        SandboxError: Another process held it for longer than `wait_s` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a", encoding="utf-8") as file:
        if not file_lock.take(file.fileno(), wait_s):
            raise SandboxError(
                f"another process has held this lock for {wait_s:.0f} s",
                subject=str(path),
                remedy="wait for the other `runbook sandbox` to end",
            )
        yield
