"""The kernels that run notebooks headless."""

from __future__ import annotations

from jupyter_client.manager import AsyncKernelManager


class IpcKernelManager(AsyncKernelManager):
    """Talks to its kernel by sockets in the user's own runtime folder: no TCP port that other users could reach."""

    def __init__(self, **options: object) -> None:
        options.setdefault("transport", "ipc")
        super().__init__(**options)
