"""`runbook sandbox`: the practice cluster from a terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from runbook.errors import SandboxError
from runbook.sandbox import params_file
from runbook.sandbox.cluster import NodeStatus, Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    name="sandbox",
    help="The practice cluster: Debian nodes on this machine, with a real systemd, sshd and kernel network.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_console = Console(highlight=False)

_Name = Annotated[str, typer.Option("--name", hidden=True, help="Another practice cluster's name.")]
_Slot = Annotated[int, typer.Option("--slot", hidden=True, help="Its block of 198.18.0.0/23, 0 to 7.")]
_Node = Annotated[str, typer.Argument(help="node1, node2, ...")]

_SHIPPED = ("~/.local/state/runbook/practice/sandbox", 3)
"""Where params/sandbox.yaml looks for the key, and how many nodes it has."""


def _say(line: str) -> None:
    _console.print(line, soft_wrap=True, markup=False)


@app.command()
def up(
    nodes: Annotated[int, typer.Option("--nodes", "-n", min=1, help="How many nodes.")] = 3,
    name: _Name = "sandbox",
    slot: _Slot = 0,
) -> None:
    """Start the practice cluster; what runs already is left as it is."""
    sandbox = Sandbox(name, slot, tell=_say)
    began = time.monotonic()
    before = {row.node: row.pid for row in sandbox.status()}
    with _console.status("starting nodes"):
        rows = sandbox.up(nodes)
    started = [row.node for row in rows if row.state == "running" and row.pid != before.get(row.node)]
    _show(rows)
    what = f"started {', '.join(started)}" if started else "all of it was up already"
    _say(f"{what} ({time.monotonic() - began:.1f} s)")
    if (sandbox.folder, slot, len(rows)) == (Path(_SHIPPED[0]).expanduser(), 0, _SHIPPED[1]):
        _say("next: runbook run params/sandbox.yaml")
    else:
        _say("params/sandbox.yaml does not fit it: runbook sandbox params -o FILE, then runbook run FILE")


@app.command()
def down(name: _Name = "sandbox", slot: _Slot = 0) -> None:
    """Remove the practice cluster: processes, mounts, namespaces, link, route and disks."""
    sandbox = Sandbox(name, slot)
    began = time.monotonic()
    count = len(sandbox.status())
    with _console.status("removing nodes"):
        sandbox.down()
    nodes = "1 node" if count == 1 else f"{count} nodes"
    _say(f"removed {nodes} ({time.monotonic() - began:.1f} s); the SSH key and the base image stay")


@app.command()
def status(name: _Name = "sandbox", slot: _Slot = 0) -> None:
    """Show the nodes."""
    rows = Sandbox(name, slot).status()
    if rows:
        _show(rows)
    else:
        _say("there is no practice cluster; next: runbook sandbox up")


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def ssh(
    node: _Node,
    command: Annotated[list[str] | None, typer.Argument(help="What to run there; a shell when left out.")] = None,
    name: _Name = "sandbox",
    slot: _Slot = 0,
) -> None:
    """Log in to a node as root, or run a command there."""
    words = command or []
    Sandbox(name, slot).ssh(node, *(words[1:] if words[:1] == ["--"] else words))


@app.command()
def params(
    nodes: Annotated[int | None, typer.Option("--nodes", "-n", min=1, help="How many; those there by default.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A new file; the terminal by default.")] = None,
    name: _Name = "sandbox",
    slot: _Slot = 0,
) -> None:
    """Write a params file for this practice cluster."""
    text = params_file.text(Sandbox(name, slot).params(nodes))
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise SandboxError("exists already", subject=str(output), remedy="give -o a new file's name") from error
    except OSError as error:
        raise SandboxError(f"can't be written: {error.strerror}", subject=str(output)) from error
    _say(f"wrote {output}; next: runbook run {output}")


@app.command()
def stop(node: _Node, name: _Name = "sandbox", slot: _Slot = 0) -> None:
    """Cut a node's power; its disk stays, and `up` starts it again."""
    Sandbox(name, slot).stop(node)
    _say(f"{node} is off; next: runbook sandbox up")


def _show(rows: Sequence[NodeStatus]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("node", "address", "state", "pid", "up_s"):
        table.add_column(heading, justify="right" if heading in {"pid", "up_s"} else "left")
    for row in rows:
        running = row.state == "running"
        style = "green" if running else "yellow"
        figures = (str(row.pid), f"{row.uptime_s:.0f}") if running else ("", "")
        table.add_row(row.node, row.address, f"[{style}]{row.state}[/]", *figures)
    _console.print(table)
    _say(f"disks: {rows[0].root.parents[1]}/NODE/root")
