"""nbformat and papermill, imported without what they can do besides and a run never asks of them.

jsonschema knows formats of strings by packages that take 0.1 s to import, and one, rfc3987_syntax, that compiles a
grammar for 0.8 s; no notebook's schema names a format. papermill can read from S3 where it finds boto3 (0.2 s), and
from the web by requests, which is imported when that happens; our notebooks and records are files.
"""

from __future__ import annotations

import importlib
from typing import Any

from runbook.late import late, without

_FORMATS = ("rfc3987_syntax", "rfc3986_validator", "isoduration", "uri_template", "webcolors", "fqdn")

with without(*_FORMATS):
    nbformat: Any = importlib.import_module("nbformat")  # it has no types


def papermill() -> Any:  # noqa: ANN401 - a module without types
    """Import papermill."""
    late("requests")
    with without("boto3"):
        return importlib.import_module("papermill")


def compile_schema() -> None:
    """Have nbformat make its check of notebooks out of their schema now, and not when the first one is read."""
    nbformat.validate(nbformat.v4.new_notebook())
