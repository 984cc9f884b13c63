"""A connection's channels for scripts: the next one is opened while a script runs, so nobody waits for it.

A script takes three round trips: for a channel, for a program in it, and for what the program answers to its input
(RFC 4254, 5.1, 6.5 and 5.2). This saves the first. The second can't be saved: sshd takes no input before it.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future

import paramiko

#: So many are opened ahead at a time, over all connections; where more would be, the next script opens its own.
_opening = threading.BoundedSemaphore(8)
#: With more threads (paramiko has one a connection) it is the interpreter that is waited for, and not the line.
MANY_THREADS = 128


class Sessions:
    """The channels of one logged-in connection; at most one of them waits for a script."""

    def __init__(self, client: paramiko.SSHClient, timeout_s: float) -> None:
        transport = client.get_transport()
        assert transport is not None  # noqa: S101 - connect() has set it
        self._transport = transport
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._next: Future[paramiko.Channel] | None = None
        self.ahead()

    def ahead(self) -> None:
        """Begin to open the next one, where none waits; a server that refuses it is asked again by `take`."""
        with self._lock:
            if self._next is not None or threading.active_count() > MANY_THREADS:
                return
            if not _opening.acquire(blocking=False):
                return
            opened: Future[paramiko.Channel] = Future()
            self._next = opened
        threading.Thread(target=self._open, args=(opened,), daemon=True, name="runbook-channel").start()

    def _open(self, opened: Future[paramiko.Channel]) -> None:
        try:
            opened.set_result(self._transport.open_session(timeout=self._timeout_s))
        except BaseException as error:  # noqa: BLE001 - whoever waits must not wait for ever
            opened.set_exception(error)
        finally:
            _opening.release()

    def take(self) -> paramiko.Channel:
        """A channel in which nothing runs yet.

        Raises:
            SSHException, EOFError: the server gives none, or the connection is gone.
        """
        with self._lock:
            opened, self._next = self._next, None
        if opened is not None:
            with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
                if not (channel := opened.result()).closed:
                    return channel
        return self._transport.open_session(timeout=self._timeout_s)
