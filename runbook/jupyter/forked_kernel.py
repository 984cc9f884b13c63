"""ipykernel in a process that was forked: it starts without what was done already, and what needs memory of its own."""

from __future__ import annotations

import contextlib
import re
import sys
import types
from typing import TYPE_CHECKING, Any

from ipykernel import ipkernel
from ipykernel.iostream import OutStream
from ipykernel.kernelapp import IPKernelApp
from IPython.core import shellapp
from traitlets.config import Config
from traitlets.config.loader import DeferredConfigString

if TYPE_CHECKING:
    from collections.abc import Iterator

_SETTING = re.compile(r"--([A-Z]\w*)\.(\w+)=(.*)")
#: The inputs of a headless notebook are in the record; a history of them would have a thread and a database.
_LEAST = {"HistoryManager": {"enabled": False}, "IPKernelApp": {"outstream_class": f"{__name__}.Stream"}}


class Stream(OutStream):
    """What cells print: flushed where there is something to flush.

    ipykernel flushes both streams six times a cell, and each time waits for its other thread.
    """

    _written = False

    def write(self, string: str) -> int | None:  # type: ignore[override]  # ipykernel's own
        """Take what is printed."""
        self._written = True
        return super().write(string)

    def flush(self) -> None:
        """Publish what was printed since the last time."""
        if self._written:
            self._written = False
            super().flush()  # type: ignore[no-untyped-call]  # as above


class ForkedKernelApp(IPKernelApp):
    """ipykernel's application, told by the arguments that a kernel's command has, without building a parser of all."""

    def parse_command_line(self, argv: list[str] | None = None) -> None:
        """Take the arguments; others than a connection file and plain settings by ipykernel's own parser."""
        self.update_config(Config(_LEAST))
        match argv:
            case ["-f", file, *settings] if all(map(_SETTING.fullmatch, settings)):
                told = Config({"IPKernelApp": {"connection_file": file}})
                for kind, name, value in (_SETTING.findall(one)[0] for one in settings):
                    told[kind][name] = DeferredConfigString(value)
                self.update_config(told)
            case _:
                super().parse_command_line(argv)


@contextlib.contextmanager
def _without_a_list_of_modules() -> Iterator[None]:
    """Have ipykernel list none for its debugger, which is not there, nor IPython for %reset: each would be copied."""
    places: list[dict[str, Any]] = [vars(ipkernel), vars(shellapp)]
    for names in places:
        names["sys"] = types.SimpleNamespace(**{**vars(sys), "modules": {}})
    try:
        yield
    finally:
        for names in places:
            names["sys"] = sys


def launch(arguments: list[str]) -> None:
    """Be a kernel, until it is told to end."""
    app = ForkedKernelApp.instance()
    with _without_a_list_of_modules():
        app.initialize(arguments)  # type: ignore[no-untyped-call]  # of ipykernel
    app.start()  # type: ignore[no-untyped-call]
