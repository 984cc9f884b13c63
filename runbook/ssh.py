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
from runbook.transport.channel import MARK, Lines, alone, packed, talk
from runbook.transport.completed import Completed
from runbook.transport.sessions import Sessions
from runbook.transport.shell import Late, Shell

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from runbook.params import Node, Ssh

#: sudo's and sshd's own PATH may lack /usr/sbin, where `ip` is on some distributions.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = f"export LC_ALL=C PATH={PATH}\n"
#: Of the 10 sessions that sshd allows on a connection (MaxSessions) one is a shell's, one is open ahead, one is left.
_SCRIPTS_AT_ONCE = 7
#: A node that did not answer is not waited for again in each table: its connect timeout is 10 s.
_ASK_AGAIN_AFTER_S = 30.0


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
        self._shell: Shell | None = None
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
                command, password = self._as_root("sh")
                self._shell = Shell(self._sessions, command, password + _ENVIRONMENT.encode())
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        if self._client:
            dial.hang_up(self._client)
            self._client = self._sessions = self._shell = None

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

        A script that is neither fed nor heard, and with which nothing begins, only looks, or may be run twice as the
        lock's: a shell that waits there runs it, unless it is at work.

        Args:
            script: POSIX sh; runs with LC_ALL=C and a full PATH, as root where params say `sudo`.
            what: What it does, in words, for errors.
            feed: Its standard input, sent in small chunks while its output is drained.
            timeout_s: Deadline in seconds; the node itself ends a script that may change it too (timeout(1)), so that
                nothing runs on there after a lost connection.
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
        if not (begin or heard or feed != ()) and (looked := self._look(script, what, timeout_s, until)):
            return looked
        printed = MARK.decode("latin1").replace(chr(30), "\\036").rstrip()
        marked = f"{_ENVIRONMENT}printf '{printed}\\n'\n{script}"
        # A program's start is a millisecond of the node's: no env before the shell, and no head where nothing is fed.
        body, reads = (alone(marked), "") if feed == () else packed(marked)
        command, password = self._as_root(f"timeout -k 5 {timeout_s + 5:.0f} sh" + (f" -c '{reads}'" if reads else ""))
        lines = Lines(heard) if heard else None
        with self._turn:
            done = self._exec(command, what, [password, body], feed, timeout_s, lines, until)
        _, mark, output = done.stdout.partition(MARK)
        if not mark:
            raise errors.CommandFailed(
                f"the node's shell did not run it (status {done.status}): {printable(done.stderr + done.stdout, 400)}",
                node=self._target.name,
                subject=what,
                remedy="try `ssh USER@HOST true` by hand; a node needs sh, timeout and head (coreutils)",
            )
        return Completed(self._target.name, what, done.status, output, done.stderr)

    def _look(self, script: str, what: str, timeout_s: float, until: socket.socket | None) -> Completed | None:
        """Run a script that only looks by the shell that waits for such; None where that is not to be had now."""
        if not (shell := self._shell):
            return None
        try:
            answer = shell.ask(script, timeout_s, until)
        except Late as late:
            if late.end:
                with contextlib.suppress(errors.RunbookError):
                    self.run(late.end, what=f"end of {what}", timeout_s=self._target.timeout_s, begin=lambda: None)
            raise self._late(what, timeout_s, late.said) from None
        if answer is None:
            return None
        with self._counting:
            self.counts.scripts += 1
            self.counts.bytes_sent += len(script)
        return Completed(self._target.name, what, answer.status, answer.stdout, answer.stderr)

    def _as_root(self, command: str) -> tuple[str, bytes]:
        """The command line that runs a command as root, and what is to be sent to it first."""
        if not self._sudo:
            return f"exec {command}", b""
        if not self._sudo_password:
            return f"exec sudo -n -- {command}", b""
        return f"exec sudo -kS -p'' -- {command}", f"{self._sudo_password}\n".encode()

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
            try:
                channel = sessions.take()
            except paramiko.ChannelException:  # a server that allows few sessions
                if not (self._shell and self._shell.end()):
                    raise
                channel = sessions.take()
            channel.exec_command(command)
            sessions.ahead()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(what, str(error)) from error
        ended = talk(channel, head, feed, deadline, lines, until)
        with self._counting:
            self.counts.scripts += 1
            self.counts.bytes_sent += ended.sent
        if ended.status is not None:
            return Completed(self._target.name, what, ended.status, ended.stdout, ended.stderr)
        if time.monotonic() >= deadline:
            raise self._late(what, timeout_s, ended.stderr)
        raise self._lost(what, "the connection was closed")

    def _late(self, what: str, timeout_s: float, said: bytes) -> errors.CommandFailed:
        return errors.CommandFailed(
            f"did not end within {timeout_s:g} s; it said: {printable(said or b'nothing')}",
            node=self._target.name,
            subject=what,
            remedy="see what holds it up on the node (`systemctl list-jobs`, `journalctl -e`), then run again",
        )

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
