"""benchmarks/growth.py: that it still measures, with three servers of its simulation on the loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_GROWTH = Path(__file__).resolve().parents[2] / "benchmarks" / "growth.py"


def test_three_servers_are_measured(tmp_path: Path) -> None:
    """It ends well; descriptors stay few, and a file four times as large takes no more memory than the other."""
    command = [sys.executable, str(_GROWTH), "--sizes", "3", "--latency-ms", "0", "--into", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads((tmp_path / "growth.json").read_text(encoding="utf-8"))["sizes"]
    assert (row["nodes"], row["fed_nodes"]) == (3, 3)
    assert row["descriptors"] < 50
    assert row["feed16_mib"] - row["feed4_mib"] < 12  # MiB: three files of 16 are 48
    assert "<svg" in (tmp_path / "growth.svg").read_text(encoding="utf-8")
