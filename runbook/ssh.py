"""One node over SSH: run a script there, feed it a stream, with a deadline and its output drained.

A script is sent on standard input and never on the command line: no quoting by a login shell, no length limit, and
nothing of it in the node's process list.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import paramiko

from runbook import errors
from runbook.plain_text import printable
from runbook.transport import dial
from runbook.transport.channel import MARK, Feeder, Lines, alone, drain, packed, send
from runbook.transport.sessions import Sessions

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from runbook.params import Node, Ssh

#: sudo's and sshd's own PATH may lack /usr/sbin, where `ip` is on some distributions.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Of the 10 sessions that sshd allows on a connection (MaxSessions) one is open ahead, and one is left.
_SCRIPTS_AT_ONCE = 8
#: A node that did not answer is not waited for again in each table: its connect timeout is 10 s.
_ASK_AGAIN_AFTER_S = 30.0


@dataclass(frozen=True)
class Completed:
    """What a script left: its exit status, and stdout and stderr apart."""

    node: str
    what: str
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Stdout as text."""
        return self.stdout.decode("utf-8", "replace")

    def check(self, remedy: str = "") -> Completed:
        """Return itself, or raise CommandFailed with the end of stderr when the status is not 0."""
        if self.status:
            said = printable(self.stderr) or "it printed nothing on stderr"
            raise errors.CommandFailed(
                f"ended with status {self.status}: {said}", node=self.node, subject=self.what, remedy=remedy
            )
        return self


class Connection(Protocol):
    """What the library needs of a node's connection; tests put a local shell in its place."""

    node: Node

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
        """Run a sh script as root and wait for it.

        `feed` is its standard input, `heard` gets its lines of stdout; what `begin` raises keeps it from being sent.
        """

    def close(self) -> None:
        """Close the connection."""


@dataclass
class Counts:
    """What a connection was used for: how often it was made, scripts that ran, bytes sent to their input."""

    connections: int = 0
    scripts: int = 0
    bytes_sent: int = 0


class Login:
    """A logged-in connection to one target; made again by itself when it was lost between two scripts.

    Several scripts may run over it at once, each in a channel of its own.

    Attributes:
        counts: What it was used for so far.
    """

    def __init__(self, target: dial.Target, *, sudo: bool) -> None:
        self.counts = Counts()
        self._target = target
        self._sudo = sudo
        self._sudo_password = os.environ.get("RUNBOOK_SUDO_PASSWORD", "")
        self._client: paramiko.SSHClient | None = None
        self._sessions: Sessions | None = None
        self._unreachable: errors.Unreachable | None = None
        self._unreachable_at = 0.0
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._turn = threading.BoundedSemaphore(_SCRIPTS_AT_ONCE)

    def open(self) -> None:
        """Connect and log in where that is not done yet; with sudo, see that it works.

        Raises:
            NodeError: the node can't be reached, or refused us.
        """
        with self._lock:
            transport = self._client.get_transport() if self._client else None
            if transport and transport.is_active():
                return
            if self._unreachable and time.monotonic() - self._unreachable_at < _ASK_AGAIN_AFTER_S:
                raise self._unreachable
            self.close()
            try:
                self._client = dial.dial(self._target)
            except errors.Unreachable as error:
                self._unreachable, self._unreachable_at = error, time.monotonic()
                raise
            self.counts.connections += 1
            try:
                self._sessions = Sessions(self._client, self._target.timeout_s)
                self._check_sudo()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        if self._client:
            dial.hang_up(self._client)
            self._client = self._sessions = None

    def run(
        self,
        script: str,
        *,
        what: str,
        feed: Iterable[bytes] = (),
        timeout_s: float = 60,
        heard: Callable[[str], None] | None = None,
        begin: Callable[[], None] | None = None,
        until: socket.socket | None = None,
    ) -> Completed:
        """Run a sh script on the node and wait for its end.

        Args:
            script: POSIX sh; runs with LC_ALL=C and a full PATH, as root where params say `sudo`.
            what: What it does, in words, for errors.
            feed: Its standard input, sent in small chunks while its output is drained.
            timeout_s: Deadline in seconds; the node itself ends the script too (timeout(1)), so that nothing runs on
                there after a lost connection.
            heard: Gets each complete line of the script's stdout as it arrives, without its end, in the caller's
                thread; what it raises ends the script and reaches the caller.
            begin: Called once the node is connected, before anything of the script is sent: what it raises reaches the
                caller, and nothing was run. A connection that is closed after that takes the script with it.
            until: Belongs to whoever asked for the script: when its other end is closed, the script's channel is too.

        Raises:
            CommandFailed: the deadline has passed.
            ConnectionLost: the connection broke in the middle.
            NodeError: the node can't be reached or refused us.
            Abandoned: `until` was closed.
        """
        self.open()
        if begin:
            begin()
        printed = MARK.decode("latin1").replace(chr(30), "\\036").rstrip()
        marked = f"export LC_ALL=C PATH={PATH}\nprintf '{printed}\\n'\n{script}"
        # A program's start is a millisecond of the node's: no env before the shell, and no head where nothing is fed.
        body, reads = (alone(marked), "") if feed == () else packed(marked)
        command = f"timeout -k 5 {timeout_s + 5:.0f} sh" + (f" -c '{reads}'" if reads else "")
        prefix = b""
        if self._sudo:
            command = f"sudo {'-kS -p' + chr(39) * 2 if self._sudo_password else '-n'} -- {command}"
            prefix = f"{self._sudo_password}\n".encode() if self._sudo_password else b""
        lines = Lines(heard) if heard else None
        with self._turn:
            done = self._exec(f"exec {command}", what, [prefix, body], feed, timeout_s, lines, until)
        _, mark, output = done.stdout.partition(MARK)
        if not mark:
            raise errors.CommandFailed(
                f"the node's shell did not run it (status {done.status}): {printable(done.stderr + done.stdout, 400)}",
                node=self._target.name,
                subject=what,
                remedy="try `ssh USER@HOST true` by hand; a node needs sh, timeout and head (coreutils)",
            )
        return Completed(self._target.name, what, done.status, output, done.stderr)

    def _check_sudo(self) -> None:
        if not self._sudo:
            return
        done = self._exec("exec sudo -n true", "sudo -n true", [], (), self._target.timeout_s)
        if done.status == 0:
            self._sudo_password = ""
        elif b"tty" in done.stderr:
            raise errors.LoginRefused(
                f"sudo asks {self._target.user} for a terminal: {printable(done.stderr, 300)}",
                node=self._target.name,
                remedy=f"allow it without one (sudoers: `Defaults:{self._target.user} !requiretty`)",
            )
        elif not self._sudo_password:
            raise errors.LoginRefused(
                f"sudo refused {self._target.user}: {printable(done.stderr, 300)}",
                node=self._target.name,
                remedy="allow it (sudoers: `USER ALL=(ALL) NOPASSWD: ALL`), or set RUNBOOK_SUDO_PASSWORD",
            )

    def _exec(
        self,
        command: str,
        what: str,
        head: list[bytes],
        feed: Iterable[bytes],
        timeout_s: float,
        lines: Lines | None = None,
        until: socket.socket | None = None,
    ) -> Completed:
        deadline = time.monotonic() + timeout_s
        try:
            if not (sessions := self._sessions):
                raise paramiko.SSHException("not connected")  # noqa: TRY301 - mapped like the others below
            channel = sessions.take()
            channel.exec_command(command)
            sessions.ahead()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(what, str(error)) from error
        feeder = Feeder(channel, feed)
        # A node that stops reading early has failed: its exit status tells why, not our broken pipe.
        with contextlib.suppress(OSError, EOFError):
            channel.settimeout(max(0.1, timeout_s))
            for block in head:
                send(channel, block)
            if feed == ():
                channel.shutdown_write()
            else:
                feeder.start()
        try:
            out, err = drain(channel, deadline, lines, until)
        except BaseException:  # of who listens, or nobody waits any more: the script ends with its channel
            channel.close()
            raise
        with self._counting:
            self.counts.scripts += 1
            self.counts.bytes_sent += feeder.sent + sum(map(len, head))
        if feeder.error:
            channel.close()
            raise feeder.error
        if channel.exit_status_ready():
            status = channel.recv_exit_status()
            channel.close()
            if status >= 0:
                return Completed(self._target.name, what, status, out, err)
        channel.close()
        if time.monotonic() >= deadline:
            raise errors.CommandFailed(
                f"did not end within {timeout_s:g} s; it said: {printable(err or b'nothing')}",
                node=self._target.name,
                subject=what,
                remedy="see what holds it up on the node (`systemctl list-jobs`, `journalctl -e`), then run again",
            )
        raise self._lost(what, "the connection was closed")

    def _lost(self, what: str, why: str) -> errors.ConnectionLost:
        return errors.ConnectionLost(
            f"the connection broke in the middle: {why}",
            node=self._target.name,
            subject=what,
            remedy="see that the node is up, then run again: what is done already is not done twice",
        )


class SshConnection(Login):
    """A logged-in connection to one node of a cluster."""

    def __init__(self, node: Node, ssh: Ssh) -> None:
        super().__init__(dial.target(node, ssh), sudo=ssh.sudo)
        self.node = node
