"""runbook.jupyter.stepped: a record's folder to step through by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from jupyterlab_server.workspaces_handler import WorkspacesManager
from local_node import cluster_of

from runbook import errors, phases
from runbook.jupyter import stepped
from runbook.records import summary

NOTEBOOKS = [phases.INDEX, *(phase.notebook for phase in phases.PHASES)]


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    """A params file whose path needs quoting."""
    path = tmp_path / 'of "anna" ü.yaml'
    path.touch()
    return path


@pytest.fixture
def folder(tmp_path: Path, params_file: Path) -> Path:
    return stepped.prepare(params_file, cluster_of(), tmp_path / "records")


def test_every_notebook_is_there_with_this_clusters_params(folder: Path, params_file: Path) -> None:
    """Of the code only the parameters cell differs from the shipped notebook; it names the params file."""
    for name in NOTEBOOKS:
        shipped = nbformat.read(phases.notebooks_dir() / name, as_version=4).cells
        made = nbformat.read(folder / name, as_version=4).cells
        changed = [(old, new) for old, new in zip(shipped, made, strict=True) if old != new]
        ((old, new),) = [pair for pair in changed if pair[0].cell_type == "code"]
        assert old.metadata.tags == ["parameters"]
        values: dict[str, object] = {}
        exec(new.source, values)  # noqa: S102 - our own cell
        assert values["cluster"] == str(params_file)
        assert values.get("approve", False) is False
        assert new.source.splitlines()[1:] == old.source.splitlines()[1:]


def test_links_lead_to_what_is_in_the_folder(folder: Path) -> None:
    """Every link of every notebook opens in JupyterLab: other notebooks and the page on errors are beside it."""
    for name in NOTEBOOKS:
        cells = nbformat.read(folder / name, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
        assert phases.INDEX in targets or name == phases.INDEX
        assert errors.PAGE in targets
        assert [target for target in targets if not (folder / target).is_file()] == []
    assert (folder / errors.PAGE).read_text() == phases.errors_page().read_text()


def test_papermill_still_reads_the_parameters(folder: Path, params_file: Path) -> None:
    """`papermill --help-notebook` shows the same names and types, the path as the default."""
    for name in NOTEBOOKS:
        shipped = papermill.inspect_notebook(phases.notebooks_dir() / name)
        made = papermill.inspect_notebook(folder / name)
        assert list(made) == list(shipped)
        assert {key: one["inferred_type_name"] for key, one in made.items()} == {
            key: one["inferred_type_name"] for key, one in shipped.items()
        }
        assert json.loads(made["cluster"]["default"]) == str(params_file)


def test_the_record_is_open(folder: Path) -> None:
    """It says that it is stepped through and still running, all phases not begun, with the params as used."""
    told = summary.load(folder)
    assert (told["kind"], told["outcome"], told["cluster"]) == ("stepped", "running", "c")
    assert [row["outcome"] for row in told["phases"]] == ["not begun"] * len(phases.PHASES)
    assert (folder / "params.yaml").is_file()
    assert not (folder / "SHA256SUMS").exists()


def test_lab_is_opened_on_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels by sockets of our own, the journal in the record, the operator's options last, Lab's own status back."""
    seen: list[tuple[list[str], dict[str, str]]] = []

    def call(command: list[str], *, env: dict[str, str]) -> int:
        seen.append((command, env))
        return 5

    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/etc/theirs")
    monkeypatch.setattr(subprocess, "call", call)
    assert stepped.open_lab(folder, options=("--no-browser",)) == 5
    ((command, env),) = seen
    assert command[:4] == [sys.executable, "-m", "jupyter", "lab"]
    assert f"--ServerApp.root_dir={folder}" in command
    assert "--KernelManager.transport=ipc" in command
    assert "--no-browser" in command
    assert env["RUNBOOK_JOURNAL"] == str(folder / "journal.jsonl")
    assert env["JUPYTER_CONFIG_PATH"] == f"{folder}/.jupyter:/etc/theirs"
    overrides = json.loads((folder / ".jupyter/labconfig/default_setting_overrides.json").read_text())
    assert overrides["@jupyterlab/docmanager-extension:plugin"]["autosaveInterval"] == 10
    assert overrides["@jupyterlab/docmanager-extension:plugin"]["lastModifiedCheckMargin"] == 10_000


@pytest.mark.parametrize(("length", "kept"), [(57, True), (58, False)])
def test_sockets_of_kernels_have_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch, length: int, *, kept: bool
) -> None:
    """Jupyter's runtime folder is used where a kernel's socket fits in it, else a short one that is gone at the end."""
    runtime = "/".ljust(length, "r")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", runtime)
    used: list[Path] = []
    monkeypatch.setattr(subprocess, "call", lambda _, *, env: used.append(Path(env["JUPYTER_RUNTIME_DIR"])) or 0)
    stepped.open_lab(folder)
    assert (str(used[0]) == runtime) is kept
    assert len(str(used[0])) <= 57
    assert not used[0].exists()


def test_lab_opens_with_the_index_in_front(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a workspace of its own, kept in the record's folder: the index notebook, its contents beside it."""
    monkeypatch.setattr(subprocess, "call", lambda command, *, env: commands.append((command, env)) or 0)
    commands: list[tuple[list[str], dict[str, str]]] = []
    stepped.open_lab(folder)
    ((command, env),) = commands
    assert "--LabApp.default_url=/lab/workspaces/runbook/tree/index.ipynb" in command
    assert env["JUPYTERLAB_WORKSPACES_DIR"] == str(folder / ".jupyter/workspaces")
    workspace = WorkspacesManager(env["JUPYTERLAB_WORKSPACES_DIR"]).load("runbook")
    layout = workspace["data"]["layout-restorer:data"]
    assert layout["main"]["current"] == "notebook:index.ipynb"
    assert workspace["data"]["notebook:index.ipynb"]["data"]["path"] == "index.ipynb"
    assert layout["left"]["current"] == "@jupyterlab/toc:plugin"


@pytest.mark.parametrize(("euid", "root"), [(0, True), (1000, False)])
def test_lab_is_allowed_root_only_where_it_is_root(
    folder: Path, monkeypatch: pytest.MonkeyPatch, euid: int, *, root: bool
) -> None:
    """Lab refuses to run as root unless it is told that this is meant."""
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda command, **_: commands.append(command) or 0)
    monkeypatch.setattr("os.geteuid", lambda: euid)
    assert stepped.open_lab(folder) == 0
    assert ("--allow-root" in commands[0]) == root
