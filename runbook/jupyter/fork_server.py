"""`python -m runbook.jupyter.fork_server`: has imported what notebooks need, and forks a kernel for each.

It is started and spoken to by `forked`. It has one thread only, so that a fork copies nothing that is held. A kernel
is a process of its own, in a session of its own: it shares what was imported with the others, and nothing that they do.
When the socket to its starter closes, by whatever end that came to, all kernels are killed, the folders with
their sockets and keys are removed, and it ends.

What keeps a run's connections is such a fork too, and the first: it begins when what it needs is imported. It ends by
itself when the run does, not with this process: another kernel, started by its command, can use it still.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import select
import shutil
import signal
import socket
import struct
import sys
from typing import Any

from runbook.late import at_once, without

#: A run's first process beside its kernels: it connects to the nodes while the rest is imported.
FIRST = "runbook.transport.broker"
#: What every notebook imports, and what the modules behind it import late. One that is missing is no fault here: who
#: needs it says so.
AHEAD = (
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.logger",
    "IPython.core.magics",
    "IPython.core.oinspect",
    "IPython.display",
    "IPython.extensions.storemagic",
    "IPython.utils.wildcard",
    "code",
    "encodings.idna",
    "encodings.unicode_escape",
    "encodings.utf_8_sig",
    "faulthandler",
    "ipykernel.ipkernel",
    "ipykernel.kernelapp",
    "ipykernel.zmqshell",
    "pandas",
    "pandas.core.methods.to_dict",
    "paramiko",
    "pdb",
    "runbook.transport.brokered",
    "runbook.checks",
    "runbook.fleet",
    "runbook.frames",
    "runbook.jupyter.forked_kernel",
    "runbook.params",
    "runbook.preflight",
    "sqlite3",
    "tornado.platform.asyncio",
)
#: What most import besides; the first of a run, which only looks, does not: its kernel need not wait for it.
LATER = (
    "jinja2",
    "runbook.plans.apply",
    "runbook.plans.progress",
    "runbook.binaries",
    "runbook.etcd",
    "runbook.flannel",
    "runbook.mesh",
)
#: debugpy takes 0.4 s to import and a socket of each kernel; what runs headless is not stepped through.
_NOT = "debugpy"
#: How the names of the folders begin that are made for a kernel's sockets alone.
FOLDER = "/runbook-kernel-"
_SIZE = struct.Struct("!I")
_FDS = 2
LAUNCHER = ["-m", "ipykernel_launcher"]


def receive(sock: socket.socket, fds: int = 0) -> tuple[dict[str, Any] | None, list[int]]:
    """One message of the socket, a JSON object after its size, and the file descriptors that came with it.

    Returns:
        None and no descriptors when the other side has closed it.
    """
    head, passed, _, _ = socket.recv_fds(sock, _SIZE.size, fds) if fds else (sock.recv(_SIZE.size), [], 0, None)
    body = b""
    while head and len(head) < _SIZE.size:
        more = sock.recv(_SIZE.size - len(head))
        head = head + more if more else b""
    size = _SIZE.unpack(head)[0] if head else 0
    while len(body) < size:
        more = sock.recv(size - len(body))
        if not more:
            return None, []
        body += more
    return (json.loads(body) if head else None), list(passed)


def send(sock: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send a message, and file descriptors with it."""
    body = json.dumps(message).encode()
    if fds:
        socket.send_fds(sock, [_SIZE.pack(len(body))], list(fds))
        sock.sendall(body)
    else:
        sock.sendall(_SIZE.pack(len(body)) + body)


class Server:
    """Answers `start` (fork a kernel, or run a module) and `poll` (has it ended) until its starter is gone.

    Attributes:
        kernels: How many it has forked.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.kernels = 0
        self._alive: dict[int, int | None] = {}
        self._lasting: set[int] = set()
        self._folders: list[str] = []
        self._kept: list[tuple[dict[str, Any] | None, list[int]]] = []

    def look(self, module: str = "") -> dict[str, Any] | None:
        """Fork the process that was asked for next, if one was by now; other requests are kept.

        Args:
            module: It must be the one that runs this module's `main`; "" for a kernel.

        Returns:
            In the new process what it was asked to be.
        """
        with contextlib.suppress(ConnectionError):  # `serve` meets it again
            if not self._kept and select.select([self._sock], [], [], 0)[0]:
                message, fds = receive(self._sock, _FDS)
                if message is None or message["do"] != "start" or message.get("module", "") != module:
                    self._kept.append((message, fds))
                elif self._start(message, fds):
                    return message
        return None

    def serve(self) -> dict[str, Any] | None:
        """Work until the end.

        Returns:
            In a new process what it was asked to be; in the server itself None, when its starter is gone.
        """
        try:
            while True:
                message, fds = self._kept.pop(0) if self._kept else receive(self._sock, _FDS)
                if message is None:
                    break
                if message["do"] == "poll":
                    send(self._sock, {"status": self._poll(message["pid"])})
                elif self._start(message, fds):
                    return message
        except (ConnectionError, BrokenPipeError):
            pass
        for pid in [pid for pid, status in self._alive.items() if status is None and pid not in self._lasting]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)  # a starter that was killed could not
        return None

    def _poll(self, pid: int) -> int | None:
        if self._alive.get(pid, -signal.SIGKILL) is None:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._alive[pid] = os.waitstatus_to_exitcode(status)
        return self._alive.get(pid, -signal.SIGKILL)

    def _start(self, message: dict[str, Any], fds: list[int]) -> bool:
        """Fork; returns whether this is the kernel. What it can't do it says, and the kernel is started otherwise."""
        read, write = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            pid = -1
            send(self._sock, {"error": str(error)})
        if pid == 0:
            os.setsid()
            self._sock.close()
            os.close(read)
            _become(message, fds)
            os.close(write)  # its session is its own from here on: a signal to it reaches nobody else
            return True
        os.close(write)
        for fd in fds:
            os.close(fd)
        if pid > 0:
            self._folders += [os.path.dirname(one) for one in message.get("argv", ()) if FOLDER in one]  # noqa: PTH120 - light
            select.select([read], [], [])
            self._alive[pid] = None
            self.kernels += "argv" in message
            if message.get("lasting"):
                self._lasting.add(pid)
            send(self._sock, {"pid": pid})
        os.close(read)
        return False


def _become(message: dict[str, Any], fds: list[int]) -> None:
    """Take the streams, folder, environment and arguments that the process was asked to have."""
    nothing = os.open(os.devnull, os.O_RDWR)
    streams = dict(zip(message["streams"], fds, strict=True))
    for number in range(3):
        os.dup2(streams.get(number, nothing), number)
    for fd in (nothing, *fds):  # none of them is 0, 1 or 2: those were in use
        os.close(fd)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(message["env"])
    with contextlib.suppress(OSError):
        os.chdir(message["cwd"])
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def _import_ahead(server: Server | None = None) -> dict[str, Any] | None:
    """Import everything; in a new process, that was forked on the way, what it was asked to be."""
    with at_once(), without(_NOT):  # so a kernel's collections copy no page of what was imported
        for name in (FIRST, *AHEAD):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
            if server and FIRST in sys.modules and (asked := server.look(FIRST)):
                return asked
        importlib.import_module("rich.cells").cell_len("✓")  # it reads its table of widths
        importlib.import_module("ipykernel.debugger")  # it notes that there is no debugpy
        for name in LATER:
            if server and not server.kernels and (asked := server.look()):
                return asked
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        with contextlib.suppress(Exception):  # who does it in earnest says what is wrong
            _rehearse()
    return None


def _rehearse() -> None:
    """Do once what every notebook begins with: what is built and compiled for it is there for the next kernels."""
    example = {"name": "example", "nodes": [{"name": "node1", "host": "192.0.2.1"}]}  # RFC 5737
    cluster = importlib.import_module("runbook.params").load(example)
    importlib.import_module("runbook.fleet").Fleet(cluster, {})._repr_mimebundle_()  # as IPython shows it


def main() -> None:
    """Serve on the socket that standard input is; in a new process: be what it was asked to be."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C is the starter's: it ends us by closing the socket
    server = Server(socket.socket(fileno=os.dup(0)))
    asked = _import_ahead(server) or server.serve()
    if asked is None:
        os._exit(0)  # at once: whoever has started it waits, and Python would take all that was imported apart
    del server
    if "module" in asked:
        importlib.import_module(asked["module"]).main()
        return
    arguments = [*asked["argv"], f"--IPKernelApp.parent_handle={os.getppid()}"]
    sys.argv = ["ipykernel_launcher", *arguments]
    from runbook.jupyter.forked_kernel import launch  # noqa: PLC0415 - imported long ago

    launch(arguments)


if __name__ == "__main__":
    main()
