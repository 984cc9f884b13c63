"""The kernels that run notebooks headless."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager

#: Names the file that takes what a kernel itself prints on stderr (not what its cells print).
LOG_VARIABLE = "RUNBOOK_KERNEL_LOG"


class IpcKernelManager(AsyncKernelManager):
    """Talks to its kernel by sockets in a private folder: no TCP port that other users of the machine could reach."""

    def __init__(self, **options: object) -> None:
        # By default the sockets would lie in the working folder, which is the record's.
        folder = tempfile.mkdtemp(prefix="runbook-kernel-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        super().__init__(**({"transport": "ipc", "ip": f"{folder}/kernel"} | options))

    async def start_kernel(self, **options: object) -> None:  # type: ignore[override]  # a coroutine there too
        """Start the kernel, its own messages going to the log file."""
        with Path(os.environ.get(LOG_VARIABLE, os.devnull)).open("a", encoding="utf-8") as log:  # noqa: ASYNC230 - local
            await super().start_kernel(**(options | {"stderr": log}))
