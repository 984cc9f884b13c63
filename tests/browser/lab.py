"""JupyterLab as a person has it: `runbook jupyter` and Chromium on it; what is waited for is looked for, never slept.

What is done goes by the page: links, menus, keys, buttons by their names. What is looked at comes from the page, from
the notebook's model in the browser (does a cell run, has it run), and from the file on disk.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import nbformat
import pytest
from playwright.sync_api import TimeoutError  # noqa: A004 - Playwright's own
from practice import BIN, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nbformat import NotebookNode
    from playwright.sync_api import Browser, Locator, Page

_log = logging.getLogger(__name__)
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"
APPLY = "plan.apply("
"""What the cell with the gate calls."""
#: JupyterLab's own words where a reload, or a kernel's end, cut off a request or a drawing: no fault of what is shown.
_CUT_OFF = re.compile("Canceled|disposed|Failed to fetch|NetworkError|[Kk]ernel connection|removeChild")
_SERVER_S = 60.0
_END_S = 60
#: How long anything on a page may take on a busy machine; nothing waits as long where all is well.
_PAGE_MS = 120_000.0
_LOOK_MS = 100.0
#: More steps than it takes from a cell to the buttons under it.
_TABS = 40

#: The notebook of a path, where it is the one in front; else the function gives undefined.
_PANEL = "const panel = window.jupyterapp?.shell?.currentWidget; if (panel?.context?.path !== path) return undefined;"
#: What each code cell is doing.
_CELLS = f"""(path) => {{
  {_PANEL}
  return panel.content.widgets.filter((cell) => cell.model.type === 'code').map((cell) => ({{
    source: cell.model.sharedModel.getSource(),
    count: cell.model.executionCount || 0,
    running: cell.model.executionState === 'running',
    failed: cell.model.outputs.toJSON().some((output) => output.output_type === 'error'),
  }}));
}}"""
_SHOWN = f"(path) => {{ {_PANEL} return panel.context.isReady; }}"
_READY = f"""(path) => {{
  {_PANEL}
  const session = panel.sessionContext;
  return panel.context.isReady && session.isReady && session.session?.kernel?.status === 'idle';
}}"""
_IDLE = f"(path) => {{ {_PANEL} return ({_CELLS})(path).every((cell) => !cell.running); }}"
_BEGUN = f"""([path, counts]) => {{
  {_PANEL}
  return ({_CELLS})(path).some((cell, index) => cell.running || cell.count !== counts[index]);
}}"""
#: Whether the cell at an index says that it waits and has this button; a cell that runs no more never will.
_ASKS = f"""([path, index, name]) => {{
  {_PANEL}
  const cell = panel.content.widgets.filter((one) => one.model.type === 'code')[index];
  const told = cell.node.querySelector('.jp-OutputArea')?.innerText.includes('WAITING');
  const buttons = [...cell.node.querySelectorAll('.jp-OutputArea button')];
  const there = buttons.some((one) => one.textContent.trim() === name && !one.disabled && one.checkVisibility());
  if (told && there) return 'asks';
  return cell.model.executionState === 'running' ? undefined : 'ended';
}}"""
#: What JupyterLab tells of the next save: clean alone may be from before, with the file being written just now.
_WATCH_SAVE = f"""(path) => {{
  {_PANEL}
  window.savedAs = '';
  let begun = false;
  const heard = (_, state) => {{
    begun = begun || state === 'started';
    if (!begun || (state !== 'completed' && state !== 'failed')) return;
    panel.context.saveState.disconnect(heard);
    window.savedAs = state;
  }};
  panel.context.saveState.connect(heard);
}}"""
#: What is open, and how far each is: for whoever reads why one was not ready.
_STATE = """() => {
  const shell = window.jupyterapp?.shell;
  const opened = [...(shell?.widgets('main') ?? [])].map(({context, isVisible, sessionContext}) => {
    const kernel = sessionContext?.session?.kernel;
    const ready = `shown ${isVisible}, read ${context?.isReady}, session ${sessionContext?.isReady}`;
    return `${context?.path}: ${ready}, kernel ${kernel?.status} and ${kernel?.connectionStatus}`;
  });
  const dialogs = [...document.querySelectorAll('.jp-Dialog')].map((dialog) => dialog.innerText);
  const seen = `page ${document.visibilityState}, focus ${document.hasFocus()} on ${document.activeElement?.className}`;
  return [`in front: ${shell?.currentWidget?.context?.path}`, seen, ...opened, ...dialogs].join('\\n');
}"""
_NO_KERNEL = f"(path) => {{ {_PANEL} return !panel.sessionContext.session?.kernel; }}"
_WATCH_RESTART = f"""(path) => {{
  {_PANEL}
  let gone = false;
  window.kernelIsBack = false;
  panel.sessionContext.statusChanged.connect((_, status) => {{
    gone = gone || status === 'restarting' || status === 'starting';
    window.kernelIsBack = gone && status === 'idle';
  }});
}}"""


_FOCUS_SEEN = """() => {
  const style = getComputedStyle(document.activeElement);
  return style.outlineStyle !== 'none' || style.boxShadow !== 'none';
}"""


class Cell(NamedTuple):
    """A code cell as the page has it; `count` is 0 where it never ran, and while it runs."""

    source: str
    count: int
    running: bool
    failed: bool


class Server(NamedTuple):
    """A `runbook jupyter` that runs: where it listens, its token, the folder of its record."""

    url: str
    token: str
    record: Path


@contextmanager
def serving(params: Path, records: Path, home: Path) -> Iterator[Server]:
    """Start `runbook jupyter` on loopback without a browser of its own; at the end it and its kernels are gone.

    Args:
        params: The params file.
        records: Where the record's folder is made.
        home: For Jupyter's own settings, so that none of the person's who runs the tests play a part.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, url = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    own = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTER_TOKEN": token}
    options = ["--no-browser", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command = [BIN / "runbook", "jupyter", params, "--records", records, "--", *options]
    command.append("--LabApp.expose_app_in_browser=True")
    before = set(records.glob("*/*"))
    home.mkdir(parents=True, exist_ok=True)
    with (home / "server.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=home, env=os.environ | own, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            until(lambda: process.poll() is not None or _answers(f"{url}/api/status", token), _SERVER_S)
            assert process.poll() is None, (home / "server.log").read_text(encoding="utf-8")
            (record,) = set(records.glob("*/*")) - before
            yield Server(url, token, record)
            assert _answers(f"{url}/api/shutdown", token, method="POST")
            assert process.wait(timeout=_END_S) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _answers(url: str, token: str, method: str = "GET") -> bool:
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"token {token}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http on loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


class Book:
    """A notebook, the one in front."""

    def __init__(self, lab: Lab, path: str, *, kernel: bool = True) -> None:
        self.lab = lab
        self.page = lab.page
        self.path = path
        lab.arrive(_READY if kernel else _SHOWN, path, f"/lab/workspaces/runbook/tree/{path}")

    def _wait(self, holds: str, argument: object = None) -> Any:  # noqa: ANN401 - JSON
        return self.lab.until(holds, self.path if argument is None else argument)

    @property
    def panel(self) -> Locator:
        """What is to be seen of it."""
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")

    def cells(self) -> list[Cell]:
        """Its code cells, in order."""
        found = self.page.evaluate(_CELLS, self.path)
        assert found is not None, f"{self.path} is not in front"
        return [Cell(**one) for one in found]

    def index(self, source: str = APPLY) -> int:
        """Which code cell has this in its source; by default that with the gate."""
        (found,) = [number for number, cell in enumerate(self.cells()) if source in cell.source]
        return found

    def cell(self, source: str = APPLY) -> Locator:
        """A code cell with its output, by what is in its source."""
        return self.panel.locator(".jp-CodeCell").nth(self.index(source))

    def output(self, source: str = APPLY) -> Locator:
        """What stands under a code cell."""
        return self.cell(source).locator(".jp-Cell-outputWrapper")

    # ---- what a person does

    def run_all(self) -> None:
        """Choose Run All Cells; returns when the cells have begun to run."""
        with self._begun():
            self.lab.menu("Run", "Run All Cells")

    def run_here(self) -> None:
        """Press Shift+Enter on the active cell; returns when it has begun to run."""
        with self._begun():
            self.page.keyboard.press("Shift+Enter")

    @contextmanager
    def _begun(self) -> Iterator[None]:
        counts = [cell.count for cell in self.cells()]
        yield
        self._wait(_BEGUN, [self.path, counts])

    def press(self, name: str, source: str = APPLY) -> None:
        """Press a button under a code cell."""
        self.output(source).get_by_role("button", name=name, exact=True).click()

    def follow(self, path: str) -> Book:
        """Click the first link to another notebook."""
        self.panel.locator(f'a[href*="{path}"]').first.click()
        return Book(self.lab, path)

    def restart_kernel(self) -> None:
        """Restart the kernel; what ran is forgotten, outputs stay."""
        self.page.evaluate(_WATCH_RESTART, self.path)
        self.lab.menu("Kernel", "Restart Kernel…")
        self.lab.confirm("Confirm Kernel Restart")
        self.lab.until("window.kernelIsBack")

    def interrupt(self) -> None:
        """Interrupt the kernel, as the stop button does."""
        self.lab.menu("Kernel", "Interrupt Kernel")

    def shut_kernel_down(self) -> None:
        """End the kernel; the notebook stays open."""
        self.lab.menu("Kernel", "Shut Down Kernel")
        self._wait(_NO_KERNEL)

    def active(self) -> str:
        """The source of the active cell."""
        return str(
            self.page.evaluate("jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.getSource()")
        )

    def tab_to(self, name: str) -> None:
        """Press Tab until the button of this name has the focus, and shows it; fails where a round has none."""
        for _ in range(_TABS):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("document.activeElement.textContent.trim()") == name:
                assert self.page.evaluate(_FOCUS_SEEN), f"{name} does not show that it has the focus"
                return
        pytest.fail(f"{_TABS} times Tab, and {name} has not had the focus")

    def save(self) -> NotebookNode:
        """Save; returns what is on disk then."""
        self.page.evaluate(_WATCH_SAVE, self.path)
        self.page.keyboard.press("Control+s")
        state = self.lab.until("window.savedAs")
        assert state != "failed", f"JupyterLab could not save {self.path}"
        return nbformat.read(self.lab.server.record / self.path, as_version=4)  # type: ignore[no-any-return]

    # ---- what a person waits for

    def until_idle(self) -> list[Cell]:
        """Wait until no cell runs or waits for its turn."""
        self._wait(_IDLE)
        return self.cells()

    def until_asked(self, name: str = "Apply", source: str = APPLY) -> list[Cell]:
        """Wait until a cell shows this button and waits; returns all cells as they are then."""
        index = self.index(source)
        outcome = self._wait(_ASKS, [self.path, index, name])
        assert outcome == "asks", f"no {name}: {self.cells()}\n{self.output(source).inner_text()}"
        return self.cells()

    def through(self) -> list[Cell]:
        """Run all cells, pressing Apply where asked; every cell has run in the end, without an error."""
        gate = [number for number, cell in enumerate(self.cells()) if APPLY in cell.source]
        self.run_all()
        for number in gate:
            if self._wait(_ASKS, [self.path, number, "Apply"]) == "asks":
                self.press("Apply")
        cells = self.until_idle()
        assert all(cell.count and not cell.failed for cell in cells), f"{self.path}: {cells}\n{self.panel.inner_text()}"
        return cells


class Lab:
    """A page of Chromium on a server."""

    def __init__(self, server: Server, page: Page) -> None:
        self.server = server
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())  # "Leave this page?"
        page.add_locator_handler(page.locator('.jp-Dialog[aria-label^="File Changed"]'), self._keep_own)
        page.goto(f"{server.url}/?token={server.token}")

    def _keep_own(self, dialog: Locator) -> None:
        """JupyterLab may take a save of its own for somebody else's, on a busy machine: answer as a person would."""
        _log.warning("JupyterLab asked: %s", dialog.get_attribute("aria-label"))
        dialog.get_by_role("button", name="Overwrite").click()

    def front(self) -> str:
        """The path of the notebook in front, once there is one."""
        return str(self.arrive("() => window.jupyterapp?.shell?.currentWidget?.context?.path", None, "/"))

    def until(self, holds: str, argument: object = None, within_ms: float = _PAGE_MS) -> Any:  # noqa: ANN401 - JSON
        """Wait until a function of the page gives something, and give it."""
        return self.page.wait_for_function(holds, arg=argument, timeout=within_ms, polling=_LOOK_MS).json_value()

    def arrive(self, holds: str, argument: object, address: str) -> Any:  # noqa: ANN401 - JSON
        """The same, where JupyterLab opens a notebook: where it loses its way to that, go there as a person would."""
        try:
            return self.until(holds, argument, _PAGE_MS / 3)
        except TimeoutError:
            _log.warning("%s was not ready:\n%s", address, self.page.evaluate(_STATE))
            self.page.goto(self.server.url + address)
            return self.until(holds, argument)

    def book(self, path: str) -> Book:
        """Bring a notebook to the front that is open already."""
        self.page.get_by_role("tab", name=path, exact=True).first.click()
        return Book(self, path)

    def menu(self, name: str, item: str) -> None:
        """Choose an item of a menu."""
        self.page.get_by_role("menuitem", name=name, exact=True).click()
        # By its label alone: an item's name to a screen reader has its shortcut too.
        self.page.locator(".lm-Menu-itemLabel").get_by_text(item, exact=True).click()

    def confirm(self, name: str) -> None:
        """Press a button of the dialog in front, by its whole name to a screen reader."""
        self.page.locator(".jp-Dialog").get_by_role("button", name=name, exact=True).click()

    def theme(self, name: str) -> None:
        """Change to a theme, `LIGHT` or `DARK`."""
        self.page.evaluate("(theme) => jupyterapp.commands.execute('apputils:change-theme', {theme})", name)
        self.until("(theme) => document.body.dataset.jpThemeName === theme", name)

    def reload(self, path: str, *, kernel: bool = True) -> Book:
        """Load the page again, as F5 does."""
        self.page.reload()
        return Book(self, path, kernel=kernel)


@contextmanager
def opened(chromium: Browser, params: Path, records: Path, home: Path, *, sharpness: float = 1) -> Iterator[Lab]:
    """`runbook jupyter`, and a page on it; at the end no script of the page has failed.

    Args:
        chromium: The browser.
        params: The params file.
        records: Where the record's folder is made.
        home: For Jupyter's own settings.
        sharpness: A screenshot's pixels to each of the page's.
    """
    with serving(params, records, home) as server:
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, device_scale_factor=sharpness)
        try:
            lab = Lab(server, context.new_page())
            yield lab
            failed = [error for error in lab.errors if not _CUT_OFF.search(error)]
            assert failed == [], failed
        finally:
            context.close()
