"""plans.stream: files on their way to a node, summed where they arrive; the node's part is run by this machine's sh."""

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


def received(
    payloads: list[Payload], data: bytes, after: str = "cat", before: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """What the node's sh makes of these bytes; what it leaves of its input goes to `after`."""
    script = "\n".join(["set -eu; umask 077", before, *stream.receive(payloads, TOKEN), after])
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
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, b"the rest", b"")
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
    failed = received(payloads, b"".join(stream.stream(payloads)), "echo went on")
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert failed.stderr.decode() == f"{tmp_path}/etcd did not arrive whole\n"


def test_a_large_file_passes_in_pieces(tmp_path: Path) -> None:
    """Of a binary of any size no more than a piece is in memory: here 40 of them follow each other."""
    source = binary(tmp_path, b"x", os.urandom(10 * 1024 * 1024))
    pieces = [len(piece) for piece in stream.stream([payload(tmp_path / "etcd", source)])]
    assert (max(pieces), len(pieces)) == (256 * 1024, 40)


@pytest.mark.parametrize("place", [0, 500, -1])
def test_other_bytes_end_the_script(tmp_path: Path, place: int) -> None:
    """Whichever byte of a packed binary makes it another one, nothing after it is done, and its path is named."""
    payloads = [payload(tmp_path / "etcd", binary(tmp_path, os.urandom(1000)))]
    sent = bytearray(b"".join(stream.stream(payloads)))
    sent[place] ^= 1
    done = received(payloads, bytes(sent), "echo went on")
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"{tmp_path}/etcd did not arrive whole" in done.stderr.decode()


def test_what_comes_out_of_a_binary_counts(tmp_path: Path) -> None:
    """One that unpacks well to other bytes than the release's is refused, though it is what was sent."""
    payloads = [payload(tmp_path / "etcd", binary(tmp_path, b"x" * 1000, gzip.compress(b"y" * 1000)))]
    done = received(payloads, b"".join(stream.stream(payloads)), "echo went on")
    assert done.returncode == 1
    assert b"went on" not in done.stdout
    assert done.stderr.decode() == f"{tmp_path}/etcd arrived with other bytes than were sent: run again\n"


@pytest.mark.parametrize("before", ["", "openssl() { return 127; }"], ids=["as it is", "no openssl"])
@pytest.mark.parametrize("folder", ["plain", "a\\nb", "line\nfeed \\", "*", "-rf 'x'"])
def test_each_file_is_held_against_its_own_sum(tmp_path: Path, folder: str, before: str) -> None:
    """Of many files, in folders of whatever names, the one with other bytes is named; two that changed places too."""
    (tmp_path / folder).mkdir()
    (tmp_path / "cache").mkdir()
    texts = [b"%d" % (number + 10) for number in range(12)]
    payloads = [payload(tmp_path / folder / f"f{number}", text) for number, text in enumerate(texts)]
    payloads.append(payload(tmp_path / "etcd", binary(tmp_path / "cache", bytes(2_000_000))))
    sent = b"".join(stream.stream(payloads))
    done = received(payloads, sent, before=before)
    assert (done.returncode, done.stderr) == (0, b"")
    for number in range(12):
        other = sent[: 2 * number] + b"x" + sent[2 * number + 1 :]
        done = received(payloads, other, "echo went on", before)
        assert done.returncode == 1
        assert (
            done.stderr.decode()
            == f"{tmp_path}/{folder}/f{number} arrived with other bytes than were sent: run again\n"
        )
    done = received(payloads, sent[2:4] + sent[:2] + sent[4:], before=before)
    assert done.stderr.decode().startswith(f"{tmp_path}/{folder}/f0 arrived with other bytes")


def test_a_binary_that_was_packed_wrong_is_refused(tmp_path: Path) -> None:
    """What comes whole and yet can't be unpacked ends the script, with gzip's own words."""
    payloads = [payload(tmp_path / "etcd", binary(tmp_path, b"x" * 1000, b"no gzip"))]
    done = received(payloads, b"".join(stream.stream(payloads)), "echo went on")
    assert done.returncode != 0
    assert b"gzip" in done.stderr
    assert done.stdout == b""


def test_a_cached_file_that_changed_is_an_error_here(tmp_path: Path) -> None:
    """Also one of the same length: it is compared with its sum, unless nobody wrote to it since that was done."""
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


@pytest.mark.parametrize(
    ("meanwhile", "is_known"),
    [
        ("true", True),
        ("touch other", True),
        ("printf X >>{path}", False),
        ("printf X | dd of={path} conv=notrunc status=none", False),
        ("printf X >other; mv -f other {path}", False),
        ("rm {path}", False),
    ],
)
def test_a_binary_is_known_where_it_lies_as_it_was_summed(tmp_path: Path, meanwhile: str, is_known: bool) -> None:  # noqa: FBT001
    """Its change time is told with its sum; one that is written to between the sum and the telling is not known."""
    (tmp_path / "cache").mkdir()
    source = binary(tmp_path / "cache", b"x" * 1000)
    path = tmp_path / "etcd"
    payloads = [payload(tmp_path / "unit", b"text"), payload(path, source)]
    put = f"cd {tmp_path}; mv {stream.staged(1, payloads[1], TOKEN)} {path}; {meanwhile.format(path=path)}"
    done = received(payloads, b"".join(stream.stream(payloads)), "\n".join([put, *stream.tell(payloads)]))
    assert (done.returncode, done.stderr) == (0, b"")
    known = stream.known(payloads, TOKEN, done.stdout.decode())
    if not is_known:
        assert known == {}
        return
    assert list(known) == [str(path)]
    ctime, sha256 = known[str(path)]
    assert (ctime.replace(".", ""), sha256) == (str(path.stat().st_ctime_ns), source.sha256)


def test_without_binaries_nothing_is_told(tmp_path: Path) -> None:
    """No program is started for it."""
    payloads = [payload(tmp_path / "unit", b"text")]
    assert stream.tell(payloads) == []
    assert "stat " not in "\n".join(stream.receive(payloads, TOKEN))
    assert stream.known(payloads, TOKEN, "@placed 1|1.0|2.0|/unit") == {}
