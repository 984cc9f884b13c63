"""A node's connection that another process keeps: what a kernel of a run uses in place of an SSH connection of its own.

One Unix socket connection a script. What goes over it are frames: a letter, the length in four bytes, the content.

to the broker    q  the request: a JSON object
                 d  a piece of the script's standard input; f  its end
from the broker  a  the request is taken; u  it is not: the broker has no such node, or reaches it otherwise
                 l  a line of stdout;  o, e  all of stdout and stderr;  r  the result: a JSON object
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from runbook import errors
from runbook.ssh import SshConnection
from runbook.transport import dial
from runbook.transport.completed import Completed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from runbook.params import Node, Ssh

#: Names the socket for the kernels of a run.
VARIABLE = "RUNBOOK_CONNECTIONS"
_HEAD = struct.Struct(">cI")
_PIECE = 256 * 1024
#: What a script may need beyond its own deadline: the node is connected anew, four times at most.
_CONNECTING_S = 120.0


class NotServed(Exception):
    """The broker does not serve this node as it is wanted, or is gone; nothing was begun."""


def digest(target: dial.Target, *, sudo: bool) -> str:
    """What two processes compare: whether they reach a node in exactly the same way."""
    return hashlib.sha256(repr((target, sudo)).encode()).hexdigest()


def frame(kind: bytes, content: bytes = b"") -> bytes:
    """One frame."""
    return _HEAD.pack(kind, len(content)) + content


def read_frame(sock: socket.socket) -> tuple[bytes, bytes] | None:
    """The next frame of a blocking socket as letter and content; None when the other side is gone."""
    head = _read(sock, _HEAD.size)
    if head is None:
        return None
    kind, size = _HEAD.unpack(head)
    content = _read(sock, size)
    return None if content is None else (kind, content)


def _read(sock: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        try:
            block = sock.recv(min(size - len(data), _PIECE))
        except ConnectionError:
            return None
        if not block:
            return None
        data += block
    return bytes(data)


def pieces(feed: Iterable[bytes]) -> Iterator[bytes]:
    """The frames of a script's standard input, each small, and of its end; none where there is no input."""
    if feed == ():
        return
    for block in feed:
        view = memoryview(block)
        for start in range(0, len(view), _PIECE):
            yield frame(b"d", bytes(view[start : start + _PIECE]))
    yield frame(b"f")


class BrokeredConnection:
    """A node as the run's broker reaches it, or by an SSH connection of our own where it does not serve it.

    The same as an SshConnection for who uses it: results, errors and their texts. `close` ends its scripts.
    """

    def __init__(self, node: Node, ssh: Ssh, path: str) -> None:
        self.node = node
        self._ssh, self._path = ssh, path
        self._digest = digest(dial.target(node, ssh), sudo=ssh.sudo)
        self._direct: SshConnection | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def open(self) -> None:
        """See that the node can be reached.

        Raises:
            NodeError: it can't, or refused us.
        """
        if not self._direct:
            try:
                self._ask({"do": "open"}, "connect", 0.0)
            except NotServed:
                self._own()
        if self._direct:
            self._direct.open()

    def run(
        self,
        script: str,
        *,
        what: str,
        feed: Iterable[bytes] = (),
        timeout_s: float = 60,
        heard: Callable[[str], None] | None = None,
        begin: Callable[[], None] | None = None,
    ) -> Completed:
        """Run a sh script on the node and wait for its end; see SshConnection.run."""
        if not self._direct:
            request = {"do": "run", "script": script, "what": what, "timeout_s": timeout_s}
            request |= {"heard": bool(heard), "fed": feed != (), "begins": begin is not None}
            try:
                status, out, err = self._ask(request, what, timeout_s, feed, heard, begin)
                return Completed(self.node.name, what, status, out, err)
            except NotServed:
                self._own()
        assert self._direct  # noqa: S101 - just made
        return self._direct.run(script, what=what, feed=feed, timeout_s=timeout_s, heard=heard, begin=begin)

    def close(self) -> None:
        """End what runs over it; the broker keeps the node's connection for the others."""
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        if self._direct:
            self._direct.close()

    def _own(self) -> None:
        with self._lock:
            self._direct = self._direct or SshConnection(self.node, self._ssh)

    def _ask(
        self,
        request: dict[str, Any],
        what: str,
        timeout_s: float,
        feed: Iterable[bytes] = (),
        heard: Callable[[str], None] | None = None,
        begin: Callable[[], None] | None = None,
    ) -> tuple[int, bytes, bytes]:
        sock = _connected(self._path)
        try:
            with self._lock:
                self._open.add(sock)
            if begin:  # now: from here on `close` ends it
                begin()
            try:
                sock.sendall(
                    frame(b"q", json.dumps({**request, "node": self.node.name, "digest": self._digest}).encode())
                )
            except OSError as error:
                raise NotServed from error
            found = _exchange(sock, pieces(feed), heard, time.monotonic() + timeout_s + _CONNECTING_S)
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()
        if found is None:
            raise errors.ConnectionLost(
                "the connection broke in the middle: the process that keeps the run's connections is gone",
                node=self.node.name,
                subject=what,
                remedy="run again: what is done already is not done twice",
            )
        result, out, err = found
        if "kind" in result:
            raise error_of(result)
        return int(result["status"]), out, err


def connection(node: Node, ssh: Ssh) -> SshConnection | BrokeredConnection:
    """The way to a node: over the run's broker where this process belongs to a run that has one."""
    path = os.environ.get(VARIABLE)
    return BrokeredConnection(node, ssh, path) if path else SshConnection(node, ssh)


def error_as_dict(error: errors.RunbookError) -> dict[str, str]:
    """An error for the way between two processes."""
    told = {"message": error.message, "node": error.node, "subject": error.subject, "remedy": error.remedy}
    return {"kind": type(error).__name__, **told}


def error_of(told: dict[str, str]) -> errors.RunbookError:
    """The error that `error_as_dict` told of."""
    kind: type[errors.RunbookError] = getattr(errors, told["kind"], errors.RunbookError)
    return kind(told["message"], node=told["node"], subject=told["subject"], remedy=told["remedy"])


def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise NotServed from error
    return sock


def _exchange(
    sock: socket.socket, outgoing: Iterator[bytes], heard: Callable[[str], None] | None, deadline: float
) -> tuple[dict[str, Any], bytes, bytes] | None:
    """Send frames while those that come are read; neither waits for the other. None when the broker is gone.

    Raises:
        NotServed: the request was not taken; nothing of `outgoing` was used.
    """
    sock.settimeout(0)
    poll = select.poll()
    answer = _Answer(heard)
    piece = memoryview(b"")
    while (left := deadline - time.monotonic()) > 0 and answer.result is None:
        poll.register(sock, select.POLLIN | (select.POLLOUT if piece else 0))
        ready = sum(event for _, event in poll.poll(left * 1000))
        if ready & ~select.POLLOUT:
            try:
                block = sock.recv(_PIECE)
            except ConnectionError:
                block = b""
            if not block and not answer.taken:
                raise NotServed
            if not block:
                return None
            if answer.add(block):
                piece = memoryview(next(outgoing, b""))
        elif ready:
            # A broker that has its result already reads no more: what it said comes next.
            with contextlib.suppress(BlockingIOError, ConnectionError):
                piece = piece[sock.send(piece) :] or memoryview(next(outgoing, b""))
    return None if answer.result is None else (answer.result, answer.output[b"o"], answer.output[b"e"])


class _Answer:
    """What a broker answers, from its frames: lines are told as they come, the result comes last."""

    def __init__(self, heard: Callable[[str], None] | None) -> None:
        self.taken = False
        self.output = {b"o": b"", b"e": b""}
        self.result: dict[str, Any] | None = None
        self._heard = heard
        self._kept = bytearray()

    def add(self, data: bytes) -> bool:
        """Take the next bytes; says whether the request was taken by them.

        Raises:
            NotServed: it was not.
        """
        taken = False
        self._kept += data
        while len(self._kept) >= _HEAD.size:
            kind, size = _HEAD.unpack_from(self._kept)
            if len(self._kept) - _HEAD.size < size:
                break
            content = bytes(self._kept[_HEAD.size : _HEAD.size + size])
            del self._kept[: _HEAD.size + size]
            if kind == b"u":
                raise NotServed
            if kind == b"a":
                taken = self.taken = True
            elif kind == b"r":
                self.result = json.loads(content)
            elif kind == b"l" and self._heard:
                self._heard(content.decode("utf-8", "replace"))
            elif kind in self.output:
                self.output[kind] = content
        return taken
