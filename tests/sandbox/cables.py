"""Bad cables for a practice cluster: all that its nodes send and get is late, or lost by chance."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runbook.errors import SandboxError
from runbook.sandbox.machine import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.sandbox import Sandbox

CARRIER = Path(__file__).with_name("cable.py")
_ANY_SEGMENTS = "65535"


@contextmanager
def cables(sandbox: Sandbox, nodes: int = 3, *, delay_s: float = 0.0, loss: float = 0.0) -> Iterator[None]:
    """Put a cable between each node and the switch while the block runs.

    Args:
        sandbox: The cluster, which is up.
        nodes: How many nodes it has.
        delay_s: How much later a frame comes out of a cable, each way; a packet from node to node passes two.
        loss: The share of frames that never do.
    """
    switch = sandbox.block.switch
    numbers = range(1, nodes + 1)
    _segments(sandbox, nodes, "1")  # frames as they would be on a wire: one that is lost is one packet
    for number in numbers:
        run("ip", "-n", switch, "link", "add", f"far{number}", "type", "veth", "peer", "name", f"end{number}")
        run("ip", "-n", switch, "link", "set", f"port{number}", "nomaster", "promisc", "on")
        run("ip", "-n", switch, "link", "set", f"end{number}", "up", "promisc", "on")
        run("ip", "-n", switch, "link", "set", f"far{number}", "up", "master", "br0")
    pairs = [name for number in numbers for name in (f"port{number}", f"end{number}")]
    argv = ["ip", "netns", "exec", switch, sys.executable, str(CARRIER), str(delay_s), str(loss), *pairs]
    try:
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as carrier:
            assert carrier.stdout
            assert carrier.stdout.readline() == b"carrying\n"
            try:
                yield
            finally:
                carrier.kill()
    finally:
        for number in numbers:
            run("ip", "-n", switch, "link", "delete", f"far{number}")
            with suppress(SandboxError):  # a node that was stopped meanwhile took its port along
                run("ip", "-n", switch, "link", "set", f"port{number}", "master", "br0", "promisc", "off")
        _segments(sandbox, nodes, _ANY_SEGMENTS)


def _segments(sandbox: Sandbox, nodes: int, most: str) -> None:
    """How many packets the nodes and this machine may hand over in one piece."""
    run("ip", "link", "set", sandbox.block.link, "gso_max_segs", most)
    for number in range(1, nodes + 1):
        run("ip", "-n", sandbox.block.namespace(number), "link", "set", "eth0", "gso_max_segs", most)
