"""runbook.show: how tables look, and that nothing in them can pass for something else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook import show

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = '\x1b[31m<script>alert("1")</script>[red]&:x:'


def table() -> show.Table:
    rows = [
        {"node": "node1", "ok": True, "took_ms": 12.345, "why": ""},
        {"node": "node2", "ok": False, "took_ms": None, "why": "no answer"},
        {"node": "node3", "ok": True, "took_ms": 1234.5, "why": ""},
    ]
    return show.table(rows, ["node", "ok", "took_ms", "why"], "Nodes")


class Parsed(HTMLParser):
    """The tags and texts of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


# ---- tables


def test_failing_rows_come_first() -> None:
    """Rows that don't hold come first; within each group the order stays."""
    assert list(table()["node"]) == ["node2", "node1", "node3"]


def test_columns_are_the_given_ones() -> None:
    """A missing key is an empty cell, a key without a column is left out, and a table may have no rows."""
    made = show.table([{"b": 1, "c": 2}], ["a", "b"])
    assert list(made.columns) == ["a", "b"]
    assert show._text(made["a"][0]) == ""
    assert list(show.table([], ["a", "ok"]).columns) == ["a", "ok"]


def test_a_table_stays_one() -> None:
    """Filtering, slicing and sorting give a Table with the same caption."""
    made = table()
    for part in (
        made[made["ok"]],
        made.head(1),
        made[["node", "ok"]],
        made.sort_values("node"),
        made.drop(columns="ok"),
    ):
        assert isinstance(part, show.Table)
        assert part.caption == "Nodes"
        assert "Nodes" in part._repr_html_()


def test_text_has_every_cell() -> None:
    """As text a table has its caption, its header and a line a row; a failing row is told by a word too."""
    lines = repr(table()).splitlines()
    assert lines[0].strip() == "Nodes"
    assert re.fullmatch(r"┃ node +┃ ok +┃ took_ms ┃ why +┃", lines[2])
    assert re.fullmatch(r"│ node2 +│ ✗ failed +│ +│ no answer │", lines[4])
    assert re.fullmatch(r"│ node1 +│ ✓ ok +│ +12.35 │ +│", lines[5])
    assert re.fullmatch(r"│ node3 +│ ✓ ok +│ +1,23[45] │ +│", lines[6])


def test_html_can_be_read_aloud() -> None:
    """As HTML a table has a caption, a scope for each header, and no style but inline ones."""
    parsed = Parsed(table()._repr_html_())
    tags = [tag for tag, _ in parsed.tags]
    assert tags.count("caption") == 1
    assert [attrs["scope"] for tag, attrs in parsed.tags if tag == "th"] == ["col"] * 4 + ["row"] * 3
    assert tags.count("td") == 3 * 3
    assert {"class", "id", "onclick"} & {name for _, attrs in parsed.tags for name in attrs} == set()
    assert {"script", "style", "svg"} & set(tags) == set()
    assert "Nodes" in parsed.texts


def test_a_long_word_is_shortened_and_whole_in_its_title() -> None:
    """A checksum takes little room; the whole of it is a hover away, and a sentence is never cut."""
    made = show.table([{"sha256": "ab" * 32, "why": "word " * 40}], ["sha256", "why"])
    parsed = Parsed(made._repr_html_())
    assert [attrs["title"] for tag, attrs in parsed.tags if "title" in attrs and tag == "th"] == ["ab" * 32]
    assert "word " * 40 in parsed.texts


def test_a_notebook_keeps_the_data_too() -> None:
    """The output of a table holds its columns, rows and caption as JSON, without NaN or numpy types."""
    bundle = table()._repr_mimebundle_()
    assert set(bundle) == {show.TABLE_MIME, "text/html", "text/plain"}
    (kept,) = json.loads(json.dumps(bundle[show.TABLE_MIME], allow_nan=False))
    assert kept == {
        "caption": "Nodes",
        "columns": ["node", "ok", "took_ms", "why"],
        "data": [["node2", False, None, "no answer"], ["node1", True, 12.345, ""], ["node3", True, 1234.5, ""]],
    }


def test_rows_for_programs_are_plain() -> None:
    """Rows as JSON have no NaN, and tuples are lists."""
    made = show.table([{"a": ("x", "y"), "b": 1.5}, {"a": (), "b": None}], ["a", "b"])
    assert json.dumps(show.json_rows(made), allow_nan=False) == '[{"a": ["x", "y"], "b": 1.5}, {"a": [], "b": null}]'


def test_whole_numbers_stay_whole_beside_an_empty_cell() -> None:
    """A number that is missing in one row makes no 2.00 of a 2 in another."""
    made = show.table([{"term": 2, "ok": True}, {"ok": False}], ["term", "ok"])
    assert [show._text(value) for value in made["term"]] == ["", "2"]
    assert show.json_rows(made) == [{"term": None, "ok": False}, {"term": 2, "ok": True}]


def styles(text: str, column: int, columns: int) -> set[str | None]:
    """The alignments of a column's cells, its header included."""
    found = [attrs["style"] or "" for tag, attrs in Parsed(text).tags if tag in ("th", "td")]
    return {re.findall("text-align:([a-z]+)", style)[0] for style in found[column::columns]}


def test_numbers_stand_to_the_right_under_their_name() -> None:
    """A column of numbers is aligned to the right, header and all, also where a number is missing; others are not."""
    rows = [{"node": "a", "ok": True, "n": 2, "mixed": 1}, {"node": "b", "ok": True, "mixed": "x"}]
    made = show.table(rows, ["node", "ok", "n", "mixed"])
    assert [styles(made._repr_html_(), place, 4) for place in range(4)] == [{"left"}, {"left"}, {"right"}, {"left"}]
    assert re.search(r"│ a +│ ✓ ok +│ +2 │ 1 +│", repr(made))


def test_an_unknown_yes_or_no_still_selects() -> None:
    """`endpoints[endpoints.leader]` gives the leader, our way, also while a member does not answer."""
    rows = [{"node": "a", "leader": False}, {"node": "b", "leader": True}, {"node": "c", "ok": False}]
    made = show.table([{"ok": True, **row} for row in rows], ["node", "ok", "leader"], "etcd endpoints")
    found = made[made.leader]
    assert list(found["node"]) == ["b"]
    assert isinstance(found, show.Table)
    assert found.caption == "etcd endpoints"


def test_a_row_of_which_it_is_unknown_whether_it_holds_is_failing() -> None:
    """An empty cell is no yes: such a row comes first too."""
    made = show.table([{"node": "a", "ok": True}, {"node": "b"}, {"node": "c", "ok": False}], ["node", "ok"])
    assert list(made["node"]) == ["b", "c", "a"]


def test_ids_are_shortened_and_stay_in_one_line() -> None:
    """Checksums, serials and UUIDs are shortened to their ends, and no line breaks in them; other words are whole."""
    machine = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    made = show.table([{"a": machine, "b": "node1-of-the-second-rack-of-the-first-room"}], ["a", "b"])
    parsed = Parsed(made._repr_html_())
    (cell,) = [attrs for tag, attrs in parsed.tags if "title" in attrs]
    assert cell["title"] == machine
    assert "white-space:nowrap" in (cell["style"] or "")
    assert {"6ba7b810…4fd430c8", "node1-of-the-second-rack-of-the-first-room"} <= set(parsed.texts)


def test_a_picture_is_a_table() -> None:
    """A picture shows its own HTML and keeps all its rows; a part of it is a table that shows itself as one."""
    made = show.Picture(table())
    made.caption, made.html = "Nodes", "<p>drawn</p>"
    bundle, metadata = made._repr_mimebundle_()
    assert bundle["text/html"] == made._repr_html_() == "<p>drawn</p>"
    assert metadata == show.PICTURE
    assert [len(one["data"]) for one in bundle[show.TABLE_MIME]] == [3]
    part = made[made["ok"]]
    assert "<caption" in part._repr_html_()
    assert part.caption == "Nodes"
    assert "node2" not in bundle["text/plain"].partition("node1")[2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), (float("nan"), ""), (True, "yes"), (False, "no"), (3, "3"), (0.123, "0.12"), (99.999, "100.00"),
        (100.4, "100"), (1234567.0, "1,234,567"), (("etcd", "flannel"), "etcd, flannel"), ([], ""),
        (list("abcd"), "a, b, c, d"), (list("abcdef"), "6: a, b, …"),
        (pd.Series([1.5])[0], "1.50"), (pd.Series([7])[0], "7"), ("a\x1b[2Jb\r\nc", "a[2Jb\nc"),
    ],
)  # fmt: skip
def test_cells_read_as_people_write(value: object, text: str) -> None:
    """Nothing is empty, numbers have a sensible precision, lists have commas, and escapes are gone."""
    assert show._text(value) == text


# ---- colours


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("word", show.CHIPS)
def test_a_chip_can_be_read(word: str) -> None:
    """Each word stands beside its colour and symbol, with a contrast of 4.5:1 at least, in a terminal too."""
    symbol, colour, background = show.CHIPS[word]
    light, dark = sorted((luminance(colour), luminance(background)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5
    assert Parsed(show.chip(word)).texts == [f"{symbol} {word}"]
    assert colour in show._RICH


def test_good_and_bad_differ_in_more_than_colour() -> None:
    """Who sees no colours tells them by their symbols."""
    symbols = {show.CHIPS[word][0] for word in ("ok", "warning", "failed", "none")}
    assert len(symbols) == 4


# ---- nothing gets through


def hostile() -> Iterator[tuple[str, str]]:
    made = show.table([{HOSTILE: HOSTILE, "action": HOSTILE, "ok": False}], [HOSTILE, "action", "ok"], HOSTILE)
    yield "table", made._repr_html_()
    yield "long", show.table([{"a": HOSTILE.replace(" ", "") + "x" * 60}], ["a"])._repr_html_()
    yield "diff", show.diff_html(f"+{HOSTILE}\n-{HOSTILE}\n {HOSTILE}")
    yield "notes", show.notes_html([HOSTILE])


@pytest.mark.parametrize(("where", "text"), list(hostile()), ids=[where for where, _ in hostile()])
def test_html_of_others_is_text(where: str, text: str) -> None:
    """Whatever params or a node say is text in HTML: no tag, no attribute, no escape sequence of theirs."""
    assert where
    parsed = Parsed(text)
    assert "script" not in [tag for tag, _ in parsed.tags]
    assert "alert" in "".join(parsed.texts) or any("alert" in (attrs.get("title") or "") for _, attrs in parsed.tags)
    if where != "table":  # a column's name comes from us
        assert "\x1b" not in text


def test_markup_of_others_is_text() -> None:
    """In a terminal markup, emoji names and escape sequences of others are shown as they are, or dropped."""
    text = show.table_text(
        show.table([{"a": "\x1b[31m<script> [red]&:x:", "b": "fe80:a:b:x:c", "c": "[/]"}], ["a", "b", "c"], "[bold]T")
    )
    assert "\x1b" not in text
    for part in ("[31m<script> [red]&:x:", "fe80:a:b:x:c", "[/]", "[bold]T"):
        assert part in text


@settings(max_examples=60)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20))
def test_a_terminal_shows_what_is_there(text: str) -> None:
    """Any printable text of a cell is in the table, letter by letter."""
    assert f"│ {text} " in show.table_text(show.table([{"a": text}], ["a"]))


@given(st.text(max_size=40))
def test_no_text_has_control_characters(text: str) -> None:
    """No control character but tab and newline reaches a table."""
    shown = show._text(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)


def test_a_diff_has_signs_and_colours() -> None:
    """Lines that come and go differ in sign and colour; the text is the diff's."""
    parsed = Parsed(show.diff_html("--- a\n+++ b\n@@ -1 +1 @@\n-old\n+new\n same"))
    assert "".join(parsed.texts) == "--- a\n+++ b\n@@ -1 +1 @@\n-old\n+new\n same"
    styles = [attrs["style"] for tag, attrs in parsed.tags if tag == "span"]
    assert len(set(styles)) == 4


# ---- in a notebook


def test_outside_a_notebook_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without IPython `display` leaves the output to the caller."""
    show.display(table())
    assert capsys.readouterr().out == ""
