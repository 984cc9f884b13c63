"""runbook.records.evidence: closing a record, so that sha256sum and ssh-keygen alone can check it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import small_records

from runbook import errors
from runbook.records import chain, evidence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def sha256sum(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def signed_by(folder: Path, who: str, allowed: Path) -> bool:
    command = ["ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", who, "-n", "runbook-record"]
    with (folder / "SHA256SUMS").open("rb") as sums:
        done = subprocess.run(
            [*command, "-s", "SHA256SUMS.sig"], cwd=folder, stdin=sums, capture_output=True, check=False, timeout=60
        )
    return done.returncode == 0


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An agent of our own."""
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it tells its socket when it listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        yield
        process.terminate()


def test_sha256sum_alone_checks_a_closed_record(tmp_path: Path) -> None:
    """`sha256sum -c` passes, over all but the sums themselves, sorted by name."""
    folder = small_records.make(tmp_path)
    (folder / "sub").mkdir()
    (folder / "sub" / "a file.txt").touch()
    evidence.close(folder)
    done = sha256sum(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [line.rpartition(": ")[0] for line in done.stdout.splitlines()]
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(names) == there - {"SHA256SUMS"}
    assert names == sorted(names)
    assert {"README.md", "sub/a file.txt", "summary.json"} <= set(names)


def test_ssh_keygen_alone_checks_a_signature(tmp_path: Path) -> None:
    """`ssh-keygen -Y verify` passes for the signer, and not for another."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    other = small_records.new_key(tmp_path / "keys", "bert")
    folder = small_records.make(tmp_path)
    evidence.close(folder, sign_key=key)
    allowed = small_records.allow(tmp_path / "allowed", anna=key, bert=other)
    assert signed_by(folder, "anna", allowed)
    assert not signed_by(folder, "bert", allowed)


def test_the_readme_s_commands_are_true(tmp_path: Path) -> None:
    """The commands in a record's own README, run as they stand there, pass; both counts and both sums agree."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    first, folder = small_records.make(tmp_path, 1), small_records.make(tmp_path, 2)
    evidence.close(first)
    evidence.close(folder, sign_key=key)
    readme = (folder / "README.md").read_text()
    commands = re.findall(r"^ {4}(\S.*)$", readme, re.MULTILINE)
    assert len(commands) == 5
    allowed = small_records.allow(tmp_path / "allowed", anna=key)
    printed = []
    for command in commands:
        filled = command.replace("ALLOWED_SIGNERS", str(allowed)).replace("WHO", "anna")
        done = subprocess.run(["sh", "-c", filled], cwd=folder, capture_output=True, text=True, check=True, timeout=60)
        printed.append(done.stdout)
    assert printed[1] == printed[2]
    assert len({line.split()[0] for line in printed[4].splitlines()}) == 1
    assert len(printed[4].splitlines()) == 2
    assert "first record" in (first / "README.md").read_text()


def test_a_record_holds_a_copy_of_the_sums_before_it(tmp_path: Path) -> None:
    """previous.SHA256SUMS is the one before's SHA256SUMS, byte for byte, under its own sums; the first has none."""
    folders = [small_records.make(tmp_path, number) for number in (1, 2, 3)]
    for folder in folders:
        evidence.close(folder)
    assert not (folders[0] / "previous.SHA256SUMS").exists()
    for before, after in pairwise(folders):
        assert (after / "previous.SHA256SUMS").read_bytes() == (before / "SHA256SUMS").read_bytes()
        assert "  previous.SHA256SUMS\n" in (after / "SHA256SUMS").read_text()


def test_a_record_that_began_earlier_and_ends_later_follows_the_one_that_ended(tmp_path: Path) -> None:
    """The chain is in the order of closing: it does not fork where a shorter run ended first."""
    long, short, last = (small_records.make(tmp_path, number) for number in (1, 2, 3))
    for folder in (short, long, last):
        evidence.close(folder)
    assert (long / "previous.SHA256SUMS").read_bytes() == (short / "SHA256SUMS").read_bytes()
    assert (last / "previous.SHA256SUMS").read_bytes() == (long / "SHA256SUMS").read_bytes()


def test_records_that_close_at_once_make_one_chain(tmp_path: Path) -> None:
    """Of eight that close at the same moment each follows another one, in a single line."""
    folders = [small_records.make(tmp_path, number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(evidence.close, folders))
    records = chain.closed(tmp_path / "sandbox")
    end = chain.tip(records)
    assert end is not None
    assert len(chain.ancestors(end, records)) == 7


def test_a_closed_record_is_not_closed_again(tmp_path: Path) -> None:
    """A second close is refused and changes nothing; so is one where only the signature is left."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    folder = small_records.make(tmp_path)
    evidence.close(folder, sign_key=key)
    sums = (folder / "SHA256SUMS").read_bytes()
    with pytest.raises(errors.RunbookError, match="closed already"):
        evidence.close(folder)
    assert (folder / "SHA256SUMS").read_bytes() == sums
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(errors.RunbookError, match="SHA256SUMS is gone"):
        evidence.close(folder)
    assert not (folder / "SHA256SUMS").exists()


def test_what_sums_cannot_cover_keeps_a_record_open(tmp_path: Path) -> None:
    """A link, a FIFO and a name that sha256sum would escape are refused by name before anything is written."""
    folder = small_records.make(tmp_path)
    before = sorted(folder.iterdir())
    for odd, put in (
        ("link", lambda path: path.symlink_to("summary.json")),
        ("fifo", os.mkfifo),
        ("a\nb", lambda path: path.touch()),
        ("back\\slash", lambda path: path.touch()),
    ):
        put(folder / odd)
        with pytest.raises(errors.RunbookError) as raised:
            evidence.close(folder)
        assert ascii(odd) in str(raised.value)
        (folder / odd).unlink()
        assert sorted(folder.iterdir()) == before


def test_only_a_record_s_folder_is_closed(tmp_path: Path) -> None:
    """A folder of another name would stand outside of every chain: refused."""
    folder = small_records.make(tmp_path)
    other = folder.rename(folder.with_name("mine"))
    with pytest.raises(errors.RunbookError, match="is no record"):
        evidence.close(other)
    with pytest.raises(errors.RunbookError, match="can't be closed"):
        evidence.close(folder)


def test_a_closed_record_is_read_only_and_can_be_removed(tmp_path: Path) -> None:
    """No file has a write bit, folders keep theirs: an editor can't save by accident, and `rm -r` still works."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    folder = small_records.make(tmp_path)
    evidence.close(folder, sign_key=key)
    assert {oct(path.stat().st_mode & 0o222) for path in folder.iterdir()} == {"0o0"}
    assert folder.stat().st_mode & 0o200
    shutil.rmtree(folder)
    assert not folder.exists()


@pytest.mark.parametrize("missing", [True, False])
def test_a_key_that_cannot_sign_leaves_the_record_closed(tmp_path: Path, *, missing: bool) -> None:
    """ssh-keygen never asks for a passphrase: the error says closed and unsigned; so for a missing key."""
    folder = small_records.make(tmp_path)
    key = tmp_path / "keys" / "none"
    if not missing:
        key = small_records.new_key(tmp_path / "keys", "locked", "passphrase")
    with pytest.raises(errors.RunbookError, match="not signed") as raised:
        evidence.close(folder, sign_key=key)
    assert "ssh-keygen -Y sign -f" in raised.value.remedy
    assert ("ssh-add" in raised.value.remedy) is not missing
    assert sha256sum(folder).returncode == 0
    assert not (folder / "SHA256SUMS.sig").exists()


def test_the_remedy_for_an_unsigned_record_works(tmp_path: Path) -> None:
    """The command that the error names signs the closed record as it is."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    hidden = key.rename(key.with_name("hidden"))
    folder = small_records.make(tmp_path)
    with pytest.raises(errors.RunbookError, match="not signed") as raised:
        evidence.close(folder, sign_key=key)
    hidden.rename(key)
    command = raised.value.remedy.partition("as it is: ")[2]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=60)
    assert signed_by(folder, "anna", small_records.allow(tmp_path / "allowed", anna=key))


@pytest.mark.usefixtures("agent")
def test_a_key_in_an_agent_signs(tmp_path: Path) -> None:
    """With the private key in an agent alone, naming its .pub file is enough."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    subprocess.run(["ssh-add", "-q", str(key)], check=True, capture_output=True, timeout=60)
    key.unlink()
    folder = small_records.make(tmp_path)
    evidence.close(folder, sign_key=key.with_suffix(".pub"))
    assert signed_by(folder, "anna", small_records.allow(tmp_path / "allowed", anna=key))


def test_a_signer_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh-keygen, and what it has started, ends at a deadline; the record is closed, unsigned."""
    monkeypatch.setattr(evidence, "_KEYGEN_S", 0.2)
    fake = tmp_path / "bin" / "ssh-keygen"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nsleep 600 &\nwait\n")
    fake.chmod(0o755)
    folder = small_records.make(tmp_path)
    key = tmp_path / "key"
    key.touch()
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(errors.RunbookError, match="did not end within"):
        evidence.close(folder, sign_key=key)
    assert sha256sum(folder).returncode == 0


def test_a_machine_without_ssh_keygen_still_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ssh-keygen the error names it, and the sums stand."""
    folder = small_records.make(tmp_path)
    key = tmp_path / "key"
    key.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.RunbookError, match="ssh-keygen can't be run"):
        evidence.close(folder, sign_key=key)
    assert (folder / "SHA256SUMS").is_file()


def test_a_disk_that_fills_up_leaves_the_record_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SHA256SUMS appears whole or not at all; after the cause is gone, closing works."""
    folder = small_records.make(tmp_path)
    write = evidence.saving.write

    def full(path: Path, text: str) -> None:
        if path.name == "SHA256SUMS":
            raise OSError(28, "No space left on device", str(path))
        write(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(evidence.saving, "write", full)
        with pytest.raises(errors.RunbookError, match="No space left"):
            evidence.close(folder)
    assert not (folder / "SHA256SUMS").exists()
    evidence.close(folder)
    assert sha256sum(folder).returncode == 0
