"""runbook.commands.diagnose: the command that looks for causes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from local_node import cluster_of, fleet_of
from typer.testing import CliRunner

from runbook import cli, diagnose, fleet, show

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.fleet import Fleet

ROW = {
    "node": "node2", "cause": "the disk is full", "ok": False, "why": "[red]0 MiB[/red] free", "remedy": "free space",
    "section": "disk-full",
}  # fmt: skip


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Stand-ins in the place of nodes; each connection's `partial` is noted."""
    noted: list[bool] = []

    def connect(_path: Path, *, partial: bool = False) -> Fleet:
        noted.append(partial)
        return fleet_of(cluster_of(), tmp_path)

    monkeypatch.setattr(fleet, "connect", connect)
    return noted


def invoke(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], *words: str) -> tuple[int, str]:
    """Run the command where a look finds these rows: its exit status and output."""
    found = show.table(rows, diagnose.COLUMNS, f"Diagnosis of c: {len(rows) or 'nothing wrong was'} found")
    monkeypatch.setattr(diagnose, "diagnose", lambda _fleet: found)
    result = CliRunner().invoke(cli.app, ["diagnose", "p.yaml", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_causes_end_with_1(asked: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of causes and remedies, text of nodes as it is; nodes that are down don't end it."""
    status, said = invoke(monkeypatch, [ROW])
    assert status == 1
    assert "the disk is full" in said
    assert "[red]0 MiB[/red] free" in said
    assert asked == [True]


@pytest.mark.usefixtures("asked")
def test_nothing_found_ends_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says so."""
    assert invoke(monkeypatch, []) == (0, "Diagnosis of c: nothing wrong was found\n")


@pytest.mark.usefixtures("asked")
def test_json_is_for_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every column of every cause, and the same exit status."""
    status, said = invoke(monkeypatch, [ROW], "--json")
    assert status == 1
    assert json.loads(said) == {"cluster": "c", "causes": [ROW]}
    status, said = invoke(monkeypatch, [], "--json")
    assert (status, json.loads(said)) == (0, {"cluster": "c", "causes": []})
