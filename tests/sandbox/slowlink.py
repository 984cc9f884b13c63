"""A TCP proxy that is far away: what it is sent arrives later, in both directions, however much there is of it.

`python slowlink.py ADDRESS PORT TO_PORT DELAY_S` listens on ADDRESS:PORT for connections to 127.0.0.1:TO_PORT.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import time

_READ = 256 * 1024
#: What may be on its way at once in a direction, as a window of a link that is long: 4 MiB.
_ON_ITS_WAY = 16


def _carry(source: socket.socket, target: socket.socket, delay_s: float) -> None:
    """Read blocks and give each to the other side when its time has come; an end is carried too."""
    blocks: queue.Queue[tuple[float, bytes]] = queue.Queue(_ON_ITS_WAY)

    def deliver() -> None:
        with contextlib.suppress(OSError):
            while True:
                at, block = blocks.get()
                time.sleep(max(0.0, at - time.monotonic()))
                if not block:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(block)

    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    block = b"begin"
    while block:
        try:
            block = source.recv(_READ)
        except OSError:
            block = b""
        blocks.put((time.monotonic() + delay_s, block))
    thread.join()


def _connected(client: socket.socket, to_port: int, delay_s: float) -> None:
    with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", to_port)) as server:
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=_carry, args=(server, client, delay_s), daemon=True)
        back.start()
        _carry(client, server, delay_s)
        back.join()


def main() -> None:
    """Serve until killed."""
    address, port, to_port, delay_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    with socket.create_server((address, port)) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_connected, args=(client, to_port, delay_s), daemon=True).start()


if __name__ == "__main__":
    main()
