"""runbook.records.upload: a record elsewhere is the same bytes, or an error names the file."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING

import fsspec
import past_run
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from runbook.errors import RunbookError
from runbook.records import summary, upload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIEnvironment

registry = importlib.import_module("fsspec.registry")  # the package has a mapping of this name
NAME = "20261123T021314Z"
PLACE = f"sandbox/{NAME}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed record with a few notebooks, signed."""
    notebooks = {f"{number:02d}_x.ipynb": past_run.executed_notebook(f"phase {number}") for number in range(3)}
    made = past_run.past_run(tmp_path / "records", NAME, past_run.told(), notebooks)
    (made / "SHA256SUMS.sig").write_text("signature")
    return made


@pytest.fixture
def memory() -> Iterator[str]:
    """An empty store in memory."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield "memory://evidence"
    MemoryFileSystem.store.clear()


class S3:
    """A real S3 server on loopback; `before` sees each request and may end it. What it keeps outlives a stop."""

    def __init__(self) -> None:
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        self.inner = DomainDispatcherApplication(create_backend_app)
        self.port = 0
        self.start()
        self.port = self.server.server_port

    def app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.before(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        answer: Iterable[bytes] = self.inner(environ, start_response)
        return answer

    def start(self) -> None:
        self.server = make_server("127.0.0.1", self.port, self.app, threaded=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3]:
    """The server, with a bucket `evidence` and none of the caller's own AWS settings."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    made = S3()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{made.port}",
        "AWS_ACCESS_KEY_ID": "AKIATESTING",
        "AWS_SECRET_ACCESS_KEY": "not-a-secret-of-anyone",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        bucket().mkdir("evidence")
        yield made
    finally:
        made.stop()
        get_backend("s3").reset()


def bucket() -> fsspec.AbstractFileSystem:
    return fsspec.filesystem("s3", skip_instance_cache=True)


def same(store: fsspec.AbstractFileSystem, base: str, folder: Path) -> bool:
    """Whether the store has the record's files, all of them and no other, byte by byte."""
    store.invalidate_cache()
    there = {str(path).rpartition("/")[2]: store.cat_file(path) for path in store.find(base)}
    return there == {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(folder: Path, target: str) -> str:
    with pytest.raises(RunbookError) as caught:
        upload.upload(folder, target)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("s3://bucket/prefix", True),
        ("file:///srv/records", True),
        ("memory://", True),
        ("simplecache::s3://bucket", True),
        ("records", False),
        ("/srv/records", False),
        ("./a:b", False),
        ("C:\\records", False),
        ("://x", False),
        ("", False),
    ],
)
def test_what_is_remote(text: str, remote: bool) -> None:  # noqa: FBT001 - a value under test
    """An address with a scheme is remote, a plain path is not."""
    assert upload.is_remote(text) is remote


# ---- S3


def test_s3(s3: S3, folder: Path) -> None:
    """A record goes to TARGET/<cluster>/<record>/ of a real S3 server whole, SHA256SUMS last; again is fine."""
    order: list[str] = []
    s3.before = lambda method, path: order.append(path.rpartition("/")[2]) if method == "PUT" else None
    upload.upload(folder, "s3://evidence/2026/")
    assert same(bucket(), f"evidence/2026/{PLACE}", folder)
    assert sorted(order) == sorted(path.name for path in folder.iterdir())
    assert order[-2:] == ["SHA256SUMS.sig", "SHA256SUMS"]
    order.clear()
    upload.upload(folder, "s3://evidence/2026/")
    assert order == []


def test_s3_dies_in_the_middle(s3: S3, folder: Path) -> None:
    """A server that dies during the upload is an error that names the file; later the upload is completed."""
    puts: list[str] = []

    def die(method: str, path: str) -> None:
        if method == "PUT":
            puts.append(path)
            if len(puts) == 3:
                s3.stop()
                raise ConnectionAbortedError

    s3.before = die
    message = refused(folder, "s3://evidence")
    assert message.startswith(f"s3://evidence/{PLACE}/02_x.ipynb: can't be written or read: ")
    assert f"the record is whole in {folder}; upload it again" in message
    assert "not-a-secret" not in message
    assert not s3.thread.is_alive()
    s3.start()
    assert len(bucket().find(f"evidence/{PLACE}")) == 2
    upload.upload(folder, "s3://evidence")
    assert same(bucket(), f"evidence/{PLACE}", folder)
    assert len(puts) > 3


def test_s3_is_not_there(s3: S3, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that doesn't answer at all is an error that names the address, within a moment."""
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        message = refused(folder, "s3://evidence")
    assert message.startswith(f"s3://evidence/{PLACE}: can't be written or read: ")
    assert s3.thread.is_alive()


def test_a_bucket_is_not_made(s3: S3, folder: Path) -> None:
    """A misspelt bucket is an error: none of that name is made."""
    made: list[str] = []
    s3.before = lambda method, path: made.append(path) if method == "PUT" and path.count("/") == 1 else None
    assert "s3://evidense/" in refused(folder, "s3://evidense")
    assert made == []
    assert not bucket().exists("evidense")


def test_s3_without_its_driver(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where s3fs isn't installed, the error says how to install it."""
    for protocol, module in (("s3", "s3fs"), ("smb", "smbprotocol")):
        monkeypatch.delitem(registry._registry, protocol, raising=False)
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.smb", raising=False)
    assert refused(folder, "s3://u:pw@evidence/x/") == (
        "s3://***@evidence/x: the driver for s3:// is not installed\n  -> pip install s3fs"
    )
    assert refused(folder, "smb://host/x").endswith(
        '-> SMB requires "smbprotocol" or "smbprotocol[kerberos]" installed'
    )


# ---- stores of every kind


def test_a_folder_by_address(folder: Path, tmp_path: Path) -> None:
    """file:// makes its folders; a second upload changes nothing."""
    target = f"file://{tmp_path}/srv/evidence"
    upload.upload(folder, target)
    base = tmp_path / "srv/evidence" / PLACE
    assert same(fsspec.filesystem("file"), str(base), folder)
    times = {path: path.stat().st_mtime_ns for path in base.iterdir()}
    upload.upload(folder, target)
    assert {path: path.stat().st_mtime_ns for path in base.iterdir()} == times


def test_files_in_folders(folder: Path, tmp_path: Path, memory: str) -> None:
    """A record's sums may cover folders: they go along."""
    (folder / "more").mkdir()
    (folder / "more/x").write_text("x")
    sums = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(sums + f"{hashlib.sha256(b'x').hexdigest()}  more/x\n")
    upload.upload(folder, f"file://{tmp_path}/to")
    assert (tmp_path / "to" / PLACE / "more/x").read_text() == "x"
    upload.upload(folder, memory)
    assert fsspec.filesystem("memory").cat_file(f"/evidence/{PLACE}/more/x") == b"x"


def test_a_half_written_file_is_completed(folder: Path, tmp_path: Path) -> None:
    """The beginning of a file, which a broken upload leaves in a folder, is written anew."""
    base = tmp_path / "to" / PLACE
    base.mkdir(parents=True)
    (base / "00_x.ipynb").write_bytes((folder / "00_x.ipynb").read_bytes()[:50])
    (base / "01_x.ipynb").touch()
    upload.upload(folder, f"file://{tmp_path}/to")
    assert same(fsspec.filesystem("file"), str(base), folder)


@pytest.mark.parametrize("name", ["00_x.ipynb", "SHA256SUMS", "99_other.ipynb"])
def test_another_record_is_not_written_over(folder: Path, memory: str, name: str) -> None:
    """What is there with other bytes, or is not of this record, is left alone, and named."""
    store = fsspec.filesystem("memory")
    store.pipe_file(f"/evidence/{PLACE}/{name}", b"other")
    message = refused(folder, memory)
    assert message.startswith(f"memory://evidence/{PLACE}/{name}: another record of that name is there; nothing was")
    assert [store.cat_file(path) for path in store.find("/evidence")] == [b"other"]


def test_a_file_changed_in_the_store(folder: Path, memory: str) -> None:
    """A file that was changed after the upload is named, and not mended in silence."""
    upload.upload(folder, memory)
    store = fsspec.filesystem("memory")
    store.pipe_file(f"/evidence/{PLACE}/params.yaml", b"cluster: {}")
    assert refused(folder, memory).startswith(f"memory://evidence/{PLACE}/params.yaml: was changed in the store")
    assert store.cat_file(f"/evidence/{PLACE}/params.yaml") == b"cluster: {}"


def test_a_signature_made_later_goes_along(folder: Path, memory: str) -> None:
    """A record that was uploaded unsigned gets its signature; one uploaded signed keeps it."""
    signature = (folder / "SHA256SUMS.sig").read_bytes()
    (folder / "SHA256SUMS.sig").unlink()
    upload.upload(folder, memory)
    (folder / "SHA256SUMS.sig").write_bytes(signature)
    upload.upload(folder, memory)
    assert same(fsspec.filesystem("memory"), f"/evidence/{PLACE}", folder)
    (folder / "SHA256SUMS.sig").unlink()
    upload.upload(folder, memory)
    assert fsspec.filesystem("memory").cat_file(f"/evidence/{PLACE}/SHA256SUMS.sig") == signature


@pytest.mark.parametrize(("kept", "said"), [(b"{}", "was read back with another sha256"), (None, "is missing after")])
def test_read_back(folder: Path, memory: str, monkeypatch: pytest.MonkeyPatch, kept: bytes | None, said: str) -> None:
    """A store that keeps other bytes than it was given, or none, is found out, and the file named."""
    pipe_file = MemoryFileSystem.pipe_file

    def lossy(store: MemoryFileSystem, path: str, value: bytes, **options: object) -> None:
        wanted = kept if path.endswith("/summary.json") else value
        if wanted is not None:
            pipe_file(store, path, wanted, **options)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", lossy)
    assert refused(folder, memory).startswith(f"memory://evidence/{PLACE}/summary.json: {said}")


# ---- the record on this side


def test_only_a_closed_record(tmp_path: Path, folder: Path, memory: str) -> None:
    """An open record, a changed one, one with a file too many or too few is not uploaded; the file is named."""
    (folder / "notes.txt").touch()
    assert refused(folder, memory).startswith(f"{folder}/notes.txt: is not under SHA256SUMS")
    (folder / "notes.txt").unlink()
    original = (folder / "00_x.ipynb").read_bytes()
    (folder / "00_x.ipynb").write_bytes(original + b"\n")
    assert refused(folder, memory).startswith(f"{folder}/00_x.ipynb: was changed after the record was closed")
    (folder / "00_x.ipynb").unlink()
    assert refused(folder, memory).startswith(f"{folder}/00_x.ipynb: is missing")
    (folder / "SHA256SUMS").write_text("nonsense\n")
    assert refused(folder, memory).startswith(f"{folder}/SHA256SUMS: can't be used: line 1 is no sum and name")
    (folder / "SHA256SUMS").write_text("")
    assert refused(folder, memory).startswith(f"{folder}/SHA256SUMS: can't be used: it is empty")
    (folder / "SHA256SUMS").unlink()
    assert refused(folder, memory).startswith(f"{folder}: is no closed record: it has no SHA256SUMS")
    assert "has no SHA256SUMS" in refused(tmp_path / "none", memory)
    assert fsspec.filesystem("memory").find("/") == []


def test_a_cluster_name_leads_nowhere_else(tmp_path: Path, memory: str) -> None:
    """A summary whose cluster is no name can't send the record to another place."""
    made = past_run.past_run(tmp_path, NAME, past_run.told() | {"cluster": "../other"})
    assert refused(made, memory).startswith(f"{made / summary.NAME}: '../other' is no cluster's name")


@pytest.mark.parametrize("target", ["nonsense://x", "s4://bucket"])
def test_an_unknown_scheme(folder: Path, target: str) -> None:
    """A scheme that nobody knows is an error with an example of a good one."""
    message = refused(folder, target)
    assert message.startswith(f"{target}: can't be used: ValueError: Protocol not known")
    assert "s3://bucket/prefix" in message


def test_no_password_in_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password in the address is in no error, not even in one that the driver made with it."""

    def refuse(target: str, **_options: object) -> None:
        raise OSError(f"can't log in with {target}, that is anna and p@ss")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    message = refused(folder, "ftp://anna:p%40ss@host/x")
    assert message.startswith("ftp://***@host/x: can't be used: OSError: can't log in with ")
    assert "p%40ss" not in message
    assert "p@ss" not in message
