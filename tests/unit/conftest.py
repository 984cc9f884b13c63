"""What unit tests share: a stand-in for a node's sshd, a CA and a pair by it, the end of a fork server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from certificate_cases import our_authority, our_member
from ssh_server import StandInSshd

from runbook.jupyter import forked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbook.pki import Authority, KeyPair


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInSshd]:
    """An sshd on loopback; home is the test's folder, and the environment has neither passwords nor an agent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("SSH_AUTH_SOCK", "RUNBOOK_SSH_PASSWORD", "RUNBOOK_SSH_PASSWORD_VARIABLE", "RUNBOOK_SUDO_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with StandInSshd(tmp_path) as one:
        yield one


@pytest.fixture(scope="session")
def authority() -> Authority:
    """A CA of ours."""
    return our_authority()


@pytest.fixture(scope="session")
def member() -> KeyPair:
    """An etcd member's pair by that CA."""
    return our_member()


@pytest.fixture(scope="module")
def no_server_is_left() -> Iterator[None]:
    """The module's fork server ends with it."""
    yield
    forked.end()
