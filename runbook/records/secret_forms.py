"""How a secret value may stand in a text: escaped, URL-encoded, in base64 at any place, over several lines."""

from __future__ import annotations

import base64
import html
import json
import re
import string
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

from runbook.records.pem_spans import WRAP, run_end

_ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
_TO_FIRST_FORM = bytes.maketrans(b"-_", b"+/")
#: How else characters of base64 and line ends are written, by the sign that such a form begins with.
_WRITTEN = {
    b"%": ((b"%2B", b"+"), (b"%2b", b"+"), (b"%2F", b"/"), (b"%2f", b"/"), (b"%0A", b""), (b"%0a", b""), (b"%0D", b"")),
    b"\\": ((b"\\u002b", b"+"), (b"\\u002B", b"+"), (b"\\n", b""), (b"\\r", b"")),
}


@dataclass(frozen=True, repr=False)
class Needle:
    """A text to look for, however its lines are broken: `core` in the flat text says whether `pattern` is worth it."""

    core: bytes
    pattern: str
    shift: int = 0


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def forms(value: str) -> set[str]:
    """The value as it is and as URLs, JSON, Python and HTML write it, one in the other too."""

    def written(text: str) -> set[str]:
        data, marked = _bytes(text), html.escape(text)
        urls = {quote(data), quote(data, safe=""), quote_plus(data)}
        urls |= {re.sub("%..", lambda match: match[0].lower(), url) for url in urls}
        scripts = {
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
            repr(text)[1:-1],
            repr(data)[2:-1],
        }
        entities = {
            marked,
            html.escape(text, quote=False),
            marked.replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
        }
        return urls | scripts | entities | {text.replace("\n", "\r\n")}

    once = written(value)
    return {value} | once | {form for one in once for form in written(one)}


def line_needle(form: str) -> Needle:
    """Several lines, whatever stands between them in the strings of a notebook."""
    between = r"[\s\x00-\x03]*+"
    return Needle(flat(form), between.join(re.escape(char) for char in form if not char.isspace()))


def base64_needles(value: str | bytes) -> list[Needle]:
    """The value inside of base64, at each of the three places it can have in a group of three bytes."""
    value = _bytes(value) if isinstance(value, str) else value
    needles = []
    for shift in range(3):
        bits = "?" * 8 * shift + "".join(f"{byte:08b}" for byte in value)
        bits += "?" * (-len(bits) % 6)
        groups = [bits[at : at + 6] for at in range(0, len(bits), 6)]
        chosen = [_matching(group) for group in groups if group != "?" * 6]
        core = "".join(chars for chars in chosen if len(chars) == 1)
        needles.append(Needle(core.encode(), f"(?:{WRAP})?+".join(map(_one_of, chosen)), shift))
    return needles


def _matching(group: str) -> str:
    """The characters of base64 for six bits of which some are not known (`?`)."""
    wanted = re.compile(group.replace("?", "."))
    return "".join(char for number, char in enumerate(_ALPHABET) if wanted.fullmatch(f"{number:06b}"))


def _one_of(chars: str) -> str:
    """A pattern for one of these characters, in base64's URL form (RFC 4648, 5) and escaped too."""
    odd = {"+": r"|[-]|%2[Bb]|\\+u002[bB]", "/": r"|_|%2[Ff]|\\+/"}
    return f"(?:[{re.escape(chars)}]{''.join(odd[char] for char in '+/' if char in chars)})"


def flat(text: str) -> bytes:
    """The text without line ends, blanks, quotes and escapes, its base64 in the first form; a core is looked for in it.

    More than a line's end may be left out here: what is found is found again by the needle's own pattern.
    """
    line = text.encode("ascii", "replace")
    for sign, written in _WRITTEN.items():
        if sign in line:
            for long, short in written:
                line = line.replace(long, short)
    return line.translate(_TO_FIRST_FORM, b"\r\n\t \"',\\\x00\x01\x02\x03")


PEM_NEEDLES = base64_needles(b"-----BEGIN")


def base64_key_spans(text: str) -> list[tuple[int, int]]:
    """Where a private key's PEM stands in base64; that of certificates alone stays."""
    spans: list[tuple[int, int]] = []
    for needle in PEM_NEEDLES:
        for match in re.finditer(needle.pattern, text):
            end = run_end(text, match.end(), for_urls=True)
            run = b"A" * needle.shift + flat(text[match.start() : end]).partition(b"=")[0]
            run = re.sub(rb"[^A-Za-z0-9+/]", b"", run)
            if b"PRIVATE KEY" in base64.b64decode(run[: len(run) // 4 * 4]):
                spans.append((match.start(), end))
    kept: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end))
    return kept
