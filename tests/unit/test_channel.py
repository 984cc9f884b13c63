"""runbook.transport.channel: a script as it is sent; what flows through a channel is in test_ssh."""

from __future__ import annotations

import socket
import subprocess
import threading
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from runbook.transport import channel

if TYPE_CHECKING:
    from pathlib import Path


def ran(body: bytes, reads: str, folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    argv = ["sh", "-c", reads]
    return subprocess.run(argv, input=body, capture_output=True, cwd=folder, timeout=30, check=False)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_a_whole_script_runs_as_it_is(text: str) -> None:
    """Whatever it holds, its end included."""
    body, reads = channel.packed(f"printf %s {quote(text)}")
    done = ran(body, reads)
    assert (done.returncode, done.stdout.decode()) == (0, text)
    assert "'" not in reads


def test_of_a_script_that_was_cut_nothing_runs(tmp_path: Path) -> None:
    """At whatever byte: not what came before, and no half word, such as a folder in the place of a file in it."""
    body, reads = channel.packed("touch ran\nrm -rf kept/.staged\n")
    (tmp_path / "kept").mkdir()
    for size in range(len(body)):
        done = ran(body[:size], reads, tmp_path)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"in part" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]
    assert ran(body, reads, tmp_path).returncode == 0
    assert (tmp_path / "ran").exists()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_a_script_without_input_runs_as_it_is(text: str) -> None:
    """Whatever it holds; what it reads is nothing, never the rest of itself."""
    body = channel.alone(f"printf %s {quote(text)}; cat; exit 7 # the last line")
    done = subprocess.run(["sh"], input=body, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout.decode()) == (7, text)


def test_of_a_script_without_input_that_was_cut_nothing_runs(tmp_path: Path) -> None:
    """At whatever byte before its last word is whole."""
    body = channel.alone("touch ran\nrm -rf kept/.staged\n")
    (tmp_path / "kept").mkdir()
    for size in range(len(body) - len("\n")):
        done = subprocess.run(["sh"], input=body[:size], capture_output=True, cwd=tmp_path, timeout=30, check=False)
        assert done.stdout == b""
        assert [one.name for one in tmp_path.iterdir()] == ["kept"], size
    subprocess.run(["sh"], input=body, cwd=tmp_path, timeout=30, check=True)
    assert (tmp_path / "ran").exists()


@dataclass
class Window:
    """Stands in for a paramiko channel: a window that sends take from and the node gives back to."""

    out_window_size: int = 2 * 1024 * 1024
    closed: bool = False
    line: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    least: int = 2 * 1024 * 1024

    def __post_init__(self) -> None:
        self.out_buffer_cv = threading.Condition(self.lock)

    def get_transport(self) -> Any:  # noqa: ANN401 - a stand-in
        return type("Transport", (), {"sock": self.line})

    def sendall(self, data: bytes) -> None:
        with self.lock:
            self.out_window_size -= len(data)
            self.least = min(self.least, self.out_window_size)

    def taken(self, size: int) -> None:
        with self.lock:
            self.out_window_size += size
            self.out_buffer_cv.notify_all()

    def shutdown_write(self) -> None:
        self.closed = True


def fed(window: Window, blocks: int) -> channel.Feeder:
    feeder = channel.Feeder(window, [bytes(256 * 1024)] * blocks)  # type: ignore[arg-type]
    feeder.start()
    return feeder


def test_to_a_node_that_is_near_no_more_than_a_part_of_its_window_is_on_its_way() -> None:
    """By the kernel's own measure of a real connection; the rest is sent as the node takes what came."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as line:
        window = Window(line=line)
        feeder = fed(window, 20)
        while feeder.is_alive():
            feeder.join(0.01)
            window.taken(2 * 1024 * 1024 - window.out_window_size)
    assert feeder.sent == 20 * 256 * 1024
    assert window.least >= 2 * 1024 * 1024 - channel._ON_ITS_WAY - 256 * 1024


def test_to_any_other_node_the_whole_window_is_used() -> None:
    """One behind a jump host, whose way nobody measures: over a long one half a window would be half the speed."""
    window = Window()
    fed(window, 8).join(10)
    assert window.out_window_size == 0


def test_a_server_that_tells_late_what_it_has_taken_gets_all() -> None:
    """Asyncssh's tells when half of its window is used: what waits for that is sent."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as line:
        window = Window(line=line)
        fed(window, 8).join(10)
    assert window.out_window_size == 0


def test_a_connection_that_closes_is_not_waited_for() -> None:
    """The feeder ends with it."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as line:
        window = Window(line=line, closed=True)
        feeder = fed(window, 4)
        feeder.join(10)
    assert not feeder.is_alive()
