"""runbook.state: a cluster's own folder, ours alone and of these nodes only."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs
import pytest

from runbook import params, state
from runbook.errors import StateError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/runbook/clusters"


def cluster(*hosts: int, name: str = "c", pki: Path | None = None) -> params.Cluster:
    nodes = [{"name": f"n{host}", "host": f"10.0.0.{host}"} for host in hosts]
    return params.load({"name": name, "nodes": nodes, "pki": {"dir": str(pki) if pki else None}})


def noted(folder: Path) -> dict[str, str]:
    nodes: dict[str, str] = json.loads((folder / "nodes.json").read_text())["nodes"]
    return nodes


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_new_folder_is_ours_alone_and_notes_the_nodes(home: Path) -> None:
    """The folder is made with mode 0700, whatever the umask, and notes each node's address."""
    old = os.umask(0)
    try:
        folder = state.cluster_dir(cluster(1, 2, 3))
    finally:
        os.umask(old)
    assert folder == home / "c"
    assert [mode(path) for path in (home.parent, home, folder)] == [0o700] * 3
    assert mode(folder / "nodes.json") == 0o600
    assert noted(folder) == {"n1": "10.0.0.1", "n2": "10.0.0.2", "n3": "10.0.0.3"}
    assert [path.name for path in folder.iterdir()] == ["nodes.json"]


def test_a_second_look_changes_nothing(home: Path) -> None:
    """A note that is true is not written again."""
    state.cluster_dir(cluster(1, 2))
    before = (home / "c/nodes.json").stat()
    state.cluster_dir(cluster(1, 2))
    after = (home / "c/nodes.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    """With create=False neither folder nor note appears or changes, and the paths are the same."""
    assert state.cluster_dir(cluster(1), create=False) == tmp_path / "state/runbook/clusters/c"
    assert state.pki_dir(cluster(1), create=False) == tmp_path / "state/runbook/clusters/c/pki"
    assert files(tmp_path) == []
    folder = state.cluster_dir(cluster(1, 2))
    before = files(tmp_path)
    state.cluster_dir(cluster(2, 3), create=False)
    assert (files(tmp_path), noted(folder)) == (before, {"n1": "10.0.0.1", "n2": "10.0.0.2"})


def test_the_note_follows_a_cluster_that_grows_and_shrinks() -> None:
    """Nodes may come and go as long as one was known before."""
    for hosts in ((1, 2, 3), (1, 2, 3, 4, 5), (4, 5), (5, 6)):
        folder = state.cluster_dir(cluster(*hosts))
        assert noted(folder) == {f"n{host}": f"10.0.0.{host}" for host in hosts}


@pytest.mark.parametrize("create", [True, False])
def test_other_nodes_are_refused(create: bool) -> None:  # noqa: FBT001 - a test's data
    """A name that belongs to a cluster of other nodes is refused: both are named, the folder, and the ways out."""
    folder = state.cluster_dir(cluster(1, 2))
    before = (folder / "nodes.json").read_bytes()
    with pytest.raises(StateError) as caught:
        state.cluster_dir(cluster(3, 4), create=create)
    text = str(caught.value)
    assert all(
        part in text for part in ("n1 (10.0.0.1)", "n4 (10.0.0.4)", str(folder), "another name", "remove the folder")
    )
    assert (folder / "nodes.json").read_bytes() == before


def test_clusters_of_other_names_have_other_folders() -> None:
    """The same nodes under another name get a folder, and so a CA, of their own."""
    assert state.cluster_dir(cluster(1)) != state.cluster_dir(cluster(1, name="d"))


@pytest.mark.parametrize("level", ["clusters", "clusters/c"])
@pytest.mark.parametrize("create", [True, False])
def test_a_link_is_refused(home: Path, tmp_path: Path, level: str, create: bool) -> None:  # noqa: FBT001 - data
    """A symbolic link in the folder's place could lead anywhere, so it is not followed."""
    (tmp_path / "elsewhere/c").mkdir(parents=True, mode=0o700)
    (tmp_path / "elsewhere").chmod(0o700)
    link = home.parent / level
    link.parent.mkdir(parents=True, mode=0o700)
    home.parent.chmod(0o700)
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="is a symbolic link"):
        state.cluster_dir(cluster(1), create=create)
    assert list((tmp_path / "elsewhere/c").iterdir()) == []


@pytest.mark.parametrize("bits", [0o750, 0o701, 0o777])
def test_a_folder_open_to_others_is_refused(home: Path, bits: int) -> None:
    """A folder that others can enter is refused with its mode and the command that mends it, and is left as it is."""
    folder = state.cluster_dir(cluster(1))
    folder.chmod(bits)
    with pytest.raises(StateError, match=f"has mode {bits:04o}.*\n.*chmod go-rwx {home / 'c'}"):
        state.cluster_dir(cluster(1))
    assert mode(folder) == bits


def test_another_users_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of another user is refused with both users' ids."""
    state.cluster_dir(cluster(1))
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(StateError, match=r"belongs to user id \d+, and this runs as 4242"):
        state.cluster_dir(cluster(1))


def test_a_file_in_the_way_is_refused(home: Path) -> None:
    """A file where the folder should be is told, not replaced."""
    home.mkdir(parents=True, mode=0o700)
    home.parent.chmod(0o700)
    (home / "c").write_text("")
    with pytest.raises(StateError, match="is not a folder"):
        state.cluster_dir(cluster(1))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"nodes": {}}', '{"nodes": {"a": 1}}', '{"nodes": 3}', "\xff"]
)
def test_a_damaged_note_is_refused(home: Path, content: str) -> None:
    """A note that can't be read tells nothing of the nodes, so nothing is taken for granted."""
    state.cluster_dir(cluster(1))
    (home / "c/nodes.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(StateError, match=r"nodes\.json: is damaged"):
        state.cluster_dir(cluster(1))


def test_a_folder_without_a_note_is_refused_unless_empty(home: Path) -> None:
    """A CA of unknown nodes is not used; an empty folder, or one left by an interrupted first run, is taken over."""
    folder = state.cluster_dir(cluster(1))
    (folder / "pki").mkdir()
    (folder / "nodes.json").unlink()
    with pytest.raises(StateError, match=r"holds pki but no nodes\.json"):
        state.cluster_dir(cluster(1))
    (folder / "pki").rmdir()
    (folder / ".nodes.json.new").write_text("half")
    assert noted(state.cluster_dir(cluster(2))) == {"n2": "10.0.0.2"}
    assert [path.name for path in (home / "c").iterdir()] == ["nodes.json"]


def test_a_linked_note_is_not_followed(home: Path, tmp_path: Path) -> None:
    """A symbolic link in the note's place is an error."""
    folder = state.cluster_dir(cluster(1))
    (folder / "nodes.json").rename(tmp_path / "note")
    (home / "c/nodes.json").symlink_to(tmp_path / "note")
    with pytest.raises(StateError, match="can't be used"):
        state.cluster_dir(cluster(1))


def test_a_failed_write_leaves_the_old_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """The note is replaced whole: a full disk leaves the old one, and the error says so."""
    folder = state.cluster_dir(cluster(1))

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match="can't be used: No space left on device"):
        state.cluster_dir(cluster(1, 2))
    assert noted(folder) == {"n1": "10.0.0.1"}


def test_of_two_clusters_at_once_one_gets_the_name() -> None:
    """Of runs that start together under one name, only those of one set of nodes get the folder."""

    def attempt(host: int) -> int:
        try:
            state.cluster_dir(cluster(host))
        except StateError:
            return 0
        return host

    with ThreadPoolExecutor(8) as pool:
        won = [host for host in pool.map(attempt, [1, 2] * 16) if host]
    assert len(set(won)) == 1
    assert len(won) == 16


def test_pki_dir_is_in_the_clusters_folder_or_where_params_say(home: Path, tmp_path: Path) -> None:
    """The keys' folder is made 0700, in the cluster's folder by default, in any folder that params name."""
    assert state.pki_dir(cluster(1)) == home / "c/pki"
    assert mode(home / "c/pki") == 0o700
    own = tmp_path / "deep/er/pki"
    assert state.pki_dir(cluster(1, pki=own), create=False) == own
    assert not own.exists()
    assert state.pki_dir(cluster(1, pki=own)) == own
    assert mode(own) == 0o700


def test_a_pki_dir_that_others_write_in_is_refused(home: Path, tmp_path: Path) -> None:
    """A folder that others can write in could hold another CA; in our own folder others may not even look."""
    own = tmp_path / "pki"
    own.mkdir(mode=0o755)
    assert state.pki_dir(cluster(1, pki=own)) == own
    own.chmod(0o775)
    with pytest.raises(StateError, match="mode 0775, so others can write in it"):
        state.pki_dir(cluster(1, pki=own))
    state.pki_dir(cluster(1)).chmod(0o755)
    with pytest.raises(StateError, match=f"{home}/c/pki: has mode 0755, so others can get in"):
        state.pki_dir(cluster(1))


def test_a_state_home_that_is_relative_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative XDG_STATE_HOME would give each working folder its own CA."""
    monkeypatch.setattr(platformdirs, "user_state_path", Path)  # what older platformdirs make of such a value
    with pytest.raises(StateError, match="not an absolute path"):
        state.cluster_dir(cluster(1), create=False)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file where the state folder should go is told with its name and what to see to."""
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match=r"can't be used.*\n.*XDG_STATE_HOME"):
        state.cluster_dir(cluster(1))
