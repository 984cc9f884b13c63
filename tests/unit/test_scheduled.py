"""docs/scheduled.md: the samples are whole, and name what there is."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn, Self

import nbformat
import typer.main

from runbook import cli

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples"


def test_the_units_are_good(tmp_path: Path, prerequisite: Callable[[str], NoReturn]) -> None:
    """systemd-analyze finds nothing wrong in the service and the timer but, here, the program's path."""
    if shutil.which("systemd-analyze") is None:
        prerequisite("systemd-analyze")
    for name in ("runbook-status.service", "runbook-status.timer"):
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(re.sub(r"(?<=^ExecStart=)\S+", sys.executable, text, flags=re.MULTILINE))
    command = ["systemd-analyze", "verify", "./runbook-status.service", "./runbook-status.timer"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_would_find_a_fault(tmp_path: Path, prerequisite: Callable[[str], NoReturn]) -> None:
    """The check above sees a misspelt option and a program that isn't there."""
    if shutil.which("systemd-analyze") is None:
        prerequisite("systemd-analyze")
    text = (EXAMPLES / "runbook-status.service").read_text(encoding="utf-8")
    (tmp_path / "runbook-status.service").write_text(
        re.sub(r"(?<=^ExecStart=)\S+", f"{tmp_path}/none", text, flags=re.MULTILINE).replace("UMask=", "UMusk=")
    )
    command = ["systemd-analyze", "verify", "./runbook-status.service"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "UMusk" in done.stderr
    assert f"{tmp_path}/none" in done.stderr


def test_the_service_calls_what_there_is() -> None:
    """The command line in the unit is one of ours, and its keys' place is the one that the text names."""
    service = (EXAMPLES / "runbook-status.service").read_text(encoding="utf-8")
    _, command, params, *options = re.findall(r"^ExecStart=(.*)$", service, flags=re.MULTILINE)[0].split()
    group = typer.main.get_command(cli.app)
    known = {option for one in group.commands[command].params for option in one.opts}  # type: ignore[attr-defined]
    assert command == "status"
    assert options[0] in known
    text = (ROOT / "docs/scheduled.md").read_text(encoding="utf-8")
    credentials = re.findall(r"^LoadCredential=(\w+):", service, flags=re.MULTILINE)
    assert credentials == ["ssh_key", "sign_key"]
    assert all(f"/run/credentials/runbook-status.service/{name}" in text for name in credentials)
    assert params in text
    for verb, told in re.findall(r"runbook (status|verify|records|diff)\b([^`\n]*)", text):
        options = {option for one in group.commands[verb].params for option in one.opts}  # type: ignore[attr-defined]
        assert set(re.findall(r"--[\w-]+", told)) <= options


def test_the_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    """The DAG compiles, and with stand-ins for Airflow makes a task for each verify notebook, rightly called."""
    tasks: list[dict[str, object]] = []

    class Dag:
        def __init__(self, **options: object) -> None:
            assert options["catchup"] is False

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_raised: object) -> None:
            pass

    names = ["airflow", "airflow.providers", "airflow.providers.papermill", "airflow.providers.papermill.operators"]
    for name in [*names, "airflow.sdk", "airflow.providers.papermill.operators.papermill"]:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["airflow.sdk"], "DAG", Dag, raising=False)
    operators = sys.modules["airflow.providers.papermill.operators.papermill"]
    monkeypatch.setattr(operators, "PapermillOperator", lambda **options: tasks.append(options), raising=False)
    runpy.run_path(str(EXAMPLES / "airflow_dag.py"))
    assert [str(task["task_id"])[:2] for task in tasks] == ["05", "10", "11"]
    assert len({task["output_nb"] for task in tasks}) == 3
    for task in tasks:
        notebook = nbformat.read(ROOT / "notebooks" / Path(str(task["input_nb"])).name, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        (asked,) = [cell.source for cell in code if "parameters" in cell.metadata.get("tags", ())]
        parameters = task["parameters"]
        assert isinstance(parameters, dict)
        assert set(parameters) == set(re.findall(r"^(\w+)\b.*=", asked, flags=re.MULTILINE))
        assert parameters["approve"] is False
        assert not any(".apply(" in cell.source for cell in code)
        assert "{{ ts_nodash }}" in str(task["output_nb"])
