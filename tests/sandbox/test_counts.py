"""What a run costs, counted and not timed: a busy machine changes no figure here, so one that grows is our doing."""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import nbformat
import pytest
from practice import NODES, Practice, cluster_of

from runbook import artifacts, phases

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-3")]

MOST_OUTPUTS = 8
"""Of one notebook; the fullest has a table or two a look, and what its plan and its gate leave."""
MOST_NOTEBOOK_BYTES = 200_000
MOST_ROUND_TRIPS = 82
"""To all nodes, in a run with nothing to change: one a plan, one a table, the lock's (2 a node more in a slow run)."""
MOST_PROGRAMS = 5
"""That sshd starts on a node in such a run: a shell for what looks, and one for what looks while that is at work."""
WITHOUT_ZSTD = NODES[-1]
BESIDE_BINARIES = 400_000
"""Bytes to a node in a whole run but for the binaries: scripts, certificates, units, and SSH's and TCP's own."""

# At this level sshd tells each command that it starts.
_COUNT = """mkdir -p /etc/ssh/sshd_config.d && echo 'LogLevel VERBOSE' >/etc/ssh/sshd_config.d/counts.conf
systemctl restart ssh
iptables -t mangle -C INPUT -p tcp --dport 22 2>/dev/null || iptables -t mangle -A INPUT -p tcp --dport 22"""
_LOOK = """journalctl --sync
journalctl -b -u ssh -o cat | awk '/^Accepted publickey /{a++} /^Starting session: /{s++} END{print a+0, s+0}'
iptables -t mangle -nvxL INPUT | awk '/dpt:22/{print $2}'"""

_STARTUP = """import os, pathlib
with open({told!r}, "a") as file:
    parent = pathlib.Path(f"/proc/{{os.getppid()}}/cmdline").read_bytes().replace(b"\\0", b" ").decode()
    file.write(f"{{os.getpid()}} {{os.getppid()}} {{parent}}\\n")
"""


class Seen(NamedTuple):
    """What a node's sshd and firewall have counted since the node started: each look counts itself too."""

    connections: int
    programs: int
    bytes: int

    def since(self, before: Seen) -> Seen:
        """What came between two looks, without the second look itself (its bytes are a few thousand)."""
        connections, programs, received = (now - then for now, then in zip(self, before, strict=True))
        return Seen(connections - 1, programs - 1, received)


class Run(NamedTuple):
    """A `runbook run`: what each node counted, its record, and the kernels that told that they started."""

    counted: dict[str, Seen]
    record: Path
    kernels: list[tuple[int, int, str]]


def look(practice: Practice) -> dict[str, Seen]:
    """What each node has counted so far."""
    with ThreadPoolExecutor() as pool:
        said = pool.map(lambda node: practice.on(node, _LOOK), NODES)
        return {node: Seen(*map(int, text.split())) for node, text in zip(NODES, said, strict=True)}


def between(before: dict[str, Seen], after: dict[str, Seen]) -> dict[str, Seen]:
    """What each node counted between two looks."""
    return {node: after[node].since(before[node]) for node in NODES}


@pytest.fixture(scope="module")
def counted_run(practice: Practice) -> Callable[[Path], Run]:
    """Run all phases as a user does, counting."""
    ipython = practice.folder / "ipython"
    told = practice.folder / "kernels.txt"
    startup = ipython / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-count.py").write_text(_STARTUP.format(told=str(told)), encoding="utf-8")

    def run(params: Path) -> Run:
        told.write_text("", encoding="utf-8")
        records = practice.folder / "records"
        there, before = set(records.glob("*/*")), look(practice)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(os.environ, "IPYTHONDIR", str(ipython))
            done = practice.cli("run", params, "--approve", "--records", records)
        assert done.returncode == 0, done.stdout + done.stderr
        (made,) = set(records.glob("*/*")) - there
        lines = [line.split(" ", 2) for line in told.read_text(encoding="utf-8").splitlines()]
        kernels = [(int(pid), int(parent), command) for pid, parent, command in lines]
        return Run(between(before, look(practice)), made, kernels)

    return run


@pytest.fixture(scope="module")
def first(practice: Practice, counted_run: Callable[[Path], Run]) -> Run:
    """The first run on nodes that were never touched, one of them without zstd."""
    practice.make_virgin()
    practice.on(WITHOUT_ZSTD, "rm /usr/bin/zstd")
    for node in NODES:
        practice.on(node, _COUNT)
    return counted_run(practice.params())


@pytest.fixture(scope="module")
def second(practice: Practice, first: Run, counted_run: Callable[[Path], Run]) -> Run:  # noqa: ARG001 - after the first
    """A run in which nothing is to change."""
    return counted_run(practice.params())


@pytest.fixture(params=["first", "second"])
def each_run(request: pytest.FixtureRequest) -> Run:
    """The first run and the second."""
    run: Run = request.getfixturevalue(request.param)
    return run


def sent_bytes(record: Path) -> dict[str, int]:
    """What the journal says was sent to each node."""
    steps = [json.loads(line) for line in (record / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    return {node: sum(step.get("sent_bytes") or 0 for step in steps if step["node"] == node) for node in NODES}


def packed_bytes(practice: Practice) -> dict[str, int]:
    """The packed size of all binaries of each node: zstd's, or gzip's where there is no zstd."""
    cluster = cluster_of(practice.params())
    versions = (("etcd", cluster.etcd.version), ("flannel", cluster.flannel.version))
    fetched = [artifacts.fetch(product, version, artifacts.arch(os.uname().machine)) for product, version in versions]
    both = [(binary.packed_size, binary.by_zstd().packed_size) for binaries in fetched for binary in binaries]
    by_gzip, by_zstd = (sum(sizes) for sizes in zip(*both, strict=True))
    assert by_zstd < 0.95 * by_gzip
    return {node: by_gzip if node == WITHOUT_ZSTD else by_zstd for node in NODES}


def test_a_run_opens_one_connection_a_node(each_run: Run) -> None:
    """However many notebooks there are, each node is logged in to once."""
    assert {node: seen.connections for node, seen in each_run.counted.items()} == dict.fromkeys(NODES, 1)


def test_binaries_travel_once_and_packed(practice: Practice, first: Run) -> None:
    """A first build sends a node the packed binaries and little else, as the node's firewall counts it."""
    packed = packed_bytes(practice)
    for node, seen in first.counted.items():
        # SSH and TCP add a few percent; the firewall counts their headers too.
        assert packed[node] < seen.bytes < packed[node] * 1.05 + BESIDE_BINARIES, node
    told = sent_bytes(first.record)
    assert all(packed[node] <= told[node] < first.counted[node].bytes for node in NODES), told


def test_a_second_run_sends_no_file(second: Run) -> None:
    """Where the bytes are there already, none are sent; scripts are all that travels."""
    assert sent_bytes(second.record) == dict.fromkeys(NODES, 0)
    assert {node: seen.bytes for node, seen in second.counted.items() if seen.bytes > BESIDE_BINARIES} == {}


def test_a_second_run_takes_few_round_trips(second: Run) -> None:
    """A table or a plan that asks a node twice shows here, before it is seen in a run's time."""
    steps = [json.loads(line) for line in (second.record / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    (used,) = (step["detail"] for step in steps if step["step"] == "used SSH")
    connections, scripts, _ = (int(words.split()[0]) for words in used.split(", "))
    assert connections == len(NODES)
    assert 2 * len(NODES) * len(phases.PHASES) * 0.8 < scripts <= MOST_ROUND_TRIPS
    assert {node: seen for node, seen in second.counted.items() if seen.programs > MOST_PROGRAMS} == {}


def test_a_run_starts_one_kernel_a_notebook_forked_from_one_server(each_run: Run) -> None:
    """Twelve kernels, each a process of its own, all children of one process that has imported everything."""
    assert len({pid for pid, _, _ in each_run.kernels}) == len(each_run.kernels) == len(phases.PHASES)
    assert len({parent for _, parent, _ in each_run.kernels}) == 1
    assert all("runbook.jupyter.fork_server" in command for _, _, command in each_run.kernels), each_run.kernels[0]


def test_a_notebook_keeps_few_outputs(each_run: Run) -> None:
    """Progress does not pile up: each executed notebook has a handful of outputs, and is small."""
    counts, sizes = {}, {}
    for path in sorted(each_run.record.glob("[01]*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        counts[path.name] = sum(len(cell.get("outputs", ())) for cell in cells)
        sizes[path.name] = path.stat().st_size
    assert len(counts) == len(phases.PHASES)
    assert {name: count for name, count in counts.items() if count > MOST_OUTPUTS} == {}
    assert {name: size for name, size in sizes.items() if size > MOST_NOTEBOOK_BYTES} == {}


def test_a_plan_is_one_round_trip_a_node_to_read_and_one_to_apply(practice: Practice) -> None:
    """Counted over a whole build: reading a plan is one script a node, and applying it another.

    The nodes' own sshd tells that one shell reads all plans, and that each apply has a program of its own. What a guard
    looks at where there are data is counted elsewhere: a first build has none.
    """
    practice.make_virgin()
    for node in NODES:
        practice.on(node, _COUNT)
    scripts: dict[str, tuple[int, int]] = {}
    programs: dict[str, tuple[int, int]] = {}
    with practice.fleet(practice.params()) as fleet:

        def counted() -> tuple[int, dict[str, Seen]]:
            return max(one.counts.scripts for one in fleet._connections.values()), look(practice)  # type: ignore[attr-defined]

        after = counted()
        for phase in phases.PHASES:
            if phase.plan:
                before = after
                plan = phase.plan(fleet)
                planned = counted()
                asyncio.run(plan.apply(approve=True))
                after = counted()
                scripts[phase.name] = planned[0] - before[0], after[0] - planned[0]
                seen = between(before[1], planned[1]), between(planned[1], after[1])
                read, applied = (max(one.programs for one in of_nodes.values()) for of_nodes in seen)
                programs[phase.name] = read, applied
    beside = {"etcd_start": 2}  # the start, and flannel's binaries beside it
    assert scripts == {name: (1, beside.get(name, 1)) for name in scripts}
    first = {"binaries": 1}  # the shell begins
    assert programs == {name: (first.get(name, 0), beside.get(name, 1)) for name in scripts}
