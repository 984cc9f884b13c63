"""How the connections grow beyond one machine's nodes: 50, 200 and 1,000 simulated SSH servers on the loopback.

    .venv/bin/python benchmarks/growth.py [--sizes 50,200,1000] [--latency-ms 20] [--into FOLDER]

Of each size, in a process of its own: connect, run a script, read for a plan, feed a file of 4 MiB and one of 16 MiB
(to 50 nodes at most), wait; time, greatest memory, file descriptors and threads. Leaves the raw figures in
benchmarks/results/ and the picture in docs/pictures/, or both in a folder. The servers (growth_servers.py) share the
machine with what is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from runbook import fleet, params, plan
from runbook.artifacts import Binary
from runbook.params import Ssh
from runbook.plans import stream
from runbook.resources import Directory, File, Payload

import growth_picture
import machine
from growth_addresses import address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runbook.params import Cluster

_HERE = Path(__file__).parent
_PORT = 2222
_PROCESSES = 2
_MEMBERS = 5
_FED_NODES = 50
_IDLE_S = 3
_FILES_MIB = (4, 16)


def keys(folder: Path, count: int) -> None:
    """A host key for all servers, a key to log in with, and known_hosts with a line a server."""
    for name in ("host_key", "user_key"):
        key = Ed25519PrivateKey.generate()
        form, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        (folder / name).write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        (folder / name).chmod(0o600)
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        (folder / f"{name}.pub").write_bytes(public + b"\n")
    host_key = (folder / "host_key.pub").read_text(encoding="utf-8")
    lines = [f"[{address(number)}]:{_PORT} {host_key}" for number in range(count)]
    (folder / "known_hosts").write_text("".join(lines), encoding="utf-8")


@contextlib.contextmanager
def servers(folder: Path, count: int, latency_ms: float) -> Iterator[None]:
    """That many servers in a few processes."""
    started = []
    try:
        for part in range(_PROCESSES):
            share = [str(count * place // _PROCESSES) for place in (part, part + 1)]
            words = [sys.executable, str(_HERE / "growth_servers.py"), str(folder), str(_PORT), str(latency_ms), *share]
            started.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        for process in started:
            if not process.stdout or process.stdout.readline() != b"ready\n":
                sys.exit("growth: the servers could not be started")
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()


def cluster(folder: Path, count: int) -> Cluster:
    """Params of that many nodes, five of them etcd members: checked as all are, then moved to the loopback."""
    nodes = [
        {
            "name": f"node{number + 1}",
            "host": f"198.18.{number // 250}.{number % 250 + 1}",
            "roles": ["etcd", "flannel"] if number < _MEMBERS else ["flannel"],
        }
        for number in range(count)
    ]
    settings = {"name": "growth", "nodes": nodes, "flannel": {"network": "10.0.0.0/8", "subnet_len": 21}}
    read = params.load(settings)
    moved = tuple(node.model_copy(update={"host": address(number)}) for number, node in enumerate(read.nodes))
    ssh = Ssh(key_file=str(folder / "user_key"), known_hosts=str(folder / "known_hosts"), port=_PORT)  # type: ignore[arg-type]
    return read.model_copy(update={"nodes": moved, "ssh": ssh})


class Watch:
    """The greatest number of threads and descriptors of this process, looked at ten times a second."""

    def __init__(self) -> None:
        self.threads = self.descriptors = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self.threads = max(self.threads, len([*Path("/proc/self/task").iterdir()]) - 1)
            self.descriptors = max(self.descriptors, len([*Path("/proc/self/fd").iterdir()]))

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()


def packed(folder: Path, mib: int) -> Payload:
    """A file as the cache would have it packed, of that many MiB on the line; never whole in this process's memory."""
    path, total = folder / f"{mib}.gz", hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mib):
            block = os.urandom(1 << 20)
            total.update(block)
            file.write(block)
    sha256 = total.hexdigest()
    binary = Binary("x", "etcd", "0", "amd64", path, path, sha256, mib << 20, mib << 20, "", "", sha256)
    return Payload("/opt/x", 0o755, "root:root", binary)


def peak_mib() -> float:
    """The greatest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(folder: Path, count: int) -> dict[str, Any]:
    """All measurements of one size, in this process."""
    settings = cluster(folder, count)
    row: dict[str, Any] = {"nodes": count, "start_mib": peak_mib()}
    watch = Watch()

    def timed(name: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it gives
        start, cpu = time.perf_counter(), time.process_time()
        got = work()
        row[f"{name}_s"], row[f"{name}_cpu_s"] = time.perf_counter() - start, time.process_time() - cpu
        row[f"{name}_mib"] = peak_mib()
        return got

    nodes = timed("connect", lambda: fleet.connect(settings))
    timed("run", lambda: fleet.values(nodes.run("true", what="true")))
    wanted = [Directory("/etc/x"), *(File(f"/etc/x/{name}", b"x" * 500) for name in "abcdefgh")]
    made = timed(
        "plan", lambda: plan.of_resources("growth", nodes, dict.fromkeys([n.name for n in settings.nodes], wanted))
    )
    if len(made.changes) != count * len(wanted):
        sys.exit(f"growth: {len(made.changes)} changes, expected {count * len(wanted)}")
    for mib in _FILES_MIB:
        payload = packed(folder, mib)

        def feed(connection: Any, payload: Payload = payload) -> object:  # noqa: ANN401 - a Connection
            return connection.run("true", what="feed", feed=stream.stream([payload]), timeout_s=300).check()

        fed = settings.nodes[: min(count, _FED_NODES)]
        timed(f"feed{mib}", lambda work=feed, fed=fed: fleet.values(nodes.each(work, fed)))
        row["fed_nodes"] = len(fed)
    timed("idle", lambda: time.sleep(_IDLE_S))
    watch.end()
    row |= {"threads": watch.threads, "descriptors": watch.descriptors}
    timed("close", nodes.close)
    return row


def main() -> None:
    """Measure the sizes one after the other, each in a process of its own, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="50,200,1000")
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument(
        "--into", type=Path, help="a folder for the figures and the picture, instead of the project's own"
    )
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "COUNT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(one(Path(chosen.one[0]), int(chosen.one[1]))))
        return
    told: dict[str, Any] = {"date": machine.today(), "machine": machine.described(), "latency_ms": chosen.latency_ms}
    told |= {"workers": fleet.WORKERS, "sizes": []}
    for count in map(int, chosen.sizes.split(",")):
        with tempfile.TemporaryDirectory(prefix="growth-") as work:
            keys(Path(work), count)
            with servers(Path(work), count, chosen.latency_ms):
                command = [sys.executable, __file__, "--one", work, str(count)]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=500)
        row = {**json.loads(done.stdout), "load": machine.load()}
        told["sizes"].append(row)
        print({name: round(value, 2) for name, value in row.items()}, flush=True)
    results = chosen.into or _HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "growth.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    pictures = chosen.into or _HERE.parent / "docs" / "pictures"
    (pictures / "growth.svg").write_text(growth_picture.svg(told), encoding="utf-8")


if __name__ == "__main__":
    main()
