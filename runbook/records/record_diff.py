"""What differs between two runs: params, versions, binaries, phases, closing tables and the notebooks.

What every run measures anew (times, round trips, counters) is left out unless asked for; that a measured value is
there in one run and missing in the other is always told.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runbook import errors, show
from runbook.plain_text import clean
from runbook.records import notebook_diff, summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

COLUMNS = ("row", "difference", "column", "old", "new")
_RUN = ("cluster", "kind", "operator", "approve", "outcome", "secrets_removed")
_TIMES = ("started", "ended", "continues")
_BINARY_KEY = ("node", "path")
_PHASE_KEY = ("number", "name")
_PHASE = ("outcome", "changes", "plan", "error")


@dataclass(frozen=True)
class Section:
    """One thing that differs: a table of rows and cells, or a unified diff as text; the other is None or ""."""

    title: str
    table: show.Table | None = None
    text: str = ""

    def __str__(self) -> str:
        if self.table is None:
            return f"{self.title}\n{self.text}"
        return "\n".join(line.rstrip() for line in show.table_text(self.table).splitlines())


def diff(old: Path, new: Path, *, times: bool = False) -> list[Section]:
    """Say what differs between two records; an empty list where nothing does.

    Args:
        old: One record's folder.
        new: The other's.
        times: Also what every run measures anew: times, round trips, counters.

    Raises:
        RunbookError: one of them is no record.
    """
    before, after = summary.load(old), summary.load(new)
    names = (old.name, new.name) if old.name != new.name else (str(old), str(new))
    try:
        tables = [
            _table("run", "", _run(before, times=times), _run(after, times=times), times=times),
            _table("versions", "", {"": _versions(before)}, {"": _versions(after)}, times=times),
            _table("binaries", "", *(_keyed(one["binaries"], _BINARY_KEY) for one in (before, after)), times=times),
            _table("phases", "", *(_phases(one, times=times) for one in (before, after)), times=times),
            *(
                _table(f"table {key}", _caption(before, after, key), *_closing(before, after, key), times=times)
                for key in {**before["tables"], **after["tables"]}
            ),
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        told = f"summary.json of one of them is none of this version: {type(error).__name__}: {error}"
        raise errors.RunbookError(told, subject=f"{names[0]}, {names[1]}") from error
    notebooks = [Section(f"notebook {name}", text=text) for name, text in notebook_diff.diff(old, new, times=times)]
    return [*_params(old, new, names), *(section for section in tables if section), *notebooks]


def text(old: Path, new: Path, *, times: bool = False) -> str:
    """The same as text for a terminal; says in words that nothing differs.

    Raises:
        RunbookError: one of them is no record.
    """
    found = diff(old, new, times=times)
    title = f"{clean(old.name)} -> {clean(new.name)}"
    if not found:
        return f"{title}: nothing differs" + ("" if times else " but times and what else every run measures anew")
    return "\n\n".join([title, *map(str, found)])


def _params(old: Path, new: Path, names: tuple[str, str]) -> list[Section]:
    texts = []
    for folder in (old, new):
        try:
            texts.append((folder / "params.yaml").read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            texts.append(f"# params.yaml can't be read: {error.strerror}\n")
    lines = difflib.unified_diff(texts[0].splitlines(), texts[1].splitlines(), names[0], names[1], lineterm="")
    told = "\n".join(map(clean, lines))
    return [Section("params", text=told)] if told else []


def _run(read: Mapping[str, Any], *, times: bool) -> dict[str, dict[str, Any]]:
    row = {name: read[name] for name in (_RUN + _TIMES if times else _RUN)}
    row["operator"] = f"{row['operator']['user']}@{row['operator']['host']}"
    return {"": row}


def _versions(read: Mapping[str, Any]) -> dict[str, Any]:
    tool = read["tool"]
    return {tool["name"]: tool["version"], "python": tool["python"], **tool["packages"], **read["versions"]}


def _phases(read: Mapping[str, Any], *, times: bool) -> dict[str, dict[str, Any]]:
    columns = (*_PHASE, "took_s") if times else _PHASE
    rows = _keyed(read["phases"], _PHASE_KEY)
    made = {key: {name: row[name] for name in columns} for key, row in rows.items()}
    for row in made.values():
        if row["error"] is not None:
            row["error"] = f"{row['error']['name']}: {row['error']['text']}"
    return made


def _caption(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> str:
    kept = after["tables"].get(key) or before["tables"].get(key)
    return str(kept["caption"]) if kept else ""


def _closing(
    before: Mapping[str, Any], after: Mapping[str, Any], key: str
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """A closing table's rows of both runs by key column, or by as many columns as it takes to tell rows apart."""
    both = [_rows(one["tables"].get(key)) for one in (before, after)]
    columns = list(both[1][0] if both[1] else both[0][0] if both[0] else ())
    width = next((n for n in range(1, len(columns)) if all(_unique(rows, columns[:n]) for rows in both)), len(columns))
    first, second = (_keyed(rows, columns[:width]) for rows in both)
    return first, second


def _rows(kept: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [dict(zip(kept["columns"], row, strict=True)) for row in kept["data"]] if kept else []


def _unique(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bool:
    return len({_key(row, columns) for row in rows}) == len(rows)


def _key(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    return " ".join(_shown(row.get(name)) for name in columns)


def _keyed(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows by the text of their key columns, which are then no cells of them."""
    return {_key(row, columns): {name: row[name] for name in row if name not in columns} for row in rows}


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(
    title: str,
    caption: str,
    old: Mapping[str, Mapping[str, Any]],
    new: Mapping[str, Mapping[str, Any]],
    *,
    times: bool,
) -> Section | None:
    """Rows added and removed, and cells changed; None where there is none of them."""
    told: list[dict[str, str]] = []
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in new or key not in old:
            row = old.get(key) or new.get(key) or {}
            cells = "; ".join(f"{name} {_shown(value)}" for name, value in row.items() if value not in (None, ""))
            side = ("removed", "old") if key in old else ("added", "new")
            told.append({"row": key, "difference": side[0], side[1]: cells})
            continue
        for name in [*old[key], *(name for name in new[key] if name not in old[key])]:
            before, after = old[key].get(name), new[key].get(name)
            measured = not times and notebook_diff.is_measured(name, caption)
            if before != after and not (measured and before is not None and after is not None):
                change = {"column": name, "old": _shown(before), "new": _shown(after)}
                told.append({"row": key, "difference": "changed", **change})
    return Section(title, show.table(told, COLUMNS, f"{title}: {caption}" if caption else title)) if told else None
