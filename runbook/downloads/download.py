"""Bring one file here, over HTTP or from a folder: bounded in time and size, hashed while it is written."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from email.message import Message

_CHUNK_BYTES = 1 << 18
_ABSENT = {403, 404, 410}  # storage sites answer 403 for what they haven't got
_AGENT = "etcd-flannel-runbook"


class FetchFailed(Exception):
    """A file can't be had from one place; the text says how it failed. Never shown by itself: other places may do.

    `missing` is true where the place answered and hasn't got it, so that a second name there is worth asking for;
    `remedy` is what would let this place have it, where there is something to do.
    """

    def __init__(self, reason: str, *, missing: bool = False, remedy: str = "") -> None:
        super().__init__(reason)
        self.missing = missing
        self.remedy = remedy


@dataclass(frozen=True)
class Limits:
    """What one download may take: seconds for each wait, seconds in all, and bytes."""

    wait_s: float = 10.0
    total_s: float = 900.0
    size: int = 300 << 20


SMALL = Limits(total_s=30.0, size=1 << 20)


class _SameSafety(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to http or https, and never from https back to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: object, code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ({"https"} if req.type == "https" else {"http", "https"}):
            raise FetchFailed(f"it redirects from {req.type} to {scheme or 'nowhere'}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def shown(place: str) -> str:
    """Give an address as it may be printed: without user, password and query."""
    parts = urllib.parse.urlsplit(place)
    if not parts.scheme:
        return place
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def local_path(place: str) -> Path | None:
    """Return the path that an absolute path or a file:// address names; None for anything else."""
    parts = urllib.parse.urlsplit(place)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return Path(urllib.parse.unquote(parts.path))
    return Path(place) if place.startswith("/") else None


def fetch_file(place: str, target: Path, limits: Limits) -> str:
    """Copy what is at a place into a new file, and return its SHA-256 in hexadecimal.

    Args:
        place: An http or https address, which may hold user and password; a file:// address; or an absolute path.
        target: The file to make; gone again where this fails.
        limits: The time and size it may take.

    Raises:
        FetchFailed: It isn't there, or can't be had within the limits.
    """
    digest = hashlib.sha256()
    try:
        with target.open("xb") as sink:
            _copy(place, sink, digest, limits)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


def fetch_text(place: str) -> str:
    """Read a small text, such as SHA256SUMS, from a place as `fetch_file` takes it.

    Raises:
        FetchFailed: It isn't there, is no text, or can't be had within half a minute and 1 MiB.
    """
    sink = io.BytesIO()
    _copy(place, sink, hashlib.sha256(), SMALL)
    try:
        return sink.getvalue().decode("ascii")
    except UnicodeDecodeError:
        raise FetchFailed("it is no plain text") from None


def _copy(place: str, sink: BinaryIO, digest: hashlib._Hash, limits: Limits) -> None:
    path = local_path(place)
    try:
        with _open(place, limits) if path is None else _open_file(path) as stream:
            _pump(stream, sink, digest, limits)
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchFailed(f"HTTP {error.code} {error.reason}", missing=error.code in _ABSENT) from None
    except http.client.IncompleteRead:
        raise FetchFailed("the connection ended before the whole file had come") from None
    except http.client.RemoteDisconnected:
        raise FetchFailed("the connection was closed without an answer") from None
    except http.client.HTTPException as error:
        raise FetchFailed(f"no proper HTTP answer ({type(error).__name__})") from None
    except FileNotFoundError:
        raise FetchFailed("no such file", missing=True) from None
    except OSError as error:
        # urllib wraps what the socket or TLS said while it connects, not what they say later.
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            raise FetchFailed(f"no answer within {limits.wait_s:g} s") from None
        raise FetchFailed(str(getattr(cause, "strerror", None) or cause)) from None


def _open_file(path: Path) -> BinaryIO:
    if not path.is_file():  # a pipe or a device would hold us for ever
        raise FetchFailed("no such file", missing=True)
    return path.open("rb")


def _open(place: str, limits: Limits) -> http.client.HTTPResponse:
    parts = urllib.parse.urlsplit(place)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise FetchFailed("neither an http or https address nor an absolute path")
    account, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(  # noqa: S310 - the scheme was just checked
        urllib.parse.urlunsplit(parts._replace(netloc=host)), headers={"User-Agent": _AGENT}
    )
    if account:
        # Unredirected: where a mirror sends us elsewhere, the password stays with the mirror.
        token = base64.b64encode(urllib.parse.unquote(account).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    opener = urllib.request.build_opener(_SameSafety)
    response = opener.open(request, timeout=limits.wait_s)
    if not isinstance(response, http.client.HTTPResponse):
        raise FetchFailed("no HTTP answer")
    return response


def _pump(stream: BinaryIO | http.client.HTTPResponse, sink: BinaryIO, digest: hashlib._Hash, limits: Limits) -> None:
    deadline = time.monotonic() + limits.total_s
    size = 0
    expected = stream.length if isinstance(stream, http.client.HTTPResponse) else None
    # read1 returns what one receive brought: a server that drips can't hold us past the deadline.
    read = stream.read1 if isinstance(stream, http.client.HTTPResponse) else stream.read
    while chunk := read(_CHUNK_BYTES):
        size += len(chunk)
        if size > limits.size:
            raise FetchFailed(f"more than {limits.size >> 20} MiB")
        if time.monotonic() > deadline:
            raise FetchFailed(f"not done within {limits.total_s:g} s")
        digest.update(chunk)
        sink.write(chunk)
    if expected is not None and size != expected:
        raise FetchFailed(f"the connection ended after {size} of {expected} bytes")
