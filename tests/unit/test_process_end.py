"""runbook.process_end: that a process has ended is known, child or not."""

from __future__ import annotations

import os
import select
import subprocess
from typing import TYPE_CHECKING

from runbook import process_end

if TYPE_CHECKING:
    import pytest


def test_an_end_is_waited_for() -> None:
    """The wait returns when it ends; the descriptor can be read from then on."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        end = process_end.descriptor(process.pid)
        assert end is not None
        assert not select.select([end], [], [], 0)[0]
        process.kill()
        process_end.wait(process.pid, 60)
        assert select.select([end], [], [], 0)[0]
    os.close(end)
    assert process_end.descriptor(process.pid) is None


def test_where_the_system_can_not_tell_it_is_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pidfd (macOS) there is no descriptor, and who waits looks again."""
    monkeypatch.delattr(os, "pidfd_open")
    assert process_end.descriptor(os.getpid()) is None
    process_end.wait(os.getpid(), 60)
