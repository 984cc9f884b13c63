"""runbook.transport.known_hosts: a machine's own lines of a file, as ssh-keygen writes and hashes them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import paramiko
import pytest
from paramiko.hostkeys import InvalidHostKey

from runbook.transport import known_hosts

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()


def line(name: str, key: paramiko.PKey) -> str:
    return f"{name} {key.get_name()} {key.get_base64()}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "known").write_text(
        "# a comment\n\n" + line("gate,198.18.0.11", ONE) + line("[198.18.0.12]:2222", TWO) + line("198.18.0.1", TWO)
    )
    return tmp_path / "known"


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("198.18.0.11", [ONE]),
        ("gate", [ONE]),
        ("[198.18.0.12]:2222", [TWO]),
        ("198.18.0.12", []),
        ("198.18.0", []),
        ("# a", []),
    ],
)
def test_a_machine_has_the_keys_of_its_own_lines(
    path: Path, name: str, expected: list[paramiko.PKey], *, hashed: bool
) -> None:
    """By whole names, with the port where it is another; also in a file that ssh-keygen has hashed."""
    if hashed:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
        assert "gate" not in path.read_text()
    assert list(known_hosts.keys(path, name)) == expected


def test_a_file_that_changes_is_read_again(path: Path) -> None:
    """A key that was accepted meanwhile is known."""
    assert list(known_hosts.keys(path, "new")) == []
    with path.open("a") as file:
        file.write(line("new", ONE) + line("new", TWO))
    assert list(known_hosts.keys(path, "new")) == [ONE, TWO]


def test_what_is_no_file_has_no_keys(tmp_path: Path) -> None:
    """No file, and a folder in its place, are as an empty one."""
    assert [*known_hosts.keys(tmp_path / "none", "gate"), *known_hosts.keys(tmp_path, "gate")] == []


@pytest.mark.parametrize("broken", ["|1|AAAA", "|1|a|b|c", "|1|?|?", "|1||"])
def test_a_broken_line_is_told_to_its_own_machine_only(path: Path, broken: str) -> None:
    """What is no key, or no hash, of another machine is no matter of this one."""
    with path.open("a") as file:
        file.write(f"bad ssh-ed25519 A\n{broken} ssh-ed25519 A\n@revoked gate ssh-ed25519 A\nalone\n\xff\n")
    assert list(known_hosts.keys(path, "gate")) == [ONE]
    with pytest.raises(InvalidHostKey):
        list(known_hosts.keys(path, "bad"))
