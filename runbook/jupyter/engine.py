"""How papermill executes a notebook of a run: on a kernel that waits for it, saved before each cell that works."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from jupyter_client.utils import run_sync  # type: ignore[attr-defined]  # from jupyter_core
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.log import logger

from runbook import pipeline

if TYPE_CHECKING:
    from runbook.jupyter.kernels import Kernels
    from runbook.records.saving import Behind

#: Tags of the cells that hold parameters and do nothing.
_PARAMETERS = {"parameters", "injected-parameters"}
#: A cell with such a call may change nodes; it begins when all before it is on the disk.
_CHANGES = ".apply("


class _Saves(NotebookExecutionManager):  # type: ignore[misc]  # papermill has no types
    """Keeps the notebook on the disk true: saved at its start, before each cell that works, and at its end.

    papermill saves before and after every cell, prose and parameters too. The save before the next cell has all that
    the one after this cell would have had, and papermill itself writes a notebook that has come to its end.
    """

    _due = True

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
        self._due = cell.cell_type == "code" and not _PARAMETERS & set(cell.metadata.get("tags", ()))
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
        finally:
            self._due = True


class _Ahead:
    """The next notebook's kernel is started while this one works, which does not wait for it."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self._task: asyncio.Task[None] | None = None

    async def begin(self, **_told: object) -> None:
        """Begin to start it."""
        self._task = asyncio.create_task(self._kernels.start_next())

    async def done(self) -> None:
        """Wait until it is started."""
        if self._task:
            await self._task


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
        start_timeout: int,
        **_unused: Any,  # noqa: ANN401 - what papermill hands to every engine
    ) -> Any:  # noqa: ANN401 - as above
        """Execute a notebook.

        Args:
            nb: The notebook, its parameters set.
            kernel_name: What the notebook names; not used.
            output_path: Where it is saved as it goes.
            kernels: Where its kernel comes from; the next one is started when this one is ready.
            saves: What saves it, beside the run.
            execution_timeout: Seconds that a cell may take.
            start_timeout: Seconds until the kernel must answer.
        """
        kept = _Saves(nb, saves, output_path=output_path, progress_bar=False)
        kept.notebook_start()
        try:
            with kernels.next() as manager:
                ahead = _Ahead(kernels)
                client = PapermillNotebookClient(
                    kept,
                    km=manager,
                    timeout=execution_timeout,
                    startup_timeout=start_timeout,
                    log=logger,
                    on_notebook_start=ahead.begin,
                )
                try:
                    client.execute()
                finally:
                    if client.kc is not None:
                        client.kc.stop_channels()
                    run_sync(ahead.done)()
            kept.leave_the_last_save()
        finally:
            kept.notebook_complete()
        return kept.nb


def register() -> None:
    """Make it known to papermill."""
    papermill_engines.register(pipeline.ENGINE, Engine)
