"""Checking records: what holds and what doesn't, a row for each record and check; nothing found in one ever raises.

| check | what holds |
|---|---|
| sums | every file that SHA256SUMS lists is here, byte for byte |
| files | nothing else is here: nothing added, no link, no special file |
| chain | the record before it is here, and the next one follows it |
| signature | it is one of this SHA256SUMS; by an allowed signer, where a file of these is given |
| execution | each code cell of a phase that passed ran, and none after one that failed |
| order | notebooks and cells stand in the order in which they ran, within this run |
| summary | summary.json claims nothing that the notebooks contradict |

Sums and chain alone show what was changed by someone who did not make everything after it anew; the signature shows the
rest. That the newest records of a chain are gone shows only where something names them.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook import show
from runbook.errors import UsageError
from runbook.plain_text import clean, printable
from runbook.records import chain, evidence, execution, order, sumfile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runbook.records.chain import Closed
    from runbook.records.execution import Notebook

COLUMNS = ("record", "check", "ok", "state", "why", "remedy")
_REMEDY = {
    "sums": "this copy is no evidence: take the record from a backup",
    "files": "see who put it there, and move it out; or take the record from a backup",
    "chain": "find the missing or changed record in a backup; until then records may have been left out or made anew",
    "signature": "ask the operator named in summary.json; without a good signature the record proves nothing",
    "execution": "what passed is not shown by these notebooks: run the phase again for a new record",
    "order": "these notebooks were not left like this by one run: take the record from a backup",
    "summary": "trust neither the summary nor the notebooks: take the record from a backup",
}
_MOST_FAULTS, _MOST_TEXT = 6, 900
_MOST_SIGNATURE = 64 << 10


@dataclass(frozen=True)
class _Found:
    """What a check found: faults, or in a few words what holds; `warning` where that is less than it should be."""

    faults: list[str] = field(default_factory=list)
    said: str = ""
    warning: bool = False


class _NotClosed(Exception):
    """A record is not closed yet."""


@dataclass(frozen=True)
class _Record:
    """A closed record as read: `unread` has what of it could not be."""

    folder: Path
    sums: str
    there: dict[str, bool]
    summary: dict[str, Any]
    notebooks: list[Notebook]
    unread: dict[str, str]


def verify(records: Sequence[Path], *, allowed_signers: Path | None = None) -> show.Table:
    """Check closed records, each among the others in its cluster's folder.

    Args:
        records: Their folders.
        allowed_signers: Who may sign, in the format of ssh-keygen's ALLOWED SIGNERS. With it a record without a
            signature fails; without it a signature is checked for what it signs, and its key is shown.

    Returns:
        A row for each record and check: record, check, ok, state ("warning" where it holds with a reservation), why,
        remedy. A record that is not closed has one row, which fails.

    Raises:
        UsageError: there is no such file of allowed signers.
    """
    if allowed_signers is not None and not allowed_signers.is_file():
        raise UsageError("there is no such file", subject=f"--allowed-signers {allowed_signers}")
    rows: list[dict[str, Any]] = []
    beside: dict[Path, list[Closed]] = {}
    for folder in dict.fromkeys(Path(os.path.realpath(given)) for given in records):
        label = f"{folder.parent.name}/{folder.name}"
        try:
            sums = _closed_sums(folder)
            siblings = beside.setdefault(folder.parent, chain.closed(folder.parent))
        except _NotClosed as error:
            rows.append(_row(label, "sums", _Found([str(error)]), "wait for its end, or: runbook close RECORD"))
            continue
        except (OSError, ValueError) as error:
            rows.append(_row(label, "sums", _Found([_reason(error)]), _REMEDY["sums"]))
            continue
        found = _checks(folder, sums, siblings, allowed_signers)
        rows += [_row(label, name, one, _REMEDY[name]) for name, one in found]
    failing = sum(not row["ok"] for row in rows)
    told = f"{failing} of {len(rows)} checks don't hold" if failing else f"all {len(rows)} checks hold"
    return show.table(rows, COLUMNS, f"Records: {told}")


def _row(record: str, check: str, found: _Found, remedy: str) -> dict[str, Any]:
    more = len(found.faults) - _MOST_FAULTS
    told = found.faults[:_MOST_FAULTS] + ([f"and {more} more"] if more > 0 else [])
    ok = not found.faults
    return {
        "record": _shown(record),
        "check": check,
        "ok": ok,
        "state": "warning" if found.warning and ok else "",
        "why": _shown("; ".join(told) or found.said),
        "remedy": "" if ok else remedy,
    }


def _shown(text: str) -> str:
    """Text from a record, fit to be shown: no control characters, no halves of characters, not without end."""
    text = clean(text[: 2 * _MOST_TEXT].encode("utf-8", "backslashreplace"))
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        name = Path(os.fsdecode(error.filename)).name if isinstance(error.filename, str | bytes) else ""
        return f"{name}: {error.strerror or error}".removeprefix(": ")
    return str(error) or type(error).__name__


def _closed_sums(folder: Path) -> str:
    """The text of a record's SHA256SUMS; ValueError says why it can't be taken for closed."""
    if not folder.is_dir():
        raise ValueError("there is no such folder")
    if os.path.lexists(folder / sumfile.SUMS):
        return sumfile.content(folder / sumfile.SUMS, sumfile.MOST_SUMS).decode("utf-8")
    if os.path.lexists(folder / sumfile.SIGNATURE):
        raise ValueError("not closed any more: it is signed, but its SHA256SUMS was removed")
    with contextlib.suppress(OSError, ValueError):
        if execution.loaded(folder / "summary.json").get("outcome") == "running":
            raise _NotClosed("not closed: the run goes on, or broke off")
    raise _NotClosed("not closed: it has no SHA256SUMS")


def _checks(folder: Path, sums: str, siblings: list[Closed], allowed: Path | None) -> list[tuple[str, _Found]]:
    try:
        record = _read(folder, sums)
    except OSError as error:
        return [("files", _Found([_reason(error)]))]
    me = chain.read_closed(folder) or chain.Closed(folder, sums, None, signed=False)
    others = [one for one in siblings if one.folder != folder]
    checks: dict[str, Callable[[], _Found]] = {
        "sums": lambda: _sums(record),
        "files": lambda: _files(record),
        "chain": lambda: _chain(record, me, others),
        "signature": lambda: _signature(record, _before(me, others), allowed),
        "execution": lambda: _execution(record),
        "order": lambda: _order(record),
        "summary": lambda: _summary(record),
    }
    found = []
    for name, check in checks.items():
        try:
            found.append((name, check()))
        except Exception as error:  # noqa: BLE001 - whatever a record holds that trips a check, it doesn't hold
            found.append((name, _Found([f"can't be checked: {_reason(error)}"])))
    return found


def _before(me: Closed, others: list[Closed]) -> Closed | None:
    """The record before it: by the chain, or by name where the chain doesn't tell."""
    by_name = [one for one in others if chain.order(one.name) < chain.order(me.name)][-1:]
    return next(iter([*chain.ancestors(me, others)[:1], *by_name]), None)


def _read(folder: Path, sums: str) -> _Record:
    record = _Record(folder, sums, sumfile.inside(folder), {}, [], {})
    try:
        record.summary.update(execution.loaded(folder / "summary.json"))
    except (OSError, ValueError) as error:
        record.unread["summary.json"] = f"summary.json can't be read: {_reason(error)}"
    for name in sorted(name for name in record.there if execution.NOTEBOOK.fullmatch(name)):
        try:
            record.notebooks.append(execution.notebook(folder / name))
        except Exception as error:  # noqa: BLE001 - it may hold anything
            record.unread[name] = f"{name} can't be read: {_reason(error)}"
    return record


def _sums(record: _Record) -> _Found:
    listed, faults = sumfile.parse(record.sums)
    for name, expected in listed.items():
        if name not in record.there:
            faults.append(f"{name} is missing")
            continue
        if not record.there[name]:
            faults.append(f"{name} is no regular file")
            continue
        try:
            if sumfile.sha256(record.folder / name) != expected:
                faults.append(f"{name} was changed")
        except OSError as error:
            faults.append(f"{name} can't be read: {error.strerror}")
    return _Found(faults if listed or faults else ["SHA256SUMS lists nothing"], f"{len(listed)} files as listed")


def _files(record: _Record) -> _Found:
    listed, _ = sumfile.parse(record.sums)
    faults = []
    for name, regular in sorted(record.there.items()):
        if not regular:
            faults.append(f"{name} is a link or a special file, refused")
        elif name not in listed and name not in (sumfile.SUMS, sumfile.SIGNATURE):
            faults.append(f"{name} was added: SHA256SUMS does not list it")
    return _Found(faults, "nothing added")


def _chain(record: _Record, me: Closed, others: list[Closed]) -> _Found:
    before = chain.ancestors(me, others)
    if not others and me.link is not None:
        return _Found([], f"follows {_named_before(record)}; no other record is here to check this by", warning=True)
    faults = chain.faults(me, others, _named_before(record))
    continues = record.summary.get("continues")
    if others and continues is not None and continues not in {one.name for one in others}:
        faults.append(f"the record that it continues, {continues}, is not here")
    return _Found(faults, f"follows {before[0].name}" if before else "the first of its cluster")


def _named_before(record: _Record) -> str:
    """The name of the record before it, as its README has it: only for the message."""
    try:
        text = sumfile.content(record.folder / evidence.README).decode("utf-8", "replace")
    except OSError:
        text = ""
    match = re.search(r"^Previous record: `([^`\n]{1,64})`", text, re.MULTILINE)
    return match[1] if match else "whose SHA256SUMS is its previous.SHA256SUMS"


def _signature(record: _Record, before: Closed | None, allowed: Path | None) -> _Found:
    path = record.folder / sumfile.SIGNATURE
    if sumfile.SIGNATURE not in record.there:
        if allowed is not None:
            return _Found(["not signed, so by none of the allowed signers"])
        if before is not None and before.signed:
            return _Found([], f"not signed, though the record before it, {before.name}, is", warning=True)
        return _Found([], "not signed")
    sumfile.content(path, _MOST_SIGNATURE)  # a link or a FIFO ends here
    data = record.sums.encode()
    how = ("-n", evidence.NAMESPACE, "-s", str(path))
    status, out, err = evidence.keygen("-Y", "check-novalidate", *how, data=data)
    if status != 0:
        return _Found([f"it is none of this SHA256SUMS: {printable(err or out, 200)}"])
    match = re.search(r"(\S+) key (SHA256:\S+)", out)
    key = f"{match[1]} {match[2]}" if match else "a key without a fingerprint"
    if allowed is None:
        return _Found([], f"good, by {key}; signer not checked")
    _, names, why = evidence.keygen("-Y", "find-principals", "-f", str(allowed), "-s", str(path))
    for who in names.splitlines():
        status, _, why = evidence.keygen("-Y", "verify", "-f", str(allowed), "-I", who, *how, data=data)
        if status == 0:
            return _Found([], f"good, by {who}, {key}")
    return _Found([f"by another key, {key}, not by an allowed signer: {printable(why, 200)}"])


def _execution(record: _Record) -> _Found:
    faults = [why for name, why in record.unread.items() if name != "summary.json"]
    cells = sum(len(one.ran) for one in record.notebooks)
    faults += execution.not_executed(record.notebooks, record.summary)
    return _Found(faults, f"{cells} cells ran in {len(record.notebooks)} notebooks")


def _order(record: _Record) -> _Found:
    return _Found(order.out_of_order(record.notebooks, record.summary), "as they ran")


def _summary(record: _Record) -> _Found:
    if "summary.json" in record.unread:
        return _Found([record.unread["summary.json"]])
    claims = execution.contradictions(record.summary, record.notebooks, record.there, record.folder.name)
    return _Found(claims, f"{record.summary.get('outcome')}, as the notebooks tell")
