"""Notebooks as files: read and written as nbformat has them, without its checks and copies, for what ran already."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_TRANSIENT = ("orig_nbformat", "orig_nbformat_minor", "signature")
#: What else than text is told line by line.
_IN_LINES = ("application/javascript", "image/svg+xml")
#: papermill's tags of the cells that hold parameters and do nothing: the notebook's own, and the run's.
PARAMETERS = ("parameters", "injected-parameters")


class Node(dict[str, Any]):
    """A JSON object whose values are attributes too."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any JSON value
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def read(path: Path) -> Node:
    """Read a notebook of format 4.

    Raises:
        ValueError: it is none.
        OSError: it can't be read.
    """
    return reads(path.read_text(encoding="utf-8"))


def reads(text: str) -> Node:
    """Read a notebook of format 4: each text is one string, however it was written.

    Raises:
        ValueError: it is none.
    """
    notebook = json.loads(text, object_hook=Node)
    if not isinstance(notebook, Node) or not isinstance(notebook.get("cells"), list):
        raise ValueError("is no notebook: it has no cells")  # noqa: TRY004 - a fault of the file, not of a caller
    for name in _TRANSIENT:
        notebook.metadata.pop(name, None)
    for cell in notebook.cells:
        cell.metadata.pop("trusted", None)
        for holder, name in _texts(cell):
            if isinstance(holder[name], list):
                holder[name] = "".join(holder[name])
    return notebook


def sets_parameters(metadata: object) -> bool:
    """Whether a cell's metadata have one of the tags of PARAMETERS; they may hold anything."""
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return isinstance(tags, list) and any(tag in tags for tag in PARAMETERS)


def writes(notebook: Mapping[str, Any]) -> str:
    """A notebook as text, with a line of it a line of the file."""
    cells = [_split(cell) for cell in notebook["cells"]]
    return json.dumps({**notebook, "cells": cells}, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _split(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a cell whose texts are lists of lines."""
    copied: dict[str, Any] = {**cell}
    if "outputs" in cell:
        copied["outputs"] = [
            {**output, "data": {**output["data"]}} if "data" in output else {**output} for output in cell["outputs"]
        ]
    if "attachments" in cell:
        copied["attachments"] = {name: {**data} for name, data in cell["attachments"].items()}
    for holder, name in _texts(copied):
        if isinstance(holder[name], str) and (holder is copied or name in _IN_LINES or name.startswith("text")):
            holder[name] = holder[name].splitlines(keepends=True)
    return copied


def _texts(cell: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where the texts of a cell stand: its source, its streams, and its data but for JSON."""
    if "source" in cell:
        yield cell, "source"
    bundles = [*cell.get("attachments", {}).values()]
    if cell.get("cell_type") == "code":
        for output in cell.get("outputs", ()):
            if "data" in output:
                bundles.append(output["data"])
            elif "text" in output:
                yield output, "text"
    for bundle in bundles:
        for media_type in bundle:
            if media_type != "application/json" and not media_type.endswith("+json"):
                yield bundle, media_type
