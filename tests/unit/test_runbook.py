"""runbook: the public names, and that importing it costs little."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import runbook


def test_public_names_are_there_and_sorted() -> None:
    """`__all__` is sorted, each name can be had, and `dir` shows these."""
    assert runbook.__all__ == sorted(runbook.__all__)
    for name in runbook.__all__:
        assert getattr(runbook, name) is not None
    assert dir(runbook) == runbook.__all__


#: These only show a table or what is there another way; they have what they return, and no next step.
TABLES_OF_TABLES = {"beside", "matrix", "topology", "watch"}
MODULES = ["binaries", "etcd", "flannel", "mesh", "preflight"]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_of_a_module_are_documented(name: str) -> None:
    """Each name that a phase's module exports is there, sorted, and has a docstring."""
    module = getattr(runbook, name)
    assert module.__all__ == sorted(module.__all__)
    for public in module.__all__:
        assert inspect.getdoc(getattr(module, public)), public


@pytest.fixture(scope="module")
def shell() -> InteractiveShell:
    """IPython as a kernel has it, with what the notebooks import."""
    made = InteractiveShell()
    made.run_cell(f"import runbook\nfrom runbook import {', '.join(MODULES)}")
    return made


@pytest.mark.parametrize("name", [*MODULES, "runbook"])
@pytest.mark.parametrize("jedi", [True, False])
def test_tab_shows_the_phase_functions_alone(shell: InteractiveShell, name: str, *, jedi: bool) -> None:
    """`etcd.` and Tab, with and without jedi: what `__all__` names, nothing that a module only imports."""
    shell.Completer.use_jedi = jedi
    with provisionalcompleter():
        shown = {one.text.removeprefix(".") for one in shell.Completer.completions(f"{name}.", len(name) + 1)}
    public = runbook if name == "runbook" else getattr(runbook, name)
    assert shown == set(public.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_help_is_for_a_person_who_acts(name: str) -> None:
    """`etcd.units?` tells the phase or that nothing is changed, what comes back, and what to do next."""
    module = getattr(runbook, name)
    silent = []
    for public in sorted(set(module.__all__) - TABLES_OF_TABLES):
        text = inspect.getdoc(getattr(module, public)) or ""
        changes = re.search(r"Plan phase \d\d|[Cc]hanges nothing|changes nothing", text)
        silent += [public] if not (changes and "Returns:" in text and re.search(r"^Next: ", text, re.MULTILINE)) else []
    assert silent == []


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
