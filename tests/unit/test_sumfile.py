"""runbook.records.sumfile: sha256sum's format, and reading what anyone may have put there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbook.records import sumfile

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=30)


@settings(max_examples=40)
@given(NAMES.filter(lambda name: sumfile.is_plain(name) and len(name.encode()) < 200), st.binary(max_size=99))
@example(" two  spaces ", b"")
@example("*star", b"")
@example("--check", b"")
def test_sums_are_sha256sum_s_own(name: str, content: bytes) -> None:
    """What sha256sum writes for a plain name is read as that name and sum, and the sum is the one we compute."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        command = ["sha256sum", "--", name]
        printed = subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=60).stdout.decode()
        assert sumfile.parse(printed) == ({name: sumfile.sha256(path)}, [])


@given(st.lists(NAMES | st.sampled_from(["..", "../x", "/x", "a/../../x", "-", "a//b", "a\\b"]), max_size=6))
def test_no_line_leads_outside(names: list[str]) -> None:
    """Whatever the lines say: a name that is given back stays inside when joined to a folder; the others are faults."""
    found, faults = sumfile.parse("".join(f"{'0' * 64}  {name}\n" for name in names))
    folder = "/record"
    assert all(os.path.normpath(os.path.join(folder, name)) == f"{folder}/{name}" for name in found)  # noqa: PTH118
    assert bool(faults) is (sorted(found) != sorted(names))


@given(st.text())
def test_any_text_is_read_or_faulted(text: str) -> None:
    """No text raises, and one that holds more than line ends gives sums or faults."""
    found, faults = sumfile.parse(text)
    assert bool(found or faults) is bool(text)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "big", "none"])
def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path, kind: str) -> None:
    """A link, a FIFO, a folder, too many bytes: an OSError at once, and no descriptor stays open."""
    path = tmp_path / "x"
    (tmp_path / "target").touch()
    if kind == "link":
        path.symlink_to("target")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "big":
        path.write_bytes(b"12345")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match=str(path)):
        sumfile.content(path, 4)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
