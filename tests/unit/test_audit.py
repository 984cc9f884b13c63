"""tools/audit.py: what it says of pip-audit's output, captured from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

WELL = {"name": "idna", "version": "3.10", "vulns": []}
BAD = {"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "PYSEC-2021-66", "fix_versions": ["2.11.3"]}]}
UNMENDED = {"name": "x", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": []}]}
SKIPPED = {"name": "yarl", "skip_reason": "Dependency not found on PyPI and could not be audited: yarl (1.25.1)"}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    """The script as a module."""
    path = Path(__file__).parents[2] / "tools/audit.py"
    spec = importlib.util.spec_from_file_location("audit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([WELL], 0, ["PyPI: 1 packages looked up, 0 known vulnerabilities"]),
        (
            [WELL, BAD, UNMENDED],
            1,
            [
                "jinja2 2.4.1: PYSEC-2021-66, mended in 2.11.3",
                "x 1: PYSEC-1, mended in none yet",
                "PyPI: 3 packages looked up, 2 known vulnerabilities",
            ],
        ),
        ([WELL, SKIPPED], 0, ["PyPI: 1 packages looked up, 0 known vulnerabilities", "PyPI: 1 not looked up: yarl"]),
        ([SKIPPED], 3, ["PyPI: can't be reached from here: none of 1 packages was looked up"]),
        ([], 3, ["PyPI: can't be reached from here: none of 0 packages was looked up"]),
    ],
)
def test_a_verdict_is_never_better_than_what_was_looked_up(
    audit: ModuleType, packages: list[dict[str, Any]], status: int, said: list[str]
) -> None:
    """Vulnerabilities are 1; nothing looked up is 3, though pip-audit itself says that it found none."""
    assert audit.verdict("PyPI", {"dependencies": packages}) == (status, said)
