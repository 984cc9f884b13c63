"""What a cluster needs kept on this side, by its name, in the user's state folder; never in a working tree.

A cluster's folder holds its CA and keys, so it is ours alone (0700) from the first moment, and it notes the hosts of
the nodes it belongs to: a name that is used again for other machines must not get the old cluster's CA.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from typing import TYPE_CHECKING, Any, Final

import platformdirs

from runbook.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbook.params import Cluster

NOTE: Final = "nodes.json"
_BESIDE: Final = ".nodes.json.new"
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022


def state_dir() -> Path:
    """The user's state folder for this program (XDG_STATE_HOME is heeded); it need not exist yet.

    Raises:
        StateError: XDG_STATE_HOME is not absolute, so the folder would depend on where we run.
    """
    path = platformdirs.user_state_path("runbook")
    if not path.is_absolute():
        raise StateError("is not an absolute path", subject=f"XDG_STATE_HOME ({path})", remedy="unset or correct it")
    return path


def cluster_dir(cluster: Cluster, *, create: bool = True) -> Path:
    """The folder kept for a cluster, checked to be ours and to belong to these nodes.

    Args:
        cluster: The params; their hosts are noted in the folder, and the note follows them as nodes come and go.
        create: Make the folder and write the note. False writes nothing, and the folder may be missing (for plans).

    Raises:
        StateError: It is a link, another user's or open to others, it belongs to a cluster of other nodes, or it can't
            be used.
    """
    top = state_dir()
    folder = top / "clusters" / cluster.name
    if create:
        _make(top, parents=True)
        _make(folder.parent)
        _make(folder)
    hosts = {node.name: node.host for node in cluster.nodes}
    with _errors_told(folder):
        _check_top(top)
        _checked_mode(folder.parent)
        with _locked(folder, exclusive=create) as fd:
            if fd is not None:
                _check_note(cluster.name, folder, fd, hosts, write=create)
    return folder


def pki_dir(cluster: Cluster, *, create: bool = True) -> Path:
    """The folder of the cluster's CA and keys: `pki.dir` of the params, or `pki` in the cluster's own folder.

    Raises:
        StateError: It is another user's, or others can write in it (or, in the cluster's own folder, look into it).
    """
    folder = cluster.pki.dir or cluster_dir(cluster, create=create) / "pki"
    if create:
        _make(folder, parents=cluster.pki.dir is not None)
    with _errors_told(folder):
        if cluster.pki.dir is None:
            _checked_mode(folder)
        elif create or folder.exists():
            _check(folder, folder.stat(), _OTHERS_WRITE)
    return folder


def _make(folder: Path, *, parents: bool = False) -> None:
    with _errors_told(folder):
        if parents:
            folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(0o700)


@contextlib.contextmanager
def _errors_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"can't be used: {error.strerror or error}"
        remedy = "see to its owner, its mode and the free space, or set XDG_STATE_HOME to another place"
        raise StateError(reason, subject=str(error.filename or folder), remedy=remedy) from None


def _check_top(top: Path) -> None:
    if top.exists():
        _check(top, top.stat(), _OTHERS_WRITE)


def _checked_mode(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        _check(folder, folder.lstat(), _OTHERS)


def _check(folder: Path, found: os.stat_result, forbidden: int) -> None:
    """Refuse a folder whose content someone else could have put there, or could take."""
    subject = str(folder)
    if stat.S_ISLNK(found.st_mode):
        raise StateError(
            "is a symbolic link; a folder is expected", subject=subject, remedy="put the folder itself here"
        )
    if not stat.S_ISDIR(found.st_mode):
        raise StateError("is not a folder", subject=subject, remedy="move it away")
    if found.st_uid != os.geteuid():
        text = f"belongs to user id {found.st_uid}, and this runs as {os.geteuid()}"
        raise StateError(text, subject=subject, remedy="run as the user who built the cluster, or chown the folder")
    if found.st_mode & forbidden:
        what = "write in it" if forbidden == _OTHERS_WRITE else "get in"
        text = f"has mode {stat.S_IMODE(found.st_mode):04o}, so others can {what}"
        raise StateError(text, subject=subject, remedy=f"look at what it holds, then: chmod go-rwx {subject}")


@contextlib.contextmanager
def _locked(folder: Path, *, exclusive: bool) -> Iterator[int | None]:
    """The open folder, locked against other runs; None where there is none and none is to be made."""
    _checked_mode(folder)  # tells a link apart before it is opened; the open one is checked again
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        if exclusive:
            raise
        yield None
        return
    try:
        _check(folder, os.fstat(fd), _OTHERS)
        fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield fd
    finally:
        os.close(fd)


def _check_note(name: str, folder: Path, fd: int, hosts: dict[str, str], *, write: bool) -> None:
    noted = _noted(folder, fd)
    if noted and not set(noted.values()) & set(hosts.values()):
        raise StateError(
            f"belongs to a cluster of {_told(noted)}, and the params name {_told(hosts)}: none in common",
            subject=str(folder),
            remedy=f"give the new cluster another name than {name!r}; or, if the old one is gone for good, remove the "
            "folder (its CA and keys go with it)",
        )
    if write and noted != hosts:
        _write_note(fd, {"cluster": name, "nodes": hosts})


def _told(hosts: dict[str, str]) -> str:
    return ", ".join(f"{name} ({host})" for name, host in hosts.items())


def _noted(folder: Path, fd: int) -> dict[str, str] | None:
    """The hosts noted, by node name; None in a folder that is still empty."""
    try:
        note = os.open(NOTE, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
    except FileNotFoundError:
        others = sorted(set(os.listdir(fd)) - {_BESIDE})
        if not others:
            return None
        raise StateError(
            f"holds {', '.join(others[:3])} but no {NOTE}, so nothing tells whose it is",
            subject=str(folder),
            remedy=f"put {NOTE} back from a backup, or move the folder away",
        ) from None
    with open(note, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        content = file.read()
    try:
        nodes: Any = json.loads(content)["nodes"]
        if nodes and all(isinstance(host, str) for host in nodes.values()):
            return dict(nodes)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    remedy = "put it back from a backup, or move the folder away"
    raise StateError("is damaged: it doesn't tell the nodes of a cluster", subject=str(folder / NOTE), remedy=remedy)


def _write_note(fd: int, note: dict[str, Any]) -> None:
    """Write the note whole or not at all: beside, to the disk, then under its name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with open(os.open(_BESIDE, flags, 0o600, dir_fd=fd), "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(json.dumps(note, indent=2).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(_BESIDE, NOTE, src_dir_fd=fd, dst_dir_fd=fd)
    os.fsync(fd)
