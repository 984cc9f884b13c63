"""Find secrets in what is about to be written, and take them out: private keys, and this run's own passwords.

The library keeps secrets out of outputs by construction (`secret`); this is the second line, for what a node, a
library or a traceback prints on its own. It errs towards removing; what holds no secret comes back as it is.

What it can't know: a piece from the middle of a key, with neither its first nor its last line, looks like any base64.
"""

from __future__ import annotations

import copy
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runbook.records.pem_spans import key_spans
from runbook.records.secret_forms import PEM_NEEDLES, Needle, base64_key_spans, base64_needles, flat, forms, line_needle

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MARK = "[secret removed]"
#: A shorter value stands in any text by chance.
MIN_LENGTH = 4
#: A variable that only its name makes a secret needs a value that is no word.
_MIN_BY_NAME, _LONG_BY_NAME = 8, 16
_DECLARED = ("RUNBOOK_SSH_PASSWORD", "RUNBOOK_SUDO_PASSWORD", "RUNBOOK_CA_PASSPHRASE")
_SUFFIXES = ("_TOKEN", "_PASSWORD", "_PASSPHRASE", "_SECRET", "_SECRET_KEY", "_SECRET_ACCESS_KEY", "_API_KEY")
#: Names the lock that this run holds (runbook.lock): no secret, and it stands in the record.
_NO_SECRET = "RUNBOOK_LOCK_TOKEN"  # noqa: S105 - a variable's name
#: Words that every record is made of. Removing one, or a part of one, would blank the evidence, and the gaps would
#: tell the password.
_RECORD_WORDS = (
    "admin administrator approve boot bytes cell certificate change changed changes cluster code columns config "
    "create data debian default done endpoint error etcd etcdctl etcdutl execution failed false file flannel flanneld "
    "host html input install kernel kubernetes lease master mesh metadata name node node1 node2 node3 none notebook "
    "null output outputs owner papermill parameters params passed passwd password path peer phase phases ping plain "
    "plan private python python3 root runbook running sandbox script secret server service source started state "
    "status stderr stdout step stream sudo summary systemd table tags test text time token traceback true type unit "
    "user username version"
)
_ANSI = re.compile(r"(?:\x1b|\\+u001[bB]|\\+x1[bB]|\\+033)\[[0-9;]*m")
#: Between the strings of a notebook while they are one text; whichever of them no string has.
_SEPARATORS = "\x00\x01\x02\x03"
#: Of a notebook, a cell and an output: what is form, not content.
_FORM = frozenset({"cell_type", "output_type", "id", "name", "nbformat", "nbformat_minor", "execution_count"})


def known_secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The secret values in the environment of this run.

    Always: the SSH and sudo passwords, by the variables that name them. By their names' ends (`_TOKEN`, `_PASSWORD`,
    `_SECRET`, `_API_KEY` …) also those of others, which no phase uses but a node's or a library's output may show:
    only where the value is no word, number or path (8 characters of two kinds at least, or 16; no existing file), as
    `DB_PASSWORD=postgres` would take that word out of every record. What still can't be removed, `Redactor` notes.
    """
    declared = [environ.get(name, "") for name in (*_DECLARED, environ.get("RUNBOOK_SSH_PASSWORD_VARIABLE", ""))]
    named = [value for name, value in environ.items() if name.upper().endswith(_SUFFIXES) and name != _NO_SECRET]
    # "-" is the word for "ask me" (runbook.transport.dial).
    found = [value for value in declared if value not in ("", "-")] + [value for value in named if _distinct(value)]
    return tuple(dict.fromkeys(found))


def _distinct(value: str) -> bool:
    kinds = (str.islower, str.isupper, str.isdigit, lambda char: not char.isalnum())
    mixed = sum(any(kind(char) for char in value) for kind in kinds)
    size = len(value.strip())
    long = size >= _LONG_BY_NAME or (size >= _MIN_BY_NAME and mixed > 1)
    return long and not os.path.exists(value)  # noqa: PTH110 - false, not an error, for what can't be a path


class Redactor:
    """Takes secrets out of texts and notebooks and counts them.

    Args:
        known: Secret values of this run (`known_secrets`), to be found in plain, base64, URL-encoded, JSON-, Python-
            and HTML-escaped form. Private keys are found without being named.
        words: More words that this run's record is made of: its user, cluster and nodes.

    Attributes:
        count: How many were removed so far.
        notes: For the operator: which values can't be looked for, and why; never the value.
    """

    def __init__(self, known: Iterable[str] = (), *, words: Iterable[str] = ()) -> None:
        self.count = 0
        notes, values = [], []
        common = f"{_RECORD_WORDS} {' '.join(words)}".lower()
        for value in dict.fromkeys(one.strip() for one in known):
            if len(value) < MIN_LENGTH:
                notes.append(f"a secret of {len(value)} characters is not looked for: too short, choose a longer one")
            elif value.lower() in common:
                notes.append("a secret is a common word, which every record holds: not looked for, choose another one")
            else:
                values.append(value)
        self.notes: tuple[str, ...] = tuple(notes)
        self._forms: list[tuple[str, list[str]]] = []
        self._needles: list[Needle] = []
        for value in values:
            written = sorted(forms(value), key=len, reverse=True)
            # No form changes letters and digits: where the longest run of them is not, none of the forms is.
            longest = max(re.findall("[A-Za-z0-9]*", value), key=len)
            self._forms.append((longest, [form for form in written if "\n" not in form]))
            self._needles += [line_needle(form) for form in written if "\n" in form]
            self._needles += base64_needles(value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.count} removed)"

    def text(self, text: str) -> str:
        """The text without secrets; the same text where there are none."""
        found = self._scrub(text)
        if "1b[" in found or "\x1b[" in found or "033[" in found:  # colours may stand in the middle of a secret
            plain = _ANSI.sub("", found)
            if (hidden := self._scrub(plain)) != plain:
                return hidden
        return found

    def value(self, value: Any) -> Any:  # noqa: ANN401 - any JSON value
        """A JSON value whose strings and keys hold no secret; the same object where none did.

        Raises:
            TypeError: something in it is no JSON value.
        """
        return self._slots(value, lambda holder: _inside(holder, 0))

    def notebook(self, node: Any) -> Any:  # noqa: ANN401 - a dict or nbformat's NotebookNode
        """A notebook without secrets in sources, outputs and metadata; the same object where there were none.

        All strings are looked at as one text, in their order: a key is found as well when its lines are in several
        strings, outputs or rows. Each string that held a piece becomes the mark; none is added or left out.
        """
        return self._slots(node, lambda holder: _notebook(holder[0]))

    def _slots(self, root: Any, walk: Any) -> Any:  # noqa: ANN401 - as above
        slots = list(walk([root]))
        old = [slot.read() for slot in slots]
        joined = "".join(old)
        separator = next((char for char in _SEPARATORS if char not in joined), "")
        new = self.text(separator.join(old)).split(separator) if separator else [self.text(one) for one in old]
        if new == old or not old:
            return root
        holder = [copy.deepcopy(root)]
        changed = [(slot, text) for slot, before, text in zip(walk(holder), old, new, strict=True) if text != before]
        # Keys last: the other slots are found by them.
        for slot, text in sorted(changed, key=lambda one: one[0].is_key):
            slot.write(text)
        return holder[0]

    def _scrub(self, text: str) -> str:
        if "PRIVATE" in text:
            text = self._cut(text, key_spans(text))
        in_line = flat(text)
        if any(needle.core in in_line for needle in PEM_NEEDLES):
            text = self._cut(text, base64_key_spans(text))
            in_line = flat(text)
        likely = [written for longest, written in self._forms if longest in text]
        patterns = [re.escape(form) for written in likely for form in written if form in text]
        patterns += [needle.pattern for needle in self._needles if needle.core in in_line]
        if not patterns:
            return text
        spans = (match.span() for match in re.finditer("|".join([re.escape(MARK), *patterns]), text))
        return self._cut(text, [span for span in spans if text[slice(*span)] != MARK])

    def _cut(self, text: str, spans: Sequence[tuple[int, int]]) -> str:
        parts, last = [], 0
        for start, end in spans:
            # What parts the strings of a notebook stays: as many come out as went in.
            inside = [char for char in text[start:end] if char in _SEPARATORS]
            parts += [text[last:start], MARK, *(char + MARK for char in inside)]
            last = end
        self.count += len(spans)
        return "".join([*parts, text[last:]])


@dataclass(frozen=True)
class _Slot:
    """Where a string stands: a value in a list or dict, or a key of a dict."""

    holder: Any
    key: Any
    is_key: bool = False

    def read(self) -> str:
        return str(self.key if self.is_key else self.holder[self.key])

    def write(self, text: str) -> None:
        if not self.is_key:
            self.holder[self.key] = text
            return
        items = [(text if key == self.key else key, value) for key, value in self.holder.items()]
        self.holder.clear()
        self.holder.update(items)


def _inside(holder: Any, key: Any) -> Iterator[_Slot]:  # noqa: ANN401 - any JSON value
    value = holder[key]
    if isinstance(value, str):
        yield _Slot(holder, key)
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from _inside(value, index)
    elif isinstance(value, dict):
        for name in value:
            if isinstance(name, str):
                yield _Slot(value, name, is_key=True)
            yield from _inside(value, name)
    elif not isinstance(value, int | float | None):
        raise TypeError(f"{type(value).__name__} is no JSON value: what is in it can't be looked at")


def _notebook(node: Mapping[str, Any]) -> Iterator[_Slot]:
    """The strings of a notebook, cell or output but for its form; keys of `metadata` and of JSON outputs too."""
    for key, value in node.items():
        if key in ("cells", "outputs"):
            for part in value:
                yield from _notebook(part)
        elif key == "data":
            for mime in value:
                yield from _inside(value, mime)
        elif key not in _FORM:
            yield from _inside(node, key)
