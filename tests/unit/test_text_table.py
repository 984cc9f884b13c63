"""runbook.text_table: tables as plain text, the same box as rich draws, and nothing of a text lost."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runbook.text_table import Drawn, boxed

WORDS = st.lists(st.text("ab1.✓表", min_size=1, max_size=9), max_size=4).map(" ".join)
TEXTS = st.lists(WORDS, min_size=1, max_size=2).map("\n".join)


@st.composite
def tables(draw: st.DrawFn) -> Drawn:
    """Tables of one to four columns."""
    many = draw(st.integers(1, 4))
    cells = st.tuples(TEXTS, st.just(""))
    rows = draw(st.lists(st.lists(cells, min_size=many, max_size=many), max_size=4))
    names = draw(st.lists(WORDS.filter(bool), min_size=many, max_size=many))
    return Drawn("", names, draw(st.lists(st.booleans(), min_size=many, max_size=many)), rows)


def of_rich(table: Drawn, width: int) -> str:
    """The same table as rich draws it."""
    made = Table()
    for name, right in zip(table.names, table.right, strict=True):
        made.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    for row in table.rows:
        made.add_row(*(Text(text) for text, _ in row))
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, legacy_windows=False).print(made)
    return out.getvalue().rstrip()


@given(tables())
def test_where_there_is_room_it_is_the_table_that_rich_draws(table: Drawn) -> None:
    """Character by character."""
    assert boxed(table, 400) == of_rich(table, 400)


@given(tables(), st.integers(40, 80))
def test_where_there_is_little_room_it_keeps_to_it_and_loses_nothing(table: Drawn, width: int) -> None:
    """No line is longer than the room, all are as long as each other, and every letter of a column is there."""
    lines = boxed(table, width).split("\n")
    assert len({cell_len(line) for line in lines}) == 1
    assert cell_len(lines[0]) <= width
    inner = [line[1:-1].split(line[0]) for line in lines if line[0] in "│┃"]
    columns = list(zip(*inner, strict=True))
    for place, name in enumerate(table.names):
        wanted = "".join([name, *(row[place][0] for row in table.rows)]).split()
        assert "".join("".join(columns[place]).split()) == "".join(wanted)


def test_the_caption_stands_above_and_may_stand_alone() -> None:
    """Also where nothing is to be shown."""
    assert boxed(Drawn("Nodes", [], [], []), 80) == "Nodes"
    assert boxed(Drawn("Nodes", ["a"], [False], [[("1", "")]]), 80).splitlines()[:2] == ["Nodes", "┏━━━┓"]
