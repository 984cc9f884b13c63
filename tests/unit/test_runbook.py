"""runbook: the public names, and that importing it costs little."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import runbook


def test_public_names_are_there_and_sorted() -> None:
    """`__all__` is sorted, each name can be had, and `dir` shows these."""
    assert runbook.__all__ == sorted(runbook.__all__)
    for name in runbook.__all__:
        assert getattr(runbook, name) is not None
    assert dir(runbook) == runbook.__all__


@pytest.mark.parametrize("name", ["binaries", "etcd", "flannel", "mesh", "preflight"])
def test_public_names_of_a_module_are_documented(name: str) -> None:
    """Each name that a phase's module exports is there, sorted, and has a docstring."""
    module = getattr(runbook, name)
    assert module.__all__ == sorted(module.__all__)
    for public in module.__all__:
        assert inspect.getdoc(getattr(module, public)), public


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    """Other names are no attributes, so `hasattr` and `from runbook import x` behave."""
    with pytest.raises(AttributeError, match="nonsense"):
        _ = runbook.nonsense  # type: ignore[attr-defined]
    assert not hasattr(runbook, "pandas")


def loaded(statement: str) -> set[str]:
    """The modules that a fresh Python holds after a statement."""
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_loads_no_pandas() -> None:
    """`import runbook` is for commands that need none of it too: pandas, paramiko and IPython come when asked for."""
    assert {"pandas", "paramiko", "IPython", "papermill"} & loaded("import runbook") == set()
