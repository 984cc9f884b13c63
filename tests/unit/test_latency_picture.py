"""pages.latency_picture: strips to one scale, failures marked, the same as text; quantiles that were measured."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook import show
from runbook.pages import latency_picture
from runbook.pages.latency_picture import Sample, Watched


def watched(*times: float | None, node: str = "node1", why: str = "") -> Watched:
    samples = [
        Sample(float(at), took, "" if took is not None else "deadline <exceeded>") for at, took in enumerate(times)
    ]
    return Watched(node, f"https://{node}:2379", samples, why)


@given(st.lists(st.floats(0.1, 1e4), min_size=1), st.sampled_from([0.5, 0.99, 1.0]))
def test_a_quantile_was_measured(values: list[float], share: float) -> None:
    """It is one of the values, and at least that share of them is not above it."""
    found = latency_picture.quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_a_row_a_member() -> None:
    """Figures are of the reads that were answered; failures are counted apart."""
    (row,) = show.rows(latency_picture.table([watched(3.0, 1.0, None, 2.0)], "2 s"))
    assert [row[name] for name in ("samples", "failed", "min_ms", "p50_ms", "p99_ms", "max_ms")] == [4, 1, 1, 2, 3, 3]
    assert row["why"] == "1 of 4 failed: deadline <exceeded>"
    assert row["ok"] is False


def test_a_member_without_samples_is_told() -> None:
    """No sample is no good sign: the row does not hold."""
    first, second = show.rows(latency_picture.table([watched(), watched(why="no route", node="node2")], "2 s"))
    assert (first["ok"], first["why"]) == (False, "no sample came")
    assert (second["ok"], second["why"]) == (False, "no route")


def test_bars_have_one_scale() -> None:
    """The slowest read of all members is the highest bar; each tells its time."""
    text = latency_picture.as_html([watched(10.0, 5.0), watched(2.5, node="node2")], "1 s")
    assert re.findall(r"width:3px;height:(\d+)px", text) == ["28", "14", "7"]
    assert 'title="2.5 ms"' in text
    assert "bars to 10.0 ms" in text
    assert [text.count(f'scope="{one}"') for one in ("col", "row")] == [7, 2]
    assert not re.search(r"<(style|svg|script|img)|class=", text)


def test_failures_are_marked_and_are_text() -> None:
    """A read that failed is a cross with its reason, in HTML and as text; nothing in it is markup."""
    members = [watched(1.0, None, 2.0)]
    text = latency_picture.as_html(members, "1 s")
    assert 'title="deadline &lt;exceeded&gt;">✗</td>' in text
    assert "<exceeded>" not in text
    assert latency_picture.as_text(members, "1 s").splitlines()[0] == "node1 ▅✗█"


def test_nothing_is_drawn_of_nothing() -> None:
    """Before the first sample there is a table with empty strips."""
    text = latency_picture.as_html([watched()], "0 of 60 s")
    assert "node1" in text
    assert "height:28px" in text
    assert "0 of 60 s" in latency_picture.as_text([watched()], "0 of 60 s")


@pytest.mark.parametrize("count", [119, 120, 121, 7200])
def test_a_long_watch_keeps_its_worst(count: int) -> None:
    """Of more reads than there are bars each bar is the slowest of its neighbours, and a failure is never hidden."""
    times: list[float | None] = [1.0] * count
    times[count // 2], times[count // 3] = 99.0, None
    bars = latency_picture._bars(watched(*times).samples)
    assert len(bars) <= 120
    assert sum(one.took_ms is None for one in bars) == 1
    assert sum(one.took_ms == 99.0 for one in bars) == 1
