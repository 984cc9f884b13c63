"""What flows through a script's channel: its input fed in chunks, its output drained, its lines told as they come."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runbook.transport import dial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import paramiko

#: Printed before a script's own output: whatever a noisy shell start-up file prints comes before it and is dropped.
MARK = b"\x1e@runbook\n"
#: Ends a script: of one that was cut on its way nothing runs, not even `rm -rf /data` of an `rm -rf /data/.staged`.
_WHOLE = "\n# whole"
#: What OpenSSH takes in a packet is 32 KiB, of which paramiko leaves 64 bytes free: 32 KiB would be two packets.
_CHUNK = 32 * 1024 - 64
#: Linux tells by it that the other side is gone though its last bytes are not read; elsewhere there is no such event.
_GONE = getattr(select, "POLLRDHUP", 0)
#: A node within this round trip gets its input with no more than so much of it on its way: at 250 MiB/s it still has
#: no pause. sshd grows its buffer for what waits there by copying it, up to its window of 2 MiB: a third of its work.
_NEAR_S = 0.002
_ON_ITS_WAY = 512 * 1024
#: OpenSSH tells at each 96 KiB that it has taken them (channels.c, channel_check_window).
_TOLD_S = 0.1
#: Where Linux' struct tcp_info has its u32 tcpi_min_rtt, in microseconds (linux/tcp.h, since 4.6): the usual one has
#: the time in which an answer waits to be sent.
_ROUND_TRIP = struct.Struct("148xI")


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: Its exit status; None where none came: it did not end in time, or the connection broke.
        stdout, stderr: What it printed.
        sent: How many bytes were sent to it.
    """

    status: int | None
    stdout: bytes
    stderr: bytes
    sent: int


class Abandoned(Exception):
    """Whoever asked for a script is gone: nobody waits for its end."""


def packed(script: str) -> tuple[bytes, str]:
    """Make a script what is sent, and give the sh (without a single quote) that reads it from standard input, runs it.

    A shell reads its commands as they come: of a script that arrives in part it would run what came, to the middle of
    a word.
    """
    body = f"{script}{_WHOLE}".encode()
    refused = "{ echo the script arrived in part >&2; exit 1; }"
    return body, f's=$(head -c {len(body)}); case $s in *"# whole") eval "$s" ;; *) {refused} ;; esac'


def alone(script: str) -> bytes:
    """Make a script that has no input what is sent to `sh`, which reads it to its last word before any of it runs."""
    return f"rb_run() {{\n{script}\n}}\ncase run in run) rb_run </dev/null ;; esac\n".encode()


def send(channel: paramiko.Channel, block: bytes) -> None:
    """Send bytes to a command's standard input."""
    # Channel.sendall copies the rest at every send: 64 MiB would take 41 s. Views of small chunks don't.
    view = memoryview(block)
    for start in range(0, len(view), _CHUNK):
        channel.sendall(bytes(view[start : start + _CHUNK]))


def _is_near(channel: paramiko.Channel) -> bool:
    """Whether a node's answers take less than _NEAR_S, by the kernel's own measure; not told of a jump host's."""
    line = channel.get_transport().sock
    try:
        info = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ROUND_TRIP.size)  # type: ignore[union-attr]
        return bool(_ROUND_TRIP.unpack(info)[0] / 1e6 < _NEAR_S)
    except (AttributeError, OSError, struct.error):  # no TCP socket, or no Linux here
        return False


class Feeder(threading.Thread):
    """Sends standard input while the caller drains the output: neither waits for the other.

    Attributes:
        error: What making the stream raised; the channel is closed then.
        sent: Bytes sent so far.
    """

    def __init__(self, channel: paramiko.Channel, feed: Iterable[bytes]) -> None:
        super().__init__(daemon=True, name="runbook-feed")
        self.error: Exception | None = None
        self.sent = 0
        self._channel, self._feed = channel, feed
        self._window = 0

    def run(self) -> None:
        """Send all of it, then the end of the input."""
        self._window = self._channel.out_window_size if _is_near(self._channel) else 0
        # The node may stop reading early (it failed): its exit status tells why, not our broken pipe.
        with contextlib.suppress(OSError, EOFError):
            blocks = iter(self._feed)
            while True:
                try:
                    block = next(blocks, None)
                except Exception as error:  # noqa: BLE001 - whatever making the stream raised belongs to the caller
                    self.error = error
                    self._channel.close()
                    return
                if block is None:
                    break
                self._wait_for_what_is_on_its_way()
                send(self._channel, block)
                self.sent += len(block)
            self._channel.shutdown_write()

    def _wait_for_what_is_on_its_way(self) -> None:
        channel = self._channel
        with channel.lock:
            while (before := channel.out_window_size) < self._window - _ON_ITS_WAY and not channel.closed:
                channel.out_buffer_cv.wait(_TOLD_S)
                if channel.out_window_size == before:
                    self._window = 0  # not OpenSSH: it tells only when most of its window is used; or a busy node


class Lines:
    """Tells each complete line of a script's stdout as its bytes arrive; what comes before the mark is not told."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._kept = bytearray()
        self._begun = False

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self._kept += data
        if not self._begun:
            _, mark, rest = self._kept.partition(MARK)
            if not mark:
                return
            self._begun, self._kept = True, rest
        *whole, self._kept = self._kept.split(b"\n")
        for line in whole:
            self._tell(line.decode("utf-8", "replace"))


def drain(
    channel: paramiko.Channel,
    deadline: float,
    lines: Lines | None = None,
    until: socket.socket | None = None,
    whole: Callable[[bytearray, bytearray], bool] | None = None,
) -> tuple[bytes, bytes]:
    """Read stdout and stderr until the command ended, the connection broke or the deadline passed.

    Args:
        channel: Runs the command.
        deadline: By time.monotonic().
        lines: Gets stdout as it comes.
        until: Belongs to whoever asked for it; when its other end is closed nobody waits any more.
        whole: Says of what came so far that no more will come, though the command goes on.

    Raises:
        Abandoned: `until` was closed.
    """
    out, err = bytearray(), bytearray()
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    if until:
        poll.register(until, _GONE)
    while (left := deadline - time.monotonic()) > 0:
        _take(channel, out, err, lines)
        if whole and whole(out, err):
            break
        if channel.eof_received or channel.closed:
            if channel.recv_ready() or channel.recv_stderr_ready():
                continue
            channel.status_event.wait(min(left, dial.DEAD_AFTER_S))
            if not (channel.recv_ready() or channel.recv_stderr_ready()):
                break
        elif any(until and ready == until.fileno() for ready, _ in poll.poll(min(left, 1) * 1000)):
            raise Abandoned
    return bytes(out), bytes(err)


def _take(channel: paramiko.Channel, out: bytearray, err: bytearray, lines: Lines | None) -> None:
    """Add what has come."""
    while channel.recv_ready():
        block = channel.recv(1 << 20)
        out += block
        if lines:
            lines.add(block)
    while channel.recv_stderr_ready():
        err += channel.recv_stderr(1 << 20)


def talk(
    channel: paramiko.Channel,
    head: list[bytes],
    feed: Iterable[bytes],
    deadline: float,
    lines: Lines | None = None,
    until: socket.socket | None = None,
) -> Ended:
    """Send a command its input, read what it prints, and close the channel; see `drain`.

    Args:
        channel: Runs the command.
        head: Is sent first.
        feed: Is sent after it, in small chunks, while the output is drained; its error is raised here.
        deadline: By time.monotonic().
        lines: Gets stdout as it comes.
        until: Belongs to whoever asked for it.
    """
    feeder = Feeder(channel, feed)
    # A node that stops reading early has failed: its exit status tells why, not our broken pipe.
    with contextlib.suppress(OSError, EOFError):
        channel.settimeout(max(0.1, deadline - time.monotonic()))
        for block in head:
            send(channel, block)
        if feed == ():
            channel.shutdown_write()
        else:
            feeder.start()
    try:
        out, err = drain(channel, deadline, lines, until)
        if feeder.error:
            raise feeder.error
        status = channel.recv_exit_status() if channel.exit_status_ready() else -1
    finally:  # also where who listens raises, or nobody waits any more: the script ends with its channel
        channel.close()
    return Ended(status if status >= 0 else None, out, err, feeder.sent + sum(map(len, head)))
