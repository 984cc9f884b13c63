"""runbook.journal: what happened is noted as it happens, and told to those who listen."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from runbook import errors
from runbook.journal import Journal, Pulse, Step, follow

if TYPE_CHECKING:
    from pathlib import Path


def test_steps_are_kept_in_order() -> None:
    """Each step has its node, words, state and detail, and the time."""
    journal = Journal("")
    journal.note("node1", "apply", "started")
    journal.note("node1", "apply", "failed", "disk full")
    first, second = journal.steps
    assert (first.node, first.step, first.state, first.detail) == ("node1", "apply", "started", "")
    assert (second.state, second.detail) == ("failed", "disk full")
    assert 0 < first.at <= second.at


def test_what_is_a_part_of_something_is_noted_as_that(tmp_path: Path) -> None:
    """A part's steps and pulses name it, in the same journal and file; a step that is no part has no word of it."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(str(path))
    heard: list[Step | Pulse] = []
    journal.listen(heard.append)
    part = journal.of("flannel binaries")
    part.note("node1", "received")
    part.tell(Pulse("node1", sent_bytes=1))
    journal.note("node1", "connect")
    assert [step.part for step in journal.steps] == ["flannel binaries", ""]
    assert [one.part for one in heard] == ["flannel binaries", "flannel binaries", ""]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("part") for line in lines] == ["flannel binaries", None]
    assert [Step(**line) for line in lines] == journal.steps


def test_each_step_is_in_the_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment names a file, each step is a JSON object on a line of its own, after what was there."""
    path = tmp_path / "journal.jsonl"
    path.write_text('{"step": "earlier"}\n')
    monkeypatch.setenv("RUNBOOK_JOURNAL", str(path))
    journal = Journal()
    journal.note("node1", "line\nbreak \u00e9")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == ["earlier", "line\nbreak \u00e9"]
    assert Step(**lines[1]) == journal.steps[0]


def test_a_journal_that_cannot_be_written_says_what_to_do() -> None:
    """A full disk on this side is told with the file and the remedy, by the real device that is always full."""
    journal = Journal("/dev/full")
    with pytest.raises(
        errors.RunbookError, match="/dev/full: the run's journal can't be written: No space left"
    ) as told:
        journal.note("node1", "apply")
    assert (told.value.subject, "make room" in told.value.remedy) == ("/dev/full", True)


def test_bytes_are_told_where_there_are_any() -> None:
    """A step that sent bytes says how many, none sent being 0; any other step's line has no word of bytes."""
    journal = Journal("")
    journal.note("node1", "apply", sent_bytes=0)
    journal.note("node1", "healthy")
    told = [json.loads(step.as_json()) for step in journal.steps]
    assert (told[0]["sent_bytes"], "sent_bytes" in told[1]) == (0, False)
    assert [Step(**line) for line in told] == journal.steps


def test_a_pulse_is_told_and_never_kept(tmp_path: Path) -> None:
    """How far a step is comes many times a second: those who listen have it, the file does not."""
    journal = Journal(str(tmp_path / "journal.jsonl"))
    heard: list[Step | Pulse] = []
    journal.listen(heard.append)
    journal.tell(Pulse("node1", sent_bytes=1, total_bytes=2))
    assert heard == [Pulse("node1", sent_bytes=1, total_bytes=2)]
    assert (journal.steps, list(tmp_path.iterdir())) == ([], [])


def test_no_file_is_written_without_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the variable the steps stay in memory."""
    monkeypatch.delenv("RUNBOOK_JOURNAL", raising=False)
    monkeypatch.chdir(tmp_path)
    Journal().note("node1", "x")
    assert list(tmp_path.iterdir()) == []


def test_listeners_hear_until_they_end() -> None:
    """A listener gets each further step, and none after it has ended; another one goes on."""
    journal = Journal("")
    first: list[Step | Pulse] = []
    second: list[Step | Pulse] = []
    end = journal.listen(first.append)
    journal.listen(second.append)
    journal.note("", "one")
    end()
    journal.note("", "two")
    assert first == journal.steps[:1]
    assert second == journal.steps


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    """Steps of several threads are all there, each whole."""
    journal = Journal(str(tmp_path / "j"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: journal.note(f"node{number}", "x" * 500), range(200)))
    told = [json.loads(line)["node"] for line in (tmp_path / "j").read_text().splitlines()]
    assert sorted(told) == sorted(f"node{number}" for number in range(200))
    assert len(journal.steps) == 200


def test_a_journal_file_is_followed(tmp_path: Path) -> None:
    """What a kernel notes is told while it works; a line that is half written is passed over."""
    path, told, seen = tmp_path / "journal.jsonl", [], threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        seen.set()

    with follow(path, tell, every_s=0.01):
        path.write_text('{"half\n', encoding="utf-8")
        Journal(str(path)).note("node1", "building etcd")
        assert seen.wait(10)
    assert told == ["node1 building etcd"]
