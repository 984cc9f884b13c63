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
    outcomes = fleet.run(_script(path, unit), what=f"systemd-analyze verify {path}", nodes=nodes)
    rows = []
    for outcome in outcomes.values():
        done = outcome.value
        # verify follows what the unit wants: only its own lines count, not those of the distribution's units.
        said = [line for line in printable(done.stderr).splitlines() if unit in line or path in line] if done else []
        why = "; ".join(said) if done else outcome.error.message if outcome.error else ""
        if done and done.status and not why:
            why = printable(done.stderr, 300)
        exposure = re.search(r"level for \S+: ([0-9.]+)", done.text) if done else None
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


def _script(path: str, unit: str) -> str:
    """The sh that prints what `systemd-analyze` says of a unit file, complaints on stderr.

    The unit alone is verified where systemd can do that (250 and later). To resolve what it depends on takes thrice the
    time, what is said of the distribution's units counts for nothing here, and what ours want is systemd's own.
    """
    file, name = quote(path), quote(unit)
    return f"""
[ -f {file} ] || {{ echo 'there is no such file' >&2; exit 1; }}
rb_said=$(systemd-analyze security --no-pager {name} 2>/dev/null)
echo "level for ${{rb_said##*level for }}"
rb_said=$(systemd-analyze verify --recursive-errors=no {file} 2>&1)
rb_status=$?
case "$rb_said" in
  *"unrecognized option"*) systemd-analyze verify {file} ;;
  *) printf '%s' "$rb_said" >&2; exit $rb_status ;;
esac
"""
