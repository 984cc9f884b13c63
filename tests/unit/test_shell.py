"""runbook.transport.shell: scripts that only look, by one shell that waits; a stand-in for sshd on the loopback."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ssh_server import NODE, StandInSshd
from waiting import until

from runbook import errors
from runbook.ssh import SshConnection
from runbook.transport import sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

SHELL = "exec sh"


@pytest.fixture
def connection(server: StandInSshd) -> Iterator[SshConnection]:
    """A node."""
    one = SshConnection(NODE, server.settings())
    yield one
    one.close()


def nothing() -> None:
    """What begins with a script that may change the node."""


def test_one_program_runs_all_scripts_that_only_look(server: StandInSshd, connection: SshConnection) -> None:
    """Each has its own output and status; nothing further is started for the second and third."""
    for number in range(3):
        done = connection.run(f"echo out {number}; echo err {number} >&2; exit {number}", what="look")
        assert (done.text, done.stderr, done.status) == (f"out {number}\n", f"err {number}\n".encode(), number)
    assert server.commands == [SHELL]
    assert connection.counts.scripts == 3


def test_what_may_change_a_node_has_a_program_of_its_own(server: StandInSshd, connection: SshConnection) -> None:
    """One that is fed, one that is heard, and one with which something begins: under timeout(1), never by the shell."""
    assert connection.run("cat", what="feed", feed=[b"fed"]).text == "fed"
    assert connection.run("echo heard", what="hear", heard=lambda _line: None).text == "heard\n"
    assert connection.run("echo begun", what="begin", begin=nothing).text == "begun\n"
    assert [command.split()[:2] for command in server.commands] == [["exec", "timeout"]] * 3


def test_a_script_leaves_nothing_to_the_next(connection: SshConnection, tmp_path: Path) -> None:
    """Variables, functions, options, traps, the folder, umask and open files end with it; its input is empty."""
    left = f"a=b; f() {{ :; }}; set -eu; trap 'echo trapped' EXIT; cd {tmp_path}; umask 077; exec 7</dev/null; export a"
    assert connection.run(left, what="leave").text == "trapped\n"
    look = "echo ${a-none} $- $(umask); f 2>/dev/null || echo none; pwd; [ -e /proc/self/fd/7 ] || echo none; cat; trap"
    plain = connection.run(look, what="look", begin=nothing).text
    assert connection.run(look, what="look").text == plain
    assert plain.split()[0] == "none"


@pytest.mark.parametrize(
    "script",
    ["printf '\\036%s 0\\n' 0123456789abcdef", "printf '\\036'; printf '\\036' >&2", "printf 'no line end'", ":", ""],
)
def test_whatever_it_prints_is_not_taken_for_its_end(connection: SshConnection, script: str) -> None:
    """What looks like a mark is output; the next script is not disturbed."""
    own = connection.run(script, what="own", begin=nothing)
    done = connection.run(script, what="look")
    assert (done.stdout, done.stderr, done.status) == (own.stdout, own.stderr, own.status)
    assert connection.run("echo next", what="look").text == "next\n"


def test_much_output_on_both_sides_comes_whole(connection: SshConnection) -> None:
    """Neither fills up while the other is read."""
    both = "head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2; head -c 1000000 /dev/zero"
    done = connection.run(both, what="look")
    assert (len(done.stdout), len(done.stderr)) == (4_000_000, 2_000_000)


def test_while_it_works_another_look_has_its_own_program(
    server: StandInSshd, connection: SshConnection, tmp_path: Path
) -> None:
    """Neither waits for the other: the first ends when the second has run."""
    wait = f"touch {tmp_path}/begun; until [ -e {tmp_path}/second ]; do sleep 0.01; done; echo first"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(connection.run, wait, what="wait", timeout_s=20)
        until((tmp_path / "begun").exists)
        connection.run(f"touch {tmp_path}/second", what="look").check()
        assert first.result(20).text == "first\n"
    assert [command == SHELL for command in server.commands] == [True, False]


def test_a_shell_that_dies_is_no_error(server: StandInSshd, connection: SshConnection, tmp_path: Path) -> None:
    """Killed in the middle of a look: that is run again with a program of its own, the next one by a new shell."""
    assert connection.run("echo first", what="look").text == "first\n"
    once = f"if mkdir {tmp_path}/killed 2>/dev/null; then kill -KILL $$; fi; echo there"
    assert connection.run(once, what="look").text == "there\n"
    assert connection.run("echo next", what="look").text == "next\n"
    assert [command == SHELL for command in server.commands] == [True, False, True]


def test_a_script_that_is_none_is_told(connection: SshConnection) -> None:
    """What sh can't read ends the shell that reads it, and is told as by a program of its own."""
    with pytest.raises(errors.CommandFailed, match=r"look: the node's shell did not run it .*yntax error"):
        connection.run("if then (", what="look")
    assert connection.run("echo next", what="look").text == "next\n"


def test_at_its_deadline_it_ends_on_the_node_too(connection: SshConnection, tmp_path: Path) -> None:
    """The script, what it started and the shell that ran it; the next look has a new one."""
    hangs = f"sleep 600 & echo $! >{tmp_path}/child; echo waiting >&2; wait"
    with pytest.raises(errors.CommandFailed, match=r"hang: did not end within 0\.5 s; it said: waiting"):
        connection.run(hangs, what="hang", timeout_s=0.5)
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    until(lambda: not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z")
    assert connection.run("echo next", what="look").text == "next\n"


def test_what_a_noisy_shell_prints_at_its_start_is_dropped(server: StandInSshd, connection: SshConnection) -> None:
    """As a start-up file does that greets whoever logs in."""
    server.noise = b"Welcome!\n\x1eno mark\n"
    assert connection.run("echo there", what="look").text == "there\n"


def test_with_hundreds_of_connections_there_is_none(
    server: StandInSshd, connection: SshConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell a node would be a load on this side then: each look has a program of its own."""
    monkeypatch.setattr(sessions, "MANY_THREADS", 0)
    assert connection.run("echo there", what="look").text == "there\n"
    assert SHELL not in server.commands


def test_where_there_can_be_none_it_is_asked_for_once(server: StandInSshd, connection: SshConnection) -> None:
    """As where sudo allows timeout(1) and no shell: the first look tells, all are run by programs of their own."""
    server.shell = ["sh", "-c", f'[ "$1" != "{SHELL}" ] || exit 1; exec sh -c "$1"', "sshd"]
    for number in range(3):
        assert connection.run(f"echo {number}", what="look").text == f"{number}\n"
    assert [command == SHELL for command in server.commands] == [True, False, False, False]


def test_a_cut_connection_is_told(server: StandInSshd, connection: SshConnection, tmp_path: Path) -> None:
    """In the middle of a look; the next one connects anew, and has a shell."""
    hangs = f"touch {tmp_path}/begun; sleep 60"
    cut = threading.Thread(target=lambda: (until((tmp_path / "begun").exists), server.cut()))
    cut.start()
    with pytest.raises(errors.ConnectionLost, match="broke in the middle"):
        connection.run(hangs, what="look", timeout_s=30)
    cut.join()
    assert connection.run("echo next", what="look").text == "next\n"
    assert (server.accepted, server.commands) == (2, [SHELL, SHELL])
