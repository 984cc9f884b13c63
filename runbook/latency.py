"""The latency of etcd's members, watched for a while: each etcd node asks its own member again and again.

A sample is one `etcdctl endpoint health`: a new TLS connection and a linearizable read, which the member answers only
after the quorum has confirmed its leader. It reads one key and writes nothing.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from runbook import errors, etcd_state, etcdctl, show
from runbook.pages import latency_picture
from runbook.pages.latency_picture import REMEDY, Sample, Watched
from runbook.plain_text import clean
from runbook.plans import approval

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runbook.fleet import Fleet
    from runbook.show import Table
    from runbook.ssh import Connection

#: Between two samples of a node; etcdctl itself takes about 40 ms of one core.
_PAUSE_S = 0.5
#: Longer than an election (2 s here, etcd's `--election-timeout`), so that one shows as a slow read, not as a failure.
_PATIENCE = "5s"
_UPDATE_S = 0.5


async def watch(fleet: Fleet, seconds: float = 60) -> Table:
    """Watch how long each member takes to answer a read through the quorum, twice a second.

    Await it in a cell: `latency = await etcd.watch(fleet)`. In JupyterLab the picture is live; when it ends (or you
    interrupt the kernel, which ends it early) the picture stays in the notebook with what was measured, and this
    returns. Good members of a quiet cluster answer within some 10 ms; a slow disk shows as spikes of all members, an
    election as one gap of seconds, a member that is down as failures. Changes nothing on any machine.

    Args:
        fleet: The fleet.
        seconds: How long, 1 to 3600.

    Returns:
        One row a member: endpoint, node, ok (every sample was answered), samples, failed, min_ms, p50_ms, p99_ms,
        max_ms, why, remedy.

    Raises:
        RunbookError: `seconds` is out of range, or no member could be asked at all.
    """
    if not 1 <= seconds <= 3600:  # noqa: PLR2004 - a second to an hour
        raise errors.RunbookError(f"{seconds!r} is no time to watch", subject="seconds", remedy="1 to 3600")
    cluster = fleet.cluster
    watched = [
        Watched(node.name, endpoint)
        for node, endpoint in zip(cluster.etcd_nodes, etcdctl.endpoints(cluster), strict=True)
    ]
    stop = threading.Event()
    began = time.monotonic()
    said = f"{seconds:g} s"
    display = _Display()
    with ThreadPoolExecutor(1, thread_name_prefix="runbook-watch") as pool:
        work = pool.submit(_measure, fleet, watched, stop, seconds)
        try:
            while not work.done():
                display.update(watched, f"{min(time.monotonic() - began, seconds):.0f} of {seconds:g} s")
                await asyncio.sleep(_UPDATE_S)
        except asyncio.CancelledError:
            # An interrupt ends the watch; what was measured is the answer.
            said = f"interrupted after {time.monotonic() - began:.0f} of {seconds:g} s"
            if task := asyncio.current_task():
                task.uncancel()
        finally:
            stop.set()
    work.result()
    display.end(watched, said)
    if not any(one.samples for one in watched):
        raise errors.together(
            [errors.CommandFailed(one.why or "no sample came", node=one.node, remedy=REMEDY) for one in watched]
        )
    return latency_picture.table(watched, said)


def _measure(fleet: Fleet, watched: Sequence[Watched], stop: threading.Event, seconds: float) -> None:
    """Let each node ask its own member until the time is over; blocks."""
    by_name = {one.node: one for one in watched}
    # One moment for all: a node that is slow to log in does not measure for longer than the others.
    end = time.monotonic() + seconds

    def clock() -> Iterator[bytes]:
        # The node measures until its standard input ends: so a lost connection ends it too.
        stop.wait(max(0.0, end - time.monotonic()))
        yield from ()

    def one(connection: Connection) -> None:
        mine = by_name[connection.node.name]
        script = _script(etcdctl.command(fleet.cluster, "endpoint", "health", to=[mine.endpoint]))

        def heard(line: str) -> None:
            if sample := parse(line):
                mine.samples.append(sample)

        connection.run(script, what="etcdctl endpoint health", feed=clock(), timeout_s=seconds + 30, heard=heard)

    for name, outcome in fleet.each(one, fleet.cluster.etcd_nodes).items():
        by_name[name].why = outcome.error.message if outcome.error else ""


def _script(health: str) -> str:
    """The sh that prints a line a sample, `UPTIME etcdctl's words`, until its standard input ends."""
    return f"""
(
  while read -r now _ </proc/uptime; do
    said=$({health} --command-timeout={_PATIENCE} 2>&1 | tr '\\n' ' ')
    echo "$now $said"
    sleep {_PAUSE_S}
  done
) 2>/dev/null &
loop=$!
cat >/dev/null
kill "$loop" 2>/dev/null
exit 0
"""


def parse(line: str) -> Sample | None:
    """Read a line of the script: etcdctl's plain words, the same in every version; None for a line that is none."""
    found = re.match(r"(\d+\.\d+) (.*)", line)
    if not found:
        return None
    took = re.search(r"is healthy: .*took = (\S+)", found[2])
    value = etcd_state.milliseconds(took[1]) if took else None
    if value is not None:
        return Sample(float(found[1]), value)
    return Sample(float(found[1]), None, clean(found[2]).strip()[-300:] or "etcdctl said nothing")


class _Display:
    """One display of a notebook, updated in place where a person looks on; elsewhere it is shown once, at the end."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown = ""
        self._live = approval.person_present()

    def update(self, watched: Sequence[Watched], said: str) -> None:
        if self._live:
            self._set(latency_picture.as_html(watched, said), said)

    def end(self, watched: Sequence[Watched], said: str) -> None:
        self._set(latency_picture.as_html(watched, said), latency_picture.as_text(watched, said))

    def _set(self, drawn: str, text: str) -> None:
        from IPython.core.getipython import get_ipython  # noqa: PLC0415 - the command line need not load IPython

        if drawn == self._shown or get_ipython() is None:
            return
        from IPython.display import display as ipython_display  # noqa: PLC0415

        self._shown = drawn
        bundle = {"text/html": drawn, "text/plain": text}
        if self._handle is None:
            options: dict[str, Any] = {"raw": True, "metadata": show.PICTURE, "display_id": True}
            self._handle = ipython_display(bundle, **options)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True, metadata=show.PICTURE)
