"""All paths of a node looked at together: one stat, one sum, one reading of contents, however many there are.

To start a program costs a node a millisecond, in a container more: a plan with nothing to change consists of that.
"""

from __future__ import annotations

import base64
import hashlib
import re
import stat
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runbook.resources import Look

#: The change time of a file, and the SHA-256 that it had then.
Known = tuple[str, str]
#: How many pieces of sh `script` gives, and sections of output `found` takes.
PARTS = 4
#: A file whose content is wanted is read no further than this; no text of ours is as large.
MOST = 262_144
_FIELDS = "%f|%a|%U:%G|%s|%.9Z|%n"
_STATED = r"([0-9a-f]+)\|([0-7]+)\|([^|\n]*)\|([0-9]+)\|([0-9.]+)\|"
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
#: So many names tell whose a folder is.
_NAMES = 100
#: `rb_sums FILE…` prints a line a file that begins with its SHA-256 and ends with its name; `rb_nl` is a newline.
SUMS = r"""
rb_nl='
'
rb_sums() {
  # openssl, where a node has it, takes a third of sha256sum's time on many bytes.
  openssl dgst -sha256 -r "$@" 2>/dev/null || sha256sum -- "$@"
}"""
_HOLDS = f"""
rb_names() {{
  rb_count=0
  for rb in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    if [ -e "$rb" ] || [ -L "$rb" ]; then printf '%s %s\\n' "$2" "${{rb##*/}}"; rb_count=$((rb_count + 1)); fi
    if [ $rb_count -ge {_NAMES} ]; then break; fi
  done
}}
rb_link() {{ if [ -L "$1" ]; then printf '%s %s\\n' "$2" "$(readlink -- "$1")"; fi; }}"""


class TornError(Exception):
    """Files were changed while they were read."""


def script(looks: Sequence[Look], known: Mapping[str, Known]) -> list[str]:
    """The pieces of sh that look: what stat says, sums, names and link targets, contents (bytes, not text).

    Args:
        looks: The paths.
        known: Sums from earlier, by path: such a file is summed again only when it was changed since.
    """
    paths = _paths(looks)
    if not paths:
        return [""] * PARTS
    stated = f"stat -c '{_FIELDS}' -- {_words(paths)} 2>/dev/null"
    if known:
        stated = f'rb_stats=$({stated}); printf "%s\\n" "$rb_stats"'
    summed = []
    for path in _paths(looks, "sum"):
        add = f'if [ -f {quote(path)} ] && [ ! -L {quote(path)} ]; then set -- "$@" {quote(path)}; fi'
        if path in known:
            add = unless_known(path, known[path], add)
        summed.append(add)
    if summed:
        summed = [SUMS, "set --", *summed, '[ $# = 0 ] || rb_sums "$@"']
    held = [f"rb_names {quote(path)} n{number}" for number, path in enumerate(_paths(looks, "names"))]
    read = _paths(looks, "content")
    held += [f"rb_link {quote(path)} l{number}" for number, path in enumerate(read)]
    contents = []
    if read:
        add = 'if [ -f "$rb" ] && [ ! -L "$rb" ]; then set -- "$@" "$rb"; fi'
        contents = ["set --", f"for rb in {_words(read)}; do {add}; done"]
        contents.append(f'[ $# = 0 ] || head -q -c {MOST} -- "$@"')
    return [stated, *("\n".join(lines) for lines in (summed, [_HOLDS, *held] if held else [], contents))]


def unless_known(path: str, known: Known, command: str) -> str:
    """Give sh that runs a command where the file was changed since its sum was known; for `script`'s node alone."""
    same = quote(f"|{known[0]}|{path}")
    return f'case "$rb_stats$rb_nl" in *{same}"$rb_nl"*) ;; *) {command};; esac'


def found(looks: Sequence[Look], known: Mapping[str, Known], sections: Sequence[bytes]) -> dict[Look, dict[str, str]]:
    """What was found at each look, with its prefix, from the sections that `script` printed.

    Raises:
        TornError: the contents are not as long as the files are: one was changed in between.
    """
    stated, summed, held = (section.decode("utf-8", "replace") for section in sections[:-1])
    there = _stated(_paths(looks), stated)
    sums = {path: sha256 for path, (ctime, sha256) in known.items() if there.get(path, {}).get("ctime") == ctime}
    sums |= {match[2]: match[1] for line in summed.splitlines() if (match := _SUM_LINE.fullmatch(line))}
    contents = _contents(_paths(looks, "content"), there, sections[-1])
    for letter, want in (("n", "names"), ("l", "content")):
        for number, path in enumerate(_paths(looks, want)):
            lines = [line.partition(" ")[2] for line in held.splitlines() if line.startswith(f"{letter}{number} ")]
            if lines:
                contents[path] = "\n".join(lines).encode()
    result = {}
    for look in looks:
        values = dict(there.get(look.path, {"type": "none"}))
        if look.want == "sum" and values["type"] == "file" and look.path in sums:
            values["sha256"] = sums[look.path]
        if look.want in ("content", "names") and look.path in contents:
            values["content"] = base64.b64encode(contents[look.path]).decode()
            if values["type"] == "file":
                values["sha256"] = hashlib.sha256(contents[look.path]).hexdigest()
        result[look] = {f"{look.prefix}{key}": value for key, value in values.items()}
    return result


def _stated(paths: Iterable[str], text: str) -> dict[str, dict[str, str]]:
    """What stat said of each path that is there. It keeps the order, and a path may hold anything, newlines too."""
    there, start = {}, 0
    for path in paths:
        if not (match := re.compile(f"{_STATED}{re.escape(path)}\n").match(text, start)):
            continue
        mode, access, owner, size, ctime = match.groups()
        kind = _KINDS.get(stat.S_IFMT(int(mode, 16)), "other")
        there[path] = {"type": kind, "mode": access, "owner": owner, "size": size, "ctime": ctime}
        start = match.end()
    return there


def _contents(paths: Iterable[str], there: Mapping[str, Mapping[str, str]], read: bytes) -> dict[str, bytes]:
    """The files' bytes, cut out of what was read of all of them; a file that is too large has none."""
    files = [path for path in paths if there.get(path, {}).get("type") == "file"]
    sizes = [min(int(there[path]["size"]), MOST) for path in files]
    if len(read) != sum(sizes):
        raise TornError(f"{len(read)} bytes of {', '.join(files)}, expected {sum(sizes)}")
    contents, start = {}, 0
    for path, size in zip(files, sizes, strict=True):
        if size < MOST:
            contents[path] = read[start : start + size]
        start += size
    return contents


def _paths(looks: Iterable[Look], want: str = "") -> list[str]:
    return list(dict.fromkeys(look.path for look in looks if want in ("", look.want)))


def _words(paths: Iterable[str]) -> str:
    return " ".join(map(quote, paths))
