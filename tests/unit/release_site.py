"""A real HTTP server on the loopback that plays mirror and release site, and the tarballs it serves."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from runbook.downloads.releases import Release

if TYPE_CHECKING:
    from collections.abc import Mapping

ETCD = Release("etcd", "3.6.16", "amd64")  # not pinned
ETCD_PINNED = Release("etcd", "3.5.21", "amd64")
FLANNEL = Release("flannel", "0.26.7", "amd64")  # not pinned, and upstream publishes no sums
FILES = {
    "etcd": b"\x7fELF etcd",
    "etcdctl": b"\x7fELF etcdctl",
    "etcdutl": b"\x7fELF etcdutl",
    "flanneld": b"\x7fELF flanneld",
    "mk-docker-opts.sh": b"#!/bin/sh\n",
}


def tarball(
    release: Release, extra: bytes = b"", *, leave_out: str = "", members: tuple[tarfile.TarInfo, ...] = ()
) -> bytes:
    """Make a release's tarball as upstream lays it out; `members` go in front, as they are."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
        readme = tarfile.TarInfo("README.md")
        readme.size = 4
        archive.addfile(readme, io.BytesIO(b"read"))
        for inside, name in release.members.items():
            if name != leave_out:
                data = FILES[name] + extra
                member = tarfile.TarInfo(inside)
                member.size, member.mode = len(data), 0o755
                archive.addfile(member, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), mtime=0)


def sums(files: Mapping[str, bytes]) -> bytes:
    """Make the text of a SHA256SUMS file."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()).encode()


def paths(release: Release, data: bytes, *, listed: bytes | None = None) -> dict[str, bytes]:
    """Lay out a release as its site does; with `listed`, SHA256SUMS holds the sum of these bytes."""
    found = {f"/v{release.version}/{release.tarball}": data}
    if listed is not None:
        found[f"/v{release.version}/SHA256SUMS"] = sums({release.tarball: listed})
    return found


class Site:
    """An HTTP server; `files` may be changed while it runs, `asked` are the paths it was asked for.

    A path in `halved` gets half of its bytes, then the connection waits for `go_on` and ends.
    A path in `hanging` gets no answer, one in `late` gets it, after `go_on`. One in `redirects` is sent elsewhere.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.files = dict(files or {})
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        self.halved: set[str] = set()
        self.hanging: set[str] = set()
        self.late: set[str] = set()
        self.redirects: dict[str, str] = {}
        self.go_on = threading.Event()
        self.was_asked = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):  # the client may have gone: it was made to give up
                    site.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path
        self.asked.append(path)
        self.authorizations.append(handler.headers["Authorization"])
        self.was_asked.set()
        if path in self.hanging:
            self.go_on.wait(30)
            return
        if path in self.late:
            self.go_on.wait(30)
        data = self.files.get(path)
        if path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[path])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        elif data is None:
            handler.send_error(404)
        else:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            if path in self.halved:
                handler.wfile.write(data[: len(data) // 2])
                handler.wfile.flush()
                self.go_on.wait(30)
            else:
                handler.wfile.write(data)
