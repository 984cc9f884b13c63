"""runbook.transport.channel: a script as it is sent; what flows through a channel is in test_ssh."""

from __future__ import annotations

import subprocess
from shlex import quote
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from runbook.transport import channel

if TYPE_CHECKING:
    from pathlib import Path


def ran(body: bytes, reads: str, folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    argv = ["sh", "-c", reads]
    return subprocess.run(argv, input=body, capture_output=True, cwd=folder, timeout=30, check=False)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_a_whole_script_runs_as_it_is(text: str) -> None:
    """Whatever it holds, its end included."""
    body, reads = channel.packed(f"printf %s {quote(text)}")
    done = ran(body, reads)
    assert (done.returncode, done.stdout.decode()) == (0, text)
    assert "'" not in reads


def test_of_a_script_that_was_cut_nothing_runs(tmp_path: Path) -> None:
    """At whatever byte: not what came before, and no half word, such as a folder in the place of a file in it."""
    body, reads = channel.packed("touch ran\nrm -rf kept/.staged\n")
    (tmp_path / "kept").mkdir()
    for size in range(len(body)):
        done = ran(body[:size], reads, tmp_path)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"in part" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]
    assert ran(body, reads, tmp_path).returncode == 0
    assert (tmp_path / "ran").exists()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_a_script_without_input_runs_as_it_is(text: str) -> None:
    """Whatever it holds; what it reads is nothing, never the rest of itself."""
    body = channel.alone(f"printf %s {quote(text)}; cat; exit 7 # the last line")
    done = subprocess.run(["sh"], input=body, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout.decode()) == (7, text)


def test_of_a_script_without_input_that_was_cut_nothing_runs(tmp_path: Path) -> None:
    """At whatever byte before its last word is whole."""
    body = channel.alone("touch ran\nrm -rf kept/.staged\n")
    (tmp_path / "kept").mkdir()
    for size in range(len(body) - len("\n")):
        done = subprocess.run(["sh"], input=body[:size], capture_output=True, cwd=tmp_path, timeout=30, check=False)
        assert done.stdout == b""
        assert [one.name for one in tmp_path.iterdir()] == ["kept"], size
    subprocess.run(["sh"], input=body, cwd=tmp_path, timeout=30, check=True)
    assert (tmp_path / "ran").exists()
