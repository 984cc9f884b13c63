from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from runbook.errors import SandboxError
from runbook.sandbox import Sandbox, cli, login


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_status_without_a_cluster_says_what_to_do() -> None:
    """Looking makes nothing and is no failure."""
    result = CliRunner().invoke(cli.app, ["status"])
    assert (result.exit_code, result.output) == (0, "there is no practice cluster; next: runbook sandbox up\n")


def test_params_writes_a_new_file_and_no_other(tmp_path: Path) -> None:
    """A file that is there is never overwritten: it may hold a person's work."""
    target = tmp_path / "five.yaml"
    assert CliRunner().invoke(cli.app, ["params", "--nodes", "5", "-o", str(target)]).exit_code == 0
    written = target.read_text(encoding="utf-8")
    assert len(yaml.safe_load(written)["cluster"]["nodes"]) == 5
    again = CliRunner().invoke(cli.app, ["params", "-o", str(target)])
    assert isinstance(again.exception, SandboxError)
    assert "exists already" in str(again.exception)
    assert target.read_text(encoding="utf-8") == written


def test_params_without_a_file_are_yaml_alone() -> None:
    """So that it can be piped."""
    result = CliRunner().invoke(cli.app, ["params"])
    assert [node["name"] for node in yaml.safe_load(result.output)["cluster"]["nodes"]] == ["node1", "node2", "node3"]


@pytest.mark.parametrize("action", ["stop", "start", "reset", "ssh_command"])
def test_a_node_that_was_never_made_is_named(action: str) -> None:
    """The message says which nodes there are."""
    with pytest.raises(SandboxError, match=r"there is no 'node9'; there are: none"):
        getattr(Sandbox(), action)("node9")


def test_an_error_is_a_message_and_an_exit_status() -> None:
    """Alone, too, the command shows an operator's message and no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "runbook.sandbox", "up", "--nodes", "99"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "99 nodes asked for, but 198.18.0.0/26 has addresses for 1 to 52",
        "  -> ask for at most 52 nodes",
    ]


@pytest.mark.parametrize(
    ("command", "tail"),
    [
        ((), []),
        (("cat x | wc -l",), ["--", "cat x | wc -l"]),
        (("sh", "-c", "exit 3"), ["--", "sh -c 'exit 3'"]),
    ],
)
def test_words_reach_the_node_as_they_are(command: tuple[str, ...], tail: list[str]) -> None:
    """One word is a line for the shell there; several are kept apart, which ssh alone would not do."""
    argv = login.command_line("198.18.0.11", Path("/a key"), Path("/known"), command, "root")
    assert argv[argv.index("root@198.18.0.11") + 1 :] == tail
    assert 'IdentityFile="/a key"' in argv
