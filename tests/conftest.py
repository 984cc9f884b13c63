"""What every test folder shares: nothing is skipped under CI, and hypothesis has no deadline on a busy machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

hypothesis.settings.register_profile("runbook", deadline=None, derandomize=IN_CI, print_blob=not IN_CI)
hypothesis.settings.load_profile("runbook")


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under CI, turns a skip into a failure; an expected failure (xfail) is a skip to pytest, but not to us."""
    if not IN_CI or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: nothing may be skipped under CI=true, but: {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Sees each phase of a test after pytest's own rules on skip and xfail; on workers too."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module skipped as a whole counts as well; xdist would not tell of it."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.fixture(scope="session")
def prerequisite() -> Callable[[str], NoReturn]:
    """Call it with what is missing (`prerequisite("root")`): skips here, fails under CI."""

    def missing(reason: str) -> NoReturn:
        message = f"missing prerequisite: {reason}"
        if IN_CI:
            pytest.fail(message, pytrace=False)
        pytest.skip(message)

    return missing
