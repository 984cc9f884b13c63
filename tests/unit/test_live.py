"""runbook.plans.live: one output of a cell, updated in place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from IPython.core import getipython

from runbook.plans.live import Live

if TYPE_CHECKING:
    import pytest


def test_outside_a_notebook_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without IPython it is silent."""
    Live().show("<p>a</p>", "a")
    assert capsys.readouterr().out == ""


def test_one_output_is_updated_only_when_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one display, with HTML and text, and no message where nothing is new."""
    shown: list[Any] = []
    handle = SimpleNamespace(update=lambda bundle, raw: shown.append(("update", bundle["text/html"], raw)))

    def display(bundle: dict[str, str], **options: object) -> object:
        shown.append((bundle, options))
        return handle

    monkeypatch.setattr(getipython, "get_ipython", object)
    monkeypatch.setattr("IPython.display.display", display)
    live = Live()
    for text in ("a", "a", "b"):
        live.show(f"<p>{text}</p>", text)
    assert shown == [
        ({"text/html": "<p>a</p>", "text/plain": "a"}, {"raw": True, "display_id": True}),
        ("update", "<p>b</p>", True),
    ]
