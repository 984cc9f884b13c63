"""`runbook run` and `runbook status --records` on a terminal: how a run goes, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from runbook import errors, show
from runbook.commands.records import local_root
from runbook.plain_text import clean

if TYPE_CHECKING:
    from pathlib import Path

    from runbook import params, pipeline
    from runbook.phases import Phase
    from runbook.pipeline import PhaseRun

_out = show.console()


def record_run(
    path: Path,
    cluster: params.Cluster,
    chosen: tuple[Phase, ...],
    records: str,
    options: pipeline.Options,
    *,
    profile: bool = False,
) -> None:
    """Run the phases, say how it goes, and upload the record where it is wanted elsewhere."""
    from runbook import pipeline, record  # noqa: PLC0415 - as in cli
    from runbook.journal import follow  # noqa: PLC0415
    from runbook.records import upload  # noqa: PLC0415 - as in cli

    folder = record.new_folder(local_root(records, cluster), cluster)
    with (
        _out.status("") as status,
        follow(record.journal_path(folder), lambda text: status.update(escape(clean(text)))),
    ):
        runs = pipeline.run(
            path, cluster, chosen, folder, options, report=_progress_line,
            started=lambda phase: status.update(f"{phase.number:02d} {phase.title}"), warn=say_warning,
        )  # fmt: skip
    _closing(runs, chosen, folder)
    if profile:
        from runbook.records import run_profile  # noqa: PLC0415 - as in cli

        for table in run_profile.tables(folder):
            _out.print(show.terminal_table(table))
    if upload.is_remote(records):
        upload.upload(folder, records)
        _out.print(f"uploaded to {escape(upload.shown(records))}, and read back whole")
    if runs and not runs[-1].ok:
        raise typer.Exit(runs[-1].exit_status)


def _progress_line(done: PhaseRun) -> None:
    changes = done.executed.changes
    if done.exit_status == errors.ApprovalRequired.exit_status:
        outcome = "[yellow]! approval needed[/]"
    elif not done.ok:
        outcome = "[red]✗ failed[/]"
    elif changes is None:
        outcome = "[green]✓ looked[/]"
    else:
        outcome = f"[green]✓ {changes} changed[/]" if changes else "[green]✓ nothing to change[/]"
    _out.print(f"{done.phase.number:02d} {done.phase.title:<21} {outcome:<36} {done.took_s:5.1f} s")


def _closing(runs: list[PhaseRun], chosen: tuple[Phase, ...], folder: Path) -> None:
    """Print endpoints, leases and mesh as the notebooks found them, the totals, and what failed."""
    from runbook import record  # noqa: PLC0415 - as in cli

    wanted = {5: ("etcd endpoints",), 10: ("Leases under",), 11: ("overlay: rtt_ms",)}
    for done in runs:
        for table in done.executed.kept:
            if done.ok and table["caption"].startswith(wanted.get(done.phase.number, ("-",))):
                _out.print(show.terminal_table(record.without(table, "why", "remedy", "raft_index")))
    changed = sum(done.executed.changes or 0 for done in runs)
    took = sum(done.took_s for done in runs)
    last = runs[-1]
    if last.ok:
        what = f"{count(changed, 'change')} made" if changed else "nothing was to change"
        _out.print(f"[green]✓[/] {count(len(runs), 'phase')}, {what}, {took:.0f} s. Records: {escape(str(folder))}")
        return
    approval = last.exit_status == errors.ApprovalRequired.exit_status
    if approval and last.executed.plan:
        _out.print(show.terminal_table(show.plan_table(last.executed.plan["title"], last.executed.plan["changes"])))
    _out.print(f"\n{escape(last.ename)}: {escape(clean(last.evalue))}")
    if told := errors.see(last.ename, last.evalue):
        _out.print(f"  {told}")
    if approval:
        _out.print("  -> or, to apply every plan of this and the phases after it: runbook run PARAMS --approve")
    left = len(chosen) - len(runs)
    _out.print(f"\nStopped at phase {last.phase.number:02d}, {left} not begun. Record: {escape(str(last.path))}")


def count(number: int, what: str) -> str:
    """A number and what it counts, in the plural where it is not 1."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def say_warning(text: str) -> None:
    """Warn on standard error."""
    show.console(stderr=True).print(f"warning: {escape(text)}")
