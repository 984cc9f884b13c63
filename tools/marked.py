"""Text that a program writes into docs/reliability.md, between two marks that stay."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"


def put(name: str, text: str) -> None:
    """Put the text between the marks of this name; what else is on the page stays as it is.

    Raises:
        ValueError: the page has no such marks.
    """
    begin, end = f"<!-- {name}: made by make {name} -->", f"<!-- {name}: end -->"
    page = PAGE.read_text(encoding="utf-8")
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{PAGE} has no place for {name}: {begin} and {end}")
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
