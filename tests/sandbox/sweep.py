"""Hits a run at a point by a fault, and sees what is left, whether the next run finishes, and what stays then."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faultrun
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from faultpoints import ALL, NODE, Inside, Point
from practice import BIN, until

from runbook import etcdctl, params, record, show, state
from runbook.errors import SandboxError
from runbook.records import closing, sumfile, summary, verify
from runbook.sandbox.machine import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from practice import Practice

#: How long a run may take to come to its point, and to end after it was hit: what a node's own deadlines come to.
COMES_S, ENDS_S, NEXT_S = 240.0, 240.0, 600.0
POINT = "var/tmp/point"
_BIN, _UNIT_DIR = "opt/k8s/bin", "etc/systemd/system"
_FOLDERS = (f"{_BIN}/*", "etc/etcd/cert/*", "etc/flanneld/cert/*")
_KEYS = ("etc/etcd", "etc/flanneld", _BIN, "tmp", "var/tmp", "run")
_WHOLE = {"endpoints": 3, "leases": 3, "pairs": 18}
_WRAPPER = """#!/bin/sh
case "$*" in *lock.json*) exec /usr/bin/{program} "$@" ;; esac
case "{program} $(readlink /proc/$$/fd/1)" in
  "head "*/.runbook-*) ;;
  "head "*) exec /usr/bin/head "$@" ;;
esac
n=$(( $(cat /{point}/{program} 2>/dev/null || echo 0) + 1 ))
echo $n >/{point}/{program}
if [ $n = {number} ]; then
  : >/{point}/at
  while [ -e /{point}/hold ]; do sleep 0.1; done
fi
exec /usr/bin/{program} "$@"
"""
#: What takes a node back to before a phase, later ones first.
_UNDO = {
    9: "stop_unit flanneld; ip link delete flannel.1 2>/dev/null; rm -rf /run/flannel",
    8: f"rm -f /{_UNIT_DIR}/flanneld.service",
    6: "rm -rf /etc/flanneld",
    4: f"stop_unit etcd; rm -f /{_BIN}/flanneld /{_BIN}/mk-docker-opts.sh",
    3: f"rm -f /{_UNIT_DIR}/etcd.service",
    2: "rm -rf /etc/etcd",
    1: f"rm -rf /{_BIN}",
}
#: A member that has data keeps a unit, which tells whose they are, and a binary for it: other bytes, but whole ones.
_OLDER = {
    3: f"echo '# older' >>/{_UNIT_DIR}/etcd.service",
    1: f"for one in /{_BIN}/*; do echo >>$one; done",
}
_STOP = "stop_unit() { systemctl kill -s KILL $1; systemctl disable --now $1; systemctl reset-failed $1; } 2>/dev/null"
_FORGET = "rm -rf /data/k8s/etcd"
_DISKS = {1: f"/{_BIN}", 2: "/etc/etcd/cert", 6: "/etc/flanneld/cert"}


@dataclass(frozen=True)
class Outcome:
    """What came of a point; `broken` is empty where all held."""

    point: Point
    ended: str
    took_s: float
    left: str
    following: str
    broken: tuple[str, ...]


class Sweep:
    """A practice cluster that is built, hit, looked at and finished again, point after point.

    Args:
        practice: The cluster; its nodes run.
    """

    def __init__(self, practice: Practice) -> None:
        self._practice = practice
        self._params = practice.params(ssh={"connect_timeout_s": 5})
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload([faultrun.__name__])
        self._wanted: dict[tuple[str, str], str] = {}
        self._old: dict[tuple[str, str], str] = {}
        self._number = 0
        self._mounted = ""

    def begin(self) -> None:
        """Build the cluster, and note the checksums of what it is to be."""
        with suppress(SandboxError):  # a sweep that was killed may have left it cut
            self._link("up")
        self._practice.make_virgin()
        told = self._plain_run()
        assert not self._unfinished(told), told
        self._wanted = self._sums()

    def hit(self, point: Point) -> Outcome:
        """Take the nodes back, run, hit it there, look, and run again."""
        self._undo(point)
        self._arm(point)
        broken: list[str] = []
        ended, start = "not at its point", time.monotonic()
        try:
            start, ended = (self._whole if point.whole else self._phase)(point, broken)
        except AssertionError as error:
            broken.append(str(error))
        finally:
            took_s = time.monotonic() - start
            self._heal(point)
        left = self._left()
        broken += self._faults()
        told = self._plain_run()
        if unfinished := self._unfinished(told):
            broken.append(f"the next run: {unfinished}")
        broken += self._faults() + self._leftovers()
        if broken:
            self._recover()
        return Outcome(point, ended, took_s, left, _words(told), tuple(broken))

    # ---- before

    def _undo(self, point: Point) -> None:
        nodes = ALL if point.anew else (NODE,)
        undo = _UNDO if point.anew or point.phase > 4 else {**_UNDO, **_OLDER}
        steps = [words for number, words in undo.items() if number >= point.phase]
        forget = point.anew and point.phase <= 4
        for node in nodes:
            self._shell(node, "; ".join([_STOP, *steps, *([_FORGET] if forget else []), "systemctl daemon-reload"]))
        if point.anew and 4 < point.phase <= 7:
            cluster = params.load(self._params)
            key = etcdctl.command(cluster, "del", "--prefix", cluster.flannel.etcd_prefix)
            self._shell("node1", key, check=True)
        if point.anew and point.phase <= 2:
            shutil.rmtree(state.state_dir() / "clusters", ignore_errors=True)
        self._old = self._sums()

    def _arm(self, point: Point) -> None:
        if isinstance(point.at, Inside):
            folder = self._root(NODE) / POINT
            folder.mkdir(exist_ok=True)
            (folder / "hold").touch()
            text = _WRAPPER.format(point=POINT, program=point.at.program, number=point.at.number)
            wrapper = self._root(NODE) / "usr/local/bin" / point.at.program
            wrapper.write_text(text, encoding="ascii")
            wrapper.chmod(0o755)
        if point.fault == "disk full":
            self._mounted = _DISKS[point.phase]
            mount = f"mkdir -p {self._mounted} && mount -t tmpfs -o size=64k,mode=755 tmpfs {self._mounted}"
            self._shell(NODE, mount, check=True)

    # ---- the run that is hit

    def _start(self, only: str, at: faultrun.Stop | None) -> tuple[BaseProcess, Connection, Path]:
        self._number += 1
        log = self._practice.folder / f"run-{self._number:03d}.log"
        ours, theirs = self._processes.Pipe()
        process = self._processes.Process(target=faultrun.run, args=(self._params, only, at, log, theirs))
        process.start()
        theirs.close()
        return process, ours, log.with_suffix(".jsonl")

    def _phase(self, point: Point, broken: list[str]) -> tuple[float, str]:
        at = faultrun.Stop("-", "-", "-") if isinstance(point.at, Inside) else point.at
        process, pipe, journal = self._start(f"{point.phase:02d}", at)
        with pipe:
            try:
                if isinstance(point.at, Inside):
                    self._comes(process.is_alive)
                else:
                    assert pipe.poll(COMES_S), "it never came to its point"
                    word, what = pipe.recv()
                    assert word == "at", f"it ended before its point: {what}"
                start = time.monotonic()
                assert process.pid
                self._make(point, process.pid)
                if not isinstance(point.at, Inside):
                    with suppress(OSError):  # it was killed
                        pipe.send("error" if point.fault == "error here" else "go on")
                process.join(ENDS_S)
                if process.is_alive():
                    broken.append(f"it did not end within {ENDS_S:.0f} s")
            finally:
                process.kill()
                process.join()
            told: dict[str, Any] = {}
            with suppress(EOFError, ConnectionError):
                while pipe.poll():
                    told = pipe.recv()[1]
        broken += _journal_faults(journal)
        return start, _end(told, process.exitcode)

    def _whole(self, point: Point, broken: list[str]) -> tuple[float, str]:
        """Hit a `runbook run`; its record is closed, by itself or by `runbook close`, and says what happened."""
        records = self._practice.folder / "records"
        before = set(records.glob("*/*"))
        argv = [str(BIN / "runbook"), "run", str(self._params), "--approve", "--records", str(records)]
        argv += ["--phases", f"{point.phase:02d}-11"]
        out = self._practice.folder / "run.out"
        with out.open("wb") as file, subprocess.Popen(argv, stdout=file, stderr=file) as process:
            try:
                self._comes(lambda: process.poll() is None)
                start = time.monotonic()
                self._make(point, process.pid)
                process.wait(ENDS_S)
            except subprocess.TimeoutExpired:
                broken.append(f"it did not end within {ENDS_S:.0f} s")
            finally:
                process.kill()
        (folder,) = set(records.glob("*/*")) - before
        words = f"exit {process.returncode}"
        if not (folder / sumfile.SUMS).exists():
            closing.close(folder)
            words += ", record closed by `runbook close`"
        told = summary.load(folder)
        if told["outcome"] == "passed":
            broken.append("the record says that it passed")
        broken += [f"record: {fault}" for fault in _record_faults(folder)]
        broken += _journal_faults(record.journal_path(folder))
        return start, words

    def _comes(self, alive: Callable[[], bool]) -> None:
        there = self._root(NODE) / POINT / "at"
        until(lambda: there.exists() or not alive(), within_s=COMES_S)
        assert there.exists(), "it ended before its point"

    def _make(self, point: Point, pid: int) -> None:
        """Make the fault."""
        if point.fault in signal.Signals.__members__:
            os.kill(pid, signal.Signals[point.fault])
        elif point.fault == "session killed":
            for session in self._practice.sessions(NODE):
                with suppress(ProcessLookupError):
                    os.kill(session, signal.SIGKILL)
        elif point.fault == "network cut":
            self._link("down")
        elif point.fault == "power off":
            self._practice.sandbox.stop(NODE)
        elif point.fault == "disk full":
            self._shell(NODE, f"head -c 1m /dev/zero >{self._mounted}/ballast")
        # What was held goes on at once, as if nobody had looked.
        if point.fault != "power off":
            (self._root(NODE) / POINT / "hold").unlink(missing_ok=True)

    # ---- after

    def _heal(self, point: Point) -> None:
        if point.fault == "power off":
            self._practice.sandbox.up(3)
        if point.fault == "network cut":
            self._link("up")
        if self._mounted:
            self._shell(NODE, f"umount {self._mounted}")
            self._mounted = ""
        self._shell(NODE, f"rm -rf /{POINT} /usr/local/bin/*")

    def _recover(self) -> None:
        """After a point that broke something the next begins on nodes that were never touched."""
        self._practice.sandbox.reset()
        shutil.rmtree(state.state_dir() / "clusters", ignore_errors=True)
        told = self._plain_run()
        assert not self._unfinished(told), told

    def _plain_run(self) -> dict[str, Any]:
        """A run as anybody starts it, in a process of its own."""
        process, pipe, _ = self._start("01-11", None)
        with pipe:
            try:
                if not pipe.poll(NEXT_S):
                    return {"error": "deadline", "words": f"it did not end within {NEXT_S:.0f} s"}
                told: dict[str, Any] = pipe.recv()[1]
                process.join(ENDS_S)
            except (EOFError, ConnectionError):
                return {"error": "died", "words": "it ended without a word"}
            else:
                return told
            finally:
                process.kill()
                process.join()

    @staticmethod
    def _unfinished(told: dict[str, Any]) -> str:
        if "error" in told:
            return f"{told['error']}: {told['words']}"
        return "; ".join(told["wrong"]) or "".join(
            f"{told[name]} {name}, expected {count}; " for name, count in _WHOLE.items() if told[name] != count
        )

    # ---- looks, from outside the nodes

    def _init(self, node: str) -> int:
        """The process id of a node's init; 0 where the node does not run."""
        return next(row.init for row in self._practice.sandbox.status() if row.node == node)

    def _root(self, node: str) -> Path:
        return Path(f"/proc/{self._init(node)}/root")

    def _shell(self, node: str, script: str, *, check: bool = False) -> str:
        argv = ["nsenter", "-t", str(self._init(node)), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "sh", "-c", script]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def _link(self, how: str) -> None:
        block = self._practice.sandbox.block
        run("ip", "-n", block.switch, "link", "set", f"port{NODE.removeprefix('node')}", how)

    def _files(self, node: str) -> dict[str, Path]:
        """The files of our phases that are there under their final names."""
        root = self._root(node)
        units = (f"{_UNIT_DIR}/etcd.service", f"{_UNIT_DIR}/flanneld.service")
        found = (path for pattern in (*_FOLDERS, *units) for path in sorted(root.glob(pattern)))
        files = {f"/{path.relative_to(root)}": path for path in found if path.is_file()}
        return {name: path for name, path in files.items() if path.name != "ballast"}

    def _sums(self) -> dict[tuple[str, str], str]:
        return {(node, name): _sum(path) for node in ALL for name, path in self._files(node).items()}

    def _stages(self, node: str) -> list[str]:
        root = self._root(node)
        folders = (_BIN, "etc/etcd/cert", "etc/flanneld/cert", _UNIT_DIR)
        return [f"{folder}/{path.name}" for folder in folders for path in (root / folder).glob(".runbook-*")]

    def _left(self) -> str:
        """What is there after the fault, in words."""
        wanted = [key for key in self._wanted if key[0] == NODE]
        there = {key: sum_ for key, sum_ in self._sums().items() if key[0] == NODE}
        made = [key for key, sum_ in there.items() if self._old.get(key) != sum_]
        to_make = [key for key in wanted if self._old.get(key) != self._wanted[key]]
        words = [f"{len(made)} of {len(to_make)} files made"]
        if stages := self._stages(NODE):
            words.append(f"{len(stages)} staging folder{'s' if len(stages) > 1 else ''}")
        locked = [node for node in ALL if (self._root(node) / "run/runbook/lock.json").exists()]
        if locked:
            words.append(f"the lock on {', '.join(locked)}")
        return "; ".join(words)

    def _faults(self) -> list[str]:
        """Half files, keys that others can read, units whose binary is not there; on any node, and on this side."""
        found = []
        for node in ALL:
            root = self._root(node)
            for name, path in self._files(node).items():
                sums = {made.get((node, name)) for made in (self._wanted, self._old)}
                if not (_whole_pem(path) if path.suffix == ".pem" else _sum(path) in sums):
                    found.append(f"{node} {name} is half, or not ours")
                if path.suffix == ".service" and (lost := _without_binary(root, path)):
                    found.append(f"{node} {name} starts {lost}, which is not there")
            found += [f"{node} {path}: a key that others can read" for path in _open_keys(root, _KEYS)]
        found += [f"{path}: a key that others can read" for path in _open_keys(state.state_dir(), ("clusters",))]
        return found

    def _leftovers(self) -> list[str]:
        """What no run may leave behind once a whole one has followed."""
        found = []
        for node in ALL:
            found += [f"{node} /{stage}: a staging folder stayed" for stage in self._stages(node)]
            if (self._root(node) / "run/runbook").exists():
                found.append(f"{node}: a lock stayed")
            scripts = self._shell(node, "pgrep -a timeout; pgrep -a -f 'eval .*head -c'").splitlines()
            found += [f"{node}: a script runs still: {line}" for line in scripts if "pgrep" not in line]
        return found


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whole_pem(path: Path) -> bool:
    data = path.read_bytes()
    with suppress(ValueError):
        if "key" in path.name:
            serialization.load_pem_private_key(data, None)
        else:
            x509.load_pem_x509_certificate(data)
        return data.endswith(b"-----\n")
    return False


def _open_keys(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    for folder in folders:
        for path in (root / folder).rglob("*"):
            with suppress(OSError):
                if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 16:
                    continue
                if path.stat().st_mode & 0o077 and b"PRIVATE KEY" in path.read_bytes():
                    yield path


def _without_binary(root: Path, unit: Path) -> str:
    for line in unit.read_text(encoding="utf-8").splitlines():
        if line.startswith("ExecStart="):
            binary = line.removeprefix("ExecStart=").split()[0].lstrip("-+!@:")
            if not os.access(root / binary.lstrip("/"), os.X_OK):
                return binary
    return ""


def _journal_faults(journal: Path) -> list[str]:
    """A journal of which every line is whole."""
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    try:
        steps = [json.loads(line) for line in lines]
    except ValueError as error:
        return [f"the journal is no JSON: {error}"]
    return [] if steps else ["the journal is empty"]


def _record_faults(folder: Path) -> list[str]:
    rows = show.rows(verify.verify([folder]))
    return [f"{row['check']}: {row['why']}" for row in rows if not row["ok"]]


def _end(told: dict[str, Any], exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"killed by {signal.Signals(-exitcode).name}"
    if "error" in told:
        return str(told["error"])
    return "finished" if exitcode == 0 else f"exit {exitcode}"


def _words(told: dict[str, Any]) -> str:
    if "error" in told:
        return f"{told['error']}"
    made = {number: count for number, count in told["changes"].items() if count}
    if not made:
        return "nothing was to do"
    total = sum(made.values())
    return f"{total} change{'s' if total > 1 else ''} in phase{'s' if len(made) > 1 else ''} {', '.join(made)}"
