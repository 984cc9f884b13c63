"""The rule that nothing is skipped under CI, tried in pytest runs of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_passes(): pass

@pytest.mark.skip(reason="marked")
def test_marked(): pass

def test_prerequisite(prerequisite): prerequisite("a kernel with vxlan")

@pytest.mark.xfail(strict=True)
def test_xfail(): assert False
"""
SKIPPED_MODULE = "import pytest\npytest.importorskip('no_such_module')\n"


def run(folder: Path, source: str, *, ci: str, workers: int) -> subprocess.CompletedProcess[str]:
    """One pytest run in an empty folder with our conftest.py and one small module."""
    shutil.copy(Path(__file__).parents[1] / "conftest.py", folder)
    (folder / "test_small.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\n")
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")} | {"CI": ci}
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "-n", str(workers)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_skipped_test_fails_under_ci(tmp_path: Path, workers: int) -> None:
    """With CI=true a marked skip and a missing prerequisite fail by name; an expected failure does not."""
    result = run(tmp_path, TESTS, ci="true", workers=workers)
    assert result.returncode == 1
    assert "1 failed, 1 passed, 1 xfailed, 1 error" in result.stdout.splitlines()[-1]
    assert "test_small.py::test_marked: nothing may be skipped under CI=true, but: Skipped: marked" in result.stdout
    assert "missing prerequisite: a kernel with vxlan" in result.stdout


@pytest.mark.parametrize("workers", [0, 2])
def test_a_skipped_module_fails_under_ci(tmp_path: Path, workers: int) -> None:
    """With CI=true a module that skips itself while it is collected is an error; xdist alone would not tell."""
    result = run(tmp_path, SKIPPED_MODULE, ci="true", workers=workers)
    assert result.returncode not in {0, 5}
    assert "test_small.py: nothing may be skipped under CI=true" in result.stdout


def test_a_skip_is_a_skip_elsewhere(tmp_path: Path) -> None:
    """Without CI a missing prerequisite skips its test and says what is missing."""
    result = run(tmp_path, TESTS, ci="", workers=0)
    assert result.returncode == 0
    assert "1 passed, 2 skipped, 1 xfailed" in result.stdout.splitlines()[-1]
    assert "missing prerequisite: a kernel with vxlan" in result.stdout
