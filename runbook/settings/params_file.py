"""Reading a params file: YAML with its surprises said where they happen.

YAML 1.1 lets the last of two equal keys win and reads 0600, 3.10, 12:34:56 and on as something else. Here a doubled
key, an octal and a base-60 number are faults at once; what else YAML made of a value is kept as a note, for the moment
the value turns out to be of the wrong type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from runbook.errors import ParamsError
from runbook.settings.params_rules import Loc, shown

_MAX_BYTES: Final = 1 << 20
_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"
_NUMBERS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class Note(NamedTuple):
    """Where a value stands in the file, and as what: `text` is None unless it was written without quotes."""

    line: int
    text: str | None


class Fault(NamedTuple):
    """One thing wrong: where in the settings, in which line (0: not known), and what."""

    loc: Loc
    line: int
    text: str

    def __str__(self) -> str:
        """`line 12: cluster.etcd.version: …`, as far as these are known."""
        where = [f"line {self.line}"] if self.line else []
        return ": ".join([*where, *([dotted(self.loc)] if self.loc else []), self.text])


@dataclass(frozen=True)
class Document:
    """What a params file holds.

    Attributes:
        path: The file itself, symbolic links followed.
        values: Its top-level keys.
        notes: A note for each value, by its path of keys in lower case.
        faults: What is wrong with the writing alone.
    """

    path: Path
    values: dict[Any, Any]
    notes: dict[tuple[str, ...], Note]
    faults: tuple[Fault, ...]


def dotted(loc: Loc) -> str:
    """A path of keys as an operator writes it: `cluster.nodes[1].host`."""
    names = (part if isinstance(part, int) or part.isprintable() else repr(part) for part in loc)
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names).removeprefix(".")


def note_key(loc: Loc) -> tuple[str, ...]:
    """The key under which `Document.notes` has the note for a path of keys."""
    return tuple(str(part).casefold() for part in loc)


def made(value: object) -> str:
    """What YAML made of a value, in words."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"the number {shown(value)}"
    return "text" if isinstance(value, str) else "a list" if isinstance(value, (list, tuple)) else "a group of keys"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without dates, as papermill reads `-f`: 2026-01-01 stays text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Walk:
    """One pass over a file's nodes: notes where each value stands, finds what YAML would hide."""

    def __init__(self, loader: _Loader) -> None:
        self.loader = loader
        self.notes: dict[tuple[str, ...], Note] = {}
        self.faults: list[Fault] = []
        self._seen: set[int] = set()

    def visit(self, node: yaml.Node, loc: Loc) -> None:
        """Note a value and all below it; what an alias repeats is looked at once."""
        line = node.start_mark.line + 1
        plain = node.value if isinstance(node, yaml.ScalarNode) and node.style is None else None
        self.notes.setdefault(note_key(loc), Note(line, plain))
        if id(node) in self._seen:
            return
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            self._mapping(node, loc)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, (*loc, index))
        elif plain is not None and node.tag in _NUMBERS:
            self._number(node, plain, (loc, line))

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> None:
        first: dict[object, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # the loader refuses such a key with its line
            merge = key_node.tag == "tag:yaml.org,2002:merge"
            key = key_node.value if merge else self.loader.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if key in first:
                text = f"key `{dotted((*loc, str(key)))}` stands twice (line {first[key]}); YAML would take the last"
                self.faults.append(Fault((), line, text))
            first.setdefault(key, line)
            if not isinstance(key, str):
                self.notes[note_key((*loc, str(key), "[key]"))] = Note(line, key_node.value)
            self.visit(value_node, loc if merge else (*loc, str(key)))

    def _number(self, node: yaml.Node, text: str, at: tuple[Loc, int]) -> None:
        if ":" not in text and not re.fullmatch("[-+]?0[0-7_]+", text):
            return
        kind, way = ("base-60", "") if ":" in text else ("octal", ", or write a number without the leading 0")
        value = made(self.loader.construct_object(node))
        self.faults.append(Fault(*at, f"YAML reads {text} as {value} ({kind}); put it in quotes: '{text}'{way}"))


def read(path: Path) -> Document:
    """Read a params file.

    Raises:
        ParamsError: There is no such file, it can't be read, or it is not YAML with keys at its top.
    """
    text = _text(path)
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        raise ParamsError(str(path), [_syntax(error)]) from None
    walk = _Walk(loader)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ParamsError(
                str(path), ["holds no settings: the keys `cluster` and `approve` are expected at its top"]
            )
        walk.visit(node, ())
        values = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ParamsError(str(path), [*map(str, walk.faults), _syntax(error)]) from None
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # PyYAML's, for a tag such as !!bool on text
        raise ParamsError(str(path), [f"a value can't be read as what it is tagged: {type(error).__name__}"]) from None
    except RecursionError:
        raise ParamsError(str(path), ["is nested too deeply to be a params file"]) from None
    finally:
        loader.dispose()
    return Document(path.resolve(), values, walk.notes, tuple(walk.faults))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ParamsError(str(path), [f"is larger than {_MAX_BYTES} bytes, so it is no params file"])
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        where = "" if path.is_absolute() else f"; looked for from {Path.cwd()}"
        raise ParamsError(str(path), [f"there is no such file{where}"]) from None
    except UnicodeDecodeError as error:
        raise ParamsError(str(path), [f"is not UTF-8 text (byte {error.start})"]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ParamsError(str(path), [f"can't be read: {reason}"]) from None


def _syntax(error: yaml.YAMLError) -> str:
    """The reason and the place alone: PyYAML's own text also quotes the line, whatever stands there."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        return f"line {mark.line + 1}, column {mark.column + 1}: {reason}" if mark else reason
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.character!r} at {error.position} is not allowed in YAML"
    return "is not YAML"
