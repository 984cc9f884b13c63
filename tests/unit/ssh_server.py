"""A stand-in for a node's sshd: paramiko's own server on the loopback, which runs commands by this machine's sh."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from typing import IO, TYPE_CHECKING, Self

import paramiko

from runbook import params
from runbook.params import Node, Ssh

if TYPE_CHECKING:
    from pathlib import Path

#: params refuse loopback addresses for nodes, so this one is made past them.
NODE = Node.model_construct(name="node1", host="127.0.0.1", roles=("etcd",), iface=None)


class StandInSshd(paramiko.ServerInterface):
    """Stands in for sshd; takes one key or password, and runs each command with `sh -c`.

    Attributes:
        commands: The command lines that were asked for.
        drop: How many further connections are closed before the banner.
        noise: Printed before a command's output, as a noisy start-up file does.
        shell: Runs a command; a list to which the command line is appended.
        closed: Set when a command's channel was closed before the command ended.
    """

    def __init__(self, folder: Path, *, user_password: str = "") -> None:
        self.folder = folder
        self.key = paramiko.ECDSAKey.generate()
        self.user_key = paramiko.ECDSAKey.generate()
        self.user_key.write_private_key_file(str(folder / "id"))
        self.user_password = user_password
        self.commands: list[str] = []
        self.accepted = 0
        self.drop = 0
        self.noise = b""
        self.closed = threading.Event()
        self.shell = ["sh", "-c"]
        self.transports: list[paramiko.Transport] = []
        self._running: list[threading.Thread] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        self.cut()
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for thread in self._running:
            thread.join(5)

    def settings(self, **changed: object) -> Ssh:
        """The params' `ssh` for this server, its host key known."""
        known = self.folder / "known_hosts"
        if not known.exists():
            known.write_text(f"[127.0.0.1]:{self.port} {self.key.get_name()} {self.key.get_base64()}\n")
        made = {
            "port": self.port,
            "key_file": str(self.folder / "id"),
            "known_hosts": str(known),
            "connect_timeout_s": 5.0,
        }
        return params.Ssh(**{**made, **changed})  # type: ignore[arg-type]

    def cut(self) -> None:
        """Cut every connection."""
        for transport in self.transports:
            transport.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.drop:
                self.drop -= 1
                sock.close()
                continue
            transport = paramiko.Transport(sock)
            transport.add_server_key(self.key)
            self.transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                transport.start_server(event=threading.Event(), server=self)

    # ---- paramiko's own names

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002
        return "publickey,password"

    def check_auth_password(self, username: str, password: str) -> int:  # noqa: ARG002
        right = self.user_password and password == self.user_password
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED  # type: ignore[attr-defined]

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:  # noqa: ARG002
        return paramiko.AUTH_SUCCESSFUL if key == self.user_key else paramiko.AUTH_FAILED  # type: ignore[attr-defined]

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return paramiko.OPEN_SUCCEEDED  # type: ignore[attr-defined]

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.commands.append(command.decode())
        self._running.append(threading.Thread(target=self._serve, args=(channel, command), daemon=True))
        self._running[-1].start()
        return True

    def _serve(self, channel: paramiko.Channel, command: bytes) -> None:
        path = f"{self.folder}/shims:{os.environ['PATH']}"
        pipe = subprocess.PIPE
        # Unbuffered: what a command that has ended did not read would be an error of closing its input.
        with subprocess.Popen(
            [*self.shell, command], 0, stdin=pipe, stdout=pipe, stderr=pipe, env={"PATH": path}, start_new_session=True
        ) as process:
            self._processes.append(process)
            assert process.stdin
            assert process.stdout
            assert process.stderr
            channel.sendall(self.noise)
            outputs = [
                threading.Thread(target=_copy, args=(process.stdout.fileno(), channel.sendall), daemon=True),
                threading.Thread(target=_copy, args=(process.stderr.fileno(), channel.sendall_stderr), daemon=True),
            ]
            for output in outputs:
                output.start()
            threading.Thread(target=_feed, args=(channel, process.stdin), daemon=True).start()
            while any(output.is_alive() for output in outputs):
                outputs[0].join(0.02)
                if channel.closed:
                    self.closed.set()
                    outputs[0].join()
                    outputs[1].join()
            status = process.wait()
        with contextlib.suppress(OSError, EOFError):
            channel.send_exit_status(status if status >= 0 else 128 - status)
            channel.close()


def _feed(channel: paramiko.Channel, sink: IO[bytes]) -> None:
    with contextlib.suppress(OSError, EOFError, ValueError):
        while block := channel.recv(1 << 16):
            sink.write(block)
            sink.flush()
    with contextlib.suppress(OSError):
        sink.close()


def _copy(source: int, send: object) -> None:
    with contextlib.suppress(OSError, EOFError):
        while block := os.read(source, 1 << 16):
            send(block)  # type: ignore[operator]
