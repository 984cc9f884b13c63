"""Where private keys in PEM stand in a text: whole or cut, escaped, quoted, prefixed by a diff or a log."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

#: What may stand between two lines: a line's end as it is, escaped or URL-encoded, then quotes of a list of lines.
_NEWLINE = r"(?:\\+[rn]|%0[AaDd]|[\r\n\x00-\x03])"
WRAP = rf"{_NEWLINE}(?:{_NEWLINE}|[ \t\"',])*+"
_GAP = rf"(?:{_NEWLINE}|[ \t\f\v\"',>|:]|-(?!-)|\\+[t\"']|<[^<>]{{0,80}}>|&[#\w]{{1,8}};|\x1b\[[0-9;]*m)"
_CHAR = r"(?:[A-Za-z0-9+/=]|\\+/|%2[BbFf]|%3[Dd])"
#: The base64 of RFC 4648, 5 too.
_URL_CHAR = _CHAR.replace("+/=", "+/=_-")
#: A word of prose may be shorter than this, a line of a key is not; a line after a log's prefix needs more.
_LINE, _LINE_AFTER_TEXT = 16, 40
#: The PEM of an RSA key of 16384 bits has 13 kB, more when it is escaped.
_MAX_KEY = 64 * 1024
_MIN_KEY = 32
_MAX_PREFIX = 120
_IN_LINE = r"[^\r\n\\\x00-\x03]"
_SPACE = r"(?:[ +]|%20)"
_ANCHOR = re.compile(rf"PRIVATE{_SPACE}KEY(?:{_SPACE}BLOCK)?{_SPACE}?-{{4,5}}")
_BEFORE = re.compile(rf"(?:-{{1,5}}{_SPACE}?)?(BEGIN|END)(?:{_SPACE}[A-Z0-9]{{1,12}}){{0,3}}{_SPACE}\Z")
_BEFORE_LENGTH = 48
#: The header of RFC 1421 before a key that is encrypted, and those of PGP (`Version: …`).
_CIPHER = re.compile(r"(?:(?!-----)[\s\S]){0,300}?DEK-Info(?::|%3A)(?:[ +]|%20)[A-Z0-9-]+(?:,|%2C)[0-9A-Fa-f]+")
_HEADERS = re.compile(rf"(?:{_GAP}*+[A-Z][A-Za-z]+: [^\r\n\\\x00-\x03]{{1,100}}+)*+")
_PIECE = re.compile(rf"({_GAP}*+)({_CHAR}++)")
_URL_PIECE = re.compile(rf"({_GAP.replace('-(?!-)', '(?!)')}*+)({_URL_CHAR}++)")
_PIECE_AFTER_TEXT = re.compile(
    rf"{_NEWLINE}++{_IN_LINE}{{0,{_MAX_PREFIX}}}?[ \t:|>+](?![0-9a-f]+\b){_CHAR}{{{_LINE_AFTER_TEXT},}}+"
)
_LONG = re.compile(rf"{_CHAR}{{{_LINE}}}")
_PADDING = ("=", "%3D", "%3d")
_PARTS = re.compile(rf"(?P<chars>{_CHAR}++)|{_GAP}++|(?P<other>(?s:.))")
_NEWLINES = re.compile(_NEWLINE)


class _Marker(NamedTuple):
    start: int
    end: int
    is_end: bool


def key_spans(text: str) -> list[tuple[int, int]]:
    """The spans of private keys in a text, in order, none over another.

    A first line without its last one counts to the end of the base64 after it, a last line without its first one from
    the start of the base64 before it; a mention without a key is none.
    """
    markers = [_marker(match) for match in _ANCHOR.finditer(text)]
    spans: list[tuple[int, int]] = []
    last = 0
    for number, marker in enumerate(markers):
        if marker.start < last:
            continue
        start, end = marker.start, marker.end
        if marker.is_end:
            start = _run_start(text, max(last, markers[number - 1].end if number else 0), start)
            if start == marker.start:
                continue
        else:
            end = _whole(text, marker, markers[number + 1 : number + 2]) or run_end(text, end, _column(text, start))
            if end == marker.end:
                continue
        spans.append((start, end))
        last = end
    return spans


def _marker(match: re.Match[str]) -> _Marker:
    first = max(0, match.start() - _BEFORE_LENGTH)
    before = _BEFORE.search(match.string[first : match.start()])
    start = first + before.start() if before else match.start()
    return _Marker(start, match.end(), bool(before and before[1] == "END"))


def _whole(text: str, begin: _Marker, following: list[_Marker]) -> int:
    """The end of a key that has its last line too, or 0."""
    if not following or not following[0].is_end or following[0].start - begin.end > _MAX_KEY:
        return 0
    body = text[begin.end : following[0].start]
    if "-----BEGIN" in body:
        return 0
    narrow = " " not in body and len(re.findall(r"[A-Za-z0-9+/]", body)) >= _MIN_KEY
    return following[0].end if narrow or _LONG.search(body) else 0


def _column(text: str, at: int) -> int:
    """How much of the line stands before `at`: what a log or a diff puts before each line; 0 where it is too much."""
    first = max(0, at - _MAX_PREFIX - 1)
    starts = [match.end() for match in _NEWLINES.finditer(text, first, at)] or ([0] if first == 0 else [])
    return at - starts[-1] if starts else 0


@lru_cache(maxsize=16)
def _piece_in_column(column: int) -> re.Pattern[str]:
    blank = rf"{_NEWLINE}++{_IN_LINE}{{{max(0, column - 1)},{column}}}(?={_NEWLINE})"
    return re.compile(rf"(?:{blank})*{_NEWLINE}++{_IN_LINE}{{{column}}}({_CHAR}++)")


def run_end(text: str, start: int, column: int = 0, *, for_urls: bool = False) -> int:
    """Where the base64 ends that goes on at `start`, over line ends and what stands between lines.

    Args:
        text: The text.
        start: The end of what comes before it: of a key's first line.
        column: The length of what stands before each line.
        for_urls: It may be base64 in the form for URLs.
    """
    match = _CIPHER.match(text, start) or _HEADERS.match(text, start)
    end = match.end() if match else start
    found = False
    while True:
        piece = (_URL_PIECE if for_urls else _PIECE).match(text, end)
        if piece and len(piece[2]) >= _LINE:
            end, found = piece.end(), True
            if piece[2].endswith(_PADDING):
                return end
        elif column and (in_column := _piece_in_column(column).match(text, end)):
            if len(in_column[1]) < _LINE:
                return in_column.end() if found and in_column[0].count("\n") <= 1 else end if found else start
            end, found = in_column.end(), True
        elif after := _PIECE_AFTER_TEXT.match(text, end):
            end, found = after.end(), True
        else:
            break
    if not found:
        return start
    # The last line is shorter; what stands after an empty one is something else.
    return piece.end() if piece and piece[1].count("\n") <= 1 else end


def _run_start(text: str, lowest: int, end: int) -> int:
    """Where the base64 starts that goes on to `end`; `end` where there is none."""
    first = max(lowest, end - _MAX_KEY)
    bounds = [first, *(match.end() for match in _NEWLINES.finditer(text, first, end))]
    stops = [*(match.start() for match in _NEWLINES.finditer(text, first, end)), end]
    start, found, is_last = end, False, True
    for line_start, line_end in zip(reversed(bounds), reversed(stops), strict=True):
        line = text[line_start:line_end]
        size = len(line) - _tail(line)
        if not line.strip() or (line_end == end and size < _LINE):
            continue  # an empty line, or what a log puts before the last line
        if not size or (size < _LINE and not is_last):
            break
        start, found = line_end - size, found or size >= _LINE
        if not is_last and size < _LINE_AFTER_TEXT and size < len(line):
            break  # the first line that is there was cut
        is_last = False
    return start if found else end


def _tail(line: str) -> int:
    """Where the base64 starts that goes on to the line's end; all pieces of it but the last are long."""
    start, length = len(line), 0
    for part in _PARTS.finditer(line):
        if part["other"]:
            start, length = len(line), 0
        elif part["chars"]:
            start = start if length >= _LINE else part.start()
            length = part.end() - part.start()
    return start
