"""records.secret_forms: how a value may stand in a text; what the redactor does with it is in test_redact.py."""

from __future__ import annotations

import base64
import re

from hypothesis import given
from hypothesis import strategies as st

from runbook.records.secret_forms import base64_needles, flat, forms


@given(st.binary(min_size=4, max_size=20), st.binary(max_size=20), st.binary(max_size=20))
def test_a_needle_matches_where_the_value_is(value: bytes, before: bytes, after: bytes) -> None:
    """One of the three matches the base64 of anything that holds the value, and its core is in the flat text."""
    text = base64.b64encode(before + value + after).decode()
    needle = base64_needles(value)[len(before) % 3]
    assert re.search(needle.pattern, text)
    assert needle.core in flat(text)


@given(st.binary(min_size=4, max_size=6), st.binary(max_size=200))
def test_a_needle_matches_nowhere_else(value: bytes, data: bytes) -> None:
    """A match holds each bit of the value: it is never the base64 of something else that is like it."""
    text = base64.b64encode(data).decode()
    for needle in base64_needles(value):
        for match in re.finditer(needle.pattern, text):
            run = "A" * needle.shift + match[0].rstrip("=")
            run += "A" * (-len(run) % 4)
            assert base64.b64decode(run)[needle.shift :].startswith(value)


@given(st.text(max_size=80))
def test_flat_text_has_no_line_ends(text: str) -> None:
    """What is flat is on one line, without blanks, and flat again is the same."""
    line = flat(text)
    assert not set(line) & set(b"\r\n\t \x00\\")
    assert flat(line.decode()) == line or b"%" in line


@given(st.text(min_size=1, max_size=20))
def test_the_value_itself_is_a_form(value: str) -> None:
    """Plain is the first way of writing."""
    assert value in forms(value)


def test_a_value_from_a_strange_environment_has_forms() -> None:
    """Bytes that are no UTF-8 come from the environment as lone surrogates."""
    assert "%FFx" in forms("\udcffx")
