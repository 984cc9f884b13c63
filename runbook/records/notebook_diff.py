"""Two runs' notebooks held against each other by nbdime, without what every run measures anew."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import nbformat
from nbformat import v4

from runbook import show
from runbook.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: Measured, not decided: the names' units say so; the rest are counters and process ids.
_MEASURED = ("_ms", "_s", "_days", "_bytes")
_COUNTERS = {"raft_index", "since", "main_pid"}
_UNORDERED = {"listeners"}
#: What stands for a value that was measured: that there is one matters, which one does not.
_SOME = "(measured)"
#: Addresses of Python objects in a repr.
_ADDRESS = re.compile(r"(?<=at )0x[0-9a-f]+")
_BORDERS = frozenset("┏┳┓┡╇┩├┼┤└┴┘━─╭╮╰╯ ")
_BARS = re.compile(r"[┃│]")


def is_measured(column: str, caption: str = "") -> bool:
    """Whether a table's column holds what every run measures anew; the units may stand in the caption."""
    return column.endswith(_MEASURED) or column in _COUNTERS or (caption.endswith(_MEASURED) and column != "from")


def diff(old: Path, new: Path, *, times: bool = False) -> list[tuple[str, str]]:
    """Say what differs between the notebooks of two records.

    Args:
        old: One record's folder.
        new: The other's.
        times: Also what every run measures anew.

    Returns:
        The file's name and nbdime's text, for each notebook that differs or that one of them lacks.
    """
    names = sorted({path.name for folder in (old, new) for path in folder.glob("[0-9]*.ipynb")})
    told = ((name, _one(old / name, new / name, times=times)) for name in names)
    return [(name, text) for name, text in told if text]


def _one(old: Path, new: Path, *, times: bool) -> str:
    if not (old.is_file() and new.is_file()):
        return "only in the newer run" if new.is_file() else "only in the older run"
    if old.read_bytes() == new.read_bytes():
        return ""
    read = []
    for path in (old, new):
        try:
            read.append(_settled(nbformat.read(path, as_version=4), path.parent.name, times=times))  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - nbformat raises many kinds for what is no notebook
            return f"can't be read as a notebook: {path}: {clean(str(error))}"
    return _rendered(*read)


def _rendered(old: Any, new: Any) -> str:  # noqa: ANN401 - nbformat has no types
    # 1 s of import that the other commands don't need.
    from nbdime import diff_notebooks  # noqa: PLC0415
    from nbdime.prettyprint import PrettyPrintConfig, pretty_print_diff  # noqa: PLC0415

    changes = diff_notebooks(old, new)
    if not changes:
        return ""
    out = io.StringIO()
    pretty_print_diff(old, changes, "", PrettyPrintConfig(out=out, use_git=False, use_diff=False, use_color=False))
    lines = (clean(line.rstrip()) for line in out.getvalue().splitlines())
    # nbdime shows the empty file names of a unified diff's head.
    return "\n".join(line for line in lines if line.strip() not in {"-  --", "+  ++", ""})


def _settled(notebook: Any, record: str, *, times: bool) -> Any:  # noqa: ANN401 - nbformat has no types
    """A copy with what was asked and what came of it: no ids, no papermill or kernel metadata, tables as text."""
    # Each run is given its own folder as the place of its params.
    own_folder = re.compile(rf"[^\s\"']*/{re.escape(record)}(?=[/\"'\s]|$)")
    cells = []
    for cell in notebook.cells:
        made: Any = _node(
            cell_type=cell.cell_type,
            source=own_folder.sub("RECORD", cell.source),
            metadata={"tags": list(cell.metadata.get("tags", ()))},
        )
        if cell.cell_type == "code":
            # Whether it ran is told, not in which order: `runbook verify` looks at that.
            made.execution_count = None if cell.get("execution_count") is None else 1
            made.outputs = [_output(one, own_folder, times=times) for one in cell.get("outputs", ())]
        cells.append(made)
    # Format 4.4 is the last one without cell ids, which papermill draws at random.
    return _node(cells=cells, metadata={}, nbformat=4, nbformat_minor=4)


def _node(**fields: Any) -> Any:  # noqa: ANN401 - nbformat has no types
    return nbformat.NotebookNode(**fields)  # type: ignore[no-untyped-call]


def _output(output: Any, own_folder: re.Pattern[str], *, times: bool) -> Any:  # noqa: ANN401 - nbformat has no types
    if output.output_type == "error":
        text = f"{output.ename}: {output.evalue}"
    elif output.output_type == "stream":
        text = _unboxed(output.text, times=times)
    else:
        text = _data_text(output.get("data", {}), times=times)
    text = _ADDRESS.sub("0x…", own_folder.sub("RECORD", text))
    return v4.new_output("display_data", {"text/plain": text})  # type: ignore[no-untyped-call]


def _data_text(data: Mapping[str, Any], *, times: bool) -> str:
    kept = data.get(show.TABLE_MIME)
    if kept is not None:
        tables = kept if isinstance(kept, list) else [kept]
        return "\n".join(
            _grid(str(one["caption"]), [str(name) for name in one["columns"]], one["data"], times=times)
            for one in tables
        )
    if show.PLAN_MIME in data:
        plan = data[show.PLAN_MIME]
        return "\n".join([f"plan {plan['id']}: {plan['title']}", *plan["notes"], *map(str, plan["changes"])])
    text = data.get("text/plain", "")
    return _unboxed(str(text), times=times)


def _grid(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, times: bool) -> str:
    """A table as lines, a cell each, so that a diff names the cell; measured values masked, empty cells left out."""
    masked = {name for name in columns if not times and is_measured(name, caption)}
    lines = [caption]
    for row in rows:
        for name, value in list(zip(columns, row, strict=True))[1:]:
            if value not in (None, "", []):
                told = sorted(value) if name in _UNORDERED and isinstance(value, list) else value
                lines.append(f"{row[0]}: {name} {_SOME if name in masked else told}")
    return "\n".join(lines)


def _unboxed(text: str, *, times: bool) -> str:
    """Text in which tables drawn with box characters are lines like `_grid`'s, whatever their columns' width was."""
    lines: list[str] = []
    columns: list[str] = []
    caption = ""
    for line in text.splitlines():
        if line.strip() and set(line) <= _BORDERS:
            continue
        cells = [cell.strip() for cell in _BARS.split(line)[1:-1]]
        if not cells:
            caption = line.strip()
            lines.append(caption)
        elif "┃" in line:
            columns = cells
            lines.append(" | ".join(cells))
        else:
            masked = [not times and is_measured(name, caption) for name in columns]
            lines.append(
                " | ".join(_SOME if mask and cell else cell for mask, cell in zip(masked, cells, strict=False))
            )
    return "\n".join(lines)
