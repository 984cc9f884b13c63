"""The CA's files: made once, mended after a crash, never made twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from certificate_cases import (
    MEMBER,
    SUBJECT,
    key_pem,
    our_authority,
    reason,
    settings_of,
)
from cryptography.hazmat.primitives.asymmetric import ec

from runbook import pki
from runbook.errors import PkiError
from runbook.pki import Authority, create_authority, find_authority


@pytest.fixture(scope="module")
def authority() -> Authority:
    return our_authority()


RACE = f"""
import sys, threading
from pathlib import Path
from runbook.params import Pki
from runbook.pki import create_authority
settings = Pki(subject={SUBJECT!r})
print("ready", flush=True)
input()
found = []
def make():
    found.append(create_authority(settings, Path(sys.argv[1]), name="sandbox").fingerprint)
threads = [threading.Thread(target=make) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("\\n".join(found))
"""

CRASH = f"""
import os, sys
from pathlib import Path
from runbook.params import Pki
from runbook.pki import create_authority
left = int(sys.argv[2])
def deadly(call):
    def step(*args, **kwargs):
        global left
        left -= 1
        if not left:
            os._exit(9)
        return call(*args, **kwargs)
    return step
Path(sys.argv[1]).mkdir()
os.fsync, os.fchmod, Path.rename = deadly(os.fsync), deadly(os.fchmod), deadly(Path.rename)
settings = Pki(subject={SUBJECT!r})
create_authority(settings, Path(sys.argv[1]), name="sandbox")
"""


def fail_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Let the step-th of the calls that need room fail with ENOSPC."""
    left = [step]

    def full(call: Any) -> Any:  # noqa: ANN401
        def attempt(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            left[0] -= 1
            if not left[0]:
                raise OSError(28, "No space left on device")
            return call(*args, **kwargs)

        return attempt

    patch.setattr(os, "fdopen", full(os.fdopen))
    patch.setattr(os, "fsync", full(os.fsync))
    patch.setattr(Path, "rename", full(Path.rename))


class TestOwnAuthority:
    def test_made_once_and_found_again(self, tmp_path: Path) -> None:
        """The first call makes it, every later one and every finder gets the same; the name changes nothing."""
        folder = tmp_path / "state" / "pki"
        assert find_authority(settings_of(), folder) is None
        assert not folder.exists()
        made = create_authority(settings_of(), folder, name="sandbox")
        again = create_authority(settings_of(subject={"O": "other"}), folder, name="other")
        found = find_authority(settings_of(), folder)
        assert found is not None
        assert made.pem == again.pem == found.pem
        assert (made.warning, made.fingerprint) == ("", found.fingerprint)
        assert sorted(path.name for path in folder.iterdir()) == [".ca.lock", "ca-key.pem", "ca.pem"]

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
    def test_key_is_0600_from_the_first_byte(self, tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever the umask, the key has mode 0600 before a byte is in it and under its name."""
        modes = []
        fdopen = os.fdopen

        def watch(file: int, mode: str) -> Any:  # noqa: ANN401
            modes.append((os.fstat(file).st_mode & 0o777, os.fstat(file).st_size))
            return fdopen(file, mode)

        monkeypatch.setattr(os, "fdopen", watch)
        old = os.umask(umask)
        try:
            create_authority(settings_of(), tmp_path, name="sandbox")
        finally:
            os.umask(old)
        assert modes[0] == (0o600 & ~umask, 0)
        assert (tmp_path / "ca-key.pem").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "ca.pem").stat().st_mode & 0o777 == 0o644

    def test_many_processes_and_threads_end_with_one_ca(self, tmp_path: Path) -> None:
        """Four processes of four threads each, started at once, all return one CA: that of the files."""
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", RACE, str(tmp_path / "pki")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for _ in range(4)
        ]
        assert [worker.stdout.readline() for worker in workers if worker.stdout] == [b"ready\n"] * 4
        for worker in workers:
            assert worker.stdin
            worker.stdin.write(b"go\n")
            worker.stdin.flush()
        fingerprints = [line for worker in workers for line in worker.communicate(timeout=60)[0].decode().split()]
        found = find_authority(settings_of(), tmp_path / "pki")
        assert found is not None
        assert fingerprints == [found.fingerprint] * 16

    def test_a_crash_at_any_step_is_mended(self, tmp_path: Path) -> None:
        """Killed at any system call of the creation, the next one ends with one whole CA, and nothing beside it."""
        outcomes = []
        for step in range(1, 20):
            folder = tmp_path / str(step)
            ended = subprocess.run([sys.executable, "-c", CRASH, str(folder), str(step)], check=False).returncode
            left = sorted(path.name for path in folder.iterdir() if path.name != ".ca.lock")
            before = find_authority(settings_of(), folder)
            made = create_authority(settings_of(), folder, name="sandbox")
            assert before is None or before.pem == made.pem
            assert sorted(path.name for path in folder.iterdir()) == [".ca.lock", "ca-key.pem", "ca.pem"]
            assert (
                reason(made.issue(MEMBER, subject=SUBJECT, valid_days=9), find_authority(settings_of(), folder)) == ""
            )
            outcomes.append(left)
            if ended == 0:
                break
        assert outcomes[0] == ["ca-key.pem.new"]
        assert ["ca-key.pem", "ca.pem.new"] in outcomes  # the state between the two names was met
        assert outcomes[-1] == ["ca-key.pem", "ca.pem"]

    def test_a_full_disk_at_any_step_leaves_no_ca_and_no_half_of_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each write, sync and rename that fails for want of room ends in a PkiError with nothing, or all, in place."""
        left = []
        for step in range(1, 20):
            folder = tmp_path / str(step)
            with monkeypatch.context() as patch:
                fail_at(patch, step)
                try:
                    create_authority(settings_of(), folder, name="sandbox")
                except PkiError as error:
                    assert "No space left on device" in str(error)  # noqa: PT017
                    assert "make room" in error.remedy  # noqa: PT017
                else:
                    break
            left.append(sorted(path.name for path in folder.iterdir() if path.name != ".ca.lock"))
        assert left.count([]) == len(left) - 1
        assert left[-1] == ["ca-key.pem", "ca.pem"]  # only the last sync, after both names, finds the CA made

    def test_a_pair_without_its_other_half_is_refused(self, authority: Authority, tmp_path: Path) -> None:
        """A lone certificate or key is an error in both functions, and no second CA is made."""
        for number, name in enumerate(("ca.pem", "ca-key.pem")):
            folder = tmp_path / str(number)
            create_authority(settings_of(), folder, name="sandbox")
            (folder / name).unlink()
            for call in (find_authority, lambda *given: create_authority(*given, name="sandbox")):
                with pytest.raises(PkiError, match="missing beside") as caught:
                    call(settings_of(), folder)
                assert caught.value.subject == str(folder / name)
                assert "from a copy" in caught.value.remedy
            assert not (folder / name).exists()
        # A staged certificate that belongs to another key completes nothing.
        (folder / "ca.pem").rename(folder / "ca.pem.away")
        (folder / "ca-key.pem").write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
        (folder / "ca-key.pem").chmod(0o600)
        (folder / "ca.pem.new").write_bytes(authority.pem)
        with pytest.raises(PkiError, match="doesn't belong to the key"):
            create_authority(settings_of(), folder, name="sandbox")
        assert not (folder / "ca.pem").exists()

    def test_a_folder_that_cannot_be_looked_into_is_no_empty_one(self, tmp_path: Path) -> None:
        """Where the folder's place is a file, nothing is concluded from not finding a CA."""
        (tmp_path / "file").write_text("")
        with pytest.raises(PkiError, match="can't be looked at: Not a directory"):
            find_authority(settings_of(), tmp_path / "file")

    def test_looking_between_the_renames_of_a_creator(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A finder that sees the key and then neither certificate looks again before it calls one lost."""
        made = create_authority(settings_of(), tmp_path, name="sandbox")
        (tmp_path / "ca.pem").rename(tmp_path / "ca.pem.new")
        assert find_authority(settings_of(), tmp_path) is None
        present = pki._present

        def creator_goes_on(path: Path) -> bool:
            if path.name == "ca.pem.new" and present(path):
                path.rename(tmp_path / "ca.pem")
            return present(path)

        monkeypatch.setattr(pki, "_present", creator_goes_on)
        found = find_authority(settings_of(), tmp_path)
        assert found is not None
        assert found.pem == made.pem

    def test_a_broken_own_ca_is_not_replaced(self, tmp_path: Path) -> None:
        """Own files that can't be used are told with the copy as the remedy, and stay as they are."""
        create_authority(settings_of(), tmp_path, name="sandbox")
        (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
        with pytest.raises(PkiError, match=r"ca\.pem: certificate is damaged\n.*back from a copy"):
            create_authority(settings_of(), tmp_path, name="sandbox")
        assert (tmp_path / "ca.pem").read_text() == "-----BEGIN CERTIFICATE-----\n"

    def test_a_lock_held_for_ever_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A creator that hangs is named after a while instead of being waited for without end."""
        monkeypatch.setattr(pki, "_LOCK_SECONDS", 0.05)
        with pki._locked(tmp_path), pytest.raises(PkiError, match="another process has been making the CA"):
            create_authority(settings_of(), tmp_path, name="sandbox")
        assert create_authority(settings_of(), tmp_path, name="sandbox")

    def test_rsa_ca(self, tmp_path: Path) -> None:
        """The key type of params holds for the CA too."""
        made = create_authority(settings_of(key_type="rsa", subject={}), tmp_path, name="n" * 64)
        key: Any = made.certificate.public_key()
        assert key.key_size == 3072
        assert made.certificate.subject.rfc4514_string() == f"CN={'n' * 61} CA"
