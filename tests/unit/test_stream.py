"""plans.stream: files on their way to a node, summed on both sides; the node's part is run by this machine's sh."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runbook import errors
from runbook.artifacts import Binary
from runbook.certs.secret import Secret
from runbook.plans import stream
from runbook.resources import Payload

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "t"  # noqa: S105 - names the staging folder


def binary(folder: Path, data: bytes, packed: bytes | None = None) -> Binary:
    path, zipped = folder / "etcd", folder / "etcd.gz"
    path.write_bytes(data)
    zipped.write_bytes(gzip.compress(data, 1) if packed is None else packed)
    sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, zipped)]
    sizes = (len(data), zipped.stat().st_size)
    return Binary("etcd", "etcd", "3.6.16", "amd64", path, zipped, sums[0], *sizes, "cache", "pin", sums[1])


def payload(path: Path, source: bytes | Secret | Binary) -> Payload:
    return Payload(str(path), 0o600, "root:root", source)


def received(payloads: list[Payload], data: bytes, after: str = "cat") -> subprocess.CompletedProcess[bytes]:
    """What the node's sh makes of these bytes; what it leaves of its input goes to `after`."""
    script = "\n".join(["set -eu; umask 077", *stream.receive(payloads, TOKEN), after])
    return subprocess.run(["sh", "-c", script], input=data, capture_output=True, check=False, timeout=60)


def test_files_arrive_whole_and_take_no_byte_more(tmp_path: Path) -> None:
    """An empty file, text, a secret, any bytes and a binary come one after the other; what follows is left alone."""
    (tmp_path / "cache").mkdir()
    big = os.urandom(300_000)
    payloads = [
        payload(tmp_path / "empty", b""),
        payload(tmp_path / "a b", b"text\n"),
        payload(tmp_path / "etcd", binary(tmp_path / "cache", big)),
        payload(tmp_path / "key", Secret(b"\0\xff" * 10_000)),
    ]
    sent = b"".join(stream.stream(payloads))
    assert len(sent) == sum(map(stream.size, payloads))
    done = received(payloads, sent + b"the rest")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"the rest", b"")
    there = [(tmp_path / f".runbook-{TOKEN}" / str(number)).read_bytes() for number in range(4)]
    assert there == [b"", b"text\n", big, b"\0\xff" * 10_000]


def test_a_binary_comes_out_by_the_command_that_unpacks_it(tmp_path: Path) -> None:
    """Whatever packed it, the command of that form unpacks it; its failing ends the script."""
    packed = tmp_path / "etcd.b64"
    packed.write_bytes(base64.b64encode(b"raw" * 1000))
    source = replace(
        binary(tmp_path, b"raw" * 1000),
        packed=packed, packed_size=4000, packed_sha256=hashlib.sha256(packed.read_bytes()).hexdigest(),
        unpack="base64 -d",
    )  # fmt: skip
    payloads = [payload(tmp_path / "etcd", source)]
    done = received(payloads, b"".join(stream.stream(payloads)))
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / f".runbook-{TOKEN}" / "0").read_bytes() == b"raw" * 1000
    payloads = [payload(tmp_path / "etcd", replace(source, unpack="false"))]
    assert received(payloads, b"".join(stream.stream(payloads))).returncode != 0


def test_a_large_file_passes_in_pieces(tmp_path: Path) -> None:
    """Of a binary of any size no more than a piece is in memory: here 40 of them follow each other."""
    source = binary(tmp_path, b"x", os.urandom(10 * 1024 * 1024))
    pieces = [len(piece) for piece in stream.stream([payload(tmp_path / "etcd", source)])]
    assert (max(pieces), len(pieces)) == (256 * 1024, 40)


@pytest.mark.parametrize("place", [0, 5, -1])
def test_other_bytes_end_the_script(tmp_path: Path, place: int) -> None:
    """Whichever byte of a packed binary is another one, nothing after it is done."""
    payloads = [payload(tmp_path / "etcd", binary(tmp_path, os.urandom(1000)))]
    sent = bytearray(b"".join(stream.stream(payloads)))
    sent[place] ^= 1
    done = received(payloads, bytes(sent), "echo went on")
    assert done.returncode != 0
    assert done.stdout == b""


def test_a_binary_that_was_packed_wrong_is_refused(tmp_path: Path) -> None:
    """What comes whole and yet can't be unpacked ends the script, with gzip's own words."""
    payloads = [payload(tmp_path / "etcd", binary(tmp_path, b"x" * 1000, b"no gzip"))]
    done = received(payloads, b"".join(stream.stream(payloads)), "echo went on")
    assert done.returncode != 0
    assert b"gzip" in done.stderr
    assert done.stdout == b""


def test_a_cached_file_that_changed_is_an_error_here(tmp_path: Path) -> None:
    """Also one of the same length: its sum is taken as it is sent."""
    source = binary(tmp_path, b"x" * 1000)
    data = bytearray(source.packed.read_bytes())
    data[-1] ^= 1
    source.packed.write_bytes(data)
    with pytest.raises(errors.ArtifactError, match="it changed while it was sent"):
        list(stream.stream([payload(tmp_path / "etcd", source)]))


def test_a_secret_is_not_in_the_script(tmp_path: Path) -> None:
    """The script holds a secret's length and sum, and nothing of it."""
    text = "\n".join(stream.receive([payload(tmp_path / "key", Secret(b"PRIVATE"))], TOKEN))
    assert "PRIVATE" not in text
    assert hashlib.sha256(b"PRIVATE").hexdigest() in text
