"""`runbook records`, `verify`, `diff`, `jupyter`, `close`: what past runs left, and stepping through with a record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from runbook import errors, params, show

_out = show.console()
_Root = Annotated[Path, typer.Option("--records", help="Where the records are.")]
_Record = Annotated[Path, typer.Argument(metavar="RECORD", help="A record's folder.")]
_Folders = Annotated[list[Path] | None, typer.Argument(metavar="[RECORD]...", help="Records; all by default.")]
_Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PARAMS] [-- OPTIONS]",
        help="A params file, by default the practice cluster's; after -- what is handed to jupyter lab.",
    ),
]
Records = Annotated[str, typer.Option("--records", help="Where records go: a folder, or an address such as s3://…")]
Sign = Annotated[Path | None, typer.Option("--sign", metavar="KEY", help="Sign with this SSH key, or an agent's .pub.")]


def local_root(records: str, cluster: params.Cluster) -> Path:
    """Where records lie on this side: the folder itself, or, for an address elsewhere, the cluster's state folder."""
    from runbook import state  # noqa: PLC0415 - `--help` need not import fsspec
    from runbook.records import upload  # noqa: PLC0415 - `--help` need not import fsspec

    return state.cluster_dir(cluster) / "records" if upload.is_remote(records) else Path(records)


def records(
    path: Annotated[Path | None, typer.Argument(metavar="[PARAMS]", help="Only this cluster's.")] = None,
    *,
    root: _Root = Path("records"),
) -> None:
    """List past runs."""
    from runbook.records import record_list  # noqa: PLC0415 - as above

    cluster = params.load(path).name if path else None
    table = record_list.records(root, cluster)
    _out.print(show.terminal_table(table) if len(table) else f"no records in {escape(str(root))}")


def verify(
    folders: _Folders = None,
    *,
    allowed_signers: Annotated[Path | None, typer.Option(help="Whose signatures count (ssh-keygen(1)).")] = None,
    root: _Root = Path("records"),
) -> None:
    """Check records: sums, chain, signature, and that every phase really ran; exit status 1 where one does not hold."""
    from runbook.records import record_list  # noqa: PLC0415 - as above
    from runbook.records import verify as checks  # noqa: PLC0415

    table = checks.verify(folders or record_list.folders(root), allowed_signers=allowed_signers)
    _out.print(show.terminal_table(table) if len(table) else f"no records in {escape(str(root))}")
    raise typer.Exit(0 if len(table) and bool(table["ok"].all()) else 1)


def diff(old: _Record, new: _Record) -> None:
    """Show what differs between two runs."""
    from runbook.records import record_diff  # noqa: PLC0415 - as above

    _out.print(record_diff.text(old, new), markup=False)


def jupyter(words: _Words = None, *, root: _Root = Path("records")) -> None:
    """Open JupyterLab on a copy of the notebooks in a new record's folder, this cluster's params set."""
    from runbook import phases  # noqa: PLC0415 - as above
    from runbook.jupyter import stepped  # noqa: PLC0415 - as above

    options = list(words or [])
    named = bool(options) and not options[0].startswith("-")
    path = Path(options.pop(0)) if named else phases.notebooks_dir().parent / "params" / "sandbox.yaml"
    if not named and not path.is_file():
        raise errors.UsageError("there is no checkout with params/sandbox.yaml here", remedy="runbook jupyter PARAMS")
    folder = stepped.prepare(path, params.load(path), root)
    _out.print(f"stepping through in {escape(str(folder))}; when done: runbook close {escape(str(folder))}")
    raise typer.Exit(stepped.open_lab(folder, options=tuple(options)))


def close(folder: _Record, *, sign: Sign = None) -> None:
    """Close a record that was stepped through, or whose run was killed: pages, sums, chain, signature."""
    from runbook.records import closing  # noqa: PLC0415 - as above

    told = closing.close(folder.resolve(), sign_key=sign)
    _out.print(f"closed: {told['outcome']}, {len(told['phases'])} phases. {escape(str(folder))}/index.html")


def upload(folder: _Record, address: Annotated[str, typer.Argument(metavar="ADDRESS", help="As in s3://…")]) -> None:
    """Copy a closed record to an address, and read it back; what is there already is not sent again."""
    from runbook.records import upload as uploads  # noqa: PLC0415 - as above

    uploads.upload(folder.resolve(), address)
    _out.print(f"uploaded to {escape(uploads.shown(address))}, and read back whole")


def register(app: typer.Typer) -> None:
    """Add these commands to the main command line."""
    for command in (records, verify, diff, jupyter, close, upload):
        app.command()(command)
