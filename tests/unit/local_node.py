"""Stand-ins for nodes: this machine's own shell in the place of SSH, and fleets made of them."""

from __future__ import annotations

import contextlib
import grp
import itertools
import os
import pwd
import subprocess
import tempfile
import threading
from shlex import quote
from typing import IO, TYPE_CHECKING

from runbook import lock_script, params
from runbook.fleet import Fleet
from runbook.ssh import PATH
from runbook.transport import channel
from runbook.transport.completed import Completed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from runbook.params import Cluster, Node

#: Who runs the tests, as `user:group`: what they may give a file to.
OWNER = f"{pwd.getpwuid(os.geteuid()).pw_name}:{grp.getgrgid(os.getegid()).gr_name}"
NODES = [{"name": f"node{n}", "host": f"198.18.0.1{n}"} for n in (1, 2, 3)]


def cluster_of(*, nodes: Sequence[Mapping[str, object]] = NODES, **sections: object) -> Cluster:
    """Params with three nodes, checked as all params are."""
    return params.load({"name": "c", "nodes": [dict(node) for node in nodes], **sections})


class LocalConnection:
    """Stands in for SSH: runs a script by this machine's sh, as SshConnection does, its feed on standard input.

    The lock of a real node lies in /run; here it lies in `folder`, so that several stand-ins are several machines.
    Programs in `folder`/shims come before those of the machine. `wrap` is a command that runs the shell.
    """

    def __init__(self, node: Node, folder: Path, wrap: Sequence[str] = ()) -> None:
        self.node, self.folder = node, folder
        self.scripts: list[str] = []
        self._wrap = wrap

    def shim(self, name: str, script: str) -> None:
        """Put a sh script in the place of a program."""
        (self.folder / "shims").mkdir(exist_ok=True)
        path = self.folder / "shims" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def sent(self, feed: Iterable[bytes]) -> Iterable[bytes]:
        """What arrives of a feed; a stand-in for a bad line changes it."""
        return feed

    def run(
        self,
        script: str,
        *,
        what: str,
        feed: Iterable[bytes] = (),
        timeout_s: float = 60,
        heard: Callable[[str], None] | None = None,
        begin: Callable[[], None] | None = None,
    ) -> Completed:
        if begin:
            begin()
        self.scripts.append(script)
        here = script.replace("exec 9</run\n", f"exec 9<{quote(str(self.folder))}\n")
        body, reads = channel.packed(here.replace(lock_script.BESIDE, quote(str(self.folder / "runbook-apply"))))
        command = [*self._wrap, "sh", "-c", reads]
        env = {"LC_ALL": "C", "PATH": f"{self.folder}/shims:{PATH}"}
        read_end, write_end = os.pipe()
        with (
            tempfile.TemporaryFile() as err,
            subprocess.Popen(
                command, stdin=read_end, stdout=subprocess.PIPE, stderr=err, env=env, cwd=self.folder
            ) as process,
        ):
            os.close(read_end)
            out: list[bytes] = []
            assert process.stdout
            reader = threading.Thread(target=_read, args=(process.stdout, out, heard))
            reader.start()
            try:
                # A script that fails stops reading: its status tells why, not our broken pipe.
                with contextlib.suppress(BrokenPipeError), open(write_end, "wb", buffering=0) as line:  # noqa: PTH123
                    line.writelines(itertools.chain([body], self.sent(feed)))
            finally:
                process.wait(timeout_s)
                reader.join(timeout_s)
            err.seek(0)
            return Completed(self.node.name, what, process.returncode, b"".join(out), err.read())

    def close(self) -> None:
        pass


def _read(stdout: IO[bytes], into: list[bytes], heard: Callable[[str], None] | None) -> None:
    """Keep what a script prints, and tell its whole lines as they come."""
    for line in stdout:
        into.append(line)
        if heard and line.endswith(b"\n"):
            heard(line[:-1].decode("utf-8", "replace"))


def fleet_of(cluster: Cluster, folder: Path) -> Fleet:
    """A fleet whose nodes are stand-ins, each with a folder of its own name."""
    connections = {}
    for node in cluster.nodes:
        (folder / node.name).mkdir(exist_ok=True)
        connections[node.name] = LocalConnection(node, folder / node.name)
    return Fleet(cluster, connections)


def local(fleet: Fleet) -> dict[str, LocalConnection]:
    """The stand-ins of a fleet by node name."""
    return {name: one for name, one in fleet._connections.items() if isinstance(one, LocalConnection)}
