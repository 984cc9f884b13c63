"""jupyter.forked, fork_server, provisioner and kernels: processes of their own, forked, and none left behind."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.utils import run_sync
from waiting import until

from runbook import fleet
from runbook.jupyter import fork_server, forked, kernels
from runbook.jupyter.kernels import IpcKernelManager, Kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.jupyter.kernels import Client

pytestmark = pytest.mark.usefixtures("no_server_is_left")

_SOON_S = 60.0


@pytest.fixture(params=["forked", "started"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways to a kernel: forked, and started by its command where fork is not to be had."""
    if request.param == "started":
        forked.end()
        monkeypatch.setenv(forked.OFF, "1")
    yield request.param
    if request.param == "started":
        forked.end()


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def said(manager: IpcKernelManager, code: str) -> str:
    """What code prints in a kernel."""
    client: Client = manager.client()  # type: ignore[assignment]
    client.start_channels()
    texts: list[str] = []
    try:
        run_sync(client.wait_for_ready)(_SOON_S)
        reply: Any = run_sync(client.execute_interactive)(
            code, output_hook=lambda message: texts.append(message["content"].get("text", "")), timeout=_SOON_S
        )
    finally:
        client.stop_channels()
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(texts)


FACTS = """
import __main__, os, signal, sys, threading, random
print(__name__, sys.argv[0].rpartition("/")[2], os.getcwd(), os.environ.get("MARK"), os.getpid() == os.getsid(0))
print(sys.stdin is None or os.fstat(0).st_rdev == os.stat(os.devnull).st_rdev or not os.isatty(0))
print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "hidden" in dir())
print(sys.path)
"""


def ahead(made: Kernels) -> IpcKernelManager:
    """The next notebook's kernel, started while another works."""
    made.begin()
    assert made._next
    manager, starting = made._next
    run_sync(kernels._finished)(starting)
    return manager


def test_a_kernel_is_what_its_command_makes(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, folder, environment, session and signals are the same, forked or not."""
    monkeypatch.setenv("MARK", "as given")
    with Kernels(1, tmp_path) as made, made.next() as manager:
        assert isinstance(manager.provisioner.process, forked.Kernel) == (way == "forked")  # type: ignore[union-attr]
        lines = said(manager, FACTS).splitlines()
    name = {"forked": "ipykernel_launcher", "started": "ipykernel_launcher.py"}[way]
    found = subprocess.run([sys.executable, "-P", "-c", "import sys; print(sys.path)"], capture_output=True, check=True)
    assert lines[:3] == [f"__main__ {name} {tmp_path} as given True", "True", "True False"]
    assert [one for one in ast.literal_eval(lines[3]) if one] == ast.literal_eval(found.stdout.decode())


def test_a_notebook_sees_nothing_of_another(way: str, tmp_path: Path) -> None:
    """Variables, environment, imported modules' state and random numbers are a kernel's own."""
    numbers = set()
    with Kernels(3, tmp_path) as made:
        for _ in range(3):
            with made.next() as manager:
                code = (
                    "import os, random, json; print('hidden' in dir() or 'HIDDEN' in os.environ or hasattr(json, 'x'));"
                    "hidden = json.x = 1; os.environ['HIDDEN'] = '1';"
                    "import numpy; print(random.random(), numpy.random.random())"
                )
                first, second = said(manager, code).splitlines()
            assert (first, way) == ("False", way)
            numbers.update(second.split())
    assert len(numbers) == 6


def test_each_notebook_has_one_kernel_and_the_next_is_ahead(way: str, tmp_path: Path) -> None:
    """As many kernels are started as there are notebooks; at most one waits."""
    pids = set()
    with Kernels(2, tmp_path) as made:
        with made.next() as manager:
            pids.add(manager.provisioner.pid)  # type: ignore[union-attr]
            ahead(made)
            ahead(made)
            assert (made.started, way) == (2, way)
        with made.next() as manager:
            pids.add(manager.provisioner.pid)  # type: ignore[union-attr]
            made.begin()
        assert made.started == 2
    assert len(pids) == 2
    assert all(map(gone, pids))


def test_kernels_leave_neither_processes_nor_files(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that waited for a notebook that never came, and what a cell had started."""
    sockets = Path(tempfile.mkdtemp())
    monkeypatch.setattr("tempfile.tempdir", str(sockets))
    with Kernels(2, tmp_path) as made, made.next() as manager:
        waiting = ahead(made).provisioner.pid  # type: ignore[union-attr]
        pid = int(said(manager, "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"))
    until(lambda: gone(pid))
    assert gone(waiting)
    assert way
    sockets.rmdir()  # as nothing is in it any more


def test_a_long_temporary_folder_is_no_hindrance(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's address is short: where the folder's is not, /tmp is taken."""
    long = tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with Kernels(1, tmp_path) as made, made.next() as manager:
        assert (said(manager, "print(1)"), way) == ("1\n", way)
    assert list(long.iterdir()) == []


def test_a_kernel_says_nothing_on_stderr(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log gets a kernel's own messages, and there are none; what a cell writes past its outputs is in it."""
    log = tmp_path / "log"
    monkeypatch.setenv(kernels.LOG_VARIABLE, str(log))
    with Kernels(2, tmp_path) as made:
        with made.next() as manager:
            assert said(manager, "print(1)") == "1\n"
        assert (log.read_text(), way) == ("", way)
        with made.next() as manager:
            said(manager, "import sys; sys.__stderr__.write('a message'); sys.__stderr__.flush()")
    assert log.read_text() == "a message"


def test_a_dead_kernel_is_known(way: str, tmp_path: Path) -> None:
    """Its status is there as of any process, and the fork server forks on."""
    with Kernels(2, tmp_path) as made:
        for _ in range(2):
            with made.next() as manager:
                os.kill(manager.provisioner.pid, signal.SIGKILL)  # type: ignore[union-attr]
                until(lambda manager=manager: not run_sync(manager.is_alive)())
                assert run_sync(manager.provisioner.poll)() == -signal.SIGKILL  # type: ignore[union-attr]
    assert way


def test_a_fork_server_that_is_killed_costs_nothing_but_time(tmp_path: Path) -> None:
    """Its kernels end with it, and the next kernel is started by its command."""
    forked.end()
    with Kernels(2, tmp_path) as made:
        with made.next() as manager:
            pid = manager.provisioner.pid  # type: ignore[union-attr]
            assert isinstance(forked._server, forked.ForkServer)
            os.kill(forked._server.pid, signal.SIGKILL)
            until(lambda: not run_sync(manager.is_alive)())
            until(lambda: gone(pid))
        with made.next() as manager:
            assert said(manager, "print(2)") == "2\n"
            assert not isinstance(manager.provisioner.process, forked.Kernel)  # type: ignore[union-attr]
    forked.end()


def test_a_fork_server_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It ends at once, or is not to be had: Unavailable, whose text says why."""
    forked.end()
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    command = [str(broken), *fork_server.LAUNCHER, "-f", "x"]
    with pytest.raises(forked.Unavailable):
        forked.launch(command, {}, str(tmp_path), (1, 2))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    forked.end()
    with pytest.raises(forked.Unavailable, match="missing"):
        forked.launch(command, {}, str(tmp_path), (1, 2))
    forked.end()
    with pytest.raises(forked.Unavailable, match="no ipykernel"):
        forked.launch(["R", "--slave"], {}, str(tmp_path), (1, 2))


STARTER = """
import json, sys, time
from pathlib import Path
from runbook.jupyter import forked, kernels
from jupyter_client.utils import run_sync
if __name__ == "__main__":
    with kernels.Kernels(2, Path.cwd()) as made, made.next() as manager:
        made.begin()
        following, starting = made._next
        run_sync(kernels._finished)(starting)
        pids = [manager.provisioner.pid, following.provisioner.pid, forked._server.pid]
        files = [manager.connection_file, following.connection_file]
        print(json.dumps([pids, files]), flush=True)
        for _ in range(6000):  # Python does not see a signal that comes just before a long sleep until that ends
            time.sleep(0.1)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_process_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    """Whatever ends it: its kernels and its fork server end too, and the folders with their keys are gone."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout
        pids, files = json.loads(process.stdout.readline())
        assert not any(map(gone, pids))
        assert all(map(os.path.exists, files))
        process.send_signal(number)
        process.wait(_SOON_S)
    until(lambda: all(map(gone, pids)))
    assert not any(os.path.exists(os.path.dirname(file)) for file in files)  # noqa: PTH110, PTH120 - plain text


def test_what_notebooks_import_is_imported_ahead(tmp_path: Path) -> None:
    """A forked kernel has every module of ours that a notebook names, and those that take long."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from runbook import binaries, connect, etcd, expect, flannel, mesh, preflight\n"
        "print(sorted(set(sys.modules) - before), 'pandas' in before, 'paramiko' in before, 'debugpy' in before)"
    )
    with Kernels(1, tmp_path) as made, made.next() as manager:
        assert said(manager, code) == "[] True True False\n"


def test_the_kernelspec_is_installed() -> None:
    """What papermill and JupyterLab find by its name has the provisioner it names, and starts what a run does."""
    spec = KernelSpecManager().get_kernel_spec("runbook")
    ours = IpcKernelManager().kernel_spec
    assert ours
    assert (spec.argv, spec.display_name) == (ours.argv, ours.display_name)
    name = spec.metadata["kernel_provisioner"]["provisioner_name"]
    (entry,) = metadata.entry_points(group="jupyter_client.kernel_provisioners", name=name)
    assert entry.load().__name__ == "ForkProvisioner"


def test_what_a_run_needs_first_is_forked_before_the_rest_is_imported() -> None:
    """Only that is done at once; any other request waits for its turn, its streams too."""
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    module = {"do": "start", "streams": [0], "module": fork_server.FIRST, "lasting": True, "env": {}, "cwd": "/"}
    told, heard = socket.socketpair()
    with ours, theirs, told, heard:
        server = fork_server.Server(theirs)
        assert server.look(fork_server.FIRST) is None  # nothing was asked for
        fork_server.send(ours, module, (heard.fileno(),))
        fork_server.send(ours, {"do": "start", "streams": [1], "argv": []}, (write,))
        if asked := server.look(fork_server.FIRST):
            os._exit(42 if asked == module and os.path.samestat(os.fstat(0), os.fstat(heard.fileno())) else 1)
        answer, _ = fork_server.receive(ours)
        assert answer
        _, status = os.waitpid(answer["pid"], 0)
        assert server.look(fork_server.FIRST) is None  # that is not it
        ((kept, streams),) = server._kept
        fork_server.send(ours, module, (heard.fileno(),))
        assert server.look(fork_server.FIRST) is None  # now in its turn
        assert len(server._kept) == 1
    assert os.waitstatus_to_exitcode(status) == 42
    assert (kept or {})["argv"] == []
    os.close(write)
    os.write(streams[0], b"its own")
    assert os.read(read, 10) == b"its own"
    for fd in (read, *streams):
        os.close(fd)


def test_a_runs_first_kernel_is_forked_before_what_it_does_not_need_is_imported() -> None:
    """And it alone: the next one has all; whether a process has ended is answered in its turn, too."""
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    with ours, theirs:
        server = fork_server.Server(theirs)
        kernel = {"do": "start", "streams": [1], "argv": ["x"], "env": {}, "cwd": "/"}
        fork_server.send(ours, kernel, (write,))
        fork_server.send(ours, {"do": "poll", "pid": 1})
        if asked := server.look():
            os._exit(42 if asked == kernel else 1)
        assert server.kernels == 1
        answer, _ = fork_server.receive(ours)
        assert answer
        assert os.waitstatus_to_exitcode(os.waitpid(answer["pid"], 0)[1]) == 42
        assert server.look() is None
        assert [message for message, _ in server._kept] == [{"do": "poll", "pid": 1}]
    os.close(read)
    os.close(write)


def test_the_rehearsal_goes_through_and_leaves_nothing() -> None:
    """What every notebook begins with is done once ahead; no fleet is opened, and no node is spoken to, by that."""
    before = fleet.opened()
    fork_server._rehearse()
    assert fleet.opened() == before
