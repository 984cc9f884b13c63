"""runbook.jupyter.formats: nbformat and papermill without what a run never asks of them; what a run's start imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("pandas", "numpy", "boto3", "rfc3987_syntax", "nbconvert", "IPython", "debugpy")


def imported(code: str) -> set[str]:
    """The modules of a new Python after this code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*[name for name, it in sys.modules.items() if it])"],
        capture_output=True, check=True, text=True, timeout=60,
    )  # fmt: skip
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import runbook.cli, runbook.pipeline",
        "import runbook.pipeline, runbook.jupyter.formats as those; those.papermill(); import runbook.jupyter.engine",
        "import runbook.jupyter.forked",
    ],
)
def test_a_run_begins_without_what_takes_long(code: str) -> None:
    """The process of a run imports neither pandas nor what only rendering and kernels need."""
    assert imported(code) & set(HEAVY) == set()


def test_what_was_hidden_can_be_imported_later() -> None:
    """Only the import of nbformat goes without; whoever wants the module gets it."""
    assert "rfc3987_syntax" in imported("import runbook.jupyter.formats, rfc3987_syntax")


def test_notebooks_are_still_checked() -> None:
    """It is found what is wrong with a notebook as before."""
    wrong = {"cells": [], "metadata": 1, "nbformat": 4, "nbformat_minor": 5}
    code = f"from runbook.jupyter.formats import nbformat; nbformat.validate({wrong})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True, timeout=60)
    assert "NotebookValidationError" in done.stderr
