"""runbook.transport.hostkeys: host keys looked at and accepted; a stand-in for sshd on the loopback."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import paramiko
import pytest
from ssh_server import NODE, StandInSshd

from runbook import errors
from runbook.params import Cluster, Ssh
from runbook.transport import dial, hostkeys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInSshd]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with StandInSshd(tmp_path) as one:
        yield one


def cluster_with(ssh: Ssh) -> Cluster:
    return Cluster.model_construct(name="c", nodes=(NODE,), ssh=ssh)


def test_an_unknown_key_is_shown_and_accepted(server: StandInSshd, tmp_path: Path) -> None:
    """A key that is in no file is unknown; accepted it is known, and the login works."""
    ssh = server.settings(known_hosts=str(tmp_path / "new" / "known_hosts"))
    cluster = cluster_with(ssh)
    (key,) = hostkeys.look(cluster)
    assert (key.node, key.name, key.state) == ("node1", f"[127.0.0.1]:{server.port}", "unknown")
    table = hostkeys.table([key])
    assert list(table["fingerprint"]) == [dial.fingerprint(server.key)]
    hostkeys.accept(cluster, [key])
    assert (tmp_path / "new" / "known_hosts").stat().st_mode & 0o777 == 0o600
    assert [one.state for one in hostkeys.look(cluster)] == ["known"]
    dial.dial(dial.target(NODE, ssh)).close()


def test_looking_logs_nobody_in(server: StandInSshd, tmp_path: Path) -> None:
    """A look ends before any login, and writes nothing."""
    hostkeys.look(cluster_with(server.settings(known_hosts=str(tmp_path / "none"))))
    assert not any(transport.is_authenticated() for transport in server.transports)
    assert not (tmp_path / "none").exists()


def test_a_changed_key_is_told(server: StandInSshd) -> None:
    """Another key than the known one of its type is changed."""
    ssh = server.settings()
    old = paramiko.ECDSAKey.generate()
    ssh.known_hosts.write_text(f"[127.0.0.1]:{server.port} {old.get_name()} {old.get_base64()}\n")
    assert [key.state for key in hostkeys.look(cluster_with(ssh))] == ["changed"]


def test_a_node_that_does_not_answer_has_its_row(server: StandInSshd) -> None:
    """A node that is down is unreachable, with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (key,) = hostkeys.look(cluster_with(server.settings(port=port)))
    assert (key.state, key.key) == ("unreachable", None)
    assert "refused" in key.why
    assert list(hostkeys.table([key])["why"]) == [key.why]


def test_what_is_there_stays(server: StandInSshd, tmp_path: Path) -> None:
    """Accepting appends whole lines: after a line without an end too."""
    path = tmp_path / "known_hosts"
    path.write_text("other ssh-ed25519 AAAA")
    key = hostkeys.HostKey("node1", "198.18.0.11", "unknown", server.key)
    gone = hostkeys.HostKey("node2", "198.18.0.12", "unreachable", None)
    hostkeys.accept(cluster_with(server.settings(known_hosts=str(path))), [key, gone])
    assert path.read_text().splitlines() == [
        "other ssh-ed25519 AAAA",
        f"198.18.0.11 {server.key.get_name()} {server.key.get_base64()}",
    ]


def test_a_file_that_cannot_be_written_is_named(server: StandInSshd, tmp_path: Path) -> None:
    """The error has the path and the reason."""
    (tmp_path / "file").touch()
    ssh = server.settings(known_hosts=str(tmp_path / "file" / "known_hosts"))
    with pytest.raises(errors.StateError, match="known_hosts: can't be written: File exists"):
        hostkeys.accept(cluster_with(ssh), [])
