"""records.pem_spans: where private keys stand in a text; what the redactor does with it is in test_redact.py."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.records.pem_spans import key_spans, run_end

LINE = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgS074MUw26deOG+6E"
HEAD, FOOT = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"


def cut(text: str) -> list[str]:
    """What the spans hold."""
    return [text[start:end] for start, end in key_spans(text)]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        (f"a {HEAD}\n{LINE}\n{FOOT} b", [f"{HEAD}\n{LINE}\n{FOOT}"]),
        (f"{HEAD}\n{LINE}\n{LINE}\nabc=\n\nDone", [f"{HEAD}\n{LINE}\n{LINE}\nabc="]),
        (f"{HEAD}\n{LINE}\n\nDone", [f"{HEAD}\n{LINE}"]),
        (f"a\n{LINE[20:]}\n{LINE}\nabc=\n{FOOT} b", [f"{LINE[20:]}\n{LINE}\nabc=\n{FOOT}"]),
        (f"{HEAD}\n{LINE}\n{HEAD}\n{LINE}\n{FOOT}", [f"{HEAD}\n{LINE}", f"{HEAD}\n{LINE}\n{FOOT}"]),
        (f"{HEAD}\n{LINE}\n-----BEGIN CERTIFICATE-----\n{LINE}", [f"{HEAD}\n{LINE}"]),
        (f"{HEAD} and {FOOT}", []),
        (f"all {FOOT}", []),
        (f"-----BEGIN CERTIFICATE-----\n{LINE}\n-----END CERTIFICATE-----", []),
        (
            f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 2\n\n{LINE}\n",
            [f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 2\n\n{LINE}"],
        ),
        (f"GIN PRIVATE KEY-----\n{LINE}\n", [f"PRIVATE KEY-----\n{LINE}"]),
        (f"1: {HEAD}\n2: {LINE}\n3: {LINE[:20]}", [f"{HEAD}\n2: {LINE}\n3: {LINE[:20]}"]),
    ],
)
def test_a_span_is_the_key_and_no_more(text: str, spans: list[str]) -> None:
    """From the first line of a key to its last, or of what is there of it, to the end of the base64."""
    assert cut(text) == spans


def test_the_sums_after_a_cut_key_stay() -> None:
    """A log's lines of checksums after a key that was cut are evidence, and no lines of the key."""
    sums = "\n".join(f"node1: etcd {'0123456789abcdef' * 4} checked, the same as expected" for _ in range(3))
    assert cut(f"node1: {HEAD}\n{LINE}\n\n{sums}") == [f"{HEAD}\n{LINE}"]


@given(st.lists(st.sampled_from([HEAD, FOOT, LINE, LINE[:7], "\n", "\\n", " ", "word", "-----BEGIN X-----", "\x00"])))
def test_spans_are_in_order_and_apart(parts: list[str]) -> None:
    """Whatever the text, spans lie inside of it, one after the other, each with a key's first or last line."""
    text = "".join(parts)
    last = 0
    for start, end in key_spans(text):
        assert last <= start < end <= len(text)
        assert "PRIVATE KEY" in text[start:end]
        last = end


@pytest.mark.parametrize(
    "part", ["\n", "\\n", " ", "<", "&", "A" * 15 + " ", "A" * 16 + " ", "\n:", f"{HEAD}\n", f"{FOOT}\n", "<a>\n", "-"]
)
def test_no_text_takes_long(part: str) -> None:
    """The time grows with the text's length, not with its square: a node may print anything."""
    start = time.process_time()
    text = HEAD + part * (200_000 // len(part))
    key_spans(text)
    key_spans(text + FOOT)
    key_spans(text + "." + FOOT)
    run_end(text, len(HEAD), 8)
    assert time.process_time() - start < 5
