"""runbook.commands.records: the commands on what past runs left."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
import small_records
from local_node import cluster_of
from typer.testing import CliRunner

from runbook import cli, errors, phases, state
from runbook.commands import records as cli_records
from runbook.jupyter import stepped
from runbook.records import evidence


def invoke(*words: object) -> tuple[int, str]:
    """Run `runbook` in this process, as `main` does: exit status, and what it says in one line."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words], env={"COLUMNS": "250"})
    if isinstance(result.exception, errors.RunbookError):
        return result.exception.exit_status, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text("cluster: {name: c, nodes: [{name: node1, host: 198.18.0.11}]}\n")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two closed records of the cluster `sandbox`; the second one failed."""
    root = tmp_path / "records"
    for number, failed in ((1, None), (2, 2)):
        evidence.close(small_records.make(root, number, failed=failed))
    return root


@pytest.mark.parametrize("command", ["records", "verify", "diff", "jupyter", "close"])
def test_each_is_a_command(command: str) -> None:
    """They are commands of `runbook` itself, each with help."""
    status, out = invoke(command, "--help")
    assert status == 0
    assert command in out


def test_records_are_listed(root: Path, params_file: Path) -> None:
    """All of them, or only those of a params file's cluster."""
    status, out = invoke("records", "--records", root)
    assert status == 0
    assert out.index(small_records.stamp(1)) < out.index(small_records.stamp(2))
    assert "no records in" in invoke("records", params_file, "--records", root)[1]


def test_verify_tells_by_its_exit_status(root: Path) -> None:
    """0 where every check of every record holds; 1 where one does not, and for that record alone."""
    first, second = (root / "sandbox" / small_records.stamp(number) for number in (1, 2))
    assert invoke("verify", "--records", root)[0] == 0
    small_records.overwrite(second / "params.yaml", "changed\n")
    status, out = invoke("verify", "--records", root)
    assert status == 1
    assert "params.yaml was changed" in out
    assert (invoke("verify", first)[0], invoke("verify", second)[0]) == (0, 1)


def test_verify_of_nothing_is_no_success(tmp_path: Path) -> None:
    """Where there is no record, nothing was shown to hold."""
    status, out = invoke("verify", "--records", tmp_path / "none")
    assert status == 1
    assert "no records in" in out


def test_verify_by_allowed_signers(root: Path, tmp_path: Path) -> None:
    """With a file of allowed signers an unsigned record fails; a file that is not there is bad usage."""
    allowed = small_records.allow(tmp_path / "allowed", anna=small_records.new_key(tmp_path / "keys", "anna"))
    status, out = invoke("verify", "--records", root, "--allowed-signers", allowed)
    assert status == 1
    assert "not signed" in out
    assert invoke("verify", "--records", root, "--allowed-signers", tmp_path / "none")[0] == 2


def test_diff_shows_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old and new in this order; what a record holds is text, never markup."""
    from runbook.records import record_diff  # noqa: PLC0415 - to be replaced

    monkeypatch.setattr(record_diff, "text", lambda old, new: f"[red]{old}[/] {new}")
    assert invoke("diff", "a", "b") == (0, "[red]a[/] b ")


def test_jupyter_opens_a_new_record_and_close_closes_it(
    params_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how to close it, hands options on and ends with Lab's status; then close seals what was run."""
    opened: list[tuple[Path, tuple[str, ...]]] = []

    def lab(folder: Path, *, options: tuple[str, ...]) -> int:
        opened.append((folder, options))
        return 7

    monkeypatch.setattr(stepped, "open_lab", lab)
    status, out = invoke("jupyter", params_file, "--records", tmp_path / "r", "--", "--no-browser", "--port=1")
    ((folder, options),) = opened
    assert (status, options) == (7, ("--no-browser", "--port=1"))
    assert f"runbook close {folder}" in out
    assert folder.parent == tmp_path / "r" / "c"

    path = folder / phases.PHASES[0].notebook
    made = nbformat.read(path, as_version=4)
    for place, cell in enumerate((one for one in made.cells if one.cell_type == "code"), 1):
        cell.execution_count = place
    nbformat.write(made, path)
    monkeypatch.chdir(folder.parent)
    key = small_records.new_key(tmp_path / "keys", "anna")
    status, out = invoke("close", folder.name, "--sign", key)
    assert (status, "closed: passed, 1 phases." in out) == (0, True)
    assert (folder / "SHA256SUMS.sig").is_file()
    assert json.loads((folder / "summary.json").read_text())["outcome"] == "passed"
    assert invoke("verify", folder)[0] == 0
    status, out = invoke("close", folder)
    assert status == 1
    assert "is closed already" in out


def test_jupyter_without_params_is_the_practice_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing typed it takes the checkout's params/sandbox.yaml, options or not; without a checkout it says so."""
    opened: list[tuple[Path, tuple[str, ...]]] = []
    monkeypatch.setattr(stepped, "open_lab", lambda folder, *, options: opened.append((folder, options)) or 0)
    assert invoke("jupyter", "--records", tmp_path)[0] == 0
    assert invoke("jupyter", "--records", tmp_path, "--", "--no-browser")[0] == 0
    assert [options for _, options in opened] == [(), ("--no-browser",)]
    for folder, _ in opened:
        assert folder.parent == tmp_path / "sandbox"
        assert f'"{phases.notebooks_dir().parent}/params/sandbox.yaml' in json.loads(
            (folder / phases.INDEX).read_text()
        )["cells"][4]["source"][0].replace("\\", "")
    monkeypatch.setattr(phases, "notebooks_dir", lambda: tmp_path / "notebooks")
    status, out = invoke("jupyter", "--records", tmp_path)
    assert (status, "runbook jupyter PARAMS" in out) == (2, True)


def test_close_of_no_record_is_1(tmp_path: Path) -> None:
    """A folder that is none is named."""
    status, out = invoke("close", tmp_path)
    assert status == 1
    assert "summary.json" in out


def test_records_lie_on_this_side_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is itself; for an address elsewhere it is in the cluster's state folder."""
    monkeypatch.setattr(state, "cluster_dir", lambda _: tmp_path / "state")
    assert cli_records.local_root("some/records", cluster_of()) == Path("some/records")
    assert cli_records.local_root("s3://bucket/records", cluster_of()) == tmp_path / "state" / "records"


def test_an_error_ends_with_where_its_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the command line too: the message, then the section of the page on errors."""
    monkeypatch.setattr("sys.argv", ["runbook", "jupyter", str(tmp_path / "none.yaml")])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.splitlines()[-1] == "  see docs/troubleshooting.md#params-error"
