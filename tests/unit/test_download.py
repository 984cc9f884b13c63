"""One file from one place: bounded, hashed, gone when it fails."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import threading
import time
import urllib.request
from email.message import Message
from typing import TYPE_CHECKING

import pytest
from release_site import Site

from runbook.downloads.download import FetchFailed, Limits, _SameSafety, fetch_file, fetch_text, local_path, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DATA = b"release" * 100_000
QUICK = Limits(wait_s=0.3, total_s=5)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site({"/file": DATA, "/text": b"hello\n"}) as running:
        yield running


@pytest.fixture
def raw() -> Iterator[Callable[[bytes], str]]:
    """A server that sends these very bytes, then drips one byte at a time until the test ends; gives its address."""
    ends: list[Callable[[], None]] = []

    def serve(data: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        over = threading.Event()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(data)
                while not over.wait(0.02):
                    try:
                        connection.sendall(b".")
                    except OSError:
                        return

        thread = threading.Thread(target=answer)
        thread.start()
        ends.extend((over.set, thread.join, listener.close))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/file"

    yield serve
    for end in ends:
        end()


def test_http(site: Site, tmp_path: Path) -> None:
    """A file comes whole, and its sum is that of its bytes."""
    target = tmp_path / "file"
    assert fetch_file(f"{site.url}/file", target, Limits()) == hashlib.sha256(DATA).hexdigest()
    assert target.read_bytes() == DATA


def test_path_and_file_address(tmp_path: Path) -> None:
    """An absolute path and a file:// address, percent signs and all, name the same file."""
    there = tmp_path / "a b?#"
    there.write_bytes(DATA)
    for number, place in enumerate((str(there), there.as_uri())):
        target = tmp_path / str(number)
        assert fetch_file(place, target, Limits()) == hashlib.sha256(DATA).hexdigest()
        assert target.read_bytes() == DATA


def test_missing_is_told_apart(site: Site, tmp_path: Path) -> None:
    """A place that answers and hasn't got the file may have it under a second name; an unreachable one can't."""
    with pytest.raises(FetchFailed, match="HTTP 404") as absent:
        fetch_file(f"{site.url}/other", tmp_path / "x", QUICK)
    assert absent.value.missing
    with pytest.raises(FetchFailed, match="no such file") as absent:
        fetch_file(str(tmp_path / "other"), tmp_path / "x", QUICK)
    assert absent.value.missing
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(FetchFailed, match="refused") as dead:
        fetch_file(f"http://127.0.0.1:{port}/file", tmp_path / "x", QUICK)
    assert not dead.value.missing


def test_pipe_is_no_file(tmp_path: Path) -> None:
    """A pipe in a mirror's folder doesn't hold us for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FetchFailed, match="no such file"):
        fetch_file(str(tmp_path / "pipe"), tmp_path / "x", QUICK)


@pytest.mark.parametrize("place", ["mirror/folder", "ftp://127.0.0.1/x", "http:///x", "file://elsewhere/x", ""])
def test_other_places_are_refused(place: str, tmp_path: Path) -> None:
    """Only http, https and absolute local paths are taken."""
    with pytest.raises(FetchFailed, match="neither an http or https address nor an absolute path"):
        fetch_file(place, tmp_path / "x", QUICK)


def test_server_that_never_answers(site: Site, tmp_path: Path) -> None:
    """A server that takes the connection and says nothing is left after the wait."""
    site.hanging.add("/file")
    started = time.monotonic()
    with pytest.raises(FetchFailed, match=re.escape("no answer within 0.3 s")):
        fetch_file(f"{site.url}/file", tmp_path / "x", QUICK)
    assert time.monotonic() - started < 3
    assert not (tmp_path / "x").exists()


def test_server_that_stops_halfway(site: Site, tmp_path: Path) -> None:
    """A server that stops in the middle is left after the wait, and nothing of the file stays."""
    site.halved.add("/file")
    with pytest.raises(FetchFailed, match=re.escape("no answer within 0.3 s")):
        fetch_file(f"{site.url}/file", tmp_path / "x", QUICK)
    assert list(tmp_path.iterdir()) == []


def test_truncated(site: Site, tmp_path: Path) -> None:
    """A connection that ends early is a failure that tells how much came, not a short file."""
    site.halved.add("/file")
    site.go_on.set()
    with pytest.raises(FetchFailed, match=f"ended after {len(DATA) // 2} of {len(DATA)} bytes"):
        fetch_file(f"{site.url}/file", tmp_path / "x", QUICK)
    assert list(tmp_path.iterdir()) == []


def test_dripping_server_is_bounded(raw: Callable[[bytes], str], tmp_path: Path) -> None:
    """A server that sends a byte now and then never passes the deadline in all."""
    address = raw(b"HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    with pytest.raises(FetchFailed, match=re.escape("not done within 0.3 s")):
        fetch_file(address, tmp_path / "x", Limits(wait_s=5, total_s=0.3))


def test_too_large(site: Site, tmp_path: Path) -> None:
    """A file past the bound is left."""
    with pytest.raises(FetchFailed, match="more than 0 MiB"):
        fetch_file(f"{site.url}/file", tmp_path / "x", Limits(size=1000))
    assert list(tmp_path.iterdir()) == []


def test_no_http(raw: Callable[[bytes], str], tmp_path: Path) -> None:
    """Something else than HTTP on the port is said so."""
    with pytest.raises(FetchFailed, match="no proper HTTP answer"):
        fetch_file(raw(b"SSH-2.0-OpenSSH_9.2\r\n"), tmp_path / "x", QUICK)


def test_closed_without_an_answer(site: Site, tmp_path: Path) -> None:
    """A server that takes the request and hangs up is said so."""
    site.hanging.add("/file")
    site.go_on.set()
    with pytest.raises(FetchFailed, match="closed without an answer"):
        fetch_file(f"{site.url}/file", tmp_path / "x", QUICK)


def test_existing_target_stays(site: Site, tmp_path: Path) -> None:
    """A file that is there already is never written over."""
    (tmp_path / "x").write_text("mine")
    with pytest.raises(FileExistsError):
        fetch_file(f"{site.url}/file", tmp_path / "x", QUICK)


def test_account_goes_to_the_mirror_only(site: Site, tmp_path: Path) -> None:
    """User and password in a mirror's address are sent to it, not to where it redirects."""
    with Site({"/moved": DATA}) as elsewhere:
        site.redirects["/file"] = f"{elsewhere.url}/moved"
        fetch_file(f"{site.url.replace('//', '//user:p%40ss@')}/file", tmp_path / "x", QUICK)
        assert elsewhere.authorizations == [None]
    assert site.authorizations == ["Basic " + base64.b64encode(b"user:p@ss").decode()]


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirect_out_of_http(where: str, site: Site, tmp_path: Path) -> None:
    """A redirect to another scheme isn't followed."""
    site.redirects["/file"] = where
    with pytest.raises(FetchFailed, match=r"(?i)redirect"):
        fetch_file(f"{site.url}/file", tmp_path / "x", QUICK)
    assert list(tmp_path.iterdir()) == []


def test_redirect_out_of_tls() -> None:
    """What was asked for over TLS never comes without it."""
    request = urllib.request.Request("https://site.example/file")
    with pytest.raises(FetchFailed, match="redirects from https to http,"):
        _SameSafety().redirect_request(request, None, 302, "Found", Message(), "http://site.example/file")
    followed = _SameSafety().redirect_request(request, None, 302, "Found", Message(), "https://other.example/file")
    assert followed is not None
    assert followed.full_url == "https://other.example/file"


def test_text(site: Site) -> None:
    """A small text is read; one that is no text is refused."""
    assert fetch_text(f"{site.url}/text") == "hello\n"
    site.files["/text"] = b"\x1f\x8b\xff"
    with pytest.raises(FetchFailed, match="no plain text"):
        fetch_text(f"{site.url}/text")
    site.files["/text"] = b"x" * (2 << 20)
    with pytest.raises(FetchFailed, match="more than 1 MiB"):
        fetch_text(f"{site.url}/text")


def test_shown_and_local() -> None:
    """An address is shown without user, password and query; local ones are told from the others."""
    assert shown("https://me:secret@mirror.example:8443/etcd?token=secret") == "https://mirror.example:8443/etcd"
    assert shown("/srv/mirror") == "/srv/mirror"
    assert [str(local_path(place)) for place in ("/srv/m", "file:///srv/a%20b", "https://x/y", "rel/m")] == [
        "/srv/m",
        "/srv/a b",
        "None",
        "None",
    ]
