"""runbook.transport.broker: one connection a node for a run's kernels, in a process that ends with the run.

That scripts give the same by it as by a connection of our own is in test_ssh.py, over both.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ssh_server import NODE, StandInSshd

from runbook import errors, lock
from runbook.fleet import Fleet
from runbook.journal import Journal
from runbook.jupyter import fork_server, forked
from runbook.params import Cluster, Node
from runbook.ssh import SshConnection
from runbook.transport import broker, brokered
from runbook.transport.brokered import VARIABLE, BrokeredConnection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runbook.transport.broker import Broker

MIB = 1 << 20


def cluster(server: StandInSshd) -> Cluster:
    """One node on the loopback, made past the params' rules."""
    return Cluster.model_construct(nodes=(NODE,), ssh=server.settings())


@pytest.fixture(params=["forked", "started"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways to the process: a fork of what kernels are forked from, as in a run, and one of its own."""
    if request.param == "forked":
        forked.begin()
    else:
        forked.end()  # another test of this process may have left one
    yield request.param
    forked.end()


@pytest.fixture
def serving(server: StandInSshd) -> Iterator[Broker]:
    with broker.serving(cluster(server)) as one:
        yield one


def connection(server: StandInSshd, **changed: object) -> BrokeredConnection:
    """As fleet.connect makes one."""
    one = brokered.connection(NODE, server.settings(**changed))
    assert isinstance(one, BrokeredConnection)
    return one


def ended(pid: int) -> bool:
    """Wait for the end of a process that need not be our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 20)[0])
    finally:
        os.close(descriptor)


# ---- one connection


def test_kernels_share_one_connection(server: StandInSshd, serving: Broker) -> None:
    """Kernels one after the other, each a fleet of its own: one login, and none is made again when one closes."""
    for _ in range(3):
        one = connection(server)
        one.open()
        assert one.run("cat", what="try", feed=[b"fed"]).check().text == "fed"
        one.close()
    assert server.accepted == 1
    counts = serving.counts()
    assert (counts.connections, counts.scripts) == (1, 3)
    assert counts.bytes_sent > 3 * len("fed")


def test_a_process_of_the_run_uses_it(server: StandInSshd, serving: Broker) -> None:
    """Another process finds it by its environment, and runs a script by it."""
    assert serving.process.pid
    text = (
        "import json, sys; sys.path.insert(0, sys.argv[1]);"
        "from ssh_server import NODE; from runbook import params; from runbook.transport import brokered;"
        "ssh = params.Ssh(**json.loads(sys.argv[2]));"
        "print(brokered.connection(NODE, ssh).run('echo there', what='try').text)"
    )
    ssh = server.settings().model_dump_json(exclude_unset=True)
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", text, here, ssh], capture_output=True, text=True, check=True)
    assert (done.stdout, server.accepted) == ("there\n\n", 1)


def test_scripts_run_at_once_on_one_connection(server: StandInSshd, serving: Broker, tmp_path: Path) -> None:
    """Each has a channel of its own: here the first ends when the second has run."""
    assert serving.process.pid
    one, two = connection(server), connection(server)
    wait = f"touch {tmp_path}/begun; until [ -e {tmp_path}/second ]; do sleep 0.01; done; echo first"
    first: list[str] = []
    thread = threading.Thread(target=lambda: first.append(one.run(wait, what="wait", timeout_s=20).text))
    thread.start()
    two.run(f"until [ -e {tmp_path}/begun ]; do sleep 0.01; done; touch {tmp_path}/second", what="try").check()
    thread.join(20)
    assert first == ["first\n"]
    assert server.accepted == 1


def test_the_runs_lock_uses_it(server: StandInSshd, serving: Broker, tmp_path: Path) -> None:
    """Taking, renewing and releasing the lock make no connection of their own."""
    one = cluster(server)
    nodes = Fleet(one, {NODE.name: SshConnection(NODE, one.ssh)}, Journal(""))
    with lock.held(nodes, record="r", folder=str(tmp_path / "lock")) as held:
        held.renew()
        assert (tmp_path / "lock" / "lock.json").is_file()
    assert not (tmp_path / "lock").exists()
    assert (server.accepted, serving.counts().connections) == (1, 1)


def test_a_large_feed_is_never_held_whole(server: StandInSshd, serving: Broker) -> None:
    """64 MiB go through the broker, and its largest memory grows by no more than a fraction of it."""
    one = connection(server)
    one.run("cat >/dev/null", what="warm", feed=[bytes(MIB)])

    def peak() -> int:
        status = Path(f"/proc/{serving.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024

    before = peak()
    done = one.run("wc -c", what="count", feed=(bytes(MIB) for _ in range(64)), timeout_s=60).check()
    assert int(done.text) == 64 * MIB
    assert peak() - before < 16


# ---- who is not served


@pytest.mark.parametrize("changed", [{"connect_timeout_s": 6.0}, {"user": "ops"}])
def test_other_settings_are_not_served(server: StandInSshd, serving: Broker, changed: dict[str, object]) -> None:
    """Who would reach the node otherwise than the run gets a connection of its own, never another's rights."""
    one = connection(server, **changed)
    assert one.run("cat", what="try", feed=[b"whole"]).check().text == "whole"
    one.close()
    assert (server.accepted, serving.counts().scripts) == (2, 0)


def test_another_node_is_not_served(server: StandInSshd, serving: Broker) -> None:
    """A node that the run does not know is connected to directly."""
    other = brokered.connection(Node.model_construct(**{**NODE.model_dump(), "name": "other"}), server.settings())
    other.open()
    other.close()
    assert serving.counts().scripts == 0
    assert server.accepted == 2


def test_without_a_run_it_is_a_connection_of_our_own(server: StandInSshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a run nothing is brokered; a socket that is gone is as none."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not isinstance(brokered.connection(NODE, server.settings()), BrokeredConnection)
    monkeypatch.setenv(VARIABLE, "/nonexistent/socket")
    one = connection(server)
    assert one.run("cat", what="try", feed=[b"whole"]).check().text == "whole"
    one.close()
    assert server.accepted == 1


def test_only_the_user_can_reach_it(serving: Broker) -> None:
    """The socket lies in a folder that is closed to others."""
    assert stat.S_IMODE(Path(serving.path).parent.stat().st_mode) == 0o700


# ---- ends


def test_it_ends_with_the_block(server: StandInSshd, way: str) -> None:
    """After the block there is no process, no folder and no variable."""
    with broker.serving(cluster(server)) as one:
        assert os.environ[VARIABLE] == one.path
        assert isinstance(one.process, forked.Kernel) == (way == "forked")
        connection(server).run("true", what="try").check()
    assert ended(one.process.pid)
    assert not Path(one.path).parent.exists()
    assert VARIABLE not in os.environ
    assert server.accepted == 1


def test_it_has_the_runs_environment(server: StandInSshd, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was set after a fork was asked for ahead holds too: here the password that alone lets us in."""
    forked.ahead()
    server.user_password = "Tr0ub4dor-and-3"  # noqa: S105 - planted
    monkeypatch.setenv("RUNBOOK_SSH_PASSWORD", server.user_password)
    settings = server.settings(key_file=str(server.folder / "none"))
    with broker.serving(Cluster.model_construct(nodes=(NODE,), ssh=settings)) as one:
        brokered.connection(NODE, settings).open()
        assert isinstance(one.process, forked.Kernel) == (way == "forked")
        assert one.counts().connections == 1
        shown = Path(f"/proc/{one.process.pid}/cmdline").read_text()
    assert server.user_password not in shown


def test_a_fork_that_is_not_wanted_ends() -> None:
    """Asked for ahead, and the run never came to its nodes: it ends with its input."""
    forked.begin()
    forked.ahead()
    process = forked._ahead[fork_server.FIRST][0]
    pid = process.pid
    forked.end()
    assert ended(pid)


def test_it_outlives_the_fork_server(server: StandInSshd) -> None:
    """A fork server that was killed takes kernels with it, never the run's connections; it ends with the block."""
    forked.begin()
    with broker.serving(cluster(server)) as one:
        pid = one.process.pid
        connection(server).open()
        assert isinstance(forked._server, forked.ForkServer)
        os.kill(forked._server.pid, signal.SIGKILL)
        assert ended(forked._server.pid)
        assert connection(server).run("echo on", what="try").text == "on\n"
    forked.end()
    assert ended(pid)
    assert server.accepted == 1


@pytest.mark.parametrize("changed", [{"RUNBOOK_SSH_PASSWORD": "-"}, {}], ids=["password", "proxy command"])
def test_what_may_ask_has_the_runs_terminal(
    server: StandInSshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, str]
) -> None:
    """Who asks for a password does so on the terminal of its session: it is started in the run's own."""
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    if not changed:
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh" / "config").write_text("Host *\n ProxyCommand false\n")
        monkeypatch.setenv("HOME", str(tmp_path))
    forked.begin()
    with broker.serving(cluster(server)) as one:
        assert os.getsid(one.process.pid) == os.getsid(0)
    forked.end()


RUN = """
import json, subprocess, sys
sys.path.insert(0, sys.argv[1])
from ssh_server import NODE
from runbook import params
from runbook.jupyter import forked
from runbook.transport import broker
ssh = params.Ssh(**json.loads(sys.argv[2]))
if sys.argv[3] == "forked":
    forked.begin()
    forked.ahead()
with broker.serving(params.Cluster.model_construct(nodes=(NODE,), ssh=ssh)) as one:
    kernel = subprocess.Popen(["sleep", "60"], close_fds=False)  # it lives on, with all that it inherited
    print(one.process.pid, one.path, kernel.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("way", ["forked", "started"])
def test_it_ends_with_a_run_that_is_killed(server: StandInSshd, way: str) -> None:
    """SIGKILL of the run ends it too, though a child of the run still lives; its folder goes."""
    here, ssh = str(Path(__file__).parent), server.settings().model_dump_json(exclude_unset=True)
    command = [sys.executable, "-c", RUN, here, ssh, way]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        pid, path, kernel = run.stdout.readline().split()
        try:
            run.kill()
            assert ended(int(pid))
            assert not Path(path).parent.exists()
        finally:
            os.kill(int(kernel), signal.SIGKILL)


def test_a_broker_that_is_killed_is_done_without(server: StandInSshd, serving: Broker) -> None:
    """A script under way is told as lost; the next one goes over a connection of our own."""
    one = connection(server)
    with pytest.raises(errors.ConnectionLost, match="that keeps the run's connections is gone") as caught:
        one.run(
            "echo on; exec sleep 60",
            what="try",
            heard=lambda _line: os.kill(serving.process.pid, signal.SIGKILL),
            timeout_s=30,
        )
    assert (caught.value.node, caught.value.subject) == ("node1", "try")
    assert one.run("cat", what="again", feed=[b"whole"]).check().text == "whole"
    assert server.accepted == 2
    assert serving.counts() == broker.Counts()
    one.close()


@pytest.mark.parametrize("feed", [(), itertools.repeat(b"x" * 1000)], ids=["silent", "fed"])
def test_closing_ends_what_runs(server: StandInSshd, serving: Broker, feed: Iterable[bytes]) -> None:
    """An interrupted kernel closes its fleet: its scripts lose their channel at once, the node's connection stays."""
    assert serving.process.pid
    one = connection(server)
    script = "echo on; cat >/dev/null; exec sleep 60"
    with pytest.raises(errors.ConnectionLost):
        one.run(script, what="try", feed=feed, heard=lambda _line: one.close(), timeout_s=30)
    assert connection(server).run("echo other", what="other").text == "other\n"
    assert server.accepted == 1
    assert server.closed.wait(20)


def test_closed_before_it_begins_nothing_runs(server: StandInSshd, serving: Broker, tmp_path: Path) -> None:
    """Closed while a script is about to begin: it is not run by another way either, begin is asked again before."""
    assert serving.path
    one = connection(server)
    asked = []

    def begin() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise KeyError("stopped")
        one.close()

    with pytest.raises(KeyError):
        one.run(f"touch {tmp_path}/ran", what="look", begin=begin)
    assert not (tmp_path / "ran").exists()


def test_a_node_that_is_down_is_told_as_without_it(server: StandInSshd, tmp_path: Path) -> None:
    """The same error in the same words, also when it was met before anybody asked."""
    settings = server.settings(port=1)
    one = Cluster.model_construct(nodes=(NODE,), ssh=settings)
    told = []
    for way in ("direct", "brokered"):
        if way == "direct":
            with pytest.raises(errors.Unreachable) as caught:
                brokered.connection(NODE, settings).open()
        else:
            with broker.serving(one), pytest.raises(errors.Unreachable) as caught:
                brokered.connection(NODE, settings).open()
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert tmp_path.exists()


@pytest.mark.parametrize("kind", ["LoginRefused", "HostKeyUnknown", "CommandFailed", "NoSuchKind"])
def test_an_error_crosses_whole(kind: str) -> None:
    """Kind, node, subject, words and remedy arrive; a kind that is not ours is a RunbookError."""
    made = getattr(errors, kind, errors.RunbookError)("é: why", node="n", subject="s", remedy="r")
    told = {**brokered.error_as_dict(made), "kind": kind}
    back = brokered.error_of(told)
    assert (type(back), str(back)) == (type(made), str(made))
