"""What a notebook shows while a plan is applied: one display, updated in place."""

from __future__ import annotations

import html
import time
from typing import Any

from runbook.ssh import clean


class Progress:
    """One display of a running apply, a line a node, updated in place; its last state is one line in the record."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._lines: dict[str, str] = {}
        self._shown = ""
        self._failed = False
        self._handle: Any = None
        self._start = time.monotonic()

    def note(self, node: str, step: str, state: str, detail: str) -> None:
        """Take a step; safe from any thread, shown at the next update."""
        self._failed |= state == "failed"
        self._lines[node] = f"{node or '(here)'}: {step} {state} {detail}".rstrip()

    def update(self) -> None:
        """Show the lines where they have changed; only the cell's own thread calls this."""
        self._set("\n".join(self._lines[name] for name in sorted(self._lines)))

    def close(self) -> None:
        """Leave one line."""
        took = f"{time.monotonic() - self._start:.1f} s"
        self._set(f"{self._title}: {'failed after' if self._failed else 'applied in'} {took}")

    def _set(self, text: str) -> None:
        from IPython.core.getipython import get_ipython  # noqa: PLC0415 - the command line need not load IPython

        if text == self._shown or not text or get_ipython() is None:
            return
        from IPython.display import display as ipython_display  # noqa: PLC0415

        self._shown = text
        bundle = {"text/html": f"<pre>{html.escape(clean(text))}</pre>", "text/plain": clean(text)}
        if self._handle is None:
            self._handle = ipython_display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)
