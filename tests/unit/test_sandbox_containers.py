from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from runbook.sandbox import containers

if TYPE_CHECKING:
    import pytest

_MINE = str(uuid.uuid4())


def test_a_process_that_only_mentions_the_uuid_is_not_a_node() -> None:
    """Someone who greps for a node, or whose environment names it, is neither found nor killed."""
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, f"--uuid={_MINE}"],
        stdin=subprocess.PIPE,
        env={**os.environ, "container_uuid": _MINE},
    ) as process:
        assert containers.find([_MINE])[_MINE].running is False
        containers.power_off(_MINE)
        assert process.poll() is None
        process.communicate(b"")
    assert process.returncode == 0


def test_a_process_about_to_become_nspawn_is_found_and_killed() -> None:
    """An up that was killed may leave the shell that becomes nspawn; it carries the uuid already."""
    with subprocess.Popen(
        ["sh", "-c", "read line; exit 7", "sh", f"--uuid={_MINE}"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        found = containers.find([_MINE, "another"])
        assert found[_MINE].supervisors == [process.pid]
        assert found["another"] == containers.Processes()
        containers.power_off(_MINE)
        assert process.wait() == -9


def test_a_process_that_hands_over_while_processes_are_listed_is_killed_with_its_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What setsid does in an up that was killed: its child is younger than the list, itself is gone when read."""
    script = "read line; setsid --fork sh -c 'exec 0<&- 1>&-; while sleep 0.1; do :; done' sh --uuid=$1"
    read_mark = containers._mark
    with subprocess.Popen(
        ["sh", "-c", script, "sh", _MINE, f"--uuid={_MINE}"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:

        def handed_over(pid: int) -> tuple[str, str] | None:
            if process.poll() is None:
                process.communicate(b"\n")
            return read_mark(pid)

        monkeypatch.setattr(containers, "_mark", handed_over)
        containers.power_off(_MINE)
    assert process.returncode == 0
    assert containers.find([_MINE])[_MINE] == containers.Processes()


def test_uptime_counts_from_the_start_of_the_process() -> None:
    """A process that is gone has none; one that runs has less than the machine."""
    assert containers.uptime_s(2**22 + 1) == 0.0
    up = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    assert 0 < containers.uptime_s(os.getpid()) <= up + 1
