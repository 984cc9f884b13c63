"""How papermill executes a notebook of a run: on a kernel that waits for it, saved before each cell that works."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.iorw import load_notebook_node
from papermill.log import logger
from papermill.parameterize import parameterize_notebook

from runbook import pipeline
from runbook.records.notebook_file import PARAMETERS, sets_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from runbook.jupyter.kernels import Kernels
    from runbook.records.saving import Behind

#: A cell with such a call may change nodes; it begins when all before it is on the disk.
_CHANGES = ".apply("
#: When a cell began and ended, as nbclient notes it from the kernel's messages.
_BUSY, _IDLE = "iopub.status.busy", "iopub.status.idle"


@dataclass(frozen=True)
class FirstCells:
    """The cells that a notebook begins with.

    Attributes:
        sources: What they hold, to the first that may change nodes.
        parameters: How many of them, from the first on, hold parameters alone.
    """

    sources: Sequence[str] = ()
    parameters: int = 0


class _Saves(NotebookExecutionManager):  # type: ignore[misc]  # papermill has no types
    """Keeps the notebook on the disk true: saved at its start, before each cell that works, and at its end.

    papermill saves before and after every cell, prose and parameters too. The save before the next cell has all that
    the one after this cell would have had, and papermill itself writes a notebook that has come to its end.
    """

    start_time: Any
    _due = True
    _ended: datetime | None = None

    def __init__(self, nb: Any, behind: Behind, **options: Any) -> None:  # noqa: ANN401 - papermill's
        super().__init__(nb, **options)
        self._behind = behind

    def save(self, **told: Any) -> None:  # noqa: ANN401, ARG002 - papermill's
        """Save, unless the next save comes at once."""
        if self._due:
            self._behind.keep(self.nb, self.output_path)
        self.last_save_time = self.now()

    def leave_the_last_save(self) -> None:
        """Save it no more: it has come to its end, and papermill itself saves it once again."""
        self._due = False

    def cell_start(self, cell: Any, cell_index: int | None = None, **told: Any) -> None:  # noqa: ANN401 - as above
        """Note that a cell begins; what it may change is changed after that is on the disk."""
        self._due = cell.cell_type == "code" and not sets_parameters(cell.metadata)
        try:
            super().cell_start(cell, cell_index, **told)
        finally:
            self._due = True
        if _CHANGES in cell.source:
            self._behind.wait()

    def cell_complete(self, cell: Any, cell_index: int | None = None, **told: Any) -> None:  # noqa: ANN401 - as above
        """Note that a cell has ended."""
        self._due = False
        try:
            super().cell_complete(cell, cell_index, **told)
            self._set_times(cell)
        finally:
            self._due = True

    def _set_times(self, cell: Any) -> None:  # noqa: ANN401 - as above
        """Have papermill's times of a cell be the kernel's own: this side may look at it when it has ended long ago."""
        ran = cell.metadata.get("execution", {})
        if not {_BUSY, _IDLE} <= ran.keys():
            return
        began, ended = (datetime.fromisoformat(ran[name]) for name in (_BUSY, _IDLE))
        cell.metadata.papermill |= {
            "start_time": began.isoformat(),
            "end_time": ended.isoformat(),
            "duration": (ended - began).total_seconds(),
        }
        # A first cell that was sent before this side began; parameters are set while the notebook before still works.
        if began < self.start_time and not sets_parameters(cell.metadata):
            self.start_time = began
            self.nb.metadata.papermill["start_time"] = began.isoformat()
        self._ended = ended

    def notebook_complete(self, **told: Any) -> None:  # noqa: ANN401 - as above
        """Note that the notebook has ended, as its last cell has: the next one may have begun since."""
        super().notebook_complete(**told)
        if self._ended:
            self.nb.metadata.papermill["end_time"] = self._ended.isoformat()
            self.nb.metadata.papermill["duration"] = (self._ended - self.start_time).total_seconds()


class _Client(PapermillNotebookClient):  # type: ignore[misc]  # as above
    """Sends cells ahead of their turn: the kernel goes on with one while this side takes in the one before."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as above
        super().__init__(*args, **options)
        self.on_cell_complete = self._sent  # nbclient calls it when a cell is sent

    def _sent(self, cell: Any, cell_index: int) -> None:  # noqa: ANN401, ARG002 - as above
        self.kc.send_ahead(_following(self.nb, cell_index))

    def execute(self, **_unused: object) -> Any:  # noqa: ANN401 - as above
        """Execute the notebook; its kernel has answered already, and told what language it speaks."""
        self.reset_execution_trackers()
        self.papermill_execute_cells()
        self.nb.metadata["language_info"] = self.kc.language_info
        self.set_widgets_metadata()
        return self.nb

    def execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:  # noqa: ANN401 - as above
        """Execute a cell; of a kernel that ends it is said what is known."""
        try:
            return super().execute_cell(cell, cell_index, **options)
        except RuntimeError as error:  # nbclient's DeadKernelError
            if self.kc.sent_ahead:
                raise type(error)("Kernel died, in this cell or as it went on to the next one") from error
            raise


def _following(nb: Any, index: int) -> Iterator[str]:  # noqa: ANN401 - as above
    """The cells after one, to the next that may change nodes: that one begins when all before it is on the disk."""
    for cell in nb.cells[index + 1 :]:
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if _CHANGES in cell.source or set(cell.metadata.get("tags", ())).difference(PARAMETERS):
            return
        yield cell.source


def first_cells(notebook: Path, parameters: Mapping[str, object]) -> FirstCells:
    """The cells that a notebook begins with, as papermill will send them, to the first that may change nodes."""
    nb = parameterize_notebook(load_notebook_node(str(notebook)), dict(parameters), engine_name=pipeline.ENGINE)
    cells = list(_following(nb, -1))
    code = (cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip())
    return FirstCells(cells, sum(1 for _ in itertools.takewhile(lambda cell: sets_parameters(cell.metadata), code)))


class Engine(NBClientEngine):  # type: ignore[misc]  # as above
    """papermill's own engine, on a kernel that was started already."""

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,  # noqa: ANN401 - as above
        kernel_name: str,  # noqa: ARG003 - a run has kernels of one kind
        output_path: str | None = None,
        *,
        kernels: Kernels,
        saves: Behind,
        execution_timeout: int,
        following: Callable[[], FirstCells] = FirstCells,
        **_unused: Any,  # noqa: ANN401 - what papermill hands to every engine
    ) -> Any:  # noqa: ANN401 - as above
        """Execute a notebook.

        Args:
            nb: The notebook, its parameters set.
            kernel_name: What the notebook names; not used.
            output_path: Where it is saved as it goes.
            kernels: Where its kernel comes from; the next one begins to start when this one is ready.
            saves: What saves it, beside the run.
            execution_timeout: Seconds that a cell may take.
            following: Gives the first cells of the notebook after this one. Its kernel takes the parameters as soon as
                it is ready, and begins the others when this one has gone well, while it is saved and noted here.
        """
        kept = _Saves(nb, saves, output_path=output_path, progress_bar=False)
        kept.notebook_start()
        first = FirstCells()
        with contextlib.suppress(Exception):  # of a notebook that can't be read its own turn tells
            first = following()
        try:
            with kernels.next() as manager:
                kernels.begin(first.sources[: first.parameters])
                client = _Client(kept, km=manager, timeout=execution_timeout, log=logger)
                client.kc = manager.kc
                client.execute()
                if not nb.metadata.papermill.get("exception"):
                    kernels.go_on(first.sources)
            kept.leave_the_last_save()
        finally:
            kept.notebook_complete()
        return kept.nb


def register() -> None:
    """Make it known to papermill."""
    papermill_engines.register(pipeline.ENGINE, Engine)
