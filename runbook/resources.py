"""What a node is made of: how each thing is read, compared with what is wanted, and made so.

A resource names the paths to look at (`looks`), gives a piece of sh that prints what else is there (`probe`), and has a
pure function from both to a Change or None (`compare`). Plans put all of one node into one
script: one round trip a node.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from runbook.artifacts import Binary
    from runbook.certs.secret import Secret

Found = Mapping[str, str]


class Look(NamedTuple):
    """What is to be read of a path; the answers are keys of a Found, each with `prefix` before it.

    Attributes:
        path: The path. All looks at a node share one stat, one sum and one reading of contents.
        want: `stat`: type (file, directory, link, other, none), mode, owner, size, ctime; `content`: also sha256 and
            content of a file, or a link's target; `sum`: also sha256 of a file; `names`: also what a folder holds.
        prefix: Stands before the keys.
    """

    path: str
    want: Literal["stat", "content", "sum", "names"] = "stat"
    prefix: str = ""


@dataclass(frozen=True)
class Payload:
    """A file to be put on a node: staged beside its place, given mode and owner, then renamed."""

    path: str
    mode: int
    owner: str
    source: bytes | Secret | Binary


@dataclass(frozen=True)
class Change:
    """One row of a plan.

    Attributes:
        resource: What it is about: a path, a unit, a key of etcd.
        action: create, change, renew, start, restart, enable, disable.
        why: The reason, for the operator.
        current: What is there, shortly; "" where there is nothing.
        desired: What will be there, shortly.
        diff: A unified diff where the content may be shown.
        digest: What the change comes to; part of the plan's id, so never a random or secret value.
        before: sh that runs before the files are put in place.
        payloads: Makes the files; called only when the plan is applied (keys are made then).
        after: sh that runs after them.
        here: What to do on this side, before any node is touched (making the CA).
        refusal: Why it must not be made; a plan that holds such a change is never applied.
        node: The node's name; filled in by the plan; "" for this side.
    """

    resource: str
    action: str
    why: str
    current: str = ""
    desired: str = ""
    diff: str = ""
    digest: str = ""
    before: str = ""
    payloads: Callable[[], Sequence[Payload]] = field(default=tuple, compare=False)
    after: str = ""
    here: Callable[[], object] | None = field(default=None, compare=False)
    refusal: str = ""
    node: str = ""


class Resource(Protocol):
    """What a plan needs to know of a resource."""

    @property
    def label(self) -> str:
        """Its name in tables."""

    def looks(self) -> tuple[Look, ...]:
        """Name the paths to look at."""

    def probe(self) -> str:
        """Give sh that prints what else is there as `key=value` lines, the values of one line each; '' for nothing."""

    def compare(self, found: Found) -> Change | None:
        """Say what has to change, given what was found; None when it is right."""


def content(found: Found, key: str = "content") -> bytes | None:
    """A file's bytes as they were found, or None."""
    return base64.b64decode(found[key]) if key in found else None


def unified_diff(path: str, before: bytes, after: bytes) -> str:
    """A unified diff of two texts."""
    old, new = (text.decode("utf-8", "replace").splitlines() for text in (before, after))
    return "\n".join(difflib.unified_diff(old, new, f"{path} (now)", f"{path} (wanted)", lineterm=""))


def access_reason(found: Found, mode: int, owner: str) -> str:
    """Why a path's mode or owner has to change, or ''."""
    reasons = []
    if int(found["mode"], 8) != mode:
        reasons.append(f"mode {int(found['mode'], 8):04o}, wanted {mode:04o}")
    if found["owner"] != owner:
        reasons.append(f"owner {found['owner']}, wanted {owner}")
    return "; ".join(reasons)


@dataclass(frozen=True)
class File:
    """A file with these bytes, mode and owner."""

    path: str
    source: bytes | Binary
    mode: int = 0o644
    owner: str = "root:root"

    @property
    def label(self) -> str:
        """Its path."""
        return self.path

    @property
    def sha256(self) -> str:
        """The checksum of the bytes it should have."""
        return hashlib.sha256(self.source).hexdigest() if isinstance(self.source, bytes) else self.source.sha256

    def looks(self) -> tuple[Look, ...]:
        """Type, mode, owner, checksum and, of a text, the content."""
        return (Look(self.path, "content" if isinstance(self.source, bytes) else "sum"),)

    def probe(self) -> str:
        """Nothing else."""
        return ""

    def compare(self, found: Found) -> Change | None:
        """Compare checksum, mode and owner."""
        kind = found.get("type", "none")
        desired = f"sha256 {self.sha256[:12]}, {self.mode:04o} {self.owner}"
        digest = f"{self.sha256} {self.mode:o} {self.owner} {found.get('sha256') or found.get('ctime', kind)}"
        if kind == "none":
            why, action = "missing", "create"
        elif kind != "file":
            why, action = f"is a {kind}, not a file", "change"
        elif found.get("sha256") != self.sha256:
            why, action = "other content", "change"
        elif reason := access_reason(found, self.mode, self.owner):
            after = f"chown {quote(self.owner)} {quote(self.path)}; chmod {self.mode:o} {quote(self.path)}"
            return Change(self.path, "change", reason, _access(found), desired, digest=digest, after=after)
        else:
            return None
        diff = unified_diff(self.path, content(found) or b"", self.source) if isinstance(self.source, bytes) else ""
        payload = Payload(self.path, self.mode, self.owner, self.source)
        summed = f"sha256 {found['sha256'][:12]}" if "sha256" in found else f"{found.get('size')} bytes"
        current = f"{summed}, {_access(found)}" if kind == "file" else ""
        refusal = f"{self.path} {why}: move it away" if kind in ("directory", "other") else ""
        return Change(
            self.path, action, why, current, desired, diff, digest, payloads=lambda: (payload,), refusal=refusal
        )


def _access(found: Found) -> str:
    return f"{int(found['mode'], 8):04o} {found['owner']}" if "mode" in found else ""


@dataclass(frozen=True)
class Directory:
    """A folder with this mode and owner.

    Attributes:
        may_hold: Names that an existing folder of another owner may hold to be taken over; None takes any.
    """

    path: str
    mode: int = 0o755
    owner: str = "root:root"
    may_hold: tuple[str, ...] | None = None

    @property
    def label(self) -> str:
        """Its path, with a slash."""
        return self.path + "/"

    def looks(self) -> tuple[Look, ...]:
        """Type, mode, owner and, where it matters, the names it holds."""
        return (Look(self.path, "stat" if self.may_hold is None else "names"),)

    def probe(self) -> str:
        """Nothing else."""
        return ""

    def compare(self, found: Found) -> Change | None:
        """Compare mode and owner; a folder that others use is not taken over."""
        kind = found.get("type", "none")
        desired = f"{self.mode:04o} {self.owner}"
        user, _, group = self.owner.partition(":")
        make = f"install -d -m {self.mode:o} -o {quote(user)} -g {quote(group)} {quote(self.path)}"
        digest = f"{desired} {_access(found)}"
        if kind == "none":
            return Change(self.label, "create", "missing", "", desired, digest=digest, before=make)
        if kind != "directory":
            text = f"{self.path} is a {kind}, not a folder: move it away"
            return Change(self.label, "create", text, kind, desired, digest=digest, refusal=text)
        if not (reason := access_reason(found, self.mode, self.owner)):
            return None
        holds = (content(found) or b"").decode("utf-8", "replace").split("\n")
        others = [name for name in holds if name and self.may_hold is not None and name not in self.may_hold]
        if others and found["owner"] != self.owner:
            text = (
                f"{self.path} belongs to {found['owner']} and holds other things ({', '.join(others[:3])}):"
                " it is not taken over; name a folder of its own in the params"
            )
            return Change(self.label, "change", text, _access(found), desired, digest=digest, refusal=text)
        return Change(self.label, "change", reason, _access(found), desired, digest=digest, before=make)


@dataclass(frozen=True)
class User:
    """A system user with its own group, without a shell or a home."""

    name: str

    @property
    def label(self) -> str:
        """`user NAME`."""
        return f"user {self.name}"

    def looks(self) -> tuple[Look, ...]:
        """No path."""
        return ()

    def probe(self) -> str:
        """Read whether it is there."""
        return f"getent passwd {quote(self.name)} >/dev/null && echo type=user || echo type=none"

    def compare(self, found: Found) -> Change | None:
        """Make it where it is missing; one that is there stays as it is."""
        if found.get("type") == "user":
            return None
        make = (
            f"getent passwd {quote(self.name)} >/dev/null || useradd --system --user-group --no-create-home"
            f" --home-dir /nonexistent --shell /usr/sbin/nologin {quote(self.name)}"
        )
        return Change(self.label, "create", "missing", "", "system user, no shell", digest=self.name, before=make)


def staging_folder(path: str, token: str) -> str:
    """Where a payload for `path` waits: beside it, so that the rename is atomic (same file system)."""
    return posixpath.join(posixpath.dirname(path), f".runbook-{token}")
