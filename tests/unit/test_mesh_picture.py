"""pages.mesh_picture: each pair's time and loss on its colour, the same in HTML and as text, at 3 nodes and at 16."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook import show
from runbook.pages import mesh_picture


def tables(count: int = 3, **cells: tuple[float | None, float]) -> dict[str, show.Table]:
    """Both networks of so many nodes; `a_b=(rtt, loss)` sets the overlay's cell from node a to node b."""
    names = [f"node{number}" for number in range(1, count + 1)]
    grid = dict.fromkeys(product(names, names), (0.25, 0.0))
    grid |= {tuple(f"node{number}" for number in pair.split("_")[1:]): value for pair, value in cells.items()}  # type: ignore[misc]

    def one(network: str, place: int, unit: str) -> show.Table:
        rows = [
            {"from": source, **{to: (grid[source, to] if network == "overlay" else (0.1, 0.0))[place] for to in names}}
            for source in names
        ]
        return show.table(rows, ["from", *names], f"{network}: {unit}")

    return {
        "overlay": one("overlay", 0, "rtt_ms"),
        "underlay": one("underlay", 0, "rtt_ms"),
        "overlay_loss": one("overlay", 1, "loss_pct"),
        "underlay_loss": one("underlay", 1, "loss_pct"),
    }


def drawn(table: dict[str, Any], loss: dict[str, Any] | None = None) -> mesh_picture.Picture:
    return mesh_picture.picture("overlay", table, loss)


def test_each_pair_has_its_time_on_its_step() -> None:
    """A time is on its step's colour; a silent pair a white cross on dark red; a node to itself a dash."""
    made = drawn({"columns": ["from", "a", "b"], "data": [["a", 0.009, None], ["b", 12.34, 0.01]]})
    (a, (own, dead)), (_, (slow, _)) = made.rows
    assert (a, own.text, dead.text, slow.text) == ("a", "—", "✗", "12.3")
    assert dead.style == "color:#ffffff;background-color:#8b0a1e"
    assert dead.dead
    assert not slow.dead
    assert dict(mesh_picture.STEPS)[30.0] in slow.style
    assert made.words == "No answer from 1 of 2 pairs: a → b. 1 answer: median 12.34 ms, slowest b → a with 12.34 ms."


def test_loss_stands_below_the_time() -> None:
    """A pair that loses some has its own colour, its time, and the percentage; one that loses all has a cross."""
    made = drawn(
        {"columns": ["from", "a", "b"], "data": [["a", 0.5, 0.12], ["b", None, 0.5]]},
        {"columns": ["from", "a", "b"], "data": [["a", 0.0, 33.3333], ["b", 100.0, 0.0]]},
    )
    (_, (_, lossy)), (_, (dead, _)) = made.rows
    assert (lossy.text, lossy.title) == ("0.12\n▲33%", "a → b: 0.12 ms, 33% lost")
    assert not lossy.dead
    assert lossy.background not in {background for _, background in mesh_picture.STEPS}
    assert dead.text == "✗ 100%"
    assert "1 loses some: a → b 33%." in made.words


def test_a_node_without_an_address_is_not_hidden_by_the_diagonal() -> None:
    """A node that does not even reach itself has a cross there too."""
    assert drawn({"columns": ["from", "a"], "data": [["a", None]]}).rows[0][1][0].text == "✗"


@given(rtt=st.one_of(st.none(), st.floats(), st.booleans(), st.text(), st.integers(0, 10**6)))
def test_any_value_is_a_cell(rtt: object) -> None:
    """A time is on a step; anything that is no time is no answer."""
    cell = drawn({"columns": ["from", "b"], "data": [["a", rtt]]}).rows[0][1][0]
    known = isinstance(rtt, int | float) and not isinstance(rtt, bool) and abs(rtt) < float("inf")
    assert cell.dead is not known


def test_many_silent_pairs_are_counted() -> None:
    """Not more than eight pairs are named in words."""
    names = [f"n{number}" for number in range(5)]
    made = drawn({"columns": ["from", *names], "data": [[name, *[None] * 5] for name in names]})
    assert made.words.startswith("No answer from 25 of 25 pairs: n0 → n0")
    assert made.words.endswith("and 17 more.")


def test_a_network_that_was_not_kept_is_left_out() -> None:
    """Of a run that did not get to the mesh, or of one network alone, there are no pictures but those of its tables."""
    kept = {name: show.kept(one) for name, one in tables().items()}
    assert [one.name for one in mesh_picture.pictures(kept)] == ["overlay", "underlay"]
    assert mesh_picture.pictures(dict.fromkeys(kept)) == []
    only = mesh_picture.pictures({"overlay": None, "underlay": kept["underlay"]})
    assert [one.name for one in only] == ["underlay"]


@pytest.mark.parametrize("count", [3, 16])
def test_every_pair_is_drawn(count: int) -> None:
    """At 3 nodes and at 16: a cell with its title a pair, a header a row and a column, a caption a network."""
    made = mesh_picture.Heatmaps(tables(count, p_1_2=(0.31, 33.3), p_2_1=(None, 100.0)))
    text = made._repr_html_()
    assert len(re.findall(r'<td [^>]*title="node\d+ → node\d+: ', text)) == 2 * count * (count - 1)
    assert text.count('scope="row"') == 2 * count
    assert text.count('scope="col"') == 2 * (count + 1)
    assert text.count("<caption") == 2
    assert "0.31<br>▲33%" in text
    assert re.search("✗ ?100%</td>", text)
    assert not re.search(r"<(style|svg|script|img)|class=|id=", text)


def test_many_columns_are_numbered() -> None:
    """Sixteen names don't fit above narrow columns: rows and columns have a number, and the name as a title."""
    text = mesh_picture.Heatmaps(tables(16))._repr_html_()
    assert ' title="node16">16</th>' in text
    assert ">16 node16</th>" in text
    assert ">node2</th>" in mesh_picture.Heatmaps(tables(3))._repr_html_()


@pytest.mark.parametrize("count", [3, 16])
def test_text_has_every_cell(count: int) -> None:
    """As text: a line a node at least, time and loss in the cells, the words below; no line is wider than a page."""
    lines = repr(mesh_picture.Heatmaps(tables(count, p_1_2=(0.31, 33.3), p_2_1=(None, 100.0)))).splitlines()
    assert max(map(len, lines)) <= 160
    text = "\n".join(lines)
    for said in ("overlay, ms", "underlay, ms", "▲33%", "✗", "100%", "0.31", "No answer from 1 of"):
        assert said in text
    assert all(len(re.findall(rf"│ ?(?:{n} )?node{n} ", text)) == 2 for n in range(1, count + 1))


def test_names_of_others_are_text() -> None:
    """A node's name can't be markup."""
    name = '<script>"&[red]'
    made = drawn({"columns": ["from", name], "data": [[name, 1.0]]})
    assert "<script>" not in mesh_picture.as_html([made])
    assert name in mesh_picture.as_text([made])


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_can_be_read() -> None:
    """Text on a step, on a loss and on a cross has a contrast of 4.5:1 at least; no two steps look alike."""
    cells = [*mesh_picture.legend(), drawn({"columns": ["from", "a"], "data": [["a", 1.0]]}).rows[0][1][0]]
    for cell in cells:
        low, high = sorted((luminance(cell.colour), luminance(cell.background)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, cell
    steps = [luminance(background) for _, background in mesh_picture.STEPS]
    assert steps == sorted(set(steps), reverse=True)
