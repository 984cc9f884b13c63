"""`runbook`: the phases from a terminal.

Exit status: 0 done; 1 a check or a change failed; 2 bad params or usage; 3 approval needed; 4 a node can't be reached
or refused us.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from runbook import errors, params, show
from runbook.commands.diagnose import register as register_diagnose
from runbook.commands.records import Records, Sign, local_root
from runbook.commands.records import register as register_records
from runbook.commands.run import count, record_run, say_warning
from runbook.plain_text import clean
from runbook.sandbox.cli import app as sandbox_app

if TYPE_CHECKING:
    from runbook.fleet import Fleet
    from runbook.phases import Phase
    from runbook.records import resume as resuming

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(sandbox_app, name="sandbox")
register_records(app)
register_diagnose(app)
_out = show.console()
_Params = Annotated[Path, typer.Argument(metavar="PARAMS", help="A params file, such as params/sandbox.yaml.")]
_Phases = Annotated[str, typer.Option("--phases", help="Only these, as in 03-05,11.")]
_Json = Annotated[bool, typer.Option("--json", help="For scripts: JSON on standard output.")]


@app.command()
def run(
    path: _Params,
    *,
    approve: Annotated[bool, typer.Option("--approve", help="Apply every plan without asking.")] = False,
    only: _Phases = "",
    first: Annotated[int, typer.Option("--from", min=0, max=11, help="Begin with this phase.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the newest record's run broke off.")] = False,
    accept_changes: Annotated[bool, typer.Option("--accept-changes", help="Resume though params differ.")] = False,
    take_over: Annotated[bool, typer.Option("--take-over", help="Take the stale lock of a run that is gone.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time went.")] = False,
    records: Records = "records",
    sign: Sign = None,
) -> None:
    """Execute the notebooks in order by papermill; each is saved, also when it fails."""
    from runbook import pipeline  # noqa: PLC0415, I001 - `--help` need not import them
    from runbook.records import record_list, resume as resuming  # noqa: PLC0415 - `--help` need not import them

    cluster = params.load(path)
    _warn(cluster)
    chosen, continues = _chosen(only, first), None
    if resume and (only or first):
        raise errors.UsageError("says where to begin itself: without --phases and --from", subject="--resume")
    if resume:
        newest = record_list.newest(local_root(records, cluster), cluster.name)
        going_on = resuming.resumption(newest, cluster, accept_changes=accept_changes)
        chosen, continues = going_on.chosen, going_on.record.name
        _out.print(f"resuming {continues} at phase {chosen[0].number:02d}")
        _say_what_no_longer_holds(path, going_on)
    options = pipeline.Options(
        approve=approve or params.load_approve(path), sign_key=sign or params.load_sign_key(path),
        continues=continues, take_over=take_over,
    )  # fmt: skip
    record_run(path, cluster, chosen, records, options, profile=profile)


def _chosen(only: str, first: int) -> tuple[Phase, ...]:
    from runbook import phases  # noqa: PLC0415 - as above

    chosen = tuple(phase for phase in phases.select(only) if phase.number >= first)
    if not chosen:
        raise errors.UsageError(f"none of the phases {only} comes after {first}", subject="--from")
    return chosen


def _say_what_no_longer_holds(path: Path, going_on: resuming.Resumption) -> None:
    from runbook.fleet import connect  # noqa: PLC0415
    from runbook.records import resume as resuming  # noqa: PLC0415 - as above

    for phase, what, rows in resuming.no_longer_hold(connect(path, partial=True), going_on.earlier):
        _out.print(f"[yellow]![/] phase {phase.number:02d} passed then and no longer holds: {escape(clean(what))}")
        if rows is not None:
            _out.print(show.terminal_table(rows))


@app.command()
def plan(path: _Params, *, only: _Phases = "", as_json: _Json = False) -> None:
    """Show what each phase would change; nothing is changed."""
    from runbook import phases  # noqa: PLC0415 - as above

    chosen = [phase for phase in phases.select(only) if phase.plan]
    fleet = _connect(path)
    plans = [(phase, phase.plan(fleet)) for phase in chosen if phase.plan]
    if as_json:
        made = [{"phase": f"{phase.number:02d} {phase.title}", **one.as_dict()} for phase, one in plans]
        sys.stdout.write(json.dumps({"cluster": fleet.cluster.name, "plans": made}, indent=2) + "\n")
        return
    for phase, one in plans:
        _out.print(f"\n[bold]{phase.number:02d} {phase.title}[/]")
        if one.empty:
            _out.print(escape(one.headline))
        else:
            _out.print(show.terminal_table(one.table()))
        for change in one.changes:
            if change.diff:
                _out.print(escape(clean(change.diff)))
        for note in one.notes:
            _out.print(f"note: {escape(clean(note))}")
    changes = sum(len(one.changes) for _, one in plans)
    told = (
        f"{count(changes, 'change')} in {count(len(plans), 'phase')}; none was made" if changes else "nothing to change"
    )
    _out.print(f"\n{told}")


@app.command()
def status(
    path: _Params,
    *,
    only: _Phases = "",
    as_json: _Json = False,
    records: Records = "",
    sign: Sign = None,
) -> None:
    """Show the verify tables of the phases; nothing is changed. Exit status 1 when a row does not hold."""
    from runbook import phases, pipeline  # noqa: PLC0415 - as above

    if records:
        looking = tuple(phase for phase in phases.select(only) if phase.plan is None)
        options = pipeline.Options(kind="status", sign_key=sign or params.load_sign_key(path))
        record_run(path, params.load(path), looking, records, options)
        return
    fleet = _connect(path, partial=True)
    tables: list[tuple[Phase, show.Table]] = []
    failed: list[errors.RunbookError] = []
    for phase in phases.select(only):
        try:
            tables += [(phase, table) for table in phase.verify(fleet)]
        except errors.RunbookError as error:
            failed.append(error)
            if not as_json:
                _out.print(f"{phase.number:02d} {phase.title}: [red]✗[/] {escape(clean(str(error)))}")
    if as_json:
        rows = [
            {"phase": f"{phase.number:02d} {phase.title}", "caption": table.caption, "rows": show.json_rows(table)}
            for phase, table in tables
        ]
        told = {"cluster": fleet.cluster.name, "tables": rows, "errors": [clean(str(error)) for error in failed]}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        for _, table in tables:
            _out.print(show.terminal_table(table) if len(table) else escape(table.caption))
    good = not failed and all(bool(table["ok"].all()) for _, table in tables if "ok" in table.columns)
    raise typer.Exit(0 if good else max([1, *(error.exit_status for error in failed)]))


@app.command("phases")
def list_phases() -> None:
    """List the phases."""
    from runbook import phases  # noqa: PLC0415 - as above

    listed = RichTable("phase", "notebook", "changes nodes")
    for phase in phases.PHASES:
        listed.add_row(f"{phase.number:02d} {phase.title}", phase.notebook, "yes" if phase.plan else "no")
    _out.print(listed)


@app.command()
def trust(path: _Params, *, yes: Annotated[bool, typer.Option("--yes", help="Accept without asking.")] = False) -> None:
    """Show the nodes' host keys that are not known yet, and add them to known_hosts when you say so."""
    from runbook.transport import hostkeys  # noqa: PLC0415 - as above

    cluster = params.load(path)
    keys = hostkeys.look(cluster)
    _out.print(show.terminal_table(hostkeys.table(keys)))
    if changed := [key for key in keys if key.state == "changed"]:
        raise errors.HostKeyMismatch(
            f"other keys than the known ones: {', '.join(key.node for key in changed)}",
            remedy="if these machines were set up anew, remove the old keys with `ssh-keygen -R`, then run this again",
        )
    unknown = [key for key in keys if key.state == "unknown"]
    if not unknown:
        _out.print("every host key is known")
    elif yes or typer.confirm(f"Accept {len(unknown)} host keys? Compare the fingerprints on the nodes' own consoles"):
        hostkeys.accept(cluster, unknown)
        _out.print(f"added to {escape(str(cluster.ssh.known_hosts))}")
    else:
        raise typer.Exit(4)


def _connect(path: Path, *, partial: bool = False) -> Fleet:
    from runbook.fleet import connect  # noqa: PLC0415 - as above

    _warn(params.load(path))
    return connect(path, partial=partial)


def _warn(cluster: params.Cluster) -> None:
    for warning in cluster.warnings:
        say_warning(warning)


def main() -> None:
    """Run the command line; what an operator can mend is a message, never a traceback."""
    # `kill` ends a run as Ctrl-C does: its record is closed and its lock released.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except errors.RunbookError as error:
        show.console(stderr=True).print(f"[red]{type(error).__name__}[/]: {escape(clean(str(error)))}\n  {error.see}")
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
