"""nbformat and papermill, imported without what they can do besides and a run never asks of them.

jsonschema compiles a grammar of international addresses (0.8 s) where it finds rfc3987_syntax; no notebook's schema
has such a format. papermill can read from S3 where it finds boto3 (0.2 s); our notebooks and records are files.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


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


with without("rfc3987_syntax"):
    nbformat: Any = importlib.import_module("nbformat")  # it has no types


def papermill() -> Any:  # noqa: ANN401 - a module without types
    """Import papermill."""
    with without("boto3"):
        return importlib.import_module("papermill")
