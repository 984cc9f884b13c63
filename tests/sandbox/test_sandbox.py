"""The practice cluster itself, on this machine, in slot 3 under a name of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from runbook.errors import SandboxError
from runbook.sandbox import NodeStatus, Sandbox, base_image, containers, requirements
from runbook.sandbox.addressing import SLOTS, Block
from runbook.sandbox.machine import attempt, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME, SLOT = "test-sandbox", 3
_BLOCKS = [Block(NAME, slot) for slot in range(SLOTS) if slot != SLOT]
_NAMED = [rf"\b{block.link}\b|\b{re.escape(str(block.network))}" for block in _BLOCKS]
OTHERS = re.compile("|".join([r"/practice/(?!test-sandbox/)", *_NAMED]))
"""Other practice clusters may come and go while these tests run."""

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-3")]


@pytest.fixture(scope="module", autouse=True)
def _able(prerequisite: Callable[[str], NoReturn]) -> None:
    try:
        requirements.check_tools()
    except SandboxError as error:
        prerequisite(str(error))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A practice cluster that is down before the test and after it."""
    cluster = Sandbox(NAME, SLOT)
    cluster.down()
    yield cluster
    cluster.down()


def machine() -> dict[str, set[str]]:
    """What this machine shows of links, namespaces, mounts, routes and control groups, but for other clusters."""
    listings = {
        "links": run("ip", "-brief", "link"),
        "routes": run("ip", "route", "show", "table", "all"),
        "namespaces": run("ip", "netns"),
        "mounts": Path("/proc/mounts").read_text(encoding="utf-8"),
        "groups": run("find", "/sys/fs/cgroup", "-maxdepth", "3", "-name", "rbk*"),
    }
    return {
        kind: {line for line in text.splitlines() if not OTHERS.search(line) and " /run/netns " not in line}
        for kind, text in listings.items()
    }


def on(sandbox: Sandbox, node: str, command: str, user: str = "root") -> str:
    """What a command on a node prints; it must end with 0."""
    return run(*sandbox.ssh_command(node, command, user=user)).strip()


def pid_namespaces(rows: list[NodeStatus]) -> set[str]:
    """The kernel's ids of the nodes' pid namespaces."""
    return {str(Path(f"/proc/{row.init}/ns/pid").readlink()) for row in rows}


def processes_in(namespaces: set[str]) -> list[str]:
    """The processes in one of these pid namespaces; not those that are dead and that their parent has yet to read."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and str((entry / "ns/pid").readlink()) in namespaces:
                stat = (entry / "stat").read_text(encoding="utf-8")
                found += [stat] if stat.rpartition(")")[2].split()[0] != "Z" else []
        except OSError:
            continue  # it ended while we looked
    return found


def test_down_leaves_nothing_of_what_up_made(sandbox: Sandbox) -> None:
    """After down the machine shows the links, namespaces, mounts, routes and groups that it showed before up."""
    before = machine()
    rows = sandbox.up(2)
    there = machine()
    assert all(there[kind] > before[kind] for kind in before if kind != "groups")
    namespaces = pid_namespaces(rows)
    assert len(namespaces) == 2
    sandbox.down()
    assert machine() == before
    assert processes_in(namespaces) == []
    assert sandbox.status() == []
    assert not (sandbox.folder / "nodes" / "node1").exists()


def test_a_node_is_what_the_runbook_expects_of_a_machine(sandbox: Sandbox) -> None:
    """A real systemd, root and ops with sudo, its own name, vxlan, forwarding, bridge netfilter; no Python."""
    row = sandbox.up(1)[0]
    assert (row.node, row.address, row.state) == ("node1", "198.18.0.203", "running")
    assert on(sandbox, "node1", "hostname; cat /proc/1/comm; systemctl is-system-running").split() == [
        "node1",
        "systemd",
        "running",
    ]
    assert on(sandbox, "node1", "sudo -n id -un", user="ops") == "root"
    assert on(sandbox, "node1", "ip link add v0 type vxlan id 9 dstport 8472 && ip link del v0 && echo made") == "made"
    sysctls = "net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables"
    assert on(sandbox, "node1", f"sysctl -n {sysctls}").split() == ["1", "1"]
    assert on(sandbox, "node1", "sysctl -qw net.ipv4.ip_forward=1 && echo written") == "written"
    assert on(sandbox, "node1", "command -v python3 curl || echo neither") == "neither"


def test_services_of_two_nodes_have_groups_of_their_own(sandbox: Sandbox) -> None:
    """A service that is stopped on one node goes on running on the other, and stopping it doesn't wait for that."""
    sandbox.up(2)
    for node in ("node1", "node2"):
        on(sandbox, node, "systemd-run --quiet --unit=probe sleep 600")
    stopped = on(sandbox, "node1", "timeout 5 systemctl stop probe; echo $?; systemctl is-active probe || true")
    assert stopped.split() == ["0", "inactive"]
    assert on(sandbox, "node2", "systemctl is-active probe") == "active"


def test_what_a_node_sends_to_elsewhere_stays_on_this_machine(sandbox: Sandbox) -> None:
    """This machine forwards nothing for the nodes, and the block has an unreachable route under its own."""
    sandbox.up(1)
    assert Path("/proc/sys/net/ipv4/conf/rbk3/forwarding").read_text(encoding="ascii").strip() == "0"
    assert "198.18.0.192/26" in run("ip", "route", "show", "type", "unreachable")


def test_up_again_changes_nothing(sandbox: Sandbox) -> None:
    """A second up finds the same processes."""
    first = sandbox.up(1)
    assert [(row.pid, row.init) for row in sandbox.up(1)] == [(row.pid, row.init) for row in first]


def test_up_grows_and_leaves_what_runs(sandbox: Sandbox) -> None:
    """From one node to two: the first keeps its processes, and both reach each other."""
    first = sandbox.up(1)[0]
    rows = sandbox.up(2)
    assert [row.node for row in rows] == ["node1", "node2"]
    assert rows[0].pid == first.pid
    on(sandbox, "node2", f"ping -c1 -W2 {first.address}")


def test_stop_and_start_keep_disk_and_host_key(sandbox: Sandbox) -> None:
    """A node that lost its power comes back with its files and its identity; `up` does the same as `start`."""
    sandbox.up(1)
    known = sandbox.known_hosts.read_text(encoding="ascii")
    on(sandbox, "node1", "echo kept >/root/note && sync")
    sandbox.stop("node1")
    assert [(row.state, row.pid) for row in sandbox.status()] == [("stopped", 0)]
    with pytest.raises(OSError, match=r"timed out|No route|refused"):
        socket.create_connection(("198.18.0.203", 22), timeout=0.3)
    sandbox.start("node1")
    assert on(sandbox, "node1", "cat /root/note") == "kept"
    sandbox.stop("node1")
    sandbox.up(1)
    assert on(sandbox, "node1", "cat /root/note") == "kept"
    assert sandbox.known_hosts.read_text(encoding="ascii") == known


def test_reset_gives_a_clean_disk_and_the_same_host_key(sandbox: Sandbox) -> None:
    """After reset nothing that was written is there, and known_hosts is as it was."""
    sandbox.up(2)
    known = sandbox.known_hosts.read_text(encoding="ascii")
    for node in ("node1", "node2"):
        on(sandbox, node, "echo gone >/root/note; useradd guest")
    sandbox.reset("node1")
    assert on(sandbox, "node1", "cat /root/note 2>&1; id guest 2>&1 || true").count("no") == 2
    assert on(sandbox, "node2", "cat /root/note") == "gone"
    assert sandbox.known_hosts.read_text(encoding="ascii") == known


def test_down_after_nspawn_was_killed(sandbox: Sandbox) -> None:
    """A node whose supervisor was killed from outside leaves an init behind: down finds it all the same."""
    before = machine()
    rows = sandbox.up(2)
    namespaces = pid_namespaces(rows)
    for row in rows:
        os.kill(row.pid, signal.SIGKILL)
    sandbox.down()
    assert machine() == before
    assert processes_in(namespaces) == []


def test_up_repairs_a_node_that_powered_itself_off(sandbox: Sandbox) -> None:
    """`poweroff` on a node is a stopped node, and up starts it."""
    sandbox.up(1)
    attempt(*sandbox.ssh_command("node1", "systemctl poweroff"))
    uuid = sandbox._disk("node1").uuid
    gone = threading.Event()
    for _ in range(200):
        if not containers.find([uuid])[uuid].supervisors:
            gone.set()
            break
        gone.wait(0.05)
    assert gone.is_set()
    assert sandbox.status()[0].state == "stopped"
    assert sandbox.up(1)[0].state == "running"


def test_up_survives_being_killed_half_way(sandbox: Sandbox) -> None:
    """After an up that was killed at any moment, up makes the cluster and down removes all of it."""
    before = machine()
    script = f"from runbook.sandbox import Sandbox; Sandbox({NAME!r}, {SLOT}).up(2)"
    for delay in (0.25, 0.4, 0.6):
        with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as half:
            try:
                half.wait(timeout=delay)
            except subprocess.TimeoutExpired:
                half.kill()
        sandbox.down()
        assert machine() == before
    assert [row.state for row in sandbox.up(2)] == ["running", "running"]


def test_a_link_of_the_same_name_is_not_ours(sandbox: Sandbox) -> None:
    """An interface that someone else made is neither used nor removed, whatever it is called."""
    run("ip", "link", "add", "rbk3", "type", "bridge")
    try:
        with pytest.raises(SandboxError, match="did not make it"):
            sandbox.up(1)
        sandbox.down()
        assert "rbk3" in run("ip", "-brief", "link")
    finally:
        run("ip", "link", "delete", "rbk3")


def test_an_address_in_use_is_refused(sandbox: Sandbox) -> None:
    """Where another interface has an address of the block, nothing is made."""
    run("ip", "link", "add", "practice-other", "type", "bridge")
    try:
        run("ip", "address", "add", "198.18.0.200/30", "dev", "practice-other")
        with pytest.raises(SandboxError, match=r"practice-other has the address 198\.18\.0\.200/30"):
            sandbox.up(1)
        assert "rbk3" not in run("ip", "-brief", "link")
    finally:
        run("ip", "link", "delete", "practice-other")


def test_two_processes_at_once_make_one_cluster(sandbox: Sandbox) -> None:
    """Of two ups at the same time one starts the nodes and the other finds them started."""
    script = f"from runbook.sandbox import Sandbox; print([row.pid for row in Sandbox({NAME!r}, {SLOT}).up(2)])"
    with (
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as one,
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as two,
    ):
        said = {one.communicate()[0], two.communicate()[0]}
    assert said == {f"{[row.pid for row in sandbox.status()]}\n"}


def test_another_slot_under_the_same_name_is_refused(sandbox: Sandbox) -> None:
    """The state folder is of one slot; another one would leave the first without an owner."""
    sandbox.up(1)
    with pytest.raises(SandboxError, match="is in slot 3, not 2"):
        Sandbox(NAME, 2).up(1)


def test_the_base_image_has_no_key_and_no_python() -> None:
    """Keys are each node's own, and a Python on a node would hide that the runbook needs none."""
    base = base_image.ensure()
    assert not list((base / "etc/ssh").glob("ssh_host_*"))
    assert not list((base / "root").glob(".ssh/authorized_keys"))
    assert not list((base / "usr/bin").glob("python*"))
