"""runbook.progress: one display of a running apply."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from IPython.core import getipython

from runbook.progress import Progress

if TYPE_CHECKING:
    import pytest


def test_outside_a_notebook_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without IPython progress is silent."""
    progress = Progress("etcd units")
    progress.note("node1", "apply", "started", "")
    progress.update()
    progress.close()
    assert capsys.readouterr().out == ""


def test_progress_is_one_display_that_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A running apply has one display, a line a node, updated in place; what stays is a line with the time."""
    shown: list[Any] = []
    handle = SimpleNamespace(update=lambda bundle, raw: shown.append((bundle["text/plain"], raw)))

    def display(bundle: dict[str, str], **_options: object) -> object:
        shown.append(bundle["text/html"])
        return handle

    monkeypatch.setattr(getipython, "get_ipython", object)
    monkeypatch.setattr("IPython.display.display", display)
    progress = Progress("etcd units")
    progress.note("node2", "apply", "started", "")
    progress.note("node1", "<b>", "done", "\x1b[0m")
    progress.update()
    progress.update()
    progress.note("node2", "apply", "failed", "no space left")
    progress.update()
    progress.close()
    assert shown[0] == "<pre>node1: &lt;b&gt; done [0m\nnode2: apply started</pre>"
    assert shown[1][0].splitlines()[1] == "node2: apply failed no space left"
    assert re.fullmatch(r"etcd units: failed after 0\.\d s", shown[2][0])
    assert len(shown) == 3
