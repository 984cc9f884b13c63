"""The widgets of the gate: one output of a cell, whose buttons only say what was pressed; the cell does the work."""

from __future__ import annotations

import asyncio
import html
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from runbook.plain_text import clean
from runbook.plans import approval
from runbook.plans.applying import LOOK_S

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

RELOADED = "This page was reloaded while the cell waited, so its buttons no longer count: run this cell again."
#: What stands for the buttons where a notebook was saved while they were there.
_SAVED = "(buttons: run this cell again to have them)"
#: What a button is for -> its colours: white on them has a contrast of 4.5:1 at least, which JupyterLab's own have not.
_COLOURS = {"success": "#116329", "warning": "#6b4e00", "primary": "#0a3069"}
_VIEW = "application/vnd.jupyter.widget-view+json"


class Reloaded(Exception):
    """A button was pressed on a page other than the one that ran the cell."""


class Controls:
    """The widgets below a cell's text; `close` leaves nothing of them in the notebook."""

    def __init__(self) -> None:
        self._session = approval.session()
        self._pressed = ""
        self._reloaded = False
        self._handle: Any = None
        self._box = widgets.VBox([])

    def show(self, *children: widgets.Widget) -> None:
        """Show these in the place of what was there."""
        before, self._box.children = self._box.children, children
        _close(before)
        if self._handle is None:
            from IPython.display import display  # noqa: PLC0415 - as ipywidgets itself does

            view = {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}
            bundle = {_VIEW: view, "text/plain": _SAVED}
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def button(self, label: str, style: str, tooltip: str) -> widgets.Button:
        """A button whose label `pressed` tells; one of a reloaded page says so and does nothing."""
        made = widgets.Button(description=label, button_style=style, tooltip=tooltip, style=_look(style))
        made.on_click(lambda _button: self._take(label))
        return made

    def acting(self, label: str, tooltip: str, act: Callable[[], None]) -> widgets.Button:
        """A button that acts at once, and once; a reloaded page may press it too: it is there to end what runs."""
        made = widgets.Button(description=label, button_style="warning", tooltip=tooltip, style=_look("warning"))
        made.layout.width = "auto"

        def press(_button: widgets.Button) -> None:
            made.disabled = True
            act()

        made.on_click(press)
        return made

    def _take(self, label: str) -> None:
        if approval.session() != self._session:
            self._reloaded = True
            self._box.children = [text(f"<b>{html.escape(RELOADED)}</b>")]
        elif not self._pressed:
            self._pressed = label

    async def pressed(self, look: Callable[[], None] = lambda: None) -> str:
        """Wait for a button; returns its label.

        Raises:
            Reloaded: it was pressed on another page than the one that ran the cell.
        """
        self._pressed = ""
        # Polled: a bare await could not be interrupted.
        while not self._pressed:
            if self._reloaded:
                raise Reloaded
            look()
            await asyncio.sleep(LOOK_S / 2)
        look()  # a box that was unticked a moment before the press counts
        self.show()  # a second press would be for what is not on the page any more
        return self._pressed

    def close(self) -> None:
        """Take the widgets out of the output; a page that was reloaded keeps what it is told."""
        if self._reloaded:
            return
        if self._handle is not None:
            self._handle.update({"text/html": "", "text/plain": ""}, raw=True)
        _close([self._box])


def _look(style: str) -> dict[str, str]:
    return {"button_color": _COLOURS[style], "text_color": "#ffffff"} if style in _COLOURS else {}


def _close(gone: Sequence[widgets.Widget]) -> None:
    for one in gone:
        _close(getattr(one, "children", ()))
        for part in ("layout", "style"):
            if isinstance(found := getattr(one, part, None), widgets.Widget):
                found.close()
        one.close()


def text(shown: str) -> widgets.HTML:
    """HTML between the widgets."""
    made = widgets.HTML(shown)
    made.layout.margin = "0 8px"
    return made


def row(*children: widgets.Widget) -> widgets.HBox:
    """Widgets beside each other."""
    made = widgets.HBox(children)
    made.layout.align_items = "center"
    made.layout.margin = "0 8px"
    return made


class Choice:
    """What a person may choose of a plan: which node's rows to see, and which nodes to leave out.

    Args:
        nodes: The plan's nodes, each with what would change there, in words.
        held: The nodes that may not be left out, each with the reason.
        left_out: The nodes that were left out before.
    """

    def __init__(self, nodes: Mapping[str, str], held: Mapping[str, str], left_out: Collection[str]) -> None:
        self._nodes = list(nodes)
        self._shown = widgets.Dropdown(
            options=[("all nodes", ""), *((name, name) for name in nodes)],
            value="",
            description="Show",
            style={"description_width": "auto"},
        )
        self._shown.layout.margin = "2px 8px"
        self._boxes: dict[str, widgets.Checkbox] = {}
        lines = []
        for name, words in nodes.items():
            box = widgets.Checkbox(
                value=name in held or name not in left_out, description=name, indent=False, disabled=name in held
            )
            box.layout.width = "auto"
            box.layout.margin = "0"
            self._boxes[name] = box
            reason = f"{words}; can't be left out: {held[name]}" if name in held else words
            lines.append(row(box, text(html.escape(clean(reason)))))
        said = "Nodes: untick one to leave it out; the next run finds it still to do."
        self.widgets: tuple[widgets.Widget, ...] = (self._shown, *((text(said), *lines) if nodes else ()))

    @property
    def node(self) -> str:
        """The node whose rows are to be seen; '' for all."""
        return str(self._shown.value)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The nodes that are unticked."""
        return tuple(name for name in self._nodes if not self._boxes[name].value)
