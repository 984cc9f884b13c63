"""A record of stepping through by hand: notebooks in a record's folder, opened in JupyterLab, closed when done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import nbformat

from runbook import phases, record, saving, summary

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.params import Cluster

#: Lab's own default of 120 s would lose what a person did last before closing the lid; 10 s loses little.
_OVERRIDES = {
    "@jupyterlab/docmanager-extension:plugin": {"autosaveInterval": 10},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"},
}


def prepare(params_file: Path, cluster: Cluster, root: Path) -> Path:
    """Make a record's folder with a copy of every notebook, this cluster's params set in each.

    Returns:
        The folder.
    """
    folder = record.new_folder(root, cluster)
    summary.save(folder, summary.begin(cluster, "stepped", phases.PHASES))
    for phase in phases.PHASES:
        notebook: Any = nbformat.read(phases.notebooks_dir() / phase.notebook, as_version=4)  # type: ignore[no-untyped-call]
        cell = next(one for one in notebook.cells if "parameters" in one.metadata.get("tags", []))
        lines = cell.source.splitlines()
        cell.source = "\n".join(
            [f"cluster: str = {json.dumps(str(params_file.resolve()))}  # The params file of this record.", *lines[1:]]
        )
        saving.write(folder / phase.notebook, nbformat.writes(notebook) + "\n")  # type: ignore[no-untyped-call]
    return folder


def open_lab(folder: Path, *, options: tuple[str, ...] = ()) -> int:
    """Open JupyterLab on a record's folder, and wait for its end; returns its exit status.

    The journal of what is applied is written into the folder whatever the page shows.
    """
    config = folder / ".jupyter"
    (config / "labconfig").mkdir(parents=True, exist_ok=True)
    saving.write(config / "labconfig" / "default_setting_overrides.json", json.dumps(_OVERRIDES))
    environment = os.environ | {
        "RUNBOOK_JOURNAL": str(record.journal_path(folder)),
        "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, [str(config), os.environ.get("JUPYTER_CONFIG_PATH", "")])),
        "JUPYTERLAB_WORKSPACES_DIR": str(config / "workspaces"),
    }
    command = [sys.executable, "-m", "jupyter", "lab", f"--ServerApp.root_dir={folder}"]
    command.append(f"--LabApp.default_url=/lab/tree/{phases.PHASES[0].notebook}")
    command += ["--KernelManager.transport=ipc", *options]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    return subprocess.call(command, env=environment)
