"""runbook.lock_script: what nodes do and say for a lock, by real sh."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_node import LocalConnection, cluster_of

from runbook import errors, lock_script
from runbook.transport.completed import Completed

if TYPE_CHECKING:
    from pathlib import Path

NODE = cluster_of().nodes[0]
FOLDER = "runbook"
HOLDER = {"user": "ada", "host": "h", "pid": 5, "record": "r"}


@pytest.mark.parametrize("shell", ["sh", "bash --posix"])
def test_a_lock_is_taken_renewed_and_released(tmp_path: Path, shell: str) -> None:
    """Taken once, renewed by its token, kept from others, released by its token alone; then nothing is left."""
    node = LocalConnection(NODE, tmp_path)
    if shell != "sh":
        node.shim("sh", f'exec {shell} "$@"')

    def say(script: str) -> str:
        return lock_script.answer(node.run(script, what="lock"))[0]

    def take(token: str) -> str:
        return lock_script.take(FOLDER, token, HOLDER, 60, None)

    assert say(lock_script.look(FOLDER)) == "free"
    assert [say(take("ab")), say(take("ab")), say(take("cd"))] == ["taken", "renewed", "held"]
    assert say(lock_script.release(FOLDER, "cd")) == "free"
    assert say(lock_script.look(FOLDER)) == "held"
    assert say(lock_script.release(FOLDER, "ab")) == "released"
    assert not (tmp_path / FOLDER).exists()
    assert say(lock_script.release(FOLDER, "ab")) == "free"
    assert not (tmp_path / FOLDER).exists()


def test_what_else_lies_in_the_folder_stays(tmp_path: Path) -> None:
    """A folder that holds more than the lock is left."""
    node = LocalConnection(NODE, tmp_path)
    node.run(lock_script.take(FOLDER, "ab", HOLDER, 60, None), what="take")
    (tmp_path / FOLDER / "other").touch()
    assert lock_script.answer(node.run(lock_script.release(FOLDER, "ab"), what="release"))[0] == "released"
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["other"]


def seen(text: bytes, now: int = 100) -> lock_script.Found:
    word, found = lock_script.answer(Completed("n", "look", 0, b"held %d\n" % now + text, b""))
    assert word == "held"
    assert found is not None
    return found


@given(st.binary(max_size=300))
def test_any_bytes_in_the_file_are_a_stale_lock_of_nobody(data: bytes) -> None:
    """A file that is not one of ours raises nothing and is shown in one clean line."""
    shown = str(seen(data))
    assert shown.isprintable()


@pytest.mark.parametrize("data", [b"[" * 4096, b"[]", b"{}", b'{"holder": 1}', b'{"token": "a", "holder": {}}', b""])
def test_a_broken_file_can_be_taken_over(data: bytes) -> None:
    """It counts as stale, its holder as unknown."""
    found = seen(data)
    assert found.stale
    assert "unknown holder" in str(found)


@given(st.text(max_size=200), st.text(max_size=200), st.integers(), st.integers())
def test_a_holders_words_are_shown_clean(user: str, record: str, since: int, expires: int) -> None:
    """No escape sequence and no second line comes from a node into our message, nor an endless one."""
    holder = {"user": user, "host": "h\x1b[31m\nfake: all is well", "pid": 1, "record": record}
    text = json.dumps({"token": "ab", "since": since, "expires": expires, "holder": holder})
    shown = str(seen(text.encode()))
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 1
    assert len(shown) < 600


@settings(max_examples=12)
@given(st.text(max_size=80), st.text(max_size=80))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, user: str, record: str) -> None:
    """Any words of a holder, quotes, line ends and our own keys among them, come back whole, and forge no expiry."""
    folder = tmp_path_factory.mktemp("node")
    node = LocalConnection(cluster_of().nodes[0], folder)
    forged = user + '\n"expires": 1,\n"token": "ff",\n'
    holder = {"user": forged, "host": "h", "pid": 5, "record": record}
    assert node.run(lock_script.take(FOLDER, "ab", holder, 60, None), what="take").text.startswith("taken ")
    kept = json.loads((folder / FOLDER / "lock.json").read_text())
    assert kept["holder"] == holder
    assert node.run(lock_script.take(FOLDER, "cd", holder, 60, None), what="take").text.startswith("held ")
    assert node.run(lock_script.take(FOLDER, "ab", holder, 60, None), what="take").text.startswith("renewed ")


@pytest.mark.parametrize("said", ["", "taken", "taken x\n", "what 1\n"])
def test_an_answer_that_is_none_is_an_error(said: str) -> None:
    """A node that says something else has not taken the lock."""
    with pytest.raises(errors.CommandFailed, match="unexpected answer"):
        lock_script.answer(Completed("node1", "take the lock", 0, said.encode(), b""))


@given(st.text(max_size=30).filter(lambda text: "\0" not in text))
def test_a_token_from_the_environment_is_one_word(token: str) -> None:
    """Whatever stands in the variable, to the shell it is one word to compare with."""
    odd = token + "'; touch x; $(touch y) `touch z`"
    words = list(lock_script.guard(odd, lock_script.FOLDER).split('[ "$rb_token" != ')[1:])
    assert len(words) == 1
    assert shlex.split(words[0])[0] == odd


FOREVER = '"expires": 9999999999,'


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        (f'{{\n"token": "ab",\n{FOREVER}\n', True),
        (f'{{\n"token": "cd",\n{FOREVER}\n', False),
        ('{\n"token": "cd",\n"expires": 1,\n', True),
        (f'{{\n"token": "{"a" * 41}",\n{FOREVER}\n', False),
        (f'{{\n"token": "x", "token": "ab",\n{FOREVER}\n', False),
        (f'{{\n"by": "\\n"token": "ab",",\n"token": "cd",\n{FOREVER}\n', False),
        (f'{{\n"token": "AB",\n "token": "ab",\n"token": "ab"\n{FOREVER}\n', False),
        (f'"token": "*",\n"token": "ab",\n{FOREVER}\n', True),
        ("\\0\\n%s\0\xff no lock", True),
        ("", True),
    ],
)
def test_a_guard_reads_a_lock_by_its_lines(tmp_path: Path, text: str, passes: bool) -> None:  # noqa: FBT001
    """A key counts where it begins a line that is whole and well formed; another's lock holds until it expires."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "lock.json").write_bytes(text.encode("latin-1"))
    node = LocalConnection(NODE, tmp_path)
    done = node.run(f"set -eu\n{lock_script.guard('ab', FOLDER)}\necho passed", what="guard")
    assert (done.status, done.text, done.stderr != b"") == ((0, "passed\n", False) if passes else (75, "", True))


@pytest.mark.parametrize("make", ["mkdir", "ln -s /nonexistent", "ln -s /dev/zero"])
def test_what_is_no_file_is_no_lock(tmp_path: Path, make: str) -> None:
    """It is not waited for, and locks nobody out."""
    node = LocalConnection(NODE, tmp_path)
    script = f"set -eu\nmkdir {FOLDER}; {make} {FOLDER}/lock.json\n{lock_script.guard('ab', FOLDER)}\necho passed"
    done = node.run(script, what="guard")
    assert (done.status, done.text, done.stderr) == (0, "passed\n", b"")


def test_a_run_passes_its_own_lock_without_a_program(tmp_path: Path) -> None:
    """Each script of a run begins with that: it costs no process."""
    node = LocalConnection(NODE, tmp_path)
    node.run(lock_script.take(FOLDER, "ab", HOLDER, 60, None), what="take").check()
    done = node.run(f"set -eu\nPATH=/nonexistent\n{lock_script.guard('ab', FOLDER)}\necho passed", what="guard")
    assert (done.status, done.text, done.stderr) == (0, "passed\n", b"")
