"""A shell that waits on a node for scripts that only look: each takes one round trip, and no program to run it.

What may change the node is not for it: that has a channel and programs of its own, with which it ends. What only looks
ends by itself, or is ended when its time is up.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import paramiko

from runbook.transport import channel as flow
from runbook.transport import sessions

if TYPE_CHECKING:
    import socket

#: The shell reads the whole of a script before any of it runs, as of `channel.alone`. What a script leaves behind (its
#: variables, traps, folder) is its own: a fork of the shell runs it.
_ASK = """\
rb_run() {{
:
{script}
}}
printf '\\036{token} %s\\n' "$$"; (rb_run) </dev/null; printf '\\036{token} %s\\n' "$?"; printf '\\036{token}\\n' >&2
"""
#: Ends a shell and all that it runs, by its process group, which under sudo is another's than its own (proc(5), stat).
_END = """\
read -r rb_stat <"/proc/{pid}/stat" || exit 0
set -- ${{rb_stat##*) }}
kill -s TERM -- "-$3"
"""


#: A shell that has nothing to do ends in less than a round trip and this.
_ENDS_S = 2.0


class Late(Exception):
    """A script did not end in time.

    Attributes:
        end: sh that ends it; '' where it is not known what runs.
        said: What it said on stderr.
    """

    def __init__(self, end: str, said: bytes) -> None:
        super().__init__(end)
        self.end = end
        self.said = said


@dataclass(frozen=True)
class Answer:
    """What a script left: its exit status, and stdout and stderr apart."""

    status: int
    stdout: bytes
    stderr: bytes


class Shell:
    """The shell of one logged-in connection: started when it is first asked, and anew when it is gone.

    Args:
        channels: The connection's.
        command: Starts it.
        first: What it reads before any script.
    """

    def __init__(self, channels: sessions.Sessions, command: str, first: bytes) -> None:
        self._channels = channels
        self._command = command
        self._first = first
        self._turn = threading.Lock()
        self._channel: paramiko.Channel | None = None
        #: Whether one has answered; None before the first was asked. Where the first did not, no other is tried.
        self._answers: bool | None = None

    def ask(self, script: str, timeout_s: float, until: socket.socket | None = None) -> Answer | None:
        """Run a script, unless another one runs, or there are so many connections that a shell each would be a load.

        Args:
            script: POSIX sh that only looks, or does the same when it is run again, as it may be where this gives None.
            timeout_s: How long to wait for its end.
            until: Belongs to whoever asked for the script: when its other end is closed, nobody waits any more.

        Returns:
            None where it was not run, or nothing is known of it: the shell could not be had, or ended.

        Raises:
            Late: it did not end in time.
            Abandoned: `until` was closed.
        """
        if self._answers is False or threading.active_count() > sessions.MANY_THREADS:
            return None
        if not self._turn.acquire(blocking=False):
            return None
        try:
            answer = self._ask(script, timeout_s, until)
        except BaseException:
            self.close()
            raise
        else:
            self._answers = self._answers or answer is not None
            if answer is None:
                self.close()
            return answer
        finally:
            self._turn.release()

    def _ask(self, script: str, timeout_s: float, until: socket.socket | None) -> Answer | None:
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            channel = self._open()
            channel.settimeout(timeout_s)  # of sending
            return _asked(channel, script, time.monotonic() + timeout_s, until)
        return None

    def _open(self) -> paramiko.Channel:
        if self._channel is None or self._channel.closed:
            self._channel = self._channels.take()
            self._channel.exec_command(self._command)
            self._channels.ahead()
            flow.send(self._channel, self._first)
        return self._channel

    def end(self) -> bool:
        """End it, once what it runs has ended, so that the server has room for another; whether there was one."""
        with self._turn:
            if (channel := self._channel) is None:
                return False
            channel.shutdown_write()
            channel.status_event.wait(_ENDS_S)
            self.close()
            return True

    def close(self) -> None:
        """Close its channel: it ends when what it runs has ended."""
        if self._channel:
            self._channel.close()
        self._channel = None


def _asked(channel: paramiko.Channel, script: str, deadline: float, until: socket.socket | None) -> Answer | None:
    """Send a script and take what it says, up to the marks that nobody can guess; None where the shell ended first."""
    token = secrets.token_hex(8)
    flow.send(channel, _ASK.format(script=script, token=token).encode())
    ended = re.compile(rb"\x1e%b (\d+)\n(.*)\x1e%b (\d+)\n\Z" % (2 * (token.encode(),)), re.DOTALL)
    told = b"\x1e%b\n" % token.encode()

    def whole(out: bytearray, err: bytearray) -> bool:
        return err.endswith(told) and ended.search(out) is not None

    out, err = flow.drain(channel, deadline, until=until, whole=whole)
    if (match := ended.search(out)) and err.endswith(told):
        return Answer(int(match[3]), match[2], err[: -len(told)])
    if time.monotonic() < deadline:
        return None
    begun = re.search(rb"\x1e%b (\d+)\n" % token.encode(), out)
    raise Late(_END.format(pid=int(begun[1])) if begun else "", err)
