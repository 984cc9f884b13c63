"""One SSH connection a node for all kernels of a run: a process of its own keeps them, and runs the scripts.

    with broker.serving(cluster):
        ...   # processes started in here, kernels among them, use its connections

`fleet.connect` and `lock.held` use them by the environment's RUNBOOK_CONNECTIONS, which names a Unix socket in a
folder that only this user can open. A process of its own, because the run's works at papermill's imports and messages
meanwhile, for which each packet of a node would wait (Python runs one thread at a time). It connects to all nodes at
once as soon as it is told of them, and ends with the process that started it, whatever ends that one. In a run it is a
fork of the process that kernels are forked from: what it needs is imported there.

Called where a run begins, before what takes time (imports, kernels): connecting goes on beside it. Passwords come from
the environment, or are asked for on the terminal; none goes over the socket.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook import errors, process_end, socket_folder
from runbook.jupyter import fork_server, forked
from runbook.ssh import Counts, Login
from runbook.transport import dial
from runbook.transport.brokered import VARIABLE, digest, error_as_dict, frame, read_frame
from runbook.transport.channel import Abandoned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.params import Cluster

_MODULE = fork_server.FIRST
_SOCKET = "socket"
_BACKLOG = 512
_STOP_S = 5.0


@dataclass(frozen=True)
class Broker:
    """The process that keeps a run's connections.

    Attributes:
        process: It.
        path: Its socket.
    """

    process: subprocess.Popen[bytes] | forked.Kernel
    path: str

    def counts(self) -> Counts:
        """What its connections were used for so far, all nodes together; zeros when it is gone."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with sock, contextlib.suppress(OSError):
            sock.connect(self.path)
            sock.sendall(frame(b"q", b'{"do": "counts"}'))
            if answer := read_frame(sock):
                return Counts(**json.loads(answer[1]))
        return Counts()

    def told(self) -> str:
        """The counts in words, each after its number."""
        used = self.counts()
        return f"{used.connections} connections, {used.scripts} scripts, {used.bytes_sent} bytes"


@contextlib.contextmanager
def serving(cluster: Cluster) -> Iterator[Broker]:
    """Keep one SSH connection a node while the block runs, for this process and those it starts.

    A node that can't be reached is no error here: whoever uses it is told, in the same words as without a broker.
    """
    folder = Path(socket_folder.make("runbook-", len(_SOCKET)))
    path = str(folder / _SOCKET)
    before = os.environ.get(VARIABLE)
    try:
        process, sock = _started(cluster, path)
        try:
            os.environ[VARIABLE] = path
            yield Broker(process, path)
        finally:
            with sock:
                _stop(process)
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
        shutil.rmtree(folder, ignore_errors=True)


def _started(cluster: Cluster, path: str) -> tuple[subprocess.Popen[bytes] | forked.Kernel, socket.socket]:
    """The process, and the socket that is its standard input: it is told of the nodes, and of our end."""
    targets = [dial.target(node, cluster.ssh) for node in cluster.nodes]
    told = {"parent": os.getpid(), "sudo": cluster.ssh.sudo, "targets": [asdict(one) for one in targets]}
    told["env"] = dict(os.environ)
    forks = None if _asks(targets) else forked.begun(_MODULE)
    process, sock = forks or _own_process()
    # It listens before the process is up: whoever asks early waits for its answer, and for nothing else.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(_BACKLOG)
        with contextlib.suppress(OSError):  # it died at once: everybody then connects by themselves
            socket.send_fds(sock, [b"l"], [listener.fileno()])
            sock.sendall(frame(b"q", json.dumps(told, default=str).encode()))
    return process, sock


def _asks(targets: list[dial.Target]) -> bool:
    """Whether a login may ask for a password or passphrase: only a process of our own session has our terminal."""
    return dial.password() == "-" or any((one.proxy_command or "none") != "none" for one in targets)


def _own_process() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-P", "-m", _MODULE]
        return subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL), ours


def _stop(process: subprocess.Popen[bytes] | forked.Kernel) -> None:
    try:
        process.terminate()  # also while it still starts; the nodes see closed connections and end their scripts
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except forked.Unavailable:
        pass  # it was never there


# ---- the process


class _Server:
    """Answers the kernels of a run."""

    def __init__(self, targets: list[dial.Target], *, sudo: bool) -> None:
        self._logins = {target.name: Login(target, sudo=sudo) for target in targets}
        self._digests = {target.name: digest(target, sudo=sudo) for target in targets}

    def connect(self) -> None:
        """Connect to all nodes beside what else goes on; an error is told to who asks for the node."""

        def one(login: Login) -> None:
            with contextlib.suppress(errors.RunbookError):
                login.open()

        pool = ThreadPoolExecutor(dial.MAX_CONNECTS_AT_ONCE, thread_name_prefix="runbook-connect")
        for login in self._logins.values():
            pool.submit(one, login)
        pool.shutdown(wait=False)

    def answer(self, sock: socket.socket) -> None:
        """Answer one request; who asks may be gone at any time."""
        with sock, contextlib.suppress(OSError):
            self._answer(sock)
            sock.shutdown(socket.SHUT_RDWR)  # a script that left its input: nobody waits for more of it

    def _answer(self, sock: socket.socket) -> None:
        asked = read_frame(sock)
        if asked is None:
            return
        request = json.loads(asked[1])
        if request["do"] == "counts":
            counts = [login.counts for login in self._logins.values()]
            total = {name: sum(getattr(one, name) for one in counts) for name in asdict(Counts())}
            sock.sendall(frame(b"r", json.dumps(total).encode()))
            return
        login = self._logins.get(request["node"])
        if login is None or self._digests[request["node"]] != request["digest"]:
            sock.sendall(frame(b"u"))
            return
        sock.sendall(frame(b"a"))
        try:
            result = _run(login, request, sock)
        except Abandoned:
            return
        except errors.RunbookError as error:
            result = error_as_dict(error)
        except Exception as error:  # noqa: BLE001 - told to who asked, as everywhere
            text = f"unexpected {type(error).__name__}: {error}"
            result = error_as_dict(errors.RunbookError(text, node=request["node"]))
        sock.sendall(frame(b"r", json.dumps(result).encode()))


def _run(login: Login, request: dict[str, Any], sock: socket.socket) -> dict[str, Any]:
    if request["do"] == "open":
        login.open()
        return {"status": 0}
    heard = (lambda line: sock.sendall(frame(b"l", line.encode("utf-8", "replace")))) if request["heard"] else None
    done = login.run(
        request["script"],
        what=request["what"],
        feed=_feed(sock) if request["fed"] else (),
        timeout_s=request["timeout_s"],
        heard=heard,
        begin=_begun if request["begins"] else None,
        until=sock,
    )
    sock.sendall(frame(b"o", done.stdout))
    sock.sendall(frame(b"e", done.stderr))
    return {"status": done.status}


def _begun() -> None:
    """Whoever asked has called what begins with the script."""


def _feed(sock: socket.socket) -> Iterator[bytes]:
    """What comes as the script's standard input, a piece at a time; no piece is kept."""
    while got := read_frame(sock):
        kind, content = got
        if kind == b"f":
            return
        yield content
    raise Abandoned


def main() -> None:
    """Serve until the process that started us ends, or closes the socket that is our standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the run, which ends us when it has ended its kernels
    logging.getLogger("paramiko").addHandler(logging.NullHandler())  # who asks is told: no traceback in the terminal
    sock = socket.socket(fileno=os.dup(0))
    _, passed, _, _ = socket.recv_fds(sock, 1, 1)
    if passed:
        listener = socket.socket(fileno=passed[0])
        folder = Path(listener.getsockname()).parent
        if told := read_frame(sock):
            _serve(listener, sock, json.loads(told[1]))
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)  # at once, whatever its threads wait for: the nodes see closed connections and end their scripts


def _serve(listener: socket.socket, starter: socket.socket, told: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(told["env"])  # a fork may be older than what was set since
    parent = process_end.descriptor(told["parent"])
    ends: list[socket.socket | int] = [starter, *([] if parent is None else [parent])]
    # Each node's connection is a file, and so is each request.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = _Server([_target(one) for one in told["targets"]], sudo=told["sudo"])
    server.connect()
    while True:
        ready, _, _ = select.select([listener.fileno(), *ends], [], [])
        if any(end in ready for end in ends):
            return
        sock, _ = listener.accept()
        threading.Thread(target=server.answer, args=(sock,), daemon=True, name="runbook-broker").start()


def _target(told: dict[str, Any]) -> dial.Target:
    files = {name: tuple(map(Path, told[name])) for name in ("key_files", "known_hosts")}
    return dial.Target(**{**told, **files})


if __name__ == "__main__":
    main()
