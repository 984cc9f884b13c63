"""systemd units: rendered from the templates, checked by systemd-analyze on the node."""

from __future__ import annotations

import re
from functools import cache
from shlex import quote
from typing import TYPE_CHECKING

import jinja2

from runbook import show
from runbook.plain_text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runbook.fleet import Fleet
    from runbook.params import Node

_COLUMNS = ["node", "unit", "ok", "exposure", "path", "why", "remedy"]


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("runbook", "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - unit files, not HTML; params refuse what systemd would read otherwise
    )


def render(template: str, **settings: object) -> bytes:
    """Render a unit template; a setting that is missing is an error, never an empty flag."""
    return _templates().get_template(template).render(**settings).encode()


def files(fleet: Fleet, nodes: Iterable[Node], path: str) -> show.Table:
    """Ask each node's systemd about a unit file.

    Returns:
        One row a node: node, unit, ok, exposure (`systemd-analyze security`, 0 best to 10), path, why, remedy.
    """
    unit = path.rsplit("/", 1)[-1]
    script = f"""
[ -f {quote(path)} ] || {{ echo 'there is no such file' >&2; exit 1; }}
systemd-analyze security --no-pager {quote(unit)} 2>/dev/null | grep -o 'level for [^ ]*: [0-9.]*' || true
systemd-analyze verify {quote(path)}
"""
    rows = []
    for outcome in fleet.run(script, what=f"systemd-analyze verify {path}", nodes=nodes).values():
        done = outcome.value
        # verify follows what the unit wants: only its own lines count, not those of the distribution's units.
        said = [line for line in printable(done.stderr).splitlines() if unit in line or path in line] if done else []
        why = "; ".join(said) if done else outcome.error.message if outcome.error else ""
        if done and done.status and not why:
            why = printable(done.stderr, 300)
        exposure = re.search(r": ([0-9.]+)", done.text) if done else None
        rows.append(
            {
                "node": outcome.node.name,
                "unit": unit,
                "ok": not why,
                "exposure": float(exposure[1]) if exposure else None,
                "path": path,
                "why": why,
                "remedy": "run the units phase again; `systemctl cat` shows what systemd reads" if why else "",
            }
        )
    return show.table(rows, _COLUMNS, f"{unit} on the nodes, as their systemd reads it")
