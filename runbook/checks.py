"""Hold a table against what is expected of it: failing rows first, the cause and the remedy in each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runbook import errors, show

if TYPE_CHECKING:
    import pandas as pd

#: Columns that say which row it is.
_NAMES = ("node", "endpoint", "check", "unit", "lease", "to", "network", "path")


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
    failing = table[~table[ok].isin([True])]  # an empty cell is no yes
    if len(failing) == 0:
        return table
    show.display(table)
    lines = []
    for row in show.rows(failing):
        told = {name: value for name, value in row.items() if isinstance(value, str) and value}
        names = [told[name] for name in _NAMES if name in told]
        line = f"{' '.join(names)}: {told.get('why', 'does not hold')}"
        lines.append(line + (f"\n    -> {told['remedy']}" if "remedy" in told else ""))
    if "check" not in table.columns:  # preflight's checks are causes themselves
        lines += _causes(table)
    raise errors.CheckFailed("\n".join([f"expected that {claim}; {len(failing)} of {len(table)} rows don't:", *lines]))


def _causes(table: pd.DataFrame) -> list[str]:
    """What a look at the nodes finds behind it."""
    from runbook.diagnosis import explain  # noqa: PLC0415 - only where something failed

    columns = [name for name in ("node", "to") if name in table.columns]
    return explain.failed_check(
        {row[name] for row in show.rows(table) for name in columns if isinstance(row[name], str)}
    )
