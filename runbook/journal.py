"""The one place where a run's steps are noted as they happen: progress, records and profiles all read it."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runbook import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The first word of the steps that tell what a person pressed.
GATE = "gate"


@dataclass(frozen=True)
class Step:
    """One thing that happened.

    Attributes:
        at: Seconds since the epoch, on this machine's clock.
        node: The node's name, or "" for this side.
        step: What was done, in words.
        state: started, done or failed.
        detail: Why it failed, or what came out; never a secret.
        sent_bytes: How many bytes went to the node for it, packed; None where the step sends none.
        part: What it is a part of, where a plan makes something beside what it is for; else "".
    """

    at: float
    node: str
    step: str
    state: str
    detail: str = ""
    sent_bytes: int | None = None
    part: str = ""

    def as_json(self) -> str:
        """The step as a JSON object on one line; without `sent_bytes` and `part` where there is none."""
        told = asdict(self)
        if self.sent_bytes is None:
            del told["sent_bytes"]
        if not self.part:
            del told["part"]
        return json.dumps(told)


@dataclass(frozen=True)
class Pulse:
    """How far a node's running step is; told to those who listen, and never kept: there are many a second.

    Attributes:
        node: The node's name.
        sent_bytes: How many bytes have been sent, of `total_bytes`.
        total_bytes: How many there are to send.
        limit_s: How long the step that begins now may take, in seconds.
        line: The newest line of the journal of the unit that starts.
        part: As a Step's.
    """

    node: str
    sent_bytes: int | None = None
    total_bytes: int | None = None
    limit_s: float | None = None
    line: str = ""
    part: str = ""


class Journal:
    """Keeps the steps of one kernel and tells them to those who listen.

    Where the environment names a file in RUNBOOK_JOURNAL each step is also appended there, a JSON object a line:
    what was applied stays known even if the notebook is lost.

    Attributes:
        steps: What was noted so far.
        part: What its steps are a part of; else "".
    """

    def __init__(self, path: str | None = None) -> None:
        self.part = ""
        self.steps: list[Step] = []
        self._listeners: list[Callable[[Step | Pulse], None]] = []
        self._lock = threading.Lock()
        self._path = path if path is not None else os.environ.get("RUNBOOK_JOURNAL", "")

    def of(self, part: str) -> Journal:
        """This journal, for what is noted and told as a part of something."""
        journal = copy.copy(self)  # the steps, those who listen and the lock are the same ones
        journal.part = part
        return journal

    def note(
        self, node: str, step: str, state: str = "done", detail: str = "", *, sent_bytes: int | None = None
    ) -> None:
        """Note a step; safe to call from any thread.

        Raises:
            RunbookError: the file can't be written.
        """
        noted = Step(time.time(), node, step, state, detail, sent_bytes, self.part)
        with self._lock:
            self.steps.append(noted)
            if self._path:
                self._keep(noted)
        self._tell(noted)

    def _keep(self, noted: Step) -> None:
        try:
            with Path(self._path).open("a", encoding="utf-8") as file:
                file.write(noted.as_json() + "\n")
        except OSError as error:
            raise errors.RunbookError(
                f"the run's journal can't be written: {error.strerror or error}",
                subject=self._path,
                remedy="make room on this machine, then run again: what is done is not done twice",
            ) from error

    def tell(self, told: Pulse) -> None:
        """Tell those who listen, and keep nothing; safe to call from any thread."""
        self._tell(replace(told, part=self.part) if self.part else told)

    def _tell(self, told: Step | Pulse) -> None:
        for listener in tuple(self._listeners):
            listener(told)

    def listen(self, listener: Callable[[Step | Pulse], None]) -> Callable[[], None]:
        """Call `listener` with each further step and pulse; returns the function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)


@contextlib.contextmanager
def follow(path: Path, tell: Callable[[str], None], every_s: float = 0.5) -> Iterator[None]:
    """Tell the newest step of a journal file while the block runs: a kernel writes it, a terminal shows it."""
    ended = threading.Event()

    def watch() -> None:
        size = 0
        while not ended.wait(every_s):
            with contextlib.suppress(OSError, ValueError, KeyError):
                if path.stat().st_size == size:
                    continue
                size = path.stat().st_size
                step = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
                tell(f"{step['node']} {step['step']}".strip())

    watcher = threading.Thread(target=watch, daemon=True, name="runbook-follow")
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
