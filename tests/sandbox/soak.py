"""Steady writes through all members' endpoints; each that etcd acknowledged is read back at the end."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from practice import Practice

    from runbook.params import Cluster

PREFIX = "/soak/"
_ANSWER_S = 5.0
_PAGE = 10_000


@dataclass(frozen=True)
class Write:
    """A write that was acknowledged: its key and value, when (time.monotonic), and how long it took in ms."""

    key: str
    value: str
    at: float
    took_ms: float


class Client:
    """etcd's own HTTP gateway with TLS and a client certificate, one connection an endpoint.

    Args:
        hosts: The members' addresses.
        folder: Holds ca.pem, etcd.pem and etcd-key.pem.
    """

    def __init__(self, hosts: list[str], folder: Path) -> None:
        self._hosts = itertools.cycle(hosts)
        self._tls = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        self._tls.load_cert_chain(folder / "etcd.pem", folder / "etcd-key.pem")
        self._open: dict[str, http.client.HTTPSConnection] = {}

    def ask(self, what: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """What the next member in turn answers; None where it does not answer, or answers with an error."""
        host = next(self._hosts)
        there = self._open.get(host) or http.client.HTTPSConnection(host, 2379, timeout=_ANSWER_S, context=self._tls)
        self._open[host] = there
        try:
            there.request("POST", f"/v3/kv/{what}", json.dumps(body), {"Content-Type": "application/json"})
            answer = there.getresponse()
            text = answer.read()
            return json.loads(text) if answer.status == http.client.OK else None  # type: ignore[no-any-return]
        except (OSError, http.client.HTTPException):
            self._open.pop(host).close()
            return None

    def close(self) -> None:
        """Close all connections."""
        for there in self._open.values():
            there.close()


class Writer(threading.Thread):
    """Writes key after key at a steady rate, through one member after the other; a write that fails is tried again.

    Attributes:
        acknowledged: What etcd said it has.
        refused: How many attempts no member acknowledged in time.
        lost: Once it is ended: the keys that were acknowledged and are not there, or have another value.
    """

    def __init__(self, client: Client, rate: float) -> None:
        super().__init__(daemon=True, name="soak-writer")
        self.acknowledged: list[Write] = []
        self.refused = 0
        self.lost: list[str] = []
        self._client, self._every_s = client, 1 / rate
        self._ended = threading.Event()

    def run(self) -> None:
        """Write until told to end."""
        due = time.monotonic()
        for number in itertools.count(1):
            key, value = f"{PREFIX}{number:09d}", f"value {number}"
            start = time.monotonic()
            while not self._client.ask("put", {"key": _packed(key), "value": _packed(value)}):
                self.refused += 1
                if self._ended.wait(0.05):
                    return
            now = time.monotonic()
            self.acknowledged.append(Write(key, value, now, (now - start) * 1000))
            # What was held up is not made good by a burst: the rate is steady again from here.
            due = max(due + self._every_s, now)
            if self._ended.wait(due - now):
                return

    def end(self) -> None:
        """End it; no write is under way after this."""
        self._ended.set()
        self.join(60)
        assert not self.is_alive()

    def percentile_ms(self, percent: float) -> float:
        """How long so many percent of the writes took at most, in ms; with the attempts that failed before."""
        times = sorted(write.took_ms for write in self.acknowledged)
        return times[min(len(times) - 1, int(len(times) * percent / 100))]

    def read_back(self) -> None:
        """Read all of it through the quorum, and tell what is lost."""
        kept: dict[str, str] = {}
        first = PREFIX
        while True:
            page = self._read(first)
            rows = {_plain(row["key"]): _plain(row["value"]) for row in page.get("kvs", [])}
            kept |= rows
            if not page.get("more"):
                break
            first = max(rows) + "\0"
        self.lost = [write.key for write in self.acknowledged if kept.get(write.key) != write.value]

    def _read(self, first: str) -> dict[str, Any]:
        # "0" is the character after "/": the end of what begins with the prefix.
        asked = {"key": _packed(first), "range_end": _packed(PREFIX[:-1] + "0"), "limit": _PAGE}
        for _ in range(10):
            if (page := self._client.ask("range", asked)) is not None:
                return page
        raise AssertionError("no member reads")


def _packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def _plain(text: str) -> str:
    return base64.b64decode(text).decode()


@contextmanager
def writing(practice: Practice, cluster: Cluster, folder: Path, rate: float = 50) -> Iterator[Writer]:
    """Write while the block runs, with a copy of a member's certificate; all is read back at its end."""
    member = cluster.etcd_nodes[0].name
    for name in ("ca.pem", "etcd.pem", "etcd-key.pem"):
        content = (practice.root(member) / cluster.etcd.cert_dir.lstrip("/") / name).read_bytes()
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(content)
    client = Client([node.host for node in cluster.etcd_nodes], folder)
    writer = Writer(client, rate)
    writer.start()
    try:
        deadline = time.monotonic() + 30
        while len(writer.acknowledged) < 3:
            assert time.monotonic() < deadline, "no write was acknowledged within 30 s"
            time.sleep(0.02)
        yield writer
        writer.end()
        writer.read_back()
    finally:
        writer.end()
        client.close()
