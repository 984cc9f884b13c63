"""`python -m runbook.pages.rendering`: makes a record's pages beside the run; reads on stdin what to render.

In a run it is a fork of the process that kernels are forked from: most of what it needs is imported there. It gives way
to the run (nice), and ends when that does. What it did not come to, because it could not be started or was killed, is
rendered by the run itself: the pages are the same.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from runbook.records import saving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from runbook.journal import Step
    from runbook.records.redact import Redactor

_MODULE = "runbook.pages.rendering"
_NICE = 19
_END_S = 120.0


@dataclass(frozen=True)
class Page:
    """A notebook that is to become a page beside it."""

    notebook: Path

    def text(self) -> str:
        """The page; one that can't be made says so in its place."""
        from runbook.pages import render  # noqa: PLC0415 - the run itself seldom needs it

        try:
            return render.notebook(self.notebook)
        except Exception as error:  # noqa: BLE001 - the notebook itself is the record: no page of it may end a run
            name = self.notebook.name
            return f"<!doctype html><meta charset=utf-8><p>{type(error).__name__}: no page; {name} has all of it.</p>"

    @property
    def path(self) -> Path:
        """Where it goes."""
        return self.notebook.with_suffix(".html")


@dataclass(frozen=True)
class Index:
    """A run's page."""

    folder: Path
    told: Mapping[str, Any]
    steps: Sequence[Step]

    def text(self) -> str:
        """The page."""
        from runbook.pages import render  # noqa: PLC0415 - as above

        return render.index(self.told, self.steps)

    @property
    def path(self) -> Path:
        """Where it goes."""
        return self.folder / "index.html"


def make(page: Page | Index, redactor: Redactor) -> None:
    """Render a page and save it, without secrets.

    Raises:
        OSError: it can't be saved.
    """
    saving.write(page.path, redactor.text(page.text()))


class Rendering:
    """Pages are made in a process beside while the block runs, and all are there at its end.

    Args:
        redactor: What takes secrets out of them.
        fork: What forks a process that runs a module's `main`, by its name and streams, or gives None (`forked.serve`).
    """

    def __init__(self, redactor: Redactor, fork: Callable[[str, Mapping[int, int]], object] | None = None) -> None:
        self._redactor, self._fork = redactor, fork
        self._asked: list[Page | Index] = []
        self._answered = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: tuple[IO[bytes], IO[bytes]] | None = None
        self._started = False

    def __enter__(self) -> Self:
        return self

    def _start(self) -> None:
        """Start the process: a fork of what a run's kernels are forked from, or one of its own."""
        self._started = True
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        self._pipes = os.fdopen(ours_in, "wb"), os.fdopen(ours_out, "rb")
        if not self._fork or not self._fork(_MODULE, {0: theirs_in, 1: theirs_out}):
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", _MODULE],
                    stdin=theirs_in,
                    stdout=theirs_out,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is the run's
                )
        os.close(theirs_in)
        os.close(theirs_out)
        self._send(self._redactor)

    def _send(self, what: object) -> None:
        if not self._started:
            self._start()
        if self._pipes:
            with contextlib.suppress(OSError):
                self._pipes[0].write(pickle.dumps(what))
                self._pipes[0].flush()

    def page(self, notebook: Path) -> None:
        """Have a page made of a notebook as it is now; it is there later."""
        self._asked.append(Page(notebook))
        self._send(self._asked[-1])

    def wait(self) -> None:
        """Wait for every page.

        Raises:
            OSError: one can't be saved.
        """
        while self._answered < len(self._asked):
            page = self._asked[self._answered]
            self._answered += 1
            answer = self._answer()
            if answer is None:
                make(page, self._redactor)
            elif isinstance(answer, OSError):
                raise answer
            else:
                self._redactor.count += answer

    def _answer(self) -> int | OSError | None:
        """How many secrets were in the next page, or why it can't be saved; None where the process is gone."""
        if not self._pipes:
            return None
        try:
            answer: int | OSError = pickle.load(self._pipes[1])  # noqa: S301 - of a process of ours
        except (EOFError, OSError, pickle.UnpicklingError):
            self._end()
            return None
        return answer

    def index(self, folder: Path, told: Mapping[str, Any], steps: Sequence[Step]) -> None:
        """Make a run's page.

        Raises:
            OSError: it can't be saved.
        """
        self._asked.append(Index(folder, told, steps))
        self._send(self._asked[-1])
        self.wait()

    def _end(self) -> None:
        for pipe in self._pipes or ():
            with contextlib.suppress(OSError):
                pipe.close()
        self._pipes = None
        if self._process is None:
            return
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()


def main() -> None:
    """Make pages until standard input ends, or the run does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    parent = os.getppid()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints is an answer
    from runbook.pages import render  # noqa: F401, PLC0415 - while there is nothing to do yet

    with contextlib.suppress(EOFError, BrokenPipeError):
        redactor: Redactor = pickle.load(sys.stdin.buffer)  # noqa: S301 - of the process that started us
        while True:
            page: Page | Index = pickle.load(sys.stdin.buffer)  # noqa: S301 - as above
            if os.getppid() != parent:
                break
            before = redactor.count
            try:
                make(page, redactor)
                answer: int | OSError = redactor.count - before
            except OSError as error:
                answer = error
            pickle.dump(answer, answers)
            answers.flush()
    os._exit(0)  # at once: the run waits for it


if __name__ == "__main__":
    main()
