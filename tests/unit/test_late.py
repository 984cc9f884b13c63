"""runbook.late: what is seldom needed is imported when it is used, and not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runbook.late import late, without


def run(code: str) -> str:
    """What a new Python prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60)
    return done.stdout


def test_a_late_module_is_imported_when_it_is_used() -> None:
    """Its import imports nothing of it; its first use does, and it is the module itself."""
    code = "from runbook.late import late; late('xml'); import sys, xml; print(hasattr(xml, '__file__')); "
    code += "import xml.dom; print(xml.dom.Node.__name__, sys.modules['xml'].__file__.endswith('.py'))"
    assert run(code).split() == ["False", "Node", "True"]


def test_what_is_imported_or_missing_stays_as_it_was() -> None:
    """A module that is there is not made anew; one that is not installed is not found, as before."""
    late("json", "no_such_module")
    assert sys.modules["json"].dumps(1) == "1"
    with pytest.raises(ImportError):
        __import__("no_such_module")


def test_many_are_imported_without_looking_for_garbage() -> None:
    """Nothing is collected meanwhile; afterwards it is as before, and what was imported is not looked at again."""
    code = "import gc; from runbook.late import at_once; before = gc.get_freeze_count()\n"
    code += "with at_once():\n    import wave; print(gc.isenabled())\n"
    assert run(code + "print(gc.isenabled(), gc.get_freeze_count() > before)").split() == ["False", "True", "True"]


def test_without_a_module_it_is_not_found_meanwhile() -> None:
    """It is there again afterwards."""
    code = """
from runbook.late import without
with without("wave"):
    try:
        import wave
    except ImportError:
        print("hidden")
import wave
print(wave.Error.__name__)
"""
    assert run(code).split() == ["hidden", "Error"]
    with without("json"):
        assert "json" in sys.modules


def test_an_ssh_connection_needs_no_invoke_and_papermill_no_requests() -> None:
    """Both are there by name only until something of them is used."""
    code = "import sys, runbook.ssh; from runbook.jupyter import formats; formats.papermill(); "
    assert run(code + "print('invoke.context' in sys.modules, 'requests.api' in sys.modules)") == "False False\n"
    assert run(code + "import requests, invoke; print(requests.get.__name__, invoke.run.__name__)") == "get run\n"
