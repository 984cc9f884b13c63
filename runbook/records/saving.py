"""How notebooks and other files of a record are saved: whole or not at all, nothing secret, nothing claimed.

papermill writes by handlers, one a path's scheme; ours serves `record:` paths. papermill 2.7 stamps `completed` on
cells that never ran when a kernel dies or a cell times out: that is put right at every save.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from runbook.records import notebook_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

#: The scheme of the paths that papermill writes through `Handler`.
SCHEME = "record:"


class Redacting(Protocol):
    """What takes secrets out of a notebook (redact.Redactor)."""

    def notebook(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give the notebook without them."""


def write(path: Path, text: str) -> None:
    """Write a file whole: a crash, or a full disk, leaves the previous one.

    Raises:
        OSError: it can't be written; the previous file is as it was.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


class Handler:
    """papermill's I/O for `record:` paths."""

    def __init__(self, redactor: Redacting) -> None:
        self._redactor = redactor

    def write(self, buf: str, path: str) -> None:
        """Save a notebook: secrets out, no cell called completed that never began, whole or not at all."""
        write(Path(path.removeprefix(SCHEME)), notebook_file.writes(self._clean(buf)))

    def _clean(self, text: str) -> Mapping[str, Any]:
        notebook = notebook_file.reads(text)
        for cell in notebook.cells:
            state = cell.metadata.get("papermill", {})
            if cell.cell_type == "code" and state.get("status") == "completed" and not state.get("start_time"):
                state["status"] = "pending"
        return self._redactor.notebook(notebook)

    def read(self, path: str) -> str:
        """Read a notebook."""
        return Path(path.removeprefix(SCHEME)).read_text(encoding="utf-8")

    def listdir(self, path: str) -> list[str]:
        """List a folder."""
        return [str(one) for one in Path(path.removeprefix(SCHEME)).iterdir()]

    def pretty_path(self, path: str) -> str:
        """The path as papermill's log shows it."""
        return path.removeprefix(SCHEME)


class Behind(Handler):
    """The same in a thread: a run goes on while its notebook is on its way to the disk.

    What fails is raised by the next save, or by `wait`.
    """

    def __init__(self, redactor: Redacting) -> None:
        super().__init__(redactor)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="runbook-save")
        self._last: Future[None] | None = None
        self._newest = (0, "")

    def write(self, buf: str, path: str) -> None:
        """Begin to save a notebook; the saves before it are done first."""
        self._begin(super().write, buf, path)

    def keep(self, notebook: Mapping[str, Any], path: str) -> None:
        """Begin to save a notebook whose cells are still at work; of several that wait only the newest is saved."""
        self._begin(self._keep, json.dumps(notebook, ensure_ascii=False), path)

    def _begin(self, save: Callable[[str, str], None], text: str, path: str) -> None:
        if self._last is not None and self._last.done():
            self.wait()
        self._newest = (self._newest[0] + 1, path)
        self._last = self._thread.submit(self._unless_outdated, self._newest, save, text)

    def _unless_outdated(self, this: tuple[int, str], save: Callable[[str, str], None], text: str) -> None:
        if self._newest == this or self._newest[1] != this[1]:
            save(text, this[1])

    def _keep(self, text: str, path: str) -> None:
        # In one line, which takes a tenth of the time: the last save gives a line its line.
        write(Path(path.removeprefix(SCHEME)), json.dumps(self._clean(text), ensure_ascii=False) + "\n")

    def wait(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            OSError: it is not; the previous file is as it was.
        """
        last, self._last = self._last, None
        if last is not None:
            try:
                last.result()
            except BaseException:
                self._saved = None
                raise

    def settle(self) -> None:
        """Wait until nothing is on its way, whatever came of it: the run has failed already."""
        with contextlib.suppress(OSError):
            self.wait()


def mark_failed(path: Path, ename: str, evalue: str, redactor: Redacting) -> None:
    """Say in the notebook itself which cell failed where papermill does not: a dead kernel, a timeout, Ctrl-C.

    That cell is the last one that began. Its status becomes `failed`, and the error stands among its outputs.
    """
    notebook = notebook_file.read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    began = [cell for cell in code if cell.metadata.get("papermill", {}).get("start_time")]
    if not code:
        return
    told = [cell for cell in code if any(output.output_type == "error" for output in cell.outputs)]
    if told and told[0].metadata.get("papermill", {}).get("status") != "completed":
        return
    cell = told[0] if told else began[-1] if began else code[0]
    if not told:  # an interrupted kernel may have told its error itself; papermill calls that cell completed
        lines = [f"{ename}: {evalue}"]
        error = {"output_type": "error", "ename": ename, "evalue": evalue, "traceback": lines}
        cell.outputs.append(notebook_file.Node(error))
    cell.metadata.setdefault("papermill", {}).update(status="failed", exception=True)
    notebook.metadata.setdefault("papermill", {})["exception"] = True
    Handler(redactor).write(json.dumps(notebook), str(path))
