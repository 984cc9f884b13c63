"""What the library's SSH does against a real sshd."""

from __future__ import annotations

import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from shlex import quote
from typing import TYPE_CHECKING

import pytest
from practice import Practice, cluster_of, until

from runbook import errors
from runbook.sandbox.machine import run
from runbook.ssh import SshConnection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbook.params import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-1")]

BYTES = 8 << 20
"""More than an SSH window and more than a pipe: whoever doesn't drain hangs."""


def connection(cluster: Cluster, node: str = "node1") -> SshConnection:
    """A connection to a node, not open yet."""
    return SshConnection(next(one for one in cluster.nodes if one.name == node), cluster.ssh)


def settings(practice: Practice, **ssh: object) -> Cluster:
    """The practice cluster's params with other SSH settings."""
    return cluster_of(practice.params(ssh=ssh))


def test_stdout_stderr_and_status_are_apart_and_large_output_is_drained(practice: Practice) -> None:
    """8 MiB on stdout while 8 MiB are on stderr, and the status of the script itself."""
    script = f"yes o | head -c {BYTES} & yes e | head -c {BYTES} >&2; wait; exit 7"
    with closing(connection(settings(practice))) as node:
        done = node.run(script, what="much output")
        assert (done.status, len(done.stdout), len(done.stderr)) == (7, BYTES, BYTES)
        assert (set(done.stdout), set(done.stderr)) == (set(b"o\n"), set(b"e\n"))
        with pytest.raises(errors.CommandFailed, match="status 7"):
            done.check()


def test_what_is_fed_comes_back_while_it_is_fed(practice: Practice) -> None:
    """Standard input is sent while the output is drained, byte by byte the same, and its end is seen."""
    blocks = [bytes(range(256)) * 4096] * 8
    with closing(connection(settings(practice))) as node:
        assert node.run("cat", what="cat", feed=iter(blocks)).stdout == b"".join(blocks)


def test_a_deadline_ends_the_command_here_and_there(practice: Practice) -> None:
    """It is an error within the deadline that says what the command printed, and no process of it stays on the node."""
    start = time.monotonic()
    with closing(connection(settings(practice))) as node:
        with pytest.raises(errors.CommandFailed, match=r"did not end within 0\.5 s; it said: waiting") as caught:
            node.run("echo waiting >&2; sleep 4321", what="wait", timeout_s=0.5)
        assert time.monotonic() - start < 5
        assert (caught.value.node, caught.value.subject) == ("node1", "wait")
        assert node.run("echo next", what="next").text == "next\n"
        until(lambda: node.run("pgrep -x -f 'sleep 4321'", what="look").status == 1)


def test_a_dead_peer_is_noticed_within_seconds(practice: Practice) -> None:
    """The node's link goes down while a command runs: no packet comes back, and it is ConnectionLost, not a hang."""
    address = practice.address("node3")
    script = f"link=$(ip -o -4 addr show | awk '$4 ~ /^{address}/ {{print $2}}'); ip link set $link down; sleep 600"
    start = time.monotonic()
    try:
        with closing(connection(settings(practice), "node3")) as node:
            with pytest.raises(errors.ConnectionLost) as caught:
                node.run(script, what="cut the link")
            assert caught.value.node == "node3"
            assert time.monotonic() - start < 15
    finally:
        practice.sandbox.stop("node3")
        practice.sandbox.start("node3")


def test_a_noisy_start_up_file_is_not_in_the_output(practice: Practice) -> None:
    """What ~/.bashrc prints before the script is dropped from stdout."""
    practice.on("node1", "cp /root/.bashrc /root/.bashrc.kept; sed -i '1i echo noise; echo more noise' /root/.bashrc")
    try:
        assert "noise" in practice.on("node1", "true")
        with closing(connection(settings(practice))) as node:
            assert node.run("echo own", what="echo").stdout == b"own\n"
    finally:
        practice.on("node1", "mv /root/.bashrc.kept /root/.bashrc")


def test_locale_and_path_are_set(practice: Practice) -> None:
    """Messages are English, and /usr/sbin is in PATH for a plain user with sudo as well."""
    for cluster in (settings(practice), settings(practice, user="ops", sudo=True)):
        with closing(connection(cluster)) as node:
            assert node.run("echo $LC_ALL; id -u; command -v ip iptables", what="look").text.split()[:2] == ["C", "0"]
            assert "/usr/sbin" in node.run("echo $PATH", what="look").text


def test_sixteen_connects_at_once(practice: Practice) -> None:
    """Sshd's MaxStartups drops some of 16 that come at once; all are connected in the end."""
    cluster = settings(practice)
    nodes = [connection(cluster) for _ in range(16)]
    try:
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(lambda node: node.run("echo in", what="echo").text, nodes)) == ["in\n"] * 16
    finally:
        for node in nodes:
            node.close()


def test_a_jump_host_is_gone_through(practice: Practice) -> None:
    """Node2 by way of node1: node2 sees node1's address, and nothing stays open on node1 after the end."""
    address = practice.address("node1")
    cluster = settings(practice, jump=f"root@{address}")
    with closing(connection(cluster, "node2")) as node:
        assert node.run("echo $SSH_CONNECTION", what="look").text.split()[0] == address
        assert node.run("echo again", what="again").text == "again\n"
        assert len(practice.sessions("node1")) == 1
    until(lambda: practice.sessions("node1") == [])


def test_many_connects_at_once_through_a_jump_host(practice: Practice) -> None:
    """More than may connect at once go through one jump host, and none waits for another for ever."""
    cluster = settings(practice, jump=f"root@{practice.address('node1')}")
    nodes, said = [connection(cluster, "node2") for _ in range(10)], []
    # Daemons: if they do wait for ever, the test fails instead of hanging.
    threads = [
        threading.Thread(target=lambda node=node: said.append(node.run("echo in", what="echo").text), daemon=True)
        for node in nodes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert said == ["in\n"] * 10
    for node in nodes:
        node.close()


def test_a_password_from_the_environment(practice: Practice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """RUNBOOK_SSH_PASSWORD logs in where no key does; a wrong one is LoginRefused, and is not in the message."""
    practice.on("node1", "echo ops:right-one | chpasswd")
    cluster = settings(practice, user="ops", key_file=str(tmp_path / "none"))
    monkeypatch.setenv("RUNBOOK_SSH_PASSWORD", "right-one")
    with closing(connection(cluster)) as node:
        assert node.run("id -un", what="id").text == "ops\n"
    monkeypatch.setenv("RUNBOOK_SSH_PASSWORD", "wrong-one")
    with closing(connection(cluster)) as node, pytest.raises(errors.LoginRefused) as caught:
        node.run("id -un", what="id")
    assert caught.value.node == "node1"
    assert "wrong-one" not in str(caught.value)


def test_a_key_in_the_agent(practice: Practice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a key file that is there, the agent's key logs in."""
    sock = tmp_path / "agent"
    cluster = settings(practice, key_file=str(tmp_path / "none"))
    with subprocess.Popen(["ssh-agent", "-D", "-a", sock], stdout=subprocess.DEVNULL) as agent:
        try:
            until(sock.exists)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
            run("ssh-add", "-q", str(practice.sandbox.key_file))
            with closing(connection(cluster)) as node:
                assert node.run("id -un", what="id").text == "root\n"
        finally:
            agent.terminate()


def test_sudo_that_asks_for_a_password(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without RUNBOOK_SUDO_PASSWORD it is LoginRefused that says so; with it the script runs as root."""
    practice.on("node1", "echo ops:secret-one | chpasswd; mv /etc/sudoers.d/ops /root/ops.kept")
    practice.on("node1", "echo 'ops ALL=(ALL) ALL' >/etc/sudoers.d/ops; chmod 440 /etc/sudoers.d/ops")
    cluster = settings(practice, user="ops", sudo=True)
    try:
        with closing(connection(cluster)) as node, pytest.raises(errors.LoginRefused, match="RUNBOOK_SUDO_PASSWORD"):
            node.run("id -un", what="id")
        monkeypatch.setenv("RUNBOOK_SUDO_PASSWORD", "secret-one")
        with closing(connection(cluster)) as node:
            assert node.run("id -un; cat", what="id", feed=[b"fed"]).stdout == b"root\nfed"
    finally:
        practice.on("node1", "mv /root/ops.kept /etc/sudoers.d/ops")


@contextmanager
def sudoers(practice: Practice, *lines: str) -> Iterator[None]:
    """The user ops with other lines in sudoers, for as long as this lasts."""
    practice.on("node1", "mv /etc/sudoers.d/ops /root/ops.kept")
    try:
        practice.on(
            "node1", f"printf '%s\\n' {' '.join(map(quote, lines))} >/etc/sudoers.d/ops; chmod 440 /etc/sudoers.d/ops"
        )
        yield
    finally:
        practice.on("node1", "mv /root/ops.kept /etc/sudoers.d/ops")


@pytest.mark.parametrize("password", [False, True])
@pytest.mark.parametrize(
    ("lines", "said", "remedy"),
    [
        (("Defaults:ops !lecture",), "sudo refused ops", "NOPASSWD"),
        (("ops ALL=(ALL) NOPASSWD: ALL", "Defaults:ops requiretty"), "sudo asks ops for a terminal", "!requiretty"),
    ],
    ids=["no right", "requiretty"],
)
def test_sudo_that_says_no(
    practice: Practice,
    monkeypatch: pytest.MonkeyPatch,
    password: bool,  # noqa: FBT001
    lines: tuple[str, ...],
    said: str,
    remedy: str,
) -> None:
    """A user who may not, and a sudo that wants a terminal: each is said in sudo's words, with what mends it."""
    if password:
        practice.on("node1", "echo ops:secret-one | chpasswd")
        monkeypatch.setenv("RUNBOOK_SUDO_PASSWORD", "secret-one")
    with sudoers(practice, *lines), closing(connection(settings(practice, user="ops", sudo=True))) as node:
        with pytest.raises((errors.LoginRefused, errors.CommandFailed)) as caught:
            node.run("id -un", what="id")
        text = str(caught.value)
        assert "secret-one" not in text
        if password and said == "sudo refused ops":
            assert "ops is not in the sudoers file" in text or "not allowed" in text
        else:
            assert said in text
            assert remedy in caught.value.remedy
            assert caught.value.node == "node1"


@contextmanager
def second_sshd(practice: Practice, folder: Path, *options: str) -> Iterator[Path]:
    """Another sshd on node1, on port 2222; gives a known_hosts that has node1's own key for it."""
    address, known = practice.address("node1"), folder / "known_hosts"
    _, kind, key = run("ssh-keyscan", "-t", "ed25519", address).split()
    known.write_text(f"[{address}]:2222 {kind} {key}\n", encoding="ascii")
    words = " ".join(f"-o {option}" for option in ("PidFile=/run/second.pid", "LogLevel=DEBUG1", *options))
    practice.on("node1", f"rm -f /run/second.*; /usr/sbin/sshd -p 2222 -E /run/second.log {words}")
    # sshd goes into the background before it listens, and writes its PidFile once it does.
    until(lambda: practice.on("node1", "cat /run/second.pid 2>/dev/null || true"))
    try:
        yield known
    finally:
        practice.on("node1", "kill $(cat /run/second.pid)")


def test_a_login_banner_changes_nothing(practice: Practice, tmp_path: Path) -> None:
    """A banner that sshd sends before the login, with escape codes, is in no output, nor is a message of the day."""
    text = r"printf '\033[2J\033[31mAUTHORISED USE ONLY\007\n' >/etc/issue.net"
    practice.on("node1", f"{text}; cp /etc/issue.net /etc/motd")
    with second_sshd(practice, tmp_path, "Banner=/etc/issue.net") as known:
        cluster = settings(practice, port=2222, known_hosts=str(known))
        with closing(connection(cluster)) as node:
            done = node.run("echo own; echo err >&2", what="echo")
            assert (done.stdout, done.stderr) == (b"own\n", b"err\n")


def test_a_slow_shell_is_waited_for_or_named(practice: Practice) -> None:
    """A start-up file that takes its time: a script runs all the same; past the deadline the node is named."""
    practice.on("node1", "cp /root/.bashrc /root/.bashrc.kept; sed -i '1i sleep 1.5' /root/.bashrc")
    try:
        with closing(connection(settings(practice))) as node:
            with pytest.raises(errors.CommandFailed, match=r"did not end within 0\.5 s") as caught:
                node.run("echo own", what="echo", timeout_s=0.5)
            assert node.run("echo own", what="echo").stdout == b"own\n"
            assert node.run("echo own", what="echo", timeout_s=0.5).stdout == b"own\n"  # its shell is there by now
            assert (caught.value.node, caught.value.subject) == ("node1", "echo")
            assert caught.value.remedy
    finally:
        practice.on("node1", "mv /root/.bashrc.kept /root/.bashrc")


def test_a_server_in_between_gets_no_password(
    practice: Practice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another sshd with a key of its own answers in the node's place: its key is told, and no login is tried."""
    monkeypatch.setenv("RUNBOOK_SSH_PASSWORD", "right-one")
    practice.on("node1", "rm -f /run/between*; ssh-keygen -q -t ed25519 -N '' -f /run/between")
    with second_sshd(practice, tmp_path, "HostKey=/run/between") as known:
        cluster = settings(practice, port=2222, known_hosts=str(known))
        with closing(connection(cluster)) as node, pytest.raises(errors.HostKeyMismatch) as caught:
            node.run("id", what="id")
        assert practice.on("node1", "ssh-keygen -lf /run/between.pub").split()[1] in str(caught.value)
        assert "stop here" in caught.value.remedy
        log = practice.on("node1", "cat /run/second.log")
        assert "Connection from" in log
        assert "userauth-request" not in log
