"""runbook.transport.sessions: a channel that is there before its script; a stand-in for sshd on the loopback."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import paramiko
import pytest
from ssh_server import NODE, StandInSshd
from waiting import until

from runbook.ssh import SshConnection
from runbook.transport import sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def asked(server: StandInSshd, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The channels that the server was asked for."""
    numbers: list[int] = []
    answer: Callable[[str, int], int] = server.check_channel_request

    def request(kind: str, chanid: int) -> int:
        numbers.append(chanid)
        return answer(kind, chanid)

    monkeypatch.setattr(server, "check_channel_request", request)
    return numbers


def nothing() -> None:
    """What begins with a script that has a channel of its own."""


@pytest.fixture
def connection(server: StandInSshd) -> Iterator[SshConnection]:
    """A node."""
    one = SshConnection(NODE, server.settings())
    yield one
    one.close()


def test_a_channel_waits_for_each_script(asked: list[int], connection: SshConnection) -> None:
    """One is opened at the login and one beside each script, so that the next need not ask for it; none besides."""
    connection.open()
    for number in range(1, 4):
        until(lambda number=number: len(asked) >= number)
        assert connection.run("echo in", what="echo", begin=nothing).text == "in\n"
    until(lambda: len(asked) >= 4)
    assert len(asked) == 4


def test_one_that_the_server_closed_is_not_used(
    server: StandInSshd, asked: list[int], connection: SshConnection
) -> None:
    """As sshd does with one that waits for longer than its ChannelTimeout."""
    connection.open()
    until(lambda: asked)
    waiting = server.transports[0].accept(10)
    assert waiting is not None
    waiting.close()
    until(lambda: not len(server.transports[0]._channels))
    assert connection.run("echo in", what="echo", begin=nothing).text == "in\n"


def test_a_server_that_opens_one_at_a_time_is_enough(
    server: StandInSshd, monkeypatch: pytest.MonkeyPatch, connection: SshConnection
) -> None:
    """Sshd with `MaxSessions 1` refuses the one ahead while a script runs, and any while a shell waits for looks."""
    refused = threading.Event()

    def request(_kind: str, _chanid: int) -> int:
        if any(server.transports[0]._channels.values()):
            refused.set()
            return int(paramiko.OPEN_FAILED_RESOURCE_SHORTAGE)  # type: ignore[attr-defined]
        return int(paramiko.OPEN_SUCCEEDED)  # type: ignore[attr-defined]

    monkeypatch.setattr(server, "check_channel_request", request)
    for begin in (nothing, None, nothing, None):
        assert connection.run("sleep 0.1; echo in", what="echo", begin=begin).text == "in\n"
    assert refused.is_set()


@pytest.mark.parametrize(("name", "value"), [("_opening", threading.Semaphore(0)), ("MANY_THREADS", 0)])
def test_where_many_are_at_work_a_script_opens_its_own(
    asked: list[int], monkeypatch: pytest.MonkeyPatch, connection: SshConnection, name: str, value: object
) -> None:
    """All turns to open one ahead are taken, or there are hundreds of connections: none is opened ahead."""
    monkeypatch.setattr(sessions, name, value)
    for _ in range(2):
        assert connection.run("echo in", what="echo", begin=nothing).text == "in\n"
    assert len(asked) == 2
