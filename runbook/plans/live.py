"""One output of a cell that is updated in place, and only when it has changed."""

from __future__ import annotations

from typing import Any


class Live:
    """An output that the cell makes at the first `show` and changes at each further one; silent outside IPython.

    What is shown last is what a saved notebook keeps: static HTML and text.
    """

    def __init__(self) -> None:
        self._shown: tuple[str, str] | None = None
        self._handle: Any = None

    def show(self, html: str, text: str) -> None:
        """Show this; only the cell's own thread calls it.

        Args:
            html: For a notebook.
            text: The same for where there is no HTML.
        """
        from IPython.core.getipython import get_ipython  # noqa: PLC0415 - the command line need not load IPython

        if (html, text) == self._shown or get_ipython() is None:
            return
        from IPython.display import display  # noqa: PLC0415

        self._shown = html, text
        bundle = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)
