"""runbook.certs.private_files: keys that others could read are not used, for a login or for a signature."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from local_node import cluster_of

from runbook import errors
from runbook.certs import private_files
from runbook.records import evidence
from runbook.records.sumfile import SUMS
from runbook.transport import dial

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """An SSH key pair as ssh-keygen leaves it."""
    path = tmp_path / "id o'key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.mark.parametrize(
    ("mode", "good"), [(0o600, True), (0o400, True), (0o640, False), (0o604, False), (0o622, False)]
)
def test_a_private_key_is_its_owners_alone(key: Path, mode: int, good: bool) -> None:  # noqa: FBT001
    """No bit for the group or others; the mode is told, and the command that is given mends it."""
    key.chmod(mode)
    said = private_files.fault(key)
    assert (said == "") == good
    if not good:
        assert f"mode {mode:04o}" in said
        subprocess.run(["sh", "-c", private_files.remedy(key).split(";")[0]], check=True)
        assert private_files.fault(key) == ""


def test_what_is_no_private_key_is_no_fault(key: Path, tmp_path: Path) -> None:
    """A public key is for all to read; what is not there, and a folder, are not this module's matter."""
    public = key.with_name(f"{key.name}.pub")
    public.chmod(0o644)
    assert [private_files.fault(path) for path in (public, tmp_path / "none", tmp_path)] == ["", "", ""]


def test_no_login_with_a_key_that_others_can_read(key: Path) -> None:
    """It is refused before anything is sent: nobody listens at this address."""
    key.chmod(0o644)
    cluster = cluster_of(ssh={"key_file": str(key)})
    target = dial.target(cluster.nodes[0], cluster.ssh, config_file=key.with_name("none"))
    with pytest.raises(errors.LoginRefused, match=r"others can read or change .mode 0644") as caught:
        dial.dial(target)
    assert caught.value.remedy.startswith("chmod 600 '")


def test_no_signature_with_a_key_that_others_can_read(key: Path, tmp_path: Path) -> None:
    """The record is closed and not signed, and the remedy is chmod, not an agent."""
    key.chmod(0o644)
    record = tmp_path / "record"
    record.mkdir()
    (record / SUMS).write_text("", encoding="ascii")
    with pytest.raises(errors.RunbookError, match="others can read") as caught:
        evidence._sign(record, key)
    assert caught.value.remedy.startswith("chmod 600 ")
