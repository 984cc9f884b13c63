"""This side of the fork server: one a process, started when it is first wanted, gone when the process is.

Where it can't be had (no fork on this platform, it does not start, RUNBOOK_NO_FORK is set) `launch` says so, and
kernels are started as ever: the results are the same, a second a notebook later.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from runbook.jupyter import fork_server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Set to anything it keeps this process from forking kernels.
OFF = "RUNBOOK_NO_FORK"
_START_S = 60.0
_END_S = 10.0


class Unavailable(Exception):
    """There is no fork server, or it can't fork; kernels are to be started in another way."""


class Kernel:
    """A forked kernel, with what subprocess.Popen has of a process that jupyter_client looks at.

    Attributes:
        pid: Its process, and the group and session of that.
        returncode: How it ended, as Popen has it; None while it runs.
    """

    stdin = stdout = stderr = None

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server = server
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.poll(self.pid)
        return self.returncode

    def wait(self) -> int | None:
        """Its exit status; only called when it has ended."""
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Send it a signal while it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that forks kernels, and the socket to it."""

    def __init__(self) -> None:
        if os.environ.get(OFF) or not hasattr(os, "fork") or not hasattr(socket, "send_fds"):
            raise Unavailable(f"{OFF} is set" if os.environ.get(OFF) else "this platform can't fork")
        self._lock = threading.Lock()
        self._ready = False
        self._sock, theirs = socket.socketpair()
        # One thread of numpy's library: a fork copies only the thread that called it.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "runbook.jupyter.fork_server"],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                self._sock.close()
                raise Unavailable(str(error)) from error
        self._sock.settimeout(_START_S)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def _ask(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> dict[str, Any]:
        try:
            with self._lock:
                if not self._ready:
                    self._answer()
                    self._ready = True
                fork_server.send(self._sock, message, fds)
                return self._answer()
        except OSError as error:
            self._sock.close()
            raise Unavailable(str(error)) from error
        except BaseException:
            self._sock.close()  # an answer that nobody waited for would be taken for the next one
            raise

    def _answer(self) -> dict[str, Any]:
        answer, _ = fork_server.receive(self._sock)
        if answer is None:
            raise Unavailable("the fork server has ended")
        return answer

    def launch(self, argv: Sequence[str], env: Mapping[str, str], cwd: str, fds: tuple[int, int]) -> Kernel:
        """Fork a kernel.

        Args:
            argv: The arguments of ipykernel.
            env: Its whole environment.
            cwd: Its folder.
            fds: Its standard output and standard error.

        Raises:
            Unavailable: it can't be.
        """
        return self._start({"argv": list(argv), "env": dict(env), "cwd": cwd}, fds)

    def serve(self, module: str, fds: tuple[int, int]) -> Kernel:
        """Fork a process that runs a module's `main`.

        Args:
            module: Its name.
            fds: The process's standard input and output.

        Raises:
            Unavailable: it can't be.
        """
        return self._start({"module": module, "env": dict(os.environ), "cwd": os.getcwd()}, fds)  # noqa: PTH109 - for JSON

    def _start(self, message: dict[str, Any], fds: tuple[int, int]) -> Kernel:
        answer = self._ask({"do": "start", **message}, fds)
        if "pid" not in answer:
            raise Unavailable(str(answer.get("error")))
        return Kernel(self, int(answer["pid"]))

    def poll(self, pid: int) -> int | None:
        """The exit status of a kernel; None while it runs. Kernels of a server that is gone were killed."""
        try:
            status: int | None = self._ask({"do": "poll", "pid": pid})["status"]
        except Unavailable:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            return -signal.SIGKILL
        return status

    def close(self) -> None:
        """End it, and every kernel that it has forked."""
        self._sock.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_lock = threading.Lock()
_server: ForkServer | Unavailable | None = None


def begin() -> None:
    """Start this process's fork server, if it can be had; kernels that are wanted soon find it ready."""
    global _server  # noqa: PLW0603 - one a process
    with _lock:
        if _server is None:
            try:
                _server = ForkServer()
                atexit.register(end)
            except Unavailable as error:
                _server = error


def end() -> None:
    """End this process's fork server, its kernels too; the next one that is wanted starts it anew."""
    global _server  # noqa: PLW0603 - as above
    with _lock:
        if isinstance(_server, ForkServer):
            _server.close()
        _server = None


def serve(module: str, fds: tuple[int, int]) -> Kernel | None:
    """Fork a process that runs a module's `main`; None where this process has no fork server that can do so.

    Args:
        module: Its name.
        fds: The process's standard input and output.
    """
    with contextlib.suppress(Unavailable):
        if isinstance(_server, ForkServer):
            return _server.serve(module, fds)
    return None


def launch(command: Sequence[str], env: Mapping[str, str], cwd: str, fds: tuple[int, int]) -> Kernel:
    """Fork a kernel instead of starting it by its command.

    Raises:
        Unavailable: it has to be started by its command; why.
    """
    global _server  # noqa: PLW0603 - as above
    if list(command[1:3]) != fork_server.LAUNCHER:
        raise Unavailable(f"{command[:3]} is no ipykernel")
    begin()
    if not isinstance(_server, ForkServer):
        raise _server or Unavailable("it has ended")
    try:
        return _server.launch(command[3:], env, cwd, fds)
    except Unavailable as error:
        end()
        _server = error
        raise
