"""A record of stepping through by hand: notebooks in a record's folder, opened in JupyterLab, closed when done."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import nbformat
from jupyter_client.connect import jupyter_runtime_dir  # type: ignore[attr-defined]  # from jupyter_core

from runbook import errors, phases, record, socket_folder
from runbook.records import saving, summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbook.params import Cluster

#: Lab's own default of 120 s would lose what a person did last before closing the lid; 10 s loses little.
_OVERRIDES = {
    "@jupyterlab/docmanager-extension:plugin": {
        "autosaveInterval": 10,
        # A save by hand while one of those is under way is no change by somebody else: Lab would ask which to keep.
        "lastModifiedCheckMargin": 10_000,
        "defaultViewers": {"markdown": "Markdown Preview"},
    },
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"},
    # When each cell ran, in the notebook itself: a record tells it.
    "@jupyterlab/notebook-extension:tracker": {"recordTiming": True},
}
#: nbdime's buttons compare with git's HEAD: a record is in no git, and they fill the toolbar.
_PAGE = {"disabledExtensions": {"nbdime-jupyterlab": True}}
_WORKSPACE = "runbook"
#: The longest name of a kernel's socket: `kernel-<uuid>-ipc-1`, and some more.
_LONGEST_SOCKET = 49
#: The notebooks of a checkout lie beside docs/, those of a record beside a copy of the page.
_DOCS_LINK = re.compile(rf"\]\(\.\./docs/(?={re.escape(errors.PAGE)}[)#])")


def prepare(params_file: Path, cluster: Cluster, root: Path) -> Path:
    """Make a record's folder with a copy of every notebook, this cluster's params set in each.

    The index notebook and the page on errors come with them, so that links between them open in JupyterLab.

    Returns:
        The folder.
    """
    folder = record.new_folder(root, cluster)
    summary.save(folder, summary.begin(cluster, "stepped", phases.PHASES))
    line = f"cluster: str = {json.dumps(str(params_file.resolve()))}  # The params file of this record."
    for name in (phases.INDEX, *(phase.notebook for phase in phases.PHASES)):
        notebook: Any = nbformat.read(phases.notebooks_dir() / name, as_version=4)  # type: ignore[no-untyped-call]
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                cell.source = "\n".join([line, *cell.source.splitlines()[1:]])
            elif cell.cell_type == "markdown":
                cell.source = _DOCS_LINK.sub("](", cell.source)
        saving.write(folder / name, nbformat.writes(notebook) + "\n")  # type: ignore[no-untyped-call]
    saving.write(folder / errors.PAGE, phases.errors_page().read_text(encoding="utf-8"))
    return folder


def open_lab(folder: Path, *, options: tuple[str, ...] = ()) -> int:
    """Open JupyterLab on a record's folder, and wait for its end; returns its exit status.

    The index notebook is in front, its contents beside it. The journal of what is applied is written into the folder
    whatever the page shows; Lab's token is only in Lab's own runtime folder and in the page that it opens.

    Args:
        folder: What `prepare` made.
        options: Handed to `jupyter lab` as they are: `--no-browser`, `--ServerApp.port=8888`, …
    """
    config = folder / ".jupyter"
    (config / "labconfig").mkdir(parents=True, exist_ok=True)
    saving.write(config / "labconfig" / "default_setting_overrides.json", json.dumps(_OVERRIDES))
    saving.write(config / "labconfig" / "page_config.json", json.dumps(_PAGE))
    _arrange(config / "workspaces")
    environment = os.environ | {
        "RUNBOOK_JOURNAL": str(record.journal_path(folder)),
        "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, [str(config), os.environ.get("JUPYTER_CONFIG_PATH", "")])),
        "JUPYTERLAB_WORKSPACES_DIR": str(config / "workspaces"),
    }
    command = [sys.executable, "-m", "jupyter", "lab", f"--ServerApp.root_dir={folder}"]
    command.append(f"--LabApp.default_url=/lab/workspaces/{_WORKSPACE}/tree/{phases.INDEX}")
    command += ["--KernelManager.transport=ipc", *options]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    with _runtime_folder() as runtime:
        return subprocess.call(command, env=environment | {"JUPYTER_RUNTIME_DIR": runtime})


@contextlib.contextmanager
def _runtime_folder() -> Iterator[str]:
    """Jupyter's own runtime folder; one of our own where its name is too long for the sockets of kernels in it."""
    folder = jupyter_runtime_dir()
    if socket_folder.has_room(folder, _LONGEST_SOCKET):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="runbook-", dir="/tmp") as short:
        yield short


def _arrange(folder: Path) -> None:
    """Lab's window: the index notebook in front, and on the left the contents of the notebook in front."""
    from jupyterlab_server.workspaces_handler import WorkspacesManager  # noqa: PLC0415 - 0.1 s that only this needs

    front = f"notebook:{phases.INDEX}"
    layout = {
        "main": {
            "dock": {"type": "tab-area", "currentIndex": 0, "widgets": [front]},
            "current": front,
        },
        "left": {
            "collapsed": False,
            "visible": True,
            "current": "@jupyterlab/toc:plugin",
            "widgets": ["filebrowser", "running-sessions", "@jupyterlab/toc:plugin"],
        },
        "right": {"collapsed": True, "visible": True, "widgets": ["jp-property-inspector", "debugger-sidebar"]},
        "relativeSizes": [0.2, 0.8, 0],
    }
    data = {
        "layout-restorer:data": layout,
        front: {"data": {"path": phases.INDEX, "factory": "Notebook"}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    made = json.dumps({"data": data, "metadata": {"id": _WORKSPACE}})
    WorkspacesManager(str(folder)).save(_WORKSPACE, made)
