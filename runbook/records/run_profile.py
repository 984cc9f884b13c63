"""Where a run's time went: by phase, and its slowest cells and steps, from the times that its record keeps anyway."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from runbook import record
from runbook.pages import timeline
from runbook.records import notebook_file, summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_SLOWEST = 12
#: Less than this is no time: what is noted only at its end.
_LEAST_S = 0.005


def tables(folder: Path) -> list[dict[str, Any]]:
    """Tell where the time of a record's run went.

    Args:
        folder: The record; its run need not have passed.

    Returns:
        Two tables as they are kept (show.kept), times in seconds. The phases: took_s, cells_s (their cells at work),
        around_s (the rest: kernel, saving, papermill), slowest (the node whose steps took longest) and steps_s (those).
        And the slowest cells and steps: phase, node, what, took_s.
    """
    told = summary.load(folder)
    spans = timeline.spans(timeline.read(record.journal_path(folder)), told["phases"])
    phases: list[list[Any]] = []
    slow: list[list[Any]] = []
    for row in told["phases"]:
        if row["took_s"] is None:
            continue
        phase = f"{row['number']:02d} {row['title']}"
        cells = list(_cells(folder / row["notebook"]))
        steps = [one for one in spans if one.phase == row["number"] and one.step and one.took_s >= _LEAST_S]
        at_work = sum(took for _, took in cells)
        by_node: dict[str, float] = {}
        for one in steps:
            by_node[one.node] = by_node.get(one.node, 0) + one.took_s
        node = max(by_node, key=lambda name: by_node[name], default="")
        around = max(0.0, row["took_s"] - at_work)
        phases.append([phase, row["took_s"], at_work, around, node, by_node.get(node)])
        slow += [[phase, "", what, took] for what, took in cells]
        slow += [[phase, one.node, one.step, one.took_s] for one in steps]
    slow.sort(key=lambda one: -one[-1])
    columns = ["phase", "took_s", "cells_s", "around_s", "slowest", "steps_s"]
    return [
        {"caption": "Where time went, by phase", "columns": columns, "data": phases},
        {
            "caption": "The slowest cells and steps",
            "columns": ["phase", "node", "what", "took_s"],
            "data": slow[:_SLOWEST],
        },
    ]


def _cells(path: Path) -> Iterator[tuple[str, float]]:
    """The code cells of an executed notebook: the last line of each, and how long it worked."""
    if not path.is_file():
        return
    for cell in notebook_file.read(path).cells:
        times: Mapping[str, Any] = cell.metadata.get("papermill", {})
        if cell.cell_type == "code" and times.get("start_time") and times.get("end_time"):
            began, ended = (datetime.fromisoformat(times[name]) for name in ("start_time", "end_time"))
            yield (
                f"cell: {cell.source.strip().splitlines()[-1] if cell.source.strip() else ''}",
                (ended - began).total_seconds(),
            )
