"""runbook.ssh: scripts on a node; a stand-in for sshd on the loopback (a real one: tests/sandbox)."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ssh_server import NODE, StandInSshd

from runbook import errors
from runbook.params import Cluster
from runbook.plain_text import clean, printable
from runbook.ssh import Connection, SshConnection
from runbook.transport import broker, brokered
from runbook.transport.channel import Lines
from runbook.transport.completed import Completed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["direct", "brokered"])
def connection(server: StandInSshd, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A node by a connection of our own, and as the broker of a run reaches it: no test here tells them apart."""
    ssh = server.settings()
    with contextlib.ExitStack() as ends:
        if request.param == "brokered":
            ends.enter_context(broker.serving(Cluster.model_construct(nodes=(NODE,), ssh=ssh)))
        one = brokered.connection(NODE, ssh)
        ends.callback(one.close)
        yield one


# ---- what comes back


def test_output_error_and_status_come_apart(connection: Connection) -> None:
    """Stdout, stderr and exit status are kept apart, byte by byte."""
    done = connection.run("printf 'out\\000\\377'; echo err >&2; exit 7", what="try")
    assert (done.node, done.what, done.status) == ("node1", "try", 7)
    assert (done.stdout, done.stderr) == (b"out\0\xff", b"err\n")


def test_locale_and_path_are_set(connection: Connection) -> None:
    """A script has the C locale and the sbin folders, whatever the node's shell has."""
    done = connection.run("echo $LC_ALL; echo $PATH", what="env").check()
    assert done.text == "C\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"


@pytest.mark.parametrize(
    "script",
    [
        "echo \"a 'b' `echo c` $(echo d)\"",
        "cat <<'END'\n$HOME \\ \"\nEND",
        "printf %s 'é中 @runbook'",
        "# nothing\n",
        "",
    ],
)
def test_a_script_runs_as_it_is(connection: Connection, script: str) -> None:
    """No shell on the way reads the script: what it prints is what sh prints of it here."""
    wanted = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True).stdout
    assert connection.run(script, what="try").check().text == wanted


def test_a_script_is_not_on_the_command_line(server: StandInSshd, connection: Connection) -> None:
    """Nothing of a script is in the node's process list, and its length has no limit there."""
    connection.run("x=verysecret; " + ": " + "y" * 300_000, what="try").check()
    assert "verysecret" not in "".join(server.commands)
    assert max(map(len, server.commands)) < 300


def test_what_begin_raises_keeps_the_script_here(server: StandInSshd, connection: Connection, tmp_path: Path) -> None:
    """It is called once the node is connected; nothing has been sent then, and the connection serves on."""

    def begin() -> None:
        assert not server.commands
        raise KeyError("not now")

    with pytest.raises(KeyError):
        connection.run(f"touch {tmp_path}/ran", what="look", begin=begin)
    assert connection.run(f"ls {tmp_path}/ran || echo none", what="look", begin=lambda: None).text == "none\n"


def test_noise_of_the_login_shell_is_dropped(server: StandInSshd, connection: Connection) -> None:
    """What a start-up file prints before the script is no part of its output."""
    server.noise = b"Welcome!\n\x1e@run\x1b[2J\n"
    assert connection.run("echo mine", what="try").text == "mine\n"


def test_a_node_that_runs_no_scripts_says_so(server: StandInSshd, connection: Connection) -> None:
    """An account without a shell is an error that shows what it said."""
    server.shell = ["sh", "-c", "echo This account is currently not available.; exit 1", "nologin"]
    with pytest.raises(errors.CommandFailed, match=r"did not run it \(status 1\): This account is currently not"):
        connection.run("true", what="try")


def test_a_failed_script_raises_with_its_last_words() -> None:
    """`check` gives node, what was done, status and the end of stderr; a good one returns itself."""
    good = Completed("node1", "try", 0, b"x", b"warning")
    assert good.check() is good
    with pytest.raises(errors.CommandFailed) as caught:
        Completed("node1", "etcdctl member list", 2, b"", b"\x1b[31mx509: bad\n").check("phase 02")
    assert str(caught.value) == "node1: etcdctl member list: ended with status 2: [31mx509: bad\n  -> phase 02"
    with pytest.raises(errors.CommandFailed, match="it printed nothing on stderr"):
        Completed("node1", "try", 1, b"", b"").check()


# ---- streams


def test_input_and_output_flow_together(connection: Connection) -> None:
    """Neither side waits for the other: 2 MiB through `cat` come back whole."""
    block = os.urandom(1 << 20)
    done = connection.run("cat", what="cat", feed=[block, block], timeout_s=20)
    assert done.stdout == block * 2


def test_a_script_may_leave_its_input(connection: Connection) -> None:
    """A script that fails before it read all of its input: its status tells why, not a broken pipe."""
    done = connection.run("echo full >&2; exit 5", what="try", feed=[bytes(1 << 20)] * 4, timeout_s=20)
    assert (done.status, done.stderr) == (5, b"full\n")


def test_lines_are_heard_as_they_come(connection: Connection, tmp_path: Path) -> None:
    """Each whole line is told while the script still runs: here it waits for a file that hearing its line makes."""
    said: list[str] = []

    def heard(line: str) -> None:
        said.append(line)
        if line == "waiting":
            (tmp_path / "heard").touch()

    script = (
        f"echo first; echo waiting; until [ -e {tmp_path}/heard ]; do sleep 0.01; done; printf 'gr\\303\\274n\\nhalf'"
    )
    done = connection.run(script, what="try", heard=heard, timeout_s=20).check()
    assert said == ["first", "waiting", "grün"]
    assert done.text == "first\nwaiting\ngrün\nhalf"


def test_what_hearing_raises_reaches_the_caller(connection: Connection) -> None:
    """Whoever listens may end the script: it is not waited for."""

    def heard(line: str) -> None:
        raise errors.CommandFailed(f"enough: {line}")

    with pytest.raises(errors.CommandFailed, match="enough: one"):
        connection.run("echo one; exec sleep 60", what="try", heard=heard, timeout_s=20)
    assert connection.run("echo on", what="try").text == "on\n"


@given(st.lists(st.binary(max_size=40), max_size=8), st.binary(max_size=60).filter(lambda noise: b"\x1e" not in noise))
def test_lines_do_not_depend_on_how_bytes_arrive(blocks: list[bytes], noise: bytes) -> None:
    """However the stream is cut, the same lines are told, and never the mark or what comes before it."""
    said: list[str] = []
    lines = Lines(said.append)
    whole = b"".join(blocks)
    for block in [noise, b"\x1e@run", b"book\n", *blocks]:
        lines.add(block)
    assert said == [line.decode("utf-8", "replace") for line in whole.split(b"\n")[:-1]]


def test_what_hearing_raises_of_its_own_stays_what_it_is(connection: Connection) -> None:
    """A full disk on this side is no broken connection."""

    def heard(_line: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        connection.run("echo one; exec sleep 60", what="try", heard=heard, timeout_s=20)


def test_whatever_a_script_prints_is_only_text(connection: Connection) -> None:
    """Bytes that look like the ends, marks or frames of what carries them come back as they are."""
    hostile = bytes(range(256)) + b"\x1e@runbook\nr\x00\x00\x00\x02{}u\x00\x00\x00\x00o\xff\xff\xff\xff\n"
    said: list[str] = []
    done = connection.run("cat; cat /dev/null >&2", what="try", feed=[hostile], heard=said.append, timeout_s=20)
    assert done.stdout == hostile
    assert said == [line.decode("utf-8", "replace") for line in hostile.split(b"\n")[:-1]]


def test_an_error_of_the_feed_is_the_error(connection: Connection) -> None:
    """What making the stream raised reaches the caller as it is."""

    def feed() -> Iterator[bytes]:
        yield b"half"
        raise errors.ArtifactError("it changed while it was sent")

    with pytest.raises(errors.ArtifactError, match="it changed while it was sent"):
        connection.run("cat >/dev/null", what="try", feed=feed(), timeout_s=20)


# ---- deadlines and lost connections


@pytest.mark.parametrize("script", ["echo waiting >&2; exec sleep 60", "echo waiting >&2; exec yes"])
def test_a_deadline_ends_the_wait(connection: Connection, script: str) -> None:
    """A script that hangs, silent or never silent, ends at its deadline with what it said."""
    start = time.monotonic()
    with pytest.raises(errors.CommandFailed, match=r"did not end within 0\.3 s; it said: waiting"):
        connection.run(script, what="try", timeout_s=0.3)
    assert time.monotonic() - start < 5


def test_the_node_itself_ends_a_script_that_is_late(server: StandInSshd, connection: Connection) -> None:
    """What may change a node has a deadline in its command line, a little later than ours: nothing runs on."""
    connection.run("true", what="try", timeout_s=60, begin=lambda: None)
    assert " timeout -k 5 65 sh" in server.commands[-1]


def test_a_cut_connection_is_told_and_made_again(server: StandInSshd, connection: Connection) -> None:
    """A connection that breaks in the middle is an error at once; the next script connects anew."""
    with pytest.raises(errors.ConnectionLost, match="broke in the middle") as caught:
        connection.run("echo on; exec sleep 60", what="try", heard=lambda _line: server.cut(), timeout_s=30)
    assert (caught.value.node, caught.value.subject) == ("node1", "try")
    assert connection.run("echo again", what="try").text == "again\n"
    assert server.accepted == 2


def test_one_connection_serves_all_scripts(server: StandInSshd, connection: Connection) -> None:
    """A second script opens a channel and no connection; closing twice is allowed."""
    connection.open()
    connection.run("true", what="one")
    connection.run("true", what="two")
    assert server.accepted == 1
    connection.close()
    connection.close()


# ---- sudo


SUDO = """#!/bin/sh
# Stands in for sudo: `-n` works when there is a file beside it; `-kS` wants the password on standard input.
here=$(dirname "$0")
case $1 in
-n) [ -e "$here/allowed" ] || { echo 'sudo: a password is required' >&2; exit 1; };;
-kS) read -r password; [ "$password" = 'pass word$' ] || { echo 'sudo: 1 incorrect password attempt' >&2; exit 1; };;
esac
while [ "$1" != -- ] && [ "$1" != true ]; do shift; done
[ "$1" = true ] || shift
exec "$@"
"""


@pytest.fixture
def sudo(server: StandInSshd) -> Path:
    folder = server.folder / "shims"
    folder.mkdir()
    (folder / "sudo").write_text(SUDO)
    (folder / "sudo").chmod(0o755)
    return folder


def test_sudo_without_a_password(server: StandInSshd, sudo: Path) -> None:
    """Where sudo asks for nothing, scripts run by it, with their input."""
    (sudo / "allowed").touch()
    connection = SshConnection(NODE, server.settings(sudo=True, user="ops"))
    assert connection.run("cat", what="try", feed=[b"fed"]).check().text == "fed"
    assert "sudo -n -- timeout " in server.commands[-1]
    connection.close()


def test_sudo_with_a_password(server: StandInSshd, sudo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is the first line of standard input, never on the command line, and no part of the feed."""
    assert sudo.is_dir()
    monkeypatch.setenv("RUNBOOK_SUDO_PASSWORD", "pass word$")
    connection = SshConnection(NODE, server.settings(sudo=True, user="ops"))
    assert connection.run("cat", what="try", feed=[b"fed"]).check().text == "fed"
    assert "pass word" not in "".join(server.commands)
    connection.close()


def test_a_password_that_sudo_does_not_ask_for_is_not_sent(
    server: StandInSshd, sudo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sudo needs no password, one that is set does not end up in the script's input."""
    (sudo / "allowed").touch()
    monkeypatch.setenv("RUNBOOK_SUDO_PASSWORD", "pass word$")
    connection = SshConnection(NODE, server.settings(sudo=True, user="ops"))
    assert connection.run("cat", what="try", feed=[b"fed"]).check().text == "fed"
    connection.close()


def test_sudo_that_refuses_is_told(server: StandInSshd, sudo: Path) -> None:
    """Without rights and password the error names the user and both ways out."""
    assert sudo.is_dir()
    with pytest.raises(errors.LoginRefused, match="sudo refused ops: sudo: a password is required") as caught:
        SshConnection(NODE, server.settings(sudo=True, user="ops")).open()
    assert "RUNBOOK_SUDO_PASSWORD" in caught.value.remedy


# ---- text of a node


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_cleaned_text_has_no_control_characters(text: bytes | str) -> None:
    """Whatever a node prints, what is kept of it can't colour, move or ring; a second cleaning changes nothing."""
    cleaned = clean(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", cleaned)
    assert clean(cleaned) == cleaned
    assert len(printable(text, 20)) <= 20


def test_printable_is_the_end() -> None:
    """Of a long text the end is kept: that is where the error stands."""
    assert printable(b"start " + b"x" * 3000 + b" end\n").endswith("x end")
    assert printable("  a\tb\nc \x1b[0m\r\n") == "a\tb\nc [0m"
