"""Where a page of a record may lead: to pages that are, or will be, beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runbook.records import execution, summary

if TYPE_CHECKING:
    from pathlib import Path

_PAGE = re.compile(r'<a href="(?P<page>[0-9]{2}_\w+)\.html(?:#[^"]*)?">(?P<text>.*?)</a>', re.DOTALL)
#: The docs of the checkout that a notebook was run from: no record has them.
_OUTSIDE = re.compile(r'<a href="\.\./docs/[^"]*">(?P<text>.*?)</a>', re.DOTALL)


def notebooks(path: Path, *, passed: bool) -> set[str] | None:
    """The phases whose pages a page may link to, without suffix; None where no summary tells, and any may be there.

    A run stops at the first phase that did not pass, so none after it will have a page. A record that is stepped
    through keeps the notebooks that ran.

    Args:
        path: The executed notebook.
        passed: Whether its phase has passed.
    """
    try:
        told = execution.loaded(path.parent / summary.NAME)
        names = {str(row["notebook"]) for row in execution.phases(told)}
        if told["kind"] == "stepped":
            names = {name for name in names if _ran(path.parent / name)}
        elif not passed:
            names = {name for name in names if name <= path.name}
    except (KeyError, ValueError, OSError):
        return None
    return {name.removesuffix(".ipynb") for name in names}


def _ran(path: Path) -> bool:
    return path.is_file() and bool(execution.notebook(path).ran)


def living(html: str, there: set[str] | None) -> str:
    """A page's HTML, the text of each link that would lead nowhere standing alone."""
    html = _OUTSIDE.sub(r"\g<text>", html)
    if there is None:
        return html
    return _PAGE.sub(lambda link: link[0] if link["page"] in there else link["text"], html)
