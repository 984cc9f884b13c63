"""What the SHA-256 of a release tarball has to be: pinned, published, or noted when it first came.

flannel publishes no checksums. So the first tarball of a release that nobody vouches for is noted in the user's state
folder, and every later one has to be the same.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import tomllib
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Annotated

from platformdirs import user_state_path
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from runbook.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_SUMS_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(\S+)")


class Note(BaseModel):
    """The sum of a tarball as it first came here; `compared_with` says who vouched for it then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Sha256
    source: str
    compared_with: str
    time: str

    @property
    def day(self) -> str:
        """The UTC date on which it was noted."""
        return self.time[:10]


_NOTES = TypeAdapter(dict[str, Note])


@functools.cache
def _table() -> dict[str, str]:
    text = resources.files("runbook.downloads").joinpath("checksums.toml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Sha256]).validate_python(tomllib.loads(text))


def pinned(tarball: str) -> str | None:
    """Return the SHA-256 that this package pins for a release tarball, or None where it pins none."""
    return _table().get(tarball)


def published(text: str, tarball: str) -> str | None:
    """Find a tarball's sum in the text of a SHA256SUMS file; None where it isn't listed, or listed with two sums."""
    lines = (_SUMS_LINE.fullmatch(line.rstrip()) for line in text.splitlines())
    sums = {match[1].lower() for match in lines if match and match[2] == tarball}
    return sums.pop() if len(sums) == 1 else None


def of_file(path: Path) -> str:
    """Compute a file's SHA-256, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def notes_file() -> Path:
    """Return the path of the file of noted sums in the user's state folder; it need not exist."""
    return user_state_path("runbook") / "checksums.json"


def noted(tarball: str) -> Note | None:
    """Return what was noted when this tarball first came here.

    Raises:
        ArtifactError: The file of notes can't be read.
    """
    return _read_notes(notes_file()).get(tarball)


def note(tarball: str, sha256: str, source: str, compared_with: str) -> Note:
    """Note the sum of a tarball that came for the first time, unless there is a note; return the note that stands.

    Raises:
        ArtifactError: The file of notes can't be read or written.
    """
    path = notes_file()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = Note(sha256=sha256, source=source, compared_with=compared_with, time=now)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            notes = _read_notes(path)
            if (old := notes.get(tarball)) is not None:
                return old
            _write_notes(path, notes | {tarball: new})
    except OSError as error:
        raise ArtifactError(
            f"can't note the checksum of {tarball}: {error.strerror}",
            subject=str(path),
            remedy="make the folder writable for you",
        ) from error
    return new


def _read_notes(path: Path) -> dict[str, Note]:
    try:
        return _NOTES.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        # A file that can't be read must not pass for an empty one: that would trust anything anew.
        raise ArtifactError(
            f"the noted checksums can't be read: {str(error).splitlines()[0]}",
            subject=str(path),
            remedy="put the file back from a backup, or move it away if every sum in it may be noted anew",
        ) from error


def _write_notes(path: Path, notes: dict[str, Note]) -> None:
    beside = path.with_suffix(".new")
    data = json.dumps({name: item.model_dump() for name, item in sorted(notes.items())}, indent=2) + "\n"
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
