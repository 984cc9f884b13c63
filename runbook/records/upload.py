"""Closed records kept elsewhere too: copied to any fsspec address, then read back and compared."""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from runbook import errors
from runbook.late import late
from runbook.plain_text import clean
from runbook.records import sumfile, summary
from runbook.records.sumfile import SIGNATURE, SUMS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

late("fsspec")  # every run looks whether its record goes elsewhere; few do
import fsspec  # noqa: E402

_CHANGED = "runbook verify says what holds; a changed record is not uploaded"
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
_USERINFO = re.compile(r"(?<=://)[^/@]*@")
#: These have no folders to make; asked for one, some make a bucket, which a misspelt name must not.
_BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "az", "oci", "oss", "tos"}


def is_remote(text: str) -> bool:
    """Whether a records address is for fsspec (`s3://bucket/prefix`, `file:///srv/records`), not a plain folder."""
    return _REMOTE.match(text) is not None


def upload(folder: Path, target: str) -> None:
    """Copy a closed record to `TARGET/<cluster>/<record>/`, SHA256SUMS last; then read every file back and compare.

    What is there already with the same bytes is kept, so an upload that broke off can be begun again. Credentials are
    the driver's matter: environment, profile or instance role.

    Args:
        folder: The record: closed, its files as SHA256SUMS has them.
        target: Any fsspec address. A bucket is not made.

    Raises:
        RunbookError: the record isn't closed or was changed since; the driver isn't installed; the store doesn't
            answer or refuses; another record of that name is there; a file read back is another or missing.
    """
    local = _closed(folder)
    where = f"{shown(target)}/{'/'.join(_place(folder))}"
    store, root = _store(target)
    base = "/".join([root.rstrip("/"), *_place(folder)])
    with _told(where, target, folder):
        there = _there(store, base)
    _refuse_other(there, local, where)
    has_folders = target.partition("://")[0].rpartition("::")[2] not in _BUCKETS
    for name, data in local.items():
        if there.get(name) != data:
            with _told(f"{where}/{name}", target, folder):
                path = f"{base}/{name}"
                if has_folders:
                    store.makedirs(path.rpartition("/")[0], exist_ok=True)
                store.pipe_file(path, data)
    with _told(where, target, folder):
        there = _there(store, base)
    _compare(there, local, where)


def shown(target: str) -> str:
    """The address without a user or password in it, for messages and records."""
    return _USERINFO.sub("***@", target).rstrip("/")


def _place(folder: Path) -> tuple[str, str]:
    """Cluster and record: the last two parts of the address."""
    cluster = str(summary.load(folder).get("cluster"))
    if not re.fullmatch(r"[\w.-]+", cluster) or cluster.startswith("."):
        raise errors.RunbookError(f"{cluster!r} is no cluster's name", subject=str(folder / summary.NAME))
    return cluster, folder.resolve().name


def _closed(folder: Path) -> dict[str, bytes]:
    """The files of a closed record by name, SHA256SUMS last; each has the sum that is in there."""
    sums = sumfile.text(folder / SUMS)
    if sums is None:
        raise errors.RunbookError(
            "is no closed record: it has no SHA256SUMS", subject=str(folder), remedy=f"runbook close {folder}"
        )
    wanted, faults = sumfile.parse(sums)
    if faults or not wanted:
        told = faults[0] if faults else "it is empty"
        raise errors.RunbookError(f"can't be used: {told}", subject=str(folder / SUMS), remedy=_CHANGED)
    try:
        there = set(sumfile.inside(folder)) - {SUMS, SIGNATURE}
        if odd := sorted(there ^ set(wanted)):
            told = "is missing" if odd[0] in wanted else "is not under SHA256SUMS: it came after the record was closed"
            raise errors.RunbookError(told, subject=str(folder / odd[0]), remedy=_CHANGED)
        local = {name: sumfile.content(folder / name) for name in wanted}
        if (folder / SIGNATURE).is_file():
            local[SIGNATURE] = sumfile.content(folder / SIGNATURE)
    except OSError as error:
        raise errors.RunbookError(f"can't be read: {error}", subject=str(folder)) from error
    for name, sum_ in wanted.items():
        if hashlib.sha256(local[name]).hexdigest() != sum_:
            told = "was changed after the record was closed: its sha256 is not the one in SHA256SUMS"
            raise errors.RunbookError(told, subject=str(folder / name), remedy=_CHANGED)
    return local | {SUMS: sums.encode()}


def _store(target: str) -> tuple[fsspec.AbstractFileSystem, str]:
    protocol = target.partition("://")[0].partition("::")[0]
    try:
        # A cached instance may have another's credentials, or an old listing.
        store, root = fsspec.core.url_to_fs(target, skip_instance_cache=True)
    except ImportError as error:
        from fsspec.registry import known_implementations  # noqa: PLC0415 - as above

        known = known_implementations.get(protocol, {})
        package = str(known.get("class", protocol)).partition(".")[0]
        told = f"pip install {package}" if package != "fsspec" else str(known.get("err") or error)
        raise errors.RunbookError(
            f"the driver for {protocol}:// is not installed", subject=shown(target), remedy=told
        ) from error
    except Exception as error:
        raise errors.RunbookError(
            f"can't be used: {_text(error, target)}",
            subject=shown(target),
            remedy="an address as in s3://bucket/prefix or file:///srv/records",
        ) from error
    return store, str(root)


def _there(store: fsspec.AbstractFileSystem, base: str) -> dict[str, bytes]:
    """The files under the address, by name."""
    store.invalidate_cache()
    try:
        paths = [str(path) for path in store.find(base)]
    except FileNotFoundError:
        return {}
    return {path.rpartition(f"{base.strip('/')}/")[2]: store.cat_file(path) for path in paths}


def _refuse_other(there: dict[str, bytes], local: dict[str, bytes], where: str) -> None:
    strange = sorted(set(there) - set(local) - {SIGNATURE})
    # An upload that was cut off leaves the beginning of a file, in stores that don't write whole objects.
    strange += [name for name, data in local.items() if name in there and not data.startswith(there[name])]
    if not strange:
        return
    if there.get(SUMS) == local[SUMS]:
        raise errors.RunbookError(
            "was changed in the store: its sha256 is not the one in SHA256SUMS",
            subject=f"{where}/{strange[0]}",
            remedy="find out who wrote it; remove the file there and upload again",
        )
    raise errors.RunbookError(
        "another record of that name is there; nothing was written",
        subject=f"{where}/{strange[0]}",
        remedy="upload to another address, or find out whose that one is",
    )


def _compare(there: dict[str, bytes], local: dict[str, bytes], where: str) -> None:
    for name, data in local.items():
        if name not in there:
            raise errors.RunbookError("is missing after the upload", subject=f"{where}/{name}", remedy="upload again")
        if hashlib.sha256(there[name]).digest() != hashlib.sha256(data).digest():
            raise errors.RunbookError(
                "was read back with another sha256 than SHA256SUMS has",
                subject=f"{where}/{name}",
                remedy="remove the file there and upload again",
            )


@contextlib.contextmanager
def _told(where: str, target: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each store's driver raises its own kinds
        raise errors.RunbookError(
            f"can't be written or read: {_text(error, target)}",
            subject=where,
            remedy=f"the record is whole in {folder}; upload it again, and what is there already is kept",
        ) from error


def _text(error: Exception, target: str) -> str:
    text = clean(f"{type(error).__name__}: {error}")
    if userinfo := _USERINFO.search(target):
        for secret in {part for one in (userinfo[0], unquote(userinfo[0])) for part in (one, *one[:-1].split(":"))}:
            text = text.replace(secret, "***") if len(secret) > 1 else text
    return text
