"""runbook.plans.progress: a line a node of what is going on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from runbook.journal import Journal, Pulse
from runbook.plans.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """Stands in for time: it goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heard(clock: Clock) -> Iterator[tuple[Journal, Progress]]:
    """A journal and a progress that listens to it."""
    journal, progress = Journal(""), Progress("etcd units", clock)
    end = journal.listen(progress.hear)
    yield journal, progress
    end()


def test_before_the_first_step_there_is_nothing(heard: tuple[Journal, Progress]) -> None:
    """Nothing is shown before anything happens."""
    assert (heard[1].as_html(), heard[1].as_text()) == ("", "")


def test_a_line_a_node_with_its_newest_step(heard: tuple[Journal, Progress], clock: Clock) -> None:
    """Each node has one line: its newest step, the state, and the time since its first."""
    journal, progress = heard
    journal.note("node2", "apply", "started")
    journal.note("", "create ca.pem")
    journal.note("node1", "apply", "started")
    clock.now += 3
    journal.note("node1", "apply", "failed", "no space left")
    clock.now += 4
    assert progress.as_text().splitlines() == [
        "(here)  done  create ca.pem  0 s",
        "node1  failed  apply  3 s  no space left",
        "node2  running  apply  7 s",
    ]
    html = progress.as_html()
    assert html.count("<tr>") == 4
    assert "✗ failed" in html
    assert 'scope="col"' in html
    assert 'scope="row"' in html
    assert "<caption" in html


def test_bytes_have_a_bar(heard: tuple[Journal, Progress]) -> None:
    """A long stream has a bar by bytes and the same in words; a small one only words; the whole is the node's own."""
    journal, progress = heard
    journal.note("node1", "apply", "started")
    journal.tell(Pulse("node1", sent_bytes=12_300_000, total_bytes=36_900_000))
    journal.tell(Pulse("node2", sent_bytes=1557, total_bytes=1557))
    html = progress.as_html()
    assert '<progress max="36.9" value="12.3"' in html
    assert "12.3 of 36.9 MB sent" in html
    assert html.count("<progress") == 1
    assert "1,557 bytes sent" in html


def test_what_goes_on_beside_has_a_line_of_its_own(heard: tuple[Journal, Progress], clock: Clock) -> None:
    """A part's steps and bytes don't touch the line of the node's start, which still waits."""
    journal, progress = heard
    journal.note("node1", "start etcd.service", "started")
    journal.tell(Pulse("node1", limit_s=120))
    part = journal.of("flannel binaries")
    part.note("node1", "apply", "started")
    clock.now += 2
    part.tell(Pulse("node1", sent_bytes=6_000_000, total_bytes=12_000_000))
    assert progress.as_text().splitlines() == [
        "node1  running  start etcd.service  waits 2 s of at most 120 s  2 s",
        "node1: flannel binaries  running  apply  6.0 of 12.0 MB sent  2 s",
    ]
    part.note("node1", "apply", "done")
    journal.note("node1", "start etcd.service", "failed", "not ready")
    assert [line.split("  ")[1] for line in progress.as_text().splitlines()] == ["failed", "done"]
    assert "node1: flannel binaries" in progress.as_html()


def test_a_start_has_a_bar_by_its_deadline(heard: tuple[Journal, Progress], clock: Clock) -> None:
    """A unit that starts shows how long it has waited of what it may, and what it says; once it runs both are gone."""
    journal, progress = heard
    journal.note("node1", "start etcd.service", "started")
    journal.tell(Pulse("node1", limit_s=120))
    clock.now += 30
    journal.tell(Pulse("node1", line='{"level":"warn","msg":"waiting for peers"}'))
    assert "waits 30 s of at most 120 s" in progress.as_html()
    assert '<progress max="120.0" value="30.0"' in progress.as_html()
    assert "<code>waiting for peers</code>" in progress.as_html()
    journal.note("node1", "start etcd.service", "done")
    assert "waits" not in progress.as_html()
    assert "waiting for peers" not in progress.as_html()


def test_a_long_line_is_short_and_whole_in_its_title(heard: tuple[Journal, Progress]) -> None:
    """A journal's line never makes the table wider than the page; its whole can be read."""
    journal, progress = heard
    journal.tell(Pulse("node1", line="x" * 300))
    assert f'title="{"x" * 300}"' in progress.as_html()
    assert f"<code>{'x' * 99}…</code>" in progress.as_html()


def test_nothing_of_a_node_gets_through_unescaped(heard: tuple[Journal, Progress]) -> None:
    """Steps, errors and journal lines hold no control characters, and in HTML no tags of others."""
    journal, progress = heard
    journal.note("<b>", "<i>\x1b[31m", "failed", "<script>\x1b")
    journal.tell(Pulse("node2", line="<script>\x1b[0m"))
    for text in (progress.as_html(), progress.as_text()):
        assert "\x1b" not in text
    assert not re.search("<(b|i|script)>", progress.as_html())


def test_what_a_person_pressed_is_no_line(heard: tuple[Journal, Progress]) -> None:
    """The gate shows presses itself: its steps are no work of this side."""
    journal, progress = heard
    journal.note("", "gate etcd units, plan p1", "done", "Stop after this step pressed by ada@here")
    assert progress.as_text() == ""


def test_one_line_stays(heard: tuple[Journal, Progress], clock: Clock) -> None:
    """What stays is a line with the time, and whether a step failed."""
    journal, progress = heard
    clock.now += 1.25
    assert progress.end() == "etcd units: applied in 1.2 s"
    assert progress.end("stopped after") == "etcd units: stopped after 1.2 s"
    journal.note("node1", "apply", "failed")
    assert progress.end() == "etcd units: failed after 1.2 s"
