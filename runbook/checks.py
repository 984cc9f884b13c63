"""Hold a table against what is expected of it: failing rows first, the cause and the remedy in each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runbook import errors, show

if TYPE_CHECKING:
    import pandas as pd

#: Columns that say which row it is.
_NAMES = ("node", "endpoint", "check", "unit", "lease", "to", "path")


def expect(table: pd.DataFrame, claim: str, *, ok: str = "ok") -> pd.DataFrame:
    """Return the table when every row holds; else show it and raise.

    Args:
        table: One row a thing that was looked at; its boolean column `ok` says whether it holds; `why` and `remedy`,
            where there, say what was found and what to do; the text columns left of them name the row.
        claim: What should hold, in words: "every endpoint is healthy".
        ok: The name of the boolean column.

    Raises:
        CheckFailed: rows don't hold, or there are none; the message has a line for each.
    """
    if len(table) == 0:
        raise errors.CheckFailed(f"expected that {claim}, but the table has no rows: nothing was there to look at")
    failing = table[~table[ok].astype(bool)]
    if len(failing) == 0:
        return table
    show.display(table)
    lines = []
    for row in show.rows(failing):
        names = [
            str(row[name]) for name in ("node", "endpoint", "check", "unit", "lease", "to", "path") if row.get(name)
        ]
        line = f"{' '.join(names)}: {row.get('why') or 'does not hold'}"
        lines.append(line + (f"\n    -> {row['remedy']}" if row.get("remedy") else ""))
    raise errors.CheckFailed("\n".join([f"expected that {claim}; {len(failing)} of {len(table)} rows don't:", *lines]))
