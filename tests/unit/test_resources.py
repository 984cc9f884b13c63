"""runbook.resources: what is read of a node by real sh, and what has to change then."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_node import OWNER, LocalConnection, cluster_of

from runbook.fleet import Fleet
from runbook.plans import reading
from runbook.resources import Directory, File, Resource, User, staging_folder, unified_diff

CLUSTER = cluster_of()
NODE = CLUSTER.nodes[0]
ROOT = {"mode": "644", "owner": "root:root"}
OLD, NEW = b"[Unit]\nA=1\n", b"[Unit]\nA=2\n"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def file_found(data: bytes, **changed: str) -> dict[str, str]:
    found = {"type": "file", "sha256": hashlib.sha256(data).hexdigest(), "content": encoded(data)}
    return {**found, **ROOT, **changed}


def folder_found(*names: str, **changed: str) -> dict[str, str]:
    content = encoded("".join(f"{name}\n" for name in names).encode())
    return {"type": "directory", "mode": "755", "owner": "root:root", "content": content, **changed}


def probed(resource: Resource, folder: Path) -> dict[str, str]:
    """What is found of the resource on this machine."""
    fleet = Fleet(CLUSTER, {NODE.name: LocalConnection(NODE, folder)})
    (found,) = reading.read(fleet, {NODE.name: [resource]}, what="probe")[NODE.name]
    return dict(found)


# ---- files


def test_a_missing_file_is_created() -> None:
    """A file that is not there is created; the plan shows the whole content as added lines."""
    change = File("/etc/x", NEW).compare({"type": "none"})
    assert change is not None
    assert (change.action, change.why, change.current, change.refusal) == ("create", "missing", "", "")
    assert change.diff.splitlines()[2:] == ["@@ -0,0 +1,2 @@", "+[Unit]", "+A=2"]
    (payload,) = change.payloads()
    assert (payload.path, payload.mode, payload.owner, payload.source) == ("/etc/x", 0o644, "root:root", NEW)


def test_a_file_that_is_right_stays() -> None:
    """The same bytes, mode and owner call for nothing."""
    assert File("/etc/x", NEW).compare(file_found(NEW)) is None
    assert File("/etc/x", NEW, 0o600, "etcd:etcd").compare(file_found(NEW, mode="600", owner="etcd:etcd")) is None


def test_other_content_is_shown_as_a_diff() -> None:
    """Other bytes are replaced, and the diff has the lines that go and those that come."""
    change = File("/etc/x", NEW).compare(file_found(OLD))
    assert change is not None
    assert (change.action, change.why) == ("change", "other content")
    assert change.diff.splitlines() == [
        "--- /etc/x (now)", "+++ /etc/x (wanted)", "@@ -1,2 +1,2 @@", " [Unit]", "-A=1", "+A=2",
    ]  # fmt: skip
    assert len(change.payloads()) == 1


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"mode": "600"}, "mode 0600, wanted 0644"),
        ({"mode": "4644"}, "mode 4644, wanted 0644"),
        ({"owner": "etcd:root"}, "owner etcd:root, wanted root:root"),
        ({"mode": "777", "owner": "a:b"}, "mode 0777, wanted 0644; owner a:b, wanted root:root"),
    ],
)
def test_mode_and_owner_are_mended_alone(changed: dict[str, str], why: str) -> None:
    """Where only mode or owner differ the file is not sent again."""
    change = File("/etc/x", NEW).compare(file_found(NEW, **changed))
    assert change is not None
    assert (change.action, change.why, tuple(change.payloads())) == ("change", why, ())
    assert change.after == "chown root:root /etc/x; chmod 644 /etc/x"


def test_a_link_in_a_files_place_is_replaced() -> None:
    """A link is not followed: the file takes its place."""
    change = File("/etc/x", NEW).compare({"type": "link", "content": encoded(b"/etc/y\n")})
    assert change is not None
    assert (change.action, change.why, change.refusal) == ("change", "is a link, not a file", "")
    assert len(change.payloads()) == 1


@pytest.mark.parametrize("kind", ["directory", "other"])
def test_a_folder_or_device_in_a_files_place_is_refused(kind: str) -> None:
    """What can't be replaced without loss is left, and the operator is told to move it."""
    change = File("/etc/x", NEW).compare({**folder_found("a"), "type": kind})
    assert change is not None
    assert change.refusal == f"/etc/x is a {kind}, not a file: move it away"


def test_what_a_change_comes_to_is_in_its_digest() -> None:
    """The digest differs with the wanted bytes, mode, owner, and with what is there now."""
    found = file_found(OLD)
    changes = [
        File("/x", NEW).compare(found),
        File("/x", NEW + b"\n").compare(found),
        File("/x", NEW, 0o600).compare(found),
        File("/x", NEW, 0o644, "etcd:etcd").compare(found),
        File("/x", NEW).compare(file_found(b"else")),
        File("/x", NEW).compare({"type": "none"}),
    ]
    assert len({change.digest for change in changes if change}) == len(changes)


# ---- folders


def test_a_missing_folder_is_created() -> None:
    """A folder that is not there is made with its mode and owner."""
    change = Directory("/data/wal", 0o700, "etcd:etcd").compare({"type": "none"})
    assert change is not None
    assert (change.resource, change.action, change.why) == ("/data/wal/", "create", "missing")
    assert change.before == "install -d -m 700 -o etcd -g etcd /data/wal"


def test_a_folder_that_is_right_stays() -> None:
    """The same mode and owner call for nothing, whatever the folder holds."""
    assert Directory("/data", may_hold=()).compare(folder_found("things", "of", "others")) is None


def test_a_folders_mode_is_mended() -> None:
    """An own folder with another mode is mended, and so is another's that holds nothing else."""
    change = Directory("/data", 0o700).compare(folder_found("x"))
    assert change is not None
    assert (change.why, change.refusal) == ("mode 0755, wanted 0700", "")
    taken = Directory("/data", 0o700, "etcd:etcd", may_hold=("wal",)).compare(folder_found("wal"))
    assert taken is not None
    assert taken.refusal == ""


def test_a_folder_that_others_use_is_not_taken_over() -> None:
    """A folder of another owner that holds other things is refused, with the names of some of them."""
    change = Directory("/data", 0o700, "etcd:etcd", may_hold=("wal",)).compare(
        folder_found("wal", "a", "b", "c", "d", owner="git:git")
    )
    assert change is not None
    assert "belongs to git:git and holds other things (a, b, c)" in change.refusal
    assert change.before == ""


@pytest.mark.parametrize("kind", ["file", "link", "other"])
def test_what_stands_in_a_folders_place_is_refused(kind: str) -> None:
    """A file or link where a folder should be stays, and the operator is told."""
    change = Directory("/data").compare({"type": kind, **ROOT})
    assert change is not None
    assert change.refusal == f"/data is a {kind}, not a folder: move it away"


# ---- users


def test_a_missing_user_is_made_and_another_stays() -> None:
    """A user that is there stays as it is."""
    assert User("etcd").compare({"type": "user"}) is None
    change = User("etcd").compare({"type": "none"})
    assert change is not None
    assert change.before.startswith("getent passwd etcd >/dev/null || useradd --system --user-group")
    assert "/usr/sbin/nologin" in change.before


def test_a_user_is_found_by_real_sh(tmp_path: Path) -> None:
    """The probe knows a user of this machine from one that is not there."""
    assert probed(User("root"), tmp_path) == {"type": "user"}
    assert probed(User("no-such-user"), tmp_path) == {"type": "none"}


# ---- probes


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    """Type, mode, owner, size, checksum and content are those of the file."""
    path = tmp_path / "unit"
    path.write_bytes(NEW)
    path.chmod(0o4640)
    found = probed(File(str(path), NEW), tmp_path)
    assert float(found.pop("ctime")) == pytest.approx(path.stat().st_ctime)
    wanted = {"type": "file", "mode": "4640", "owner": OWNER, "size": str(len(NEW)), "content": encoded(NEW)}
    assert found == {**wanted, "sha256": hashlib.sha256(NEW).hexdigest()}


def test_a_large_file_is_told_by_its_size(tmp_path: Path) -> None:
    """A file of 256 KiB or more in the place of a text is not sent back, and is none of ours: it is replaced."""
    (tmp_path / "big").write_bytes(os.urandom(1 << 18))
    file = File(str(tmp_path / "big"), b"")
    found = probed(file, tmp_path)
    assert "content" not in found
    change = file.compare(found)
    assert change is not None
    assert (change.why, change.current.partition(",")[0]) == ("other content", "262144 bytes")
    assert found["ctime"] in change.digest


def test_other_things_are_told_apart(tmp_path: Path) -> None:
    """A link is a link even where it leads to a file or nowhere; a folder tells its names; a socket is other."""
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "dangling").symlink_to("/nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".hidden").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        kinds = {
            name: probed(File(str(tmp_path / name), b""), tmp_path)["type"]
            for name in ("link", "dangling", "folder", "socket", "missing")
        }
    assert kinds == {"link": "link", "dangling": "link", "folder": "directory", "socket": "other", "missing": "none"}
    assert probed(Directory(str(tmp_path / "folder"), may_hold=()), tmp_path)["content"] == encoded(b".hidden")


_LETTERS = st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="/\0")


@settings(max_examples=15)
@given(
    name=st.text(_LETTERS, min_size=1, max_size=30).filter(
        lambda name: name not in {".", ".."} and len(name.encode()) < 200
    ),
    data=st.binary(max_size=500),
)
def test_a_probe_reads_any_name_and_content(name: str, data: bytes) -> None:
    """Whatever a file is called and holds, the probe's answer is that of the file, and it is then right."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        path.chmod(0o644)
        found = probed(File(str(path), data), Path(folder))
        assert File(str(path), data, owner=OWNER).compare(found) is None
        assert list(Path(folder).iterdir()) == [path]


@given(before=st.binary(max_size=200), after=st.binary(max_size=200))
def test_a_diff_is_empty_only_for_the_same_text(before: bytes, after: bytes) -> None:
    """A diff has its two headers, or nothing where the lines are the same."""
    diff = unified_diff("/x", before, after)
    same = before.decode("utf-8", "replace").splitlines() == after.decode("utf-8", "replace").splitlines()
    assert (diff == "") == same
    assert same or diff.startswith("--- /x (now)\n+++ /x (wanted)\n")


def test_files_wait_beside_their_place() -> None:
    """Staging is in the same folder: a rename is atomic only within a file system."""
    assert staging_folder("/etc/etcd/cert/key.pem", "a-1") == "/etc/etcd/cert/.runbook-a-1"
