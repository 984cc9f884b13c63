"""`runbook diagnose`: why a cluster, whoever built it, does not do as it should."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from runbook import show

_out = show.console()
_Params = Annotated[Path, typer.Argument(metavar="PARAMS", help="A params file, such as params/sandbox.yaml.")]
_Json = Annotated[bool, typer.Option("--json", help="For scripts: JSON on standard output.")]


def diagnose(path: _Params, *, as_json: _Json = False) -> None:
    """Look for causes on all nodes, each with its remedy; nothing is changed. Exit status 1 when some were found."""
    from runbook import diagnose as causes  # noqa: PLC0415 - `--help` need not import it
    from runbook.fleet import connect  # noqa: PLC0415

    fleet = connect(path, partial=True)
    try:
        found = causes.diagnose(fleet)
    finally:
        fleet.close()
    if as_json:
        told = {"cluster": fleet.cluster.name, "causes": show.json_rows(found)}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        _out.print(show.terminal_table(found.drop(columns="ok")) if len(found) else found.caption)
    raise typer.Exit(1 if len(found) else 0)


def register(app: typer.Typer) -> None:
    """Add the command to the main command line."""
    app.command()(diagnose)
