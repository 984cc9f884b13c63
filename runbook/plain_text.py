"""Text of a node or of params, fit to be shown: it can't colour, move or forge anything, wherever it stands."""

from __future__ import annotations

import re

#: Control characters, marks that turn the direction of text or break its lines (Unicode's bidi controls), and what is
#: not seen: zero-width characters and tags.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def clean(text: bytes | str) -> str:
    """Text of a node without control and escape characters: it can't colour, move or forge anything."""
    return _CONTROL.sub("", text.decode("utf-8", "replace") if isinstance(text, bytes) else text)


def printable(text: bytes | str, limit: int = 2000) -> str:
    """Text of a node, fit for a message: its end, cleaned."""
    return clean(text).strip()[-limit:]
