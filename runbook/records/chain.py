"""The chain of a cluster's closed records: each holds a copy of the SHA256SUMS of the one closed before it.

Its order is that of closing, which the copies tell; names only say which record began earlier.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runbook.records import sumfile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LINK: Final = "previous.SHA256SUMS"
#: What a record's folder is called: the UTC time when it was begun, and a number where that was taken.
NAME: Final = re.compile(r"([0-9]{8}T[0-9]{6}Z)(?:-([0-9]{1,9}))?")


@dataclass(frozen=True)
class Closed:
    """A closed record.

    Attributes:
        folder: Where it is.
        sums: The text of its SHA256SUMS.
        link: The text of its previous.SHA256SUMS; None where it has none, "" where it can't be read.
        signed: Whether it has a signature, be it good or not.
    """

    folder: Path
    sums: str
    link: str | None
    signed: bool

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.name


def order(name: str) -> tuple[str, int]:
    """What record names are ordered by: `20261123T021314Z-10` comes after `…-2`, and that after the plain one."""
    match = NAME.fullmatch(name)
    return (match[1], int(match[2] or 0)) if match else (name, 0)


def closed(cluster: Path) -> list[Closed]:
    """The closed records in a cluster's folder, in the order of their names; a link is none.

    Raises:
        OSError: the folder can't be read.
    """
    with os.scandir(cluster) as entries:
        names = [one.name for one in entries if one.is_dir(follow_symlinks=False) and NAME.fullmatch(one.name)]
    read = (read_closed(cluster / name) for name in sorted(names, key=order))
    return [one for one in read if one is not None]


def read_closed(folder: Path) -> Closed | None:
    """A record's place in the chain; None where it is not closed."""
    sums = sumfile.text(folder / sumfile.SUMS)
    if sums is None:
        return None
    link = sumfile.text(folder / LINK)
    if link is None and os.path.lexists(folder / LINK):
        link = ""
    return Closed(folder, sums, link, os.path.lexists(folder / sumfile.SIGNATURE))


def tip(records: Sequence[Closed]) -> Closed | None:
    """The end of the chain: the newest by name of those that no other follows."""
    followed = {one.link for one in records}
    ends = [one for one in records if one.sums not in followed] or records
    return ends[-1] if ends else None


def ancestors(one: Closed, records: Sequence[Closed]) -> list[Closed]:
    """The records that one follows, the nearest first."""
    by_sums = {other.sums: other for other in reversed(records)}
    found: dict[Path, Closed] = {}
    while one.link is not None and (before := by_sums.get(one.link)) is not None and before.folder not in found:
        found[before.folder] = before
        one = before
    return list(found.values())


def faults(one: Closed, others: Sequence[Closed], follows: str) -> list[str]:
    """What says that a record was left out of the chain, put into it, or made anew.

    Args:
        one: The record.
        others: The cluster's other closed records, in the order of their names.
        follows: What the record before it is called in messages where it is missing.
    """
    found = []
    before = ancestors(one, others)
    if one.link is None:
        strangers = _not_after(one, [other for other in others if order(other.name) < order(one.name)], others)
        found += [f"it begins a chain of its own, though there is {strangers[-1].name}"] if strangers else []
    elif not before:
        found.append(f"the record that it follows, {follows}, is not here, or was made anew")
    twins = [other.name for other in others if one.link is not None and other.link == one.link]
    found += [f"{', '.join(twins[:3])} follows the same record: one of them was put in"] if twins else []
    known = {other.folder for other in before}
    missed = [other for other in others if order(other.name) > order(one.name) and other.folder not in known]
    if missed and all(other.link != one.sums for other in others):
        found.append(f"{missed[0].name} does not follow it, nor does any other: it was left out, or made anew")
    return found


def _not_after(first: Closed, some: Sequence[Closed], others: Sequence[Closed]) -> list[Closed]:
    """Those of some that no chain from the first leads to."""
    followers: dict[str, list[Closed]] = {}
    for other in others:
        if other.link is not None:
            followers.setdefault(other.link, []).append(other)
    reached: set[Path] = set()
    waiting = [first]
    while waiting:
        new = [other for other in followers.get(waiting.pop().sums, []) if other.folder not in reached]
        reached.update(other.folder for other in new)
        waiting += new
    return [one for one in some if one.folder not in reached]
