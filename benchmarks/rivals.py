"""The contenders: how each is started in a job's folder."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from job import CONTENDERS, HERE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = HERE.parent
OWN_BIN = Path(sys.executable).parent
"""The project's environment: runbook, papermill, and paramiko for the sketch."""

VENV = ROOT / ".venv-bench"
"""The rivals' environment."""

LOCK = HERE / "requirements.lock"


@dataclass(frozen=True)
class Contender:
    """One way to do the job: `argv` of a job's folder, `env` beside the environment, `label` for tables."""

    key: str
    label: str
    argv: Callable[[Path], list[str]]
    env: Callable[[Path], Mapping[str, str]] = lambda _folder: {}


def _ansible(folder: Path) -> list[str]:
    variables = ["-e", f"job={folder}", "-e", f"contenders={CONTENDERS}"]
    return [str(VENV / "bin/ansible-playbook"), "-i", "hosts.ini", *variables, str(CONTENDERS / "ansible/site.yml")]


def _ansible_env(folder: Path) -> Mapping[str, str]:
    return {
        "ANSIBLE_CONFIG": str(CONTENDERS / "ansible/ansible.cfg"),
        "ANSIBLE_HOME": str(folder / ".ansible"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "cp"),
    }


def _pyinfra(_folder: Path) -> list[str]:
    files = [str(CONTENDERS / "pyinfra" / name) for name in ("inventory.py", "deploy.py")]
    return [str(VENV / "bin/pyinfra"), "-y", "--no-wait", *files]


_PAPERMILL = """set -e
mkdir -p papermill
for notebook in "$1"/[01][0-9]_*.ipynb; do
  "$0" --no-progress-bar "$notebook" "papermill/$(basename "$notebook")" --cwd papermill -f params.yaml -p approve True
done
"""


def _papermill(_folder: Path) -> list[str]:
    return ["bash", "-c", _PAPERMILL, str(OWN_BIN / "papermill"), str(ROOT / "notebooks")]


def _runbook(_folder: Path) -> list[str]:
    return [str(OWN_BIN / "runbook"), "run", "params.yaml", "--approve", "--records", "records"]


ALL = (
    Contender("bash", "bash, the tutorial's loops", lambda _folder: ["bash", str(CONTENDERS / "tutorial.sh")]),
    Contender("ansible", "Ansible", _ansible, _ansible_env),
    Contender("pyinfra", "pyinfra", _pyinfra),
    Contender("sketch", "paramiko sketch", lambda _folder: [sys.executable, str(CONTENDERS / "sketch.py")]),
    Contender("papermill", "plain papermill, our notebooks", _papermill),
    Contender("runbook", "`runbook run`", _runbook),
)


def setup() -> None:
    """Make the rivals' environment from its lock, unless it is there and whole."""
    stamp = VENV / ".compiled-from"
    wanted = LOCK.read_text(encoding="utf-8")
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return
    uv = str(OWN_BIN / "uv")
    subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(VENV)], check=True)
    # Compiled, as the runbook's is: where PYTHONDONTWRITEBYTECODE is set a rival would compile its modules in its time.
    sync = [uv, "pip", "sync", "-q", "--compile-bytecode", "--python", str(VENV / "bin/python")]
    sync += ["--require-hashes", str(LOCK)]
    subprocess.run(sync, check=True)
    stamp.write_text(wanted, encoding="utf-8")


def versions() -> dict[str, str]:
    """What ran, by name."""
    freeze = [str(OWN_BIN / "uv"), "pip", "freeze", "-q", "--python", str(VENV / "bin/python")]
    listed = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout.split()
    theirs = dict(line.split("==", 1) for line in listed if "==" in line)
    openssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.split(",")[0].strip()
    own = {name: importlib.metadata.version(name) for name in ("papermill", "ipykernel", "nbclient", "paramiko")}
    return {
        "OpenSSH": openssh.removeprefix("OpenSSH_"),
        "ansible-core": theirs["ansible-core"],
        "pyinfra": theirs["pyinfra"],
        **own,
        "Python": ".".join(map(str, sys.version_info[:3])),
    }


def run(contender: Contender, folder: Path, log: Path, timeout_s: float = 600) -> int:
    """Run a contender to its end, all that it prints in a file; its exit status."""
    environment = {**os.environ, **contender.env(folder)}
    with log.open("wb") as out:
        done = subprocess.run(
            contender.argv(folder), cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            timeout=timeout_s, check=False,
        )  # fmt: skip
    return done.returncode


def clean_up(folder: Path) -> None:
    """End the ssh processes that Ansible left behind for its next run."""
    for socket in (folder / "cp").glob("*"):
        with contextlib.suppress(subprocess.TimeoutExpired):
            leave = ["ssh", "-S", str(socket), "-O", "exit", "node"]
            subprocess.run(leave, capture_output=True, timeout=10, check=False)
