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
import time
from typing import TYPE_CHECKING, Any

from runbook import process_end
from runbook.jupyter import fork_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: Set to anything it keeps this process from forking kernels.
OFF = "RUNBOOK_NO_FORK"
_START_S = 60.0
_END_S = 10.0


class Unavailable(Exception):
    """There is no fork server, or it can't fork; kernels are to be started in another way."""


class Kernel:
    """A forked kernel or other process, with what subprocess.Popen has of one that jupyter_client looks at.

    Attributes:
        returncode: How it ended, as Popen has it; None while it runs.
    """

    stdin = stdout = stderr = None

    def __init__(self, server: ForkServer, asked: int) -> None:
        self._server = server
        self._asked = asked
        self._pid = 0
        self.returncode: int | None = None

    @property
    def pid(self) -> int:
        """Its process, and the group and session of that; waits until it was forked.

        Raises:
            Unavailable: it could not be.
        """
        if not self._pid:
            answer = self._server.answer(self._asked)
            if "pid" not in answer:
                raise Unavailable(str(answer.get("error")))
            self._pid = int(answer["pid"])
        return self._pid

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.poll(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after that many seconds.
        """
        until = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (status := self.poll()) is None:
            left = until - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(["fork"], timeout or 0)
            process_end.wait(self.pid, min(left, _END_S))
        return status

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
        self._asked = self._read = 0
        self._answers: dict[int, dict[str, Any]] = {}
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

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except OSError as error:
            self._sock.close()
            raise Unavailable(str(error)) from error
        except BaseException:
            self._sock.close()  # half a message may be on its way
            raise

    def _ask(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> int:
        """Send a request, which is answered in its turn; returns its number."""
        with self._speaking():
            fork_server.send(self._sock, message, fds)
            self._asked += 1
            return self._asked

    def answer(self, asked: int) -> dict[str, Any]:
        """Wait for the answer to a request, once.

        Raises:
            Unavailable: there will be none.
        """
        with self._speaking():
            while self._read < asked:
                answer, _ = fork_server.receive(self._sock)
                if answer is None:
                    raise Unavailable("the fork server has ended")
                self._read += 1
                self._answers[self._read] = answer
            return self._answers.pop(asked)

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
        told = {"do": "start", "streams": (1, 2), "argv": list(argv), "env": dict(env), "cwd": cwd}
        kernel = Kernel(self, self._ask(told, fds))
        assert kernel.pid  # noqa: S101 - it waits, and raises where there is none
        return kernel

    def serve(self, module: str, streams: Mapping[int, int], *, lasting: bool = False) -> Kernel:
        """Fork a process that runs a module's `main`; it is not waited for.

        Args:
            module: Its name.
            streams: Which descriptor is the process's standard input (0), output (1) or error (2); two at most.
            lasting: It ends by itself when this process does, and not with the fork server.

        Raises:
            Unavailable: it can't be.
        """
        told = {"do": "start", "streams": list(streams), "module": module, "lasting": lasting}
        here = {"env": dict(os.environ), "cwd": os.getcwd()}  # noqa: PTH109 - for JSON
        return Kernel(self, self._ask(told | here, tuple(streams.values())))

    def poll(self, pid: int) -> int | None:
        """The exit status of a kernel; None while it runs. Kernels of a server that is gone were killed."""
        try:
            status: int | None = self.answer(self._ask({"do": "poll", "pid": pid}))["status"]
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
#: The processes that were asked for ahead, and our ends of the sockets that are their standard inputs.
_ahead: dict[str, tuple[Kernel, socket.socket]] = {}


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
        while _ahead:
            _ahead.popitem()[1][1].close()  # it was not wanted: its input ends
        if isinstance(_server, ForkServer):
            _server.close()
        _server = None


def serve(module: str, streams: Mapping[int, int], *, lasting: bool = False) -> Kernel | None:
    """Fork a process that runs a module's `main`; None where this process has no fork server that can do so.

    Args:
        module: Its name.
        streams: Which descriptor is the process's standard input (0), output (1) or error (2); two at most.
        lasting: It ends by itself when this process does, and not with the fork server.
    """
    with contextlib.suppress(Unavailable):
        if isinstance(_server, ForkServer):
            return _server.serve(module, streams, lasting=lasting)
    return None


def ahead(module: str = fork_server.FIRST) -> None:
    """Have a process begin before it is known what it is told; `begun` gives it.

    It lasts, its standard error is ours, and its standard input is a socket: when that ends, so is it to.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        kernel = serve(module, {0: theirs.fileno(), 2: 2}, lasting=True)
    if kernel:
        _ahead[module] = kernel, ours
    else:
        ours.close()


def begun(module: str) -> tuple[Kernel, socket.socket] | None:
    """The process that was asked for ahead and the socket to it, once; None where there is none."""
    if module not in _ahead:
        ahead(module)
    return _ahead.pop(module, None)


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
