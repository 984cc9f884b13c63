"""Pinned, published and noted sums."""

from __future__ import annotations

import hashlib
import re
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.downloads import checksums
from runbook.errors import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

NAME = "flannel-v0.26.7-linux-amd64.tar.gz"
SUM = hashlib.sha256(b"one").hexdigest()
OTHER = hashlib.sha256(b"two").hexdigest()


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_table_is_whole() -> None:
    """Each pinned sum is 64 digits of a release's tarball, and no two releases share one."""
    table = checksums._table()
    assert len(table) == 20
    assert len(set(table.values())) == 20
    for name in table:
        assert re.fullmatch(r"(etcd|flannel)-v\d+\.\d+\.\d+-linux-(amd64|arm64)\.tar\.gz", name)


def test_pinned() -> None:
    """A pinned release's sum is known, another's isn't."""
    assert (checksums.pinned("etcd-v3.5.21-linux-amd64.tar.gz") or "").startswith("adddda4b06718e68")
    assert checksums.pinned(NAME) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{SUM}  {NAME}\n{OTHER}  other\n", SUM),
        (f"{SUM.upper()} *{NAME}\r\n", SUM),
        (f"{SUM}  ./{NAME}\n", SUM),
        (f"{SUM}  {NAME}\n{SUM}  {NAME}\n", SUM),
        (f"{SUM}  {NAME}\n{OTHER}  {NAME}\n", None),
        (f"{SUM}  x{NAME}\n", None),
        (f"{SUM[:-1]}  {NAME}\n", None),
        ("<html>404</html>", None),
        ("", None),
    ],
)
def test_published(text: str, expected: str | None) -> None:
    """A SHA256SUMS file gives the sum of exactly that name; two different ones give none."""
    assert checksums.published(text, NAME) == expected


@given(st.text())
def test_published_takes_any_text(text: str) -> None:
    """Whatever a mirror serves as SHA256SUMS, nothing breaks, and nothing is found that isn't there."""
    found = checksums.published(text, NAME)
    assert found is None or (found in text.lower() and NAME in text)


def test_first_note_stands(state: Path) -> None:
    """The first sum stays; a later one doesn't replace it, and is told the first."""
    assert checksums.noted(NAME) is None
    first = checksums.note(NAME, SUM, "release site", "nothing")
    assert checksums.note(NAME, OTHER, "mirror", "nothing") == first
    assert checksums.noted(NAME) == first
    assert first.sha256 == SUM
    path = state / "runbook" / "checksums.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert {item.name for item in path.parent.iterdir()} == {"checksums.json", "checksums.lock"}


def test_damaged_notes_are_no_empty_notes(state: Path) -> None:
    """A file that can't be read is an error: taken for empty, it would trust anything anew."""
    (state / "runbook").mkdir()
    (state / "runbook" / "checksums.json").write_text('{"x": {}}')
    with pytest.raises(ArtifactError, match="can't be read"):
        checksums.noted(NAME)
    with pytest.raises(ArtifactError, match="can't be read"):
        checksums.note(NAME, SUM, "release site", "nothing")


def test_folder_that_cannot_be_written(state: Path) -> None:
    """Where nothing can be noted, the error names the file."""
    (state / "runbook").write_text("a file in the folder's place")
    with pytest.raises(ArtifactError, match=re.escape("checksums.json")):
        checksums.note(NAME, SUM, "release site", "nothing")


def test_notes_at_once_are_all_kept() -> None:
    """Many writers at once lose no note."""
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        checksums.note(f"{NAME}.{number}", SUM, "release site", "nothing")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(checksums.noted(f"{NAME}.{number}") for number in range(8))
