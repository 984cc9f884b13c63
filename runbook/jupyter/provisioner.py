"""How jupyter_client gets a kernel of the kernelspec `runbook`: by a fork where that is to be had, else as ever."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from runbook.jupyter import forked

if TYPE_CHECKING:
    from jupyter_client.connect import KernelConnectionInfo

#: Its entry point in the group jupyter_client.kernel_provisioners; a kernelspec's metadata names it.
NAME = "runbook-fork-provisioner"


class ForkProvisioner(LocalProvisioner):
    """Forks a kernel from a process that has imported what notebooks need."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:  # noqa: ANN401 - of Popen
        """Fork the kernel that a command would start; where that can't be, start it by its command."""
        # Of a process of ours: whatever else is to happen between fork and exec only Popen can do.
        known = {"env", "cwd", "stdout", "stderr", "extra_arguments", "kernel_id"}
        if kwargs.keys() <= known and cmd[0] == sys.executable:
            try:
                return await self._forked(cmd, kwargs)
            except forked.Unavailable as error:
                self.log.debug("no forked kernel: %s", error)
        return await super().launch_kernel(cmd, **kwargs)

    async def _forked(self, cmd: list[str], kwargs: dict[str, Any]) -> KernelConnectionInfo:
        streams = [kwargs.get(name) for name in ("stdout", "stderr")]
        out, err = (
            number if stream is None else stream if isinstance(stream, int) else stream.fileno()
            for number, stream in enumerate(streams, start=1)
        )
        if min(out, err) < 0:
            raise forked.Unavailable("its output goes to a pipe")
        self.cwd = kwargs.get("cwd") or os.getcwd()  # noqa: PTH109 - the base class has strings
        environment = kwargs.get("env") or os.environ
        # In a thread: a fork takes milliseconds, in which the notebook before it goes on.
        process = await asyncio.to_thread(forked.launch, cmd, environment, str(self.cwd), (out, err))
        self.process = process  # type: ignore[assignment]  # what is used of a Popen it has
        self.pid = self.pgid = process.pid
        return self.connection_info
