"""runbook.socket_folder: sockets that have an address whatever the temporary folder's name is."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from runbook import socket_folder


@pytest.mark.parametrize("length", [10, 100])
def test_a_socket_of_the_longest_name_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """In the temporary folder or, where that has too long a name, in /tmp; nobody else can open it."""
    usual = tmp_path / ("t" * length)
    usual.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(usual))
    folder = Path(socket_folder.make("runbook-", 8))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{folder}/kernel-1")
    (folder / "kernel-1").unlink()
    folder.rmdir()
    assert list(usual.iterdir()) == []


def test_the_room_is_what_the_system_has(tmp_path: Path) -> None:
    """One byte more than there is room for is refused by the system too; bytes count, not characters."""
    free = 107 - len(str(tmp_path)) - 1
    with socket.socket(socket.AF_UNIX) as made:
        assert socket_folder.has_room(str(tmp_path), free)
        made.bind(f"{tmp_path}/{'a' * free}")
    with socket.socket(socket.AF_UNIX) as made:
        assert not socket_folder.has_room(str(tmp_path), free + 1)
        with pytest.raises(OSError, match="too long"):
            made.bind(f"{tmp_path}/{'a' * (free + 1)}")
    assert not socket_folder.has_room("ü" * 50, 7)
