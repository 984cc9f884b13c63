"""Imports that take less time: many at once, and what libraries name but we seldom need when it is first used."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Late(types.ModuleType):
    """Stands for a module until something of it is used; importlib has one that does so until `import` only."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of any module
        if name.startswith("__") and name != "__path__":  # what is looked at in every module says nothing of a use
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def late(*names: str) -> None:
    """Have `import` of these modules take no time; one that is imported already, or not installed, is as it was."""
    for name in names:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is not None:
            sys.modules[name] = module = _Late(name)
            module.__spec__ = spec


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Import much in the block, and don't look for garbage in it meanwhile or ever: a module is none."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Have these modules not be found while the block runs, but those that are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # Python's own way to say that there is no such module
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
