"""Run the phases in order by papermill, headless; stop at the first that fails; leave a record, closed in any case."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runbook import errors, fleet, lock, lock_script, phases, record
from runbook.journal import Journal
from runbook.jupyter import forked
from runbook.late import at_once
from runbook.pages import timeline
from runbook.pages.rendering import Rendering
from runbook.records import evidence, redact, saving, summary
from runbook.transport import broker, brokered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from runbook.params import Cluster
    from runbook.phases import Phase

#: The name under which papermill knows our engine.
ENGINE = "runbook"
#: A cell that takes longer than this hangs: the longest wait of its own is a start, 2 minutes a node in a roll.
CELL_TIMEOUT_S = 1800


@dataclass(frozen=True)
class PhaseRun:
    """What came of one phase; ename and evalue are "" and exit_status is 0 where it passed."""

    phase: Phase
    path: Path
    executed: record.Executed
    ename: str
    evalue: str
    exit_status: int
    took_s: float

    @property
    def ok(self) -> bool:
        """Whether every cell ran and none failed."""
        return self.exit_status == 0


def exit_status(ename: str) -> int:
    """The exit status of an error that ended a notebook, by its name; 1 for one that is not ours."""
    kind = getattr(errors, ename, None)
    known = isinstance(kind, type) and issubclass(kind, errors.RunbookError)
    return kind.exit_status if known and kind is not None else 1


@dataclass(frozen=True)
class Options:
    """How a run is made.

    Attributes:
        approve: What the notebooks get: False, True or a plan's id.
        sign_key: The SSH key that signs the record.
        continues: The name of the record that this run resumes.
        take_over: Take the stale lock of a run that is gone.
        kind: run or status; one that only looks takes no lock.
    """

    approve: bool | str = False
    sign_key: Path | None = None
    continues: str | None = None
    take_over: bool = False
    kind: str = "run"


def run(
    params_file: Path,
    cluster: Cluster,
    chosen: Sequence[Phase],
    folder: Path,
    options: Options,
    *,
    report: Callable[[PhaseRun], None],
    started: Callable[[Phase], None] = lambda _phase: None,
    warn: Callable[[str], None] = lambda _text: None,
) -> list[PhaseRun]:
    """Execute the chosen phases' notebooks in order, and leave their record.

    Args:
        params_file: The params; every notebook gets its path.
        cluster: The same, read and checked.
        chosen: The phases.
        folder: The record's folder; each executed notebook is saved there as it goes, also when it fails.
        options: How.
        report: Called after each phase.
        started: Called before each phase.
        warn: Called with what the operator should know besides.

    Returns:
        One PhaseRun for each phase that was begun; the last one may have failed.

    Raises:
        LockHeld: another run is at work on the cluster; the record says so.
        RunbookError: the record could not be written, closed or signed.
    """
    told = summary.begin(cluster, options.kind, chosen, approve=options.approve, continues=options.continues)
    words = [cluster.name, cluster.ssh.user, *(node.name for node in cluster.nodes)]
    _ask_ahead(cluster)
    redactor = redact.Redactor(redact.known_secrets(os.environ), words=words)
    for note in redactor.notes:
        warn(note)
    parameters: dict[str, object] = {"cluster": str(params_file.resolve()), "approve": options.approve}
    runs: list[PhaseRun] = []
    with (
        recording(folder, told, redactor, options.sign_key) as pages,
        broker.serving(cluster) as connections,
        _token(options) as token,
        _executor(folder, len(chosen), parameters, redactor) as execute,
        _locked(cluster, folder, options, token),
    ):
        for phase, following in itertools.zip_longest(chosen, chosen[1:]):
            started(phase)
            runs.append(execute(phase, following))
            summary.add(told, runs[-1], timed=True)
            told["secrets_removed"] = redactor.count
            summary.save(folder, told)
            pages.page(runs[-1].path)
            report(runs[-1])
            if not runs[-1].ok:
                break
        Journal(str(record.journal_path(folder))).note("", "used SSH", detail=connections.told())
        summary.end(told, runs[-1].exit_status)
    return runs


def _ask_ahead(cluster: Cluster) -> None:
    """Ask for the passphrase of an encrypted CA key now: kernels have nobody to ask."""
    if cluster.pki.ca_key or cluster.pki.encrypt_key:
        from runbook import pki, state  # noqa: PLC0415 - cryptography takes its time, and few runs have a key to open

        pki.ask_ahead(cluster.pki, state.pki_dir(cluster, create=False))


@contextlib.contextmanager
def _token(options: Options) -> Iterator[str]:
    """Name the lock that is to be taken, for the kernels, the first of which starts meanwhile; "" for no lock."""
    if options.kind != "run":
        yield ""
        return
    os.environ[lock_script.TOKEN_VARIABLE] = token = secrets.token_hex(16)
    try:
        yield token
    finally:
        os.environ.pop(lock_script.TOKEN_VARIABLE, None)


@contextlib.contextmanager
def _locked(cluster: Cluster, folder: Path, options: Options, token: str) -> Iterator[None]:
    """Hold the cluster's lock over a run that may change it."""
    if not token:
        yield
        return
    connections = {node.name: brokered.connection(node, cluster.ssh) for node in cluster.nodes}
    nodes = fleet.Fleet(cluster, connections, Journal(str(record.journal_path(folder))))
    try:
        with lock.held(nodes, record=folder.name, token=token, take_over=options.take_over):
            yield
    except errors.Unreachable:
        yield  # nobody to lock: the run itself says which nodes don't answer, and leaves the record of it
    finally:
        nodes.close()


@contextlib.contextmanager
def recording(
    folder: Path, told: dict[str, Any], redactor: redact.Redactor, sign_key: Path | None
) -> Iterator[Rendering]:
    """Keep a record while the block runs, and close it (pages, sums, chain, signature) however the block ends.

    It yields what renders a notebook to HTML beside the run.
    """
    summary.save(folder, told)
    with Rendering(redactor, forked.serve) as pages:
        try:
            with _environment(folder):
                yield pages
        except BaseException:
            summary.end(told, 1)
            raise
        finally:
            if told["outcome"] == "running":
                summary.end(told, 1)
            _seal(folder, told, redactor, pages)
            evidence.close(folder, sign_key=sign_key)


def _seal(folder: Path, told: dict[str, Any], redactor: redact.Redactor, pages: Rendering) -> None:
    try:
        pages.wait()
        told["secrets_removed"] = redactor.count
        summary.save(folder, told)
        pages.index(folder, told, timeline.read(record.journal_path(folder)))
    except OSError as error:
        raise errors.RunbookError(
            f"the record can't be written: {error.strerror or error}; the run has {told['outcome']}",
            subject=str(folder),
            remedy=f"make room, then: runbook close {shlex.quote(str(folder))}",
        ) from error


@contextlib.contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Tell the kernels where the journal and their own messages go; an empty message file is not kept."""
    log = folder / "kernel.log"
    names: Mapping[str, str] = {"RUNBOOK_JOURNAL": str(record.journal_path(folder)), "RUNBOOK_KERNEL_LOG": str(log)}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        if log.is_file() and not log.stat().st_size:
            log.unlink()


@contextlib.contextmanager
def _executor(
    folder: Path, number: int, parameters: dict[str, object], redactor: redact.Redactor
) -> Iterator[Callable[[Phase, Phase | None], PhaseRun]]:
    """Give what executes a phase's notebook, told which phase follows; no kernel is left at the end."""
    with at_once():
        # What takes long, and `plan` and `status` don't need; a run's connections are being made meanwhile.
        from runbook.jupyter import formats  # noqa: PLC0415

        papermill = formats.papermill()
        from runbook.jupyter import engine, kernels  # noqa: PLC0415

    # A run that is interrupted leaves a task of nbclient's with an error that nobody asks for: asyncio would print it.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    saves = saving.Behind(redactor)
    papermill.iorw.papermill_io.register(saving.SCHEME, saves)
    engine.register()
    with kernels.Kernels(number, folder) as made:
        made.begin()
        formats.compile_schema()

        def execute(phase: Phase, following: Phase | None) -> PhaseRun:
            after = phases.notebooks_dir() / following.notebook if following else None
            told = {"parameters": parameters, "kernels": made, "saves": saves}
            told["following"] = lambda: engine.first_cells(after, parameters) if after else engine.FirstCells()
            return _execute(phase, folder, redactor, saves, told)

        yield execute


def _execute(
    phase: Phase, folder: Path, redactor: redact.Redactor, saves: saving.Behind, told: Mapping[str, object]
) -> PhaseRun:
    """Execute a phase's notebook; `told` is what papermill and our engine are told besides."""
    import papermill  # noqa: PLC0415 - by `_executor`, long ago

    output = folder / phase.notebook
    start = time.monotonic()
    ename = evalue = ""
    try:
        papermill.execute_notebook(
            phases.notebooks_dir() / phase.notebook,
            f"{saving.SCHEME}{output}",
            progress_bar=False,
            cwd=folder,
            engine_name=ENGINE,
            execution_timeout=CELL_TIMEOUT_S,
            **told,
        )
        saves.wait()
    except papermill.PapermillExecutionError as error:
        ename, evalue = error.ename, error.evalue
        saves.settle()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - a dead kernel, a full disk: the run has failed
        ename, evalue = type(error).__name__, redactor.text(str(error)) or "interrupted"
        saves.settle()
        with contextlib.suppress(OSError):
            if not output.is_file():  # it failed before papermill's first save: a record has every phase that was begun
                saving.write(output, (phases.notebooks_dir() / phase.notebook).read_text(encoding="utf-8"))
            saving.mark_failed(output, ename, evalue, redactor)
    took = time.monotonic() - start
    executed = record.read(output) if output.is_file() else record.Executed(False, "", "", 0, 0, (), None)  # noqa: FBT003
    ename, evalue = ename or executed.ename, evalue or executed.evalue
    if not executed.ok and not ename:
        ename, evalue = "NotExecuted", f"{executed.never_ran} cells never ran: the kernel died or was stopped"
    return PhaseRun(phase, output, executed, ename, redactor.text(evalue), exit_status(ename) if ename else 0, took)
