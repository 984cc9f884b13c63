"""Turning what pydantic found into lines for an operator: which key, what it holds, what is expected, what to do."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

from runbook.settings.params_file import Document, Fault, made, note_key
from runbook.settings.params_rules import Loc, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

PASSWORD_VARIABLE: Final = "RUNBOOK_SSH_PASSWORD"  # noqa: S105 - its name
_SECRETS: Final = ("password", "passwd", "passphrase", "token", "secret")
_ALMOST: Final = 0.8  # alike enough to be a slip of the known key, and no secret
_EXPECTED: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list, such as [one, two]",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "path_type": "a path",
}
_LIMITS: Final = {"greater_than_equal": "ge", "less_than_equal": "le", "greater_than": "gt", "less_than": "lt"}
_LIMIT_WORDS: Final = {"ge": "at least", "le": "at most", "gt": "more than", "lt": "less than"}


class Describer:
    """Describes faults in the settings of one source.

    Args:
        known: The keys of each section, by its name; `cluster` and `nodes` among them.
        document: The file that the settings came from, if they came from one.
    """

    def __init__(self, known: Mapping[str, Iterable[str]], document: Document | None = None) -> None:
        self._known = {section: tuple(keys) for section, keys in known.items()}
        self._document = document

    def fault(self, loc: Loc, text: str) -> Fault:
        """A fault with the line of its key, or of the nearest group of keys around it."""
        notes = self._document.notes if self._document else {}
        key = note_key(loc)
        lines = (notes[key[:end]].line for end in range(len(key), 0, -1) if key[:end] in notes)
        return Fault(loc, next(lines, 0), text)

    def all(self, error: ValidationError) -> list[Fault]:
        """Every fault that pydantic found, below the key `cluster`."""
        found = error.errors(include_url=False)
        return [fault for details in found for fault in self._one(details)]

    def unknown(self, loc: Loc, section: str) -> Fault:
        """An unknown key: a secret's hint, the section it belongs to, the nearest known key, or all that are known."""
        key = str(loc[-1])
        known = self._known.get(section, ())
        folded = {name.casefold(): name for name in known}
        near = difflib.get_close_matches(key.casefold(), folded, 1)
        alike = difflib.SequenceMatcher(None, key.casefold(), near[0]).ratio() if near else 0
        if alike < _ALMOST and any(word in key.casefold() for word in _SECRETS):
            hint = f"a secret never belongs in params: passwords are prompted for, or taken from ${PASSWORD_VARIABLE}"
            return self.fault(loc, f"unknown key; {hint}")
        homes = [name for name, keys in self._known.items() if key in keys and name != section]
        if near:
            hint = f"the nearest known one is `{folded[near[0]]}`"
        elif homes:
            hint = f"it belongs under {' or '.join(f'`{name}`' for name in homes)}"
        else:
            hint = f"known here are {', '.join(known)}"
        return self.fault(loc, f"unknown key; {hint}")

    def _one(self, details: ErrorDetails) -> Iterable[Fault]:
        loc: Loc = ("cluster", *details["loc"])
        kind, value, context = details["type"], details["input"], details.get("ctx", {})
        if kind == "cluster_rules":
            return [self.fault(("cluster", *rule.loc), rule.text) for rule in context["rules"]]
        if kind == "invalid_key" or loc[-1] == "[key]":
            return [self._key((*loc[:-2], str(value)) if loc[-1] == "[key]" else (*loc[:-1], str(value)), value)]
        if kind == "extra_forbidden":
            return [self.unknown(loc, _section(loc))]
        return [self.fault(loc, self._text(loc, kind, value, context))]

    def _key(self, loc: Loc, key: object) -> Fault:
        if isinstance(key, str):
            return self.unknown(loc, _section(loc))
        note = self._document.notes.get(note_key((*loc, "[key]"))) if self._document else None
        if note:
            return Fault(loc, note.line, f"a key must be text; YAML reads {note.text!r} as {made(key)}")
        return self.fault(loc, f"a key must be text, and this is {made(key)}; put it in quotes")

    def _text(self, loc: Loc, kind: str, value: object, context: Mapping[str, Any]) -> str:
        if kind == "missing":
            return "is missing"
        if kind == "value_error":
            return str(context["error"])
        if kind == "literal_error":
            near = difflib.get_close_matches(str(value), _quoted(context["expected"]), 1)
            hint = f"; the nearest is {near[0]}" if near else ""
            return f"{shown(value)} is not known; expected is {context['expected']}{hint}"
        if kind in _LIMITS:
            limit = str(context[_LIMITS[kind]]).removesuffix(".0")
            return f"{shown(value)} is out of range: {_LIMIT_WORDS[_LIMITS[kind]]} {limit} is expected"
        if kind == "finite_number":
            return f"{shown(value)} is not a finite number"
        return self._mistyped(loc, _EXPECTED.get(kind), value, kind)

    def _mistyped(self, loc: Loc, expected: str | None, value: object, kind: str) -> str:
        if expected is None:
            return f"{shown(value)} can't be used ({kind})"
        note = self._document.notes.get(note_key(loc)) if self._document else None
        unquoted = note.text if note else None
        if value is None:
            return f"has no value{' (YAML reads ~ as none)' if unquoted == '~' else ''}; {expected} is expected"
        if kind == "string_type" and isinstance(value, (bool, int, float)):
            if unquoted is not None:
                made_of = "a number, and text is expected" if str(value) == unquoted else made(value)
                return f"YAML reads {unquoted} as {made_of}; put it in quotes: '{unquoted}'"
            return f"is {made(value)}, and text is expected; in YAML put it in quotes (3.10 without is read as 3.1)"
        if isinstance(value, str):
            quotes = " (without quotes)" if kind in ("int_type", "float_type", "bool_type") else ""
            return f"{shown(value)} is text; {expected} is expected{quotes}"
        return f"is {made(value)}; {expected} is expected"


def _section(loc: Loc) -> str:
    """The name of the section that a key stands in: `nodes` for `cluster.nodes[1].host`."""
    return next((part for part in reversed(loc[:-1]) if isinstance(part, str)), "")


def _quoted(expected: str) -> list[str]:
    return [part.strip("' ") for part in expected.replace(" or ", ", ").split(", ")]
