"""runbook.plans.apply: one script a node, the files on its input; real sh, a local shell in SSH's place."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import stat
import string
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_node import OWNER, LocalConnection, cluster_of

from runbook import errors, lock_script
from runbook.artifacts import Binary
from runbook.certs.secret import Secret
from runbook.plans import apply, stream
from runbook.resources import Change, Payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn

    from runbook.plans.apply import Result

NODE = cluster_of().nodes[0]
TOKEN = "plan-1"  # noqa: S105 - names the staging folder


def file_change(path: Path | str, data: bytes | Secret | Binary, mode: int = 0o644) -> Change:
    payload = Payload(str(path), mode, OWNER, data)
    return Change(str(path), "create", "missing", payloads=lambda: (payload,))


def make(connection: LocalConnection, *changes: Change) -> list[Result]:
    return apply.apply_on(connection, changes, TOKEN, 20)


def outcomes(results: Sequence[Result]) -> list[str]:
    return [result.result for result in results]


def binary(folder: Path, data: bytes) -> Binary:
    """A release binary as the cache holds it: raw and packed."""
    path, packed = folder / "etcd", folder / "etcd.gz"
    path.write_bytes(data)
    packed.write_bytes(gzip.compress(data))
    sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, packed)]
    sizes = (len(data), packed.stat().st_size)
    return Binary("etcd", "etcd", "3.6.16", "amd64", path, packed, sums[0], *sizes, "cache", "pin", sums[1])


@pytest.fixture
def node(tmp_path: Path) -> LocalConnection:
    (tmp_path / "node").mkdir()
    return LocalConnection(NODE, tmp_path / "node")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The folder on the node that is written to."""
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


class FaultyLine(LocalConnection):
    """Stands in for a line that changes what is sent: `change` gets the whole stream."""

    def __init__(self, folder: Path, change: Callable[[bytes], bytes]) -> None:
        super().__init__(NODE, folder)
        self._change = change

    def sent(self, feed: Iterable[bytes]) -> Iterable[bytes]:
        return [self._change(b"".join(feed))]


# ---- what is made


def test_files_get_content_mode_and_owner(node: LocalConnection, target: Path) -> None:
    """Each file is there whole, with its mode and owner, and no staging folder is left."""
    long = target / ("n" * 120)
    results = make(node, file_change(target / "a", b"one\n", 0o640), file_change(long, bytes(70_000), 0o755))
    assert outcomes(results) == ["done", "done"]
    assert (target / "a").read_bytes() == b"one\n"
    assert long.read_bytes() == bytes(70_000)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (target / "a", long)] == [0o640, 0o755]
    assert f"{(target / 'a').owner()}:{(target / 'a').group()}" == OWNER
    assert sorted(path.name for path in target.iterdir()) == ["a", long.name]


def test_a_binary_travels_packed_and_arrives_raw(node: LocalConnection, target: Path, tmp_path: Path) -> None:
    """A binary goes over the line by gzip and has the raw bytes and its mode in the end; one larger than a pipe too."""
    data = bytes(range(256)) * 4096
    source = binary(tmp_path, data)
    assert make(node, file_change(target / "etcd", source, 0o755))[0].result == "done"
    assert (target / "etcd").read_bytes() == data
    assert (target / "etcd").stat().st_mode & 0o7777 == 0o755
    sent = b"".join(stream.stream([Payload("/etcd", 0o755, OWNER, source)]))
    assert len(sent) < len(data) / 10


def test_folders_come_first_and_what_follows_last(node: LocalConnection, target: Path) -> None:
    """`before` has run when a file is put in place, and the file is in place when `after` runs."""
    folder = target / "deep" / "down"
    changes = [
        Change(str(folder), "create", "missing", before=f"install -d -m 755 {folder}"),
        Change(
            "etcd.service", "create", "missing", after=f"cp {folder}/unit {folder}/seen",
            payloads=lambda: (Payload(f"{folder}/unit", 0o644, OWNER, b"[Unit]\n"),),
        ),
    ]  # fmt: skip
    assert outcomes(make(node, *changes)) == ["done", "done"]
    assert (folder / "seen").read_bytes() == b"[Unit]\n"


def test_parents_of_a_new_folder_can_be_passed(node: LocalConnection, target: Path) -> None:
    """The script's umask keeps keys closed, yet a folder's missing parents are open: etcd must get through them."""
    make(node, Change("x", "create", "missing", before=f"install -d -m 700 {target}/data/k8s/etcd"))
    assert [(target / part).stat().st_mode & 0o777 for part in ("data", "data/k8s", "data/k8s/etcd")] == [
        0o755, 0o755, 0o700,
    ]  # fmt: skip


def test_a_file_is_replaced_by_rename(node: LocalConnection, target: Path) -> None:
    """The old file is never written to: who has it open, or another name for it, keeps the old bytes."""
    (target / "unit").write_bytes(b"old")
    os.link(target / "unit", target / "other-name")
    make(node, file_change(target / "unit", b"new"))
    assert (target / "unit").read_bytes() == b"new"
    assert (target / "other-name").read_bytes() == b"old"


def test_a_link_is_replaced_and_not_followed(node: LocalConnection, target: Path) -> None:
    """Where a link stands, the file takes its place; what it led to stays."""
    (target / "victim").write_bytes(b"keep")
    (target / "unit").symlink_to(target / "victim")
    assert outcomes(make(node, file_change(target / "unit", b"new"))) == ["done"]
    assert (target / "victim").read_bytes() == b"keep"
    assert not (target / "unit").is_symlink()


def test_a_key_is_closed_to_others_at_every_step(node: LocalConnection, target: Path) -> None:
    """From its first byte to its final name a key is 0600, in a folder that only its owner can enter."""
    # Stand-ins for the programs that run between the steps: they note what is there, then do their work.
    for name in ("sha256sum", "chown", "chmod", "sync", "mv"):
        look = f"stat -c '%a %n' {target}/.runbook-*/* {target}/.runbook-* {target}/* 2>/dev/null >>{target}.log"
        node.shim(name, f'{look}\nexec {shutil.which(name)} "$@"')
    key = file_change(target / "key.pem", Secret(b"PRIVATE"), 0o600)
    assert outcomes(make(node, file_change(target / "cert.pem", b"public"), key)) == ["done", "done"]
    seen = [line.split(" ") for line in Path(f"{target}.log").read_text().splitlines()]
    stages = {mode for mode, name in seen if name.endswith(f".runbook-{TOKEN}")}
    keys = {mode for mode, name in seen if name.endswith((f"{TOKEN}/1", "/key.pem"))}
    assert (stages, keys) == ({"700"}, {"600"})
    assert len(seen) >= 3 * 5
    assert "PRIVATE" not in "".join(node.scripts)


def test_many_files_take_few_programs(node: LocalConnection, target: Path) -> None:
    """All files are summed by one, get their owner by one, and then are opened by one for each mode."""
    for name in ("head", "sha256sum", "openssl", "chown", "chmod", "sync", "mv", "cut", "cat", "tee", "install"):
        node.shim(name, f'echo {name} >>{target}.log\nexec {shutil.which(name)} "$@"')
    changes = [file_change(target / str(number), b"text") for number in range(9)]
    assert outcomes(make(node, *changes, file_change(target / "key", Secret(b"x"), 0o600))) == ["done"] * 10
    started = Path(f"{target}.log").read_text().split()
    # The first head reads the script itself.
    heads = ["head"] * 10
    assert started == ["head", "install", *heads, "sha256sum", "chown", "chmod", "chmod", "sync", *["mv"] * 10]


def test_half_a_file_never_has_the_final_name(node: LocalConnection, target: Path) -> None:
    """Nothing has its final name before all files have come, are checked and are on the disk."""
    names = f"{target}/a {target}/b"
    node.shim(
        "sync", f'ls {names} 2>/dev/null >>{target}.log; echo synced >>{target}.log; exec {shutil.which("sync")} "$@"'
    )
    make(node, file_change(target / "a", b"1"), file_change(target / "b", b"2"))
    assert Path(f"{target}.log").read_text() == "synced\n"


# ---- what a bad end leaves


def test_leftovers_of_a_run_that_was_cut_off_are_removed(node: LocalConnection, target: Path) -> None:
    """A power cut leaves a staging folder; the next run removes it."""
    (target / ".runbook-0123-4").mkdir()
    (target / ".runbook-0123-4" / "0").write_bytes(b"half a key")
    (target / ".runbook-56 7").mkdir()
    (target / ".runbook-link").symlink_to("/nonexistent")
    make(node, file_change(target / "a", b"1"))
    assert [path.name for path in target.iterdir()] == ["a"]


@settings(max_examples=15)
@given(data=st.data())
def test_a_stream_that_ends_early_changes_nothing(data: st.DataObject) -> None:
    """Wherever the line breaks, the files are all there and whole, or none is; never a staging folder."""
    with tempfile.TemporaryDirectory() as folder:
        changes = [file_change(f"{folder}/a", b"1" * 700), file_change(f"{folder}/key", Secret(b"2" * 600), 0o600)]
        files = [(index, payload) for index, change in enumerate(changes) for payload in change.payloads()]
        length = len(b"".join(stream.stream([payload for _, payload in files])))
        cut = data.draw(st.integers(0, length))
        results = make(FaultyLine(Path(folder), lambda stream: stream[:cut]), *changes)
        there = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        if outcomes(results) == ["done", "done"]:
            assert there == {"a": b"1" * 700, "key": b"2" * 600}
            assert cut == length
        else:
            assert there == {}
            assert outcomes(results) == ["failed", "not done"]


@settings(max_examples=15)
@given(data=st.data())
def test_a_byte_that_changes_on_the_way_is_noticed(data: st.DataObject) -> None:
    """Whichever byte of the stream changes, no file has other bytes than the wanted ones."""
    with tempfile.TemporaryDirectory() as folder:
        changes = [file_change(f"{folder}/a", b"1" * 700), file_change(f"{folder}/b", b"2" * 600)]
        files = [(index, payload) for index, change in enumerate(changes) for payload in change.payloads()]
        length = len(b"".join(stream.stream([payload for _, payload in files])))
        place, bit = data.draw(st.integers(0, length - 1)), data.draw(st.integers(0, 7))

        def flipped(stream: bytes) -> bytes:
            return stream[:place] + bytes([stream[place] ^ 1 << bit]) + stream[place + 1 :]

        results = make(FaultyLine(Path(folder), flipped), *changes)
        there = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        assert there == ({"a": b"1" * 700, "b": b"2" * 600} if outcomes(results) == ["done", "done"] else {})


def test_wrong_bytes_are_named(tmp_path: Path, target: Path) -> None:
    """A file that arrives with other bytes is refused; the error tells that its checksum is wrong."""
    line = FaultyLine(tmp_path, lambda stream: stream.replace(b"member", b"mumber"))
    (result,) = make(line, file_change(target / "unit", b"a member\n"))
    assert result.result == "failed"
    assert f"{target}/unit arrived with other bytes than were sent" in result.error
    assert list(target.iterdir()) == []


def test_a_binary_that_changes_while_it_is_sent_is_refused(node: LocalConnection, target: Path, tmp_path: Path) -> None:
    """A cached file that is shorter than it was ends the run with its name; nothing is half there."""
    source = binary(tmp_path, os.urandom(10_000))
    source.packed.write_bytes(source.packed.read_bytes()[:-7])
    results = make(node, file_change(target / "unit", b"text"), file_change(target / "etcd", source))
    assert outcomes(results) == ["failed", "not done"]
    assert "it changed while it was sent" in results[0].error
    assert list(target.iterdir()) == []


def test_a_binary_that_is_gone_is_one_nodes_error(node: LocalConnection, target: Path, tmp_path: Path) -> None:
    """A cached file that was removed since the plan is an error in the node's rows, as all that befalls a node."""
    source = binary(tmp_path, b"x")
    source.packed.unlink()
    results = make(node, file_change(target / "etcd", source))
    assert outcomes(results) == ["failed"]
    assert "No such file" in results[0].error
    assert list(target.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, target: Path, prerequisite: Callable[[str], NoReturn]) -> None:
    """Where the disk is full the error says so, what was there stays, and nothing half is left."""
    if os.geteuid() != 0:
        prerequisite("root, to mount a small disk")
    # A disk of 64 KiB in a mount namespace of its own: nothing of it outlives the command.
    disk = f"""
mount -t tmpfs -o size=64k none {target} && echo old >{target}/unit && "$@"
status=$?
{{ ls -A {target}; cat {target}/unit; }} >{target}.log
exit $status"""
    node = LocalConnection(NODE, tmp_path, ["unshare", "-m", "sh", "-c", disk, "sh"])
    results = make(node, file_change(target / "unit", b"new"), file_change(target / "data", bytes(200_000)))
    assert outcomes(results) == ["failed", "not done"]
    assert "No space left on device" in results[0].error
    assert "df -h" in results[0].remedy
    assert Path(f"{target}.log").read_text() == "unit\nold\n"


def test_one_run_at_a_time_changes_a_node(node: LocalConnection, target: Path) -> None:
    """While another run holds the node's lock nothing is done, and the error says what to wait for."""
    descriptor = os.open(node.folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        results = make(
            node, file_change(target / "a", b"1"), Change("b", "create", "missing", before=f"touch {target}/b")
        )
    finally:
        os.close(descriptor)
    assert outcomes(results) == ["failed", "not done"]
    assert results[0].error.startswith("another run is changing this node now")
    assert list(target.iterdir()) == []
    assert outcomes(make(node, file_change(target / "a", b"1"))) == ["done"]


@pytest.mark.parametrize(
    ("whose", "ours", "outcome"),
    [
        ("aa" * 16, "bb" * 16, "done"),
        ("aa" * 16, "aa" * 16, "failed"),
        ("aa" * 16, "", "failed"),
        ("-", "bb" * 16, "failed"),
    ],
    ids=["an earlier run's", "our own run's", "a run's, and we by hand", "somebody's by hand"],
)
def test_a_script_that_an_earlier_run_left_waiting_is_ended(
    node: LocalConnection, target: Path, monkeypatch: pytest.MonkeyPatch, whose: str, ours: str, outcome: str
) -> None:
    """Who holds the cluster's lock ends what waits on a node for a run that lost it; nobody else's, and not by hand."""
    monkeypatch.setenv(lock_script.TOKEN_VARIABLE, ours)
    beside = node.folder / Path(lock_script.BESIDE).name
    left = f"exec 9<{node.folder}; flock 9; echo $PPID {whose} >{beside}; echo waits; head -c 9"
    with subprocess.Popen(
        ["timeout", "60", "sh", "-c", left], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "waits\n"
        assert outcomes(make(node, file_change(target / "a", b"1"))) == [outcome]
        assert (process.poll() is None) == (outcome == "failed")
        process.communicate("the end.")


def test_each_change_has_its_row(node: LocalConnection, target: Path) -> None:
    """What was made before the failure is done, the one that failed says why, the rest is not done."""
    (target / "in-the-way").mkdir()
    (target / "in-the-way" / "file").touch()
    results = make(
        node,
        file_change(target / "first", b"1"),
        file_change(target / "in-the-way", b"2"),
        file_change(target / "last", b"3"),
    )
    assert outcomes(results) == ["done", "failed", "not done"]
    assert "in-the-way" in results[1].error
    assert [result.error for result in results if result.result != "failed"] == ["", ""]
    assert sorted(path.name for path in target.iterdir()) == ["first", "in-the-way"]


def test_a_failing_after_is_its_own_changes(node: LocalConnection, target: Path) -> None:
    """A change whose last step fails is the failed one, though its file is there; what follows is not begun."""
    failing = Change("b", "change", "mode", after="echo 'no such user' >&2; false")
    results = make(node, file_change(target / "a", b"1"), failing, Change("c", "change", "", after=f"touch {target}/c"))
    assert outcomes(results) == ["done", "failed", "not done"]
    assert results[1].error == "no such user"
    assert not (target / "c").exists()


def test_errors_of_a_node_are_clean_and_short(node: LocalConnection) -> None:
    """What a node says on stderr can't colour or flood the message."""
    noisy = "printf '\\033[2J\\033]0;x\\007'; for i in $(seq 3000); do printf x; done; printf end"
    (result,) = make(node, Change("x", "change", "", after=f"{{ {noisy}; }} >&2; exit 3"))
    assert result.error.endswith("end")
    assert len(result.error) <= 2000
    assert set(result.error) <= set(string.printable) - set("\x1b\x07")


def test_a_node_that_is_lost_has_its_rows(tmp_path: Path) -> None:
    """Where the connection breaks, every change of the node still has a row, the first with the reason."""

    class Lost(LocalConnection):
        """Stands in for a node that is cut off."""

        def run(self, *_: object, **__: object) -> NoReturn:
            raise errors.ConnectionLost("the connection broke", node=self.node.name)

    results = make(Lost(NODE, tmp_path), Change("a", "change", ""), Change("b", "change", ""))
    assert [(result.result, result.error) for result in results] == [
        ("failed", "the connection broke"),
        ("not done", ""),
    ]


# ---- names


#: Names that a shell would read as something else.
HOSTILE = (
    "$(touch pwned)", "`touch pwned`", "a'b\"c", "a b", "-rf", "*", "~", "a;b", "\\n", "{x}", "#", "\u00e9\u4e2d",
)  # fmt: skip
_LETTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/")
names = (st.sampled_from(HOSTILE) | st.text(_LETTERS, min_size=1, max_size=30)).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) < 200
)


@settings(max_examples=20)
@given(folder=names, name=names, data=st.binary(max_size=2000))
def test_any_name_is_a_name(folder: str, name: str, data: bytes) -> None:
    """Whatever a path is made of, that file gets the bytes, and nothing else appears or runs."""
    with tempfile.TemporaryDirectory() as top:
        place = Path(top) / "in" / folder
        place.mkdir(parents=True)
        results = make(LocalConnection(NODE, Path(top)), file_change(place / name, data))
        assert outcomes(results) == ["done"], results[0].error
        assert (place / name).read_bytes() == data
        assert list(Path(top).iterdir()) == [place.parent]
        assert list(place.parent.iterdir()) == [place]
        assert list(place.iterdir()) == [place / name]
