"""Several commands' output from one script, told apart by key: lines `key|line` as they are, or `key=base64`."""

from __future__ import annotations

import base64
import binascii
import re

#: `rb_say KEY TEXT` prints each line of a text behind its key, and `rb_file KEY PATH` those of a file, with nothing but
#: what sh has built in; blank lines go.
SAY = r"""
rb_nl='
'
rb_say() { rb_ifs=$IFS; IFS=$rb_nl; set -f; printf "$1|%s\n" $2; set +f; IFS=$rb_ifs; }
rb_file() {
  rb_text=
  if [ -f "$2" ]; then
    while IFS= read -r rb_line || [ -n "$rb_line" ]; do rb_text=$rb_text$rb_line$rb_nl; done <"$2"
  fi
  rb_say "$1" "$rb_text"
}
"""
_LINE = re.compile(r"([A-Za-z0-9_]+)([|=])(.*)")


def parse(text: str) -> dict[str, str]:
    """What each key's command printed; what is no line of an answer is left out."""
    said: dict[str, list[str]] = {}
    for line in text.split("\n"):
        if not (match := _LINE.fullmatch(line)):
            continue
        key, how, value = match.groups()
        if how == "|":
            said.setdefault(key, []).append(value)
            continue
        try:
            said[key] = [base64.b64decode(value, validate=True).decode("utf-8", "replace")]
        except (binascii.Error, ValueError):
            continue
    return {key: "\n".join(lines) for key, lines in said.items()}
