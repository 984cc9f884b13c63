"""The kernels that run notebooks headless: one a notebook, the next one started while the current one works."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
import weakref
from collections import deque
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any, cast

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.utils import ensure_async, run_sync  # type: ignore[attr-defined]  # from jupyter_core

from runbook import socket_folder
from runbook.jupyter.provisioner import ForkProvisioner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Self

#: Names the file that takes what a kernel itself prints on stderr (not what its cells print).
LOG_VARIABLE = "RUNBOOK_KERNEL_LOG"
#: Installed as share/jupyter/kernels/runbook, for papermill and JupyterLab by themselves.
_SPEC = Path(__file__).with_name("kernelspec")
_NAME = "runbook"
_START_S = 60.0
_ENDED_S = 5.0
_LOOK_S = 0.01
_ANSWER_S = 1.0
_HEARD_S = 0.2
_TRY_AGAIN_MS = 5


class _OurSpec(KernelSpecManager):
    """Knows our kernelspec, whether or not it was installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:  # noqa: ARG002 - there is one only
        """Our kernelspec."""
        spec: KernelSpec = KernelSpec.from_resource_dir(str(_SPEC))
        return spec


class Client(AsyncKernelClient):
    """Speaks to a kernel on this machine; that it lives its manager knows, so there is no heartbeat.

    Attributes:
        sent_ahead: The sources of cells that were sent, and whose turn has not come yet, with their messages' ids.
        language_info: What language the kernel speaks, by the answer that it was ready with.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - traits
        super().__init__(**options)
        self.sent_ahead: deque[tuple[str, str]] = deque()
        self.language_info: dict[str, Any] = {}

    def send_ahead(self, sources: Iterable[str]) -> None:
        """Send the next cells before it is their turn: the kernel begins one when the one before has ended well.

        Those that were sent and whose turn has not come are not sent again.
        """
        for source in tuple(sources)[len(self.sent_ahead) :]:
            self.sent_ahead.append((source, super().execute(source, store_history=True, stop_on_error=True)))

    def execute(self, code: str, **options: Any) -> str:  # type: ignore[override]  # noqa: ANN401 - as its base class
        """Send a cell, if it was not sent yet; gives its message's id.

        Raises:
            ValueError: another one was sent in its place.
        """
        if not self.sent_ahead:
            return str(super().execute(code, **options))
        source, sent = self.sent_ahead.popleft()
        if source != code:
            raise ValueError(f"another cell was sent to the kernel than is to be executed: {source!r}")
        return sent

    def start_channels(self, *args: bool, **channels: bool) -> None:
        """Open the channels, but that of the heartbeat: it has a thread, which takes a second to end."""
        # A kernel that does not listen yet is tried again after this, and not after a tenth of a second.
        self.context.reconnect_ivl = _TRY_AGAIN_MS  # a default of its sockets
        super().start_channels(*args, **({"hb": False} | channels))

    async def wait_for_ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as the base class has it
        """Wait until the kernel answers and its outputs are heard.

        As in the base class, which then waits 0.2 s more for messages that are nobody's: they are known by their
        parent and do no harm.

        Raises:
            RuntimeError: it has ended, or does not answer in time.
        """
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            self.kernel_info()
            try:
                answer = await ensure_async(self.shell_channel.get_msg(timeout=_ANSWER_S))
                if answer["msg_type"] == "kernel_info_reply":
                    await ensure_async(self.iopub_channel.get_msg(timeout=_HEARD_S))
                    self._handle_kernel_info_reply(answer)
                    self.language_info = answer["content"]["language_info"]
                    return
            except Empty:
                pass
            if self.parent and not await self.parent.is_alive():
                raise RuntimeError("Kernel died before replying to kernel_info")
            if time.monotonic() > deadline:
                raise RuntimeError(f"Kernel didn't respond in {timeout} seconds")


class IpcKernelManager(AsyncKernelManager):
    """Talks to its kernel by sockets in a private folder: no TCP port that other users of the machine could reach.

    Attributes:
        kc: Speaks to the kernel, once that has answered.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - traits
        # By default the sockets would lie in the working folder, which is the record's.
        folder = socket_folder.make("runbook-kernel-", len("kernel-1"))
        self._remove_folder = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        ours: dict[str, Any] = {
            "transport": "ipc",
            "ip": f"{folder}/kernel",
            "connection_file": f"{folder}/connection.json",
            "kernel_spec_manager": _OurSpec(),
            "kernel_name": _NAME,
        }
        super().__init__(**(ours | options))
        self.client_factory = Client
        self.kc: Client | None = None

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]  # noqa: ANN401 - of Popen
        """Start the kernel, its own messages going to the log file."""
        if self.provisioner is None:
            # Itself, not by its entry point: those of every installed package would be read.
            self.provisioner = ForkProvisioner(kernel_id="", kernel_spec=self.kernel_spec, parent=self)
        with Path(os.environ.get(LOG_VARIABLE, os.devnull)).open("a", encoding="utf-8") as log:  # noqa: ASYNC230 - local
            # Without its decorator: that waits 10 ms, for jupyter_client's own tests to see a kernel that is not ready.
            start = getattr(AsyncKernelManager.start_kernel, "__wrapped__", AsyncKernelManager.start_kernel)
            await start(self, **(options | {"stderr": log}))

    async def make_ready(self, cwd: str, sources: Iterable[str] = ()) -> None:
        """Start the kernel, wait until it answers, and send it its first cells.

        Raises:
            RuntimeError: it has ended, or does not answer in time.
        """
        await self.start_kernel(cwd=cwd)
        client = cast("Client", self.client())
        client.start_channels()
        await client.wait_for_ready(_START_S)
        client.allow_stdin = False
        client.send_ahead(sources)
        self.kc = client

    async def cleanup_resources(self, restart: bool = False) -> None:  # type: ignore[override]  # noqa: FBT001, FBT002
        """Remove what the kernel had, its sockets' folder too."""
        await super().cleanup_resources(restart=restart)
        if not restart:
            self._remove_folder()


class Kernels:
    """One kernel for each notebook of a run, each started while the one before it works.

    Args:
        wanted: For how many notebooks.
        cwd: Their working folder.

    Attributes:
        started: How many were started so far.
    """

    def __init__(self, wanted: int, cwd: Path) -> None:
        self._wanted, self._cwd = wanted, str(cwd)
        self._next: tuple[IpcKernelManager, asyncio.Task[None]] | None = None
        self._ended: list[IpcKernelManager] = []
        self.started = 0

    async def _begin(self, sources: Iterable[str]) -> None:
        if self._next is None and self.started < self._wanted:
            self.started += 1
            manager = IpcKernelManager()
            self._next = manager, asyncio.create_task(manager.make_ready(self._cwd, sources))
            await asyncio.sleep(0)  # so that it is asked for by now, whatever this process does next

    def begin(self, sources: Iterable[str] = ()) -> None:
        """Begin to start the next notebook's kernel, if there is one and it was not begun yet.

        Args:
            sources: The cells that it is to take as soon as it is ready.
        """
        run_sync(self._begin)(sources)

    @contextlib.contextmanager
    def next(self) -> Iterator[IpcKernelManager]:
        """The next notebook's kernel while the block runs; it is ready."""
        self.begin()
        if self._next is None:
            raise RuntimeError(f"{self._wanted} kernels were wanted, and all are used")
        (manager, starting), self._next = self._next, None
        try:
            run_sync(_finished)(starting)
            yield manager
        finally:
            self._end(manager)

    def go_on(self, sources: Iterable[str]) -> None:
        """Send the next notebook's first cells to its kernel, if that is ready: they need not wait for this side."""
        if self._next and self._next[0].kc:
            self._next[0].kc.send_ahead(sources)

    def _end(self, manager: IpcKernelManager) -> None:
        """End a kernel, with all that it has started; what it held is cleaned up at the end of the run."""
        self._ended.append(manager)
        if manager.kc:
            manager.kc.stop_channels()
        if manager.has_kernel and manager.provisioner:
            run_sync(manager.provisioner.kill)()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End every kernel, and wait until none is left."""
        if self._next:
            (manager, starting), self._next = self._next, None
            with contextlib.suppress(Exception):  # nobody waits for it any more
                run_sync(_finished)(starting)
            self._end(manager)
        run_sync(_cleaned_up)(self._ended)
        self._ended.clear()


async def _finished(starting: asyncio.Task[None]) -> None:
    await starting


async def _cleaned_up(managers: Iterable[IpcKernelManager]) -> None:
    deadline = time.monotonic() + _ENDED_S
    for manager in managers:
        while await manager.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110 - another process
            await asyncio.sleep(_LOOK_S)
        await manager.cleanup_resources()
