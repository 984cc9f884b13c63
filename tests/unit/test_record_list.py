"""runbook.records.record_list: every folder is a row, whole or not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import past_run
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook import show
from runbook.errors import RunbookError
from runbook.records import record_list, summary

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND, THIRD = "20261123T021314Z", "20261123T021314Z-2", "20261123T021314Z-10"


def row(root: Path) -> dict[str, Any]:
    found = show.json_rows(record_list.records(root))
    assert len(found) == 1
    return found[0]


def test_a_run_is_a_row(tmp_path: Path) -> None:
    """A row says when, by whom, how many phases passed, how many changes, how long."""
    change = past_run.PLAN | {"changes": [{"node": "node1"}, {"node": "node2"}]}
    done = [past_run.phase_run(0), past_run.phase_run(3, plan=change), past_run.phase_run(4, ename="ApplyFailed")]
    read = past_run.told(done=done, continues=FIRST)
    read |= {"started": "2026-11-23T02:13:14Z", "ended": "2026-11-23T02:14:20Z"}
    read["operator"] = {"user": "anna", "host": "ops1", "pid": 1}
    folder = past_run.past_run(tmp_path, SECOND, read)
    expected = {
        "record": SECOND,
        "cluster": "sandbox",
        "kind": "run",
        "outcome": "failed",
        "started": "2026-11-23T02:13:14Z",
        "took_s": 66.0,
        "phases": "2 of 12",
        "changes": 2,
        "operator": "anna@ops1",
        "signed": False,
        "continues": FIRST,
        "why": None,
    }
    assert row(tmp_path) == expected
    (folder / "SHA256SUMS.sig").write_text("signature")
    assert row(tmp_path) == expected | {"signed": True}


def test_a_run_that_has_not_ended(tmp_path: Path) -> None:
    """A run that goes on, or that was cut off, has no duration and no count of changes."""
    past_run.past_run(tmp_path, FIRST, past_run.told(ended=False))
    found = row(tmp_path)
    assert [found[name] for name in ("outcome", "took_s", "phases", "changes")] == ["running", None, "0 of 12", None]


def test_newest_last(tmp_path: Path) -> None:
    """Records stand in the order of their times and numbers, over all clusters; -10 comes after -2."""
    for name in (THIRD, FIRST, SECOND):
        past_run.past_run(tmp_path, name, past_run.told())
    other = tmp_path / "other"
    (tmp_path / "sandbox" / SECOND).rename(other.with_name("moved"))
    other.mkdir()
    (tmp_path / "moved").rename(other / SECOND)
    assert list(record_list.records(tmp_path)["record"]) == [FIRST, SECOND, THIRD]
    assert list(record_list.records(tmp_path)["cluster"]) == ["sandbox", "other", "sandbox"]
    assert list(record_list.records(tmp_path, "sandbox")["record"]) == [FIRST, THIRD]
    assert list(record_list.records(tmp_path, "none")["record"]) == []


def test_no_records_yet(tmp_path: Path) -> None:
    """Before the first run there is an empty table, not an error."""
    table = record_list.records(tmp_path / "records")
    assert len(table) == 0
    assert table.caption == f"0 records under {tmp_path / 'records'}"
    assert record_list.newest(tmp_path / "records", "sandbox") is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no summary.json"),
        (b"", "is no record"),
        (b"\xff\xfe", "is no record"),
        (b'{"schema": 1, "kind": "ru', "is no record"),
        (b"[]", "its summary.json is none"),
        (b"null", "its summary.json is none"),
        (b'{"schema": 2}', "schema 2: this version reads 1"),
        (b'{"schema": 1}', "its summary.json is none: KeyError"),
        (b'{"schema": 1, "phases": {"a": 1}, "started": "x"}', "its summary.json is none"),
    ],
)
def test_garbage_is_a_row(tmp_path: Path, content: bytes | None, why: str) -> None:
    """A folder without a whole summary is a row `unreadable` that says why, and never the newest."""
    folder = tmp_path / "sandbox" / FIRST
    folder.mkdir(parents=True)
    if content is not None:
        (folder / summary.NAME).write_bytes(content)
    found = row(tmp_path)
    assert found["outcome"] == record_list.UNREADABLE
    assert found["why"].startswith(why)
    assert (found["record"], found["cluster"], found["signed"]) == (FIRST, "sandbox", False)
    assert record_list.newest(tmp_path, "sandbox") is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)
)


@given(st.dictionaries(st.sampled_from(sorted(past_run.told())), _JSON, min_size=1, max_size=4))
def test_no_summary_ends_the_list(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]) -> None:
    """Whatever stands in a summary's keys, the record is one row."""
    root = tmp_path_factory.mktemp("records")
    past_run.past_run(root, FIRST, past_run.told() | changes)
    assert row(root)["record"] == FIRST


def test_a_folder_instead_of_a_summary(tmp_path: Path) -> None:
    """A summary.json that is a folder is garbage too; hidden folders and files beside records are none."""
    (tmp_path / "sandbox" / FIRST / summary.NAME).mkdir(parents=True)
    (tmp_path / "sandbox" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "sandbox" / "notes.txt").touch()
    assert row(tmp_path)["outcome"] == record_list.UNREADABLE


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    """A records folder that is a file is an error that names it."""
    (tmp_path / "records").touch()
    with pytest.raises(RunbookError, match=r"records: can't be read: Not a directory"):
        record_list.records(tmp_path / "records")


def test_newest_is_of_the_kinds_asked_for(tmp_path: Path) -> None:
    """A status record doesn't hide the run that is to be resumed; garbage hides none."""
    for name, kind in ((FIRST, "run"), (SECOND, "status")):
        past_run.past_run(tmp_path, name, past_run.told(kind))
    broken = past_run.past_run(tmp_path, THIRD, past_run.told())
    (broken / summary.NAME).write_text(json.dumps([]))
    place = tmp_path / "sandbox"
    assert record_list.newest(tmp_path, "sandbox") == place / FIRST
    assert record_list.newest(tmp_path, "sandbox", ("run", "status")) == place / SECOND
    assert record_list.newest(tmp_path, "sandbox", ("stepped",)) is None
    assert record_list.newest(tmp_path, "other") is None
