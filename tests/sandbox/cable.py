"""A long or bad cable at each node: every frame arrives later, or not at all, whatever it carries and both ways.

`python cable.py DELAY_S LOSS LINK PEER [LINK PEER ...]` carries frames between the two devices of each pair until it is
killed: DELAY_S later, and the share LOSS of them never. The kernel's own way is netem, which not every kernel has.
"""

from __future__ import annotations

import random
import selectors
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

_ALL_PROTOCOLS = 0x0003
_SOL_PACKET = 263
_VNET_HDR, _IGNORE_OUTGOING = 15, 23
"""linux/if_packet.h. The header tells of checksums that the sender left to its device: without it they are wrong."""
_FRAME = 1 << 17
_AT_ONCE = 64
_BUFFER = 8 << 20


@dataclass
class Way:
    """One direction: where frames come from and go to, and those on their way with the time of their arrival."""

    source: socket.socket
    target: socket.socket
    frames: deque[tuple[float, bytes]]


def main() -> None:
    """Carry until killed."""
    delay_s, loss, names = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    chance = random.Random(1)  # noqa: S311 - which frames are lost is no secret
    ways = []
    with selectors.DefaultSelector() as selector:
        for name, peer in zip(names[::2], names[1::2], strict=True):
            one, other = _open(name), _open(peer)
            for way in (Way(one, other, deque()), Way(other, one, deque())):
                selector.register(way.source, selectors.EVENT_READ, way)
                ways.append(way)
        sys.stdout.write("carrying\n")
        sys.stdout.flush()
        while True:
            due = min((way.frames[0][0] for way in ways if way.frames), default=None)
            for key, _ in selector.select(None if due is None else max(0.0, due - time.monotonic())):
                _take(key.data, delay_s, loss, chance)
            for way in ways:
                _deliver(way)


def _open(name: str) -> socket.socket:
    device = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    device.settimeout(0)
    for option in (_VNET_HDR, _IGNORE_OUTGOING):
        device.setsockopt(_SOL_PACKET, option, 1)
    device.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    device.bind((name, _ALL_PROTOCOLS))
    return device


def _take(way: Way, delay_s: float, loss: float, chance: random.Random) -> None:
    """Put what has come in on its way."""
    with suppress(BlockingIOError):
        for _ in range(_AT_ONCE):
            frame = way.source.recv(_FRAME)
            if chance.random() >= loss:
                way.frames.append((time.monotonic() + delay_s, frame))


def _deliver(way: Way) -> None:
    """Give what has arrived to the other device; what that one can't take now is lost, as on any cable."""
    now = time.monotonic()
    while way.frames and way.frames[0][0] <= now:
        with suppress(OSError):
            way.target.send(way.frames.popleft()[1])


if __name__ == "__main__":
    main()
