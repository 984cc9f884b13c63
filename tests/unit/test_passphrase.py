"""runbook.certs.passphrase, and the CA's key that it opens: taken, refused, made; never shown."""

from __future__ import annotations

import getpass
import subprocess
import sys
import types
from typing import TYPE_CHECKING

import pytest
from certificate_cases import CLIENT, key_pem, make_ca, settings_of
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import PrivateFormat

from runbook import pki
from runbook.certs import passphrase
from runbook.certs.secret import Secret
from runbook.errors import PkiError
from runbook.records import redact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runbook.params import Pki

WORD = "correct horse"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, no keyring, no answer kept, and nobody who answers."""
    monkeypatch.delenv(passphrase.VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.setattr(passphrase, "_told", {})
    monkeypatch.setattr(getpass, "getpass", _nobody)


def _nobody(_text: str) -> str:
    raise EOFError


def answering(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Somebody answers so; gives the list of what was asked."""
    asked: list[str] = []
    left = iter(answers)

    def answer(text: str) -> str:
        asked.append(text)
        return next(left)

    monkeypatch.setattr(getpass, "getpass", answer)
    return asked


def imported(folder: Path, form: PrivateFormat = PrivateFormat.PKCS8) -> Pki:
    """Settings with somebody's CA whose key is encrypted."""
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "ca.pem").write_bytes(make_ca(key)[0])
    (folder / "key.pem").write_bytes(key_pem(key, form, WORD.encode()))
    (folder / "key.pem").chmod(0o600)
    return settings_of(ca_cert=folder / "ca.pem", ca_key=folder / "key.pem")


def from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(passphrase.VARIABLE, WORD)


def from_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = types.ModuleType("keyring")
    vars(ring)["get_password"] = lambda service, user: WORD if service == "runbook" and user.endswith("pem") else None
    monkeypatch.setitem(sys.modules, "keyring", ring)


def from_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, WORD, WORD)


SOURCES = [from_environment, from_keyring, from_a_person]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_ca_is_opened(
    source: Callable[[pytest.MonkeyPatch], None], form: PrivateFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From each of the places, in both forms that OpenSSL writes; what it issues holds."""
    settings = imported(tmp_path, form)
    source(monkeypatch)
    found = pki.find_authority(settings, tmp_path / "own")
    assert found is not None
    pair = found.issue(CLIENT, subject={}, valid_days=1)
    assert pki.describe(pair.certificate, pair.key, found.pem)["chain_verifies"]


def test_it_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second look needs no second answer; the question names the file."""
    settings, asked = imported(tmp_path), answering(monkeypatch, WORD)
    for _look in range(2):
        assert pki.find_authority(settings, tmp_path)
    assert asked == [f"passphrase of the CA's key {settings.ca_key}: "]


def test_a_wrong_one_is_said_and_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file and not the word; the next look asks anew."""
    settings = imported(tmp_path)
    answering(monkeypatch, "wrong horse", WORD)
    with pytest.raises(PkiError, match="the passphrase does not open the key") as caught:
        pki.find_authority(settings, tmp_path)
    assert caught.value.subject == str(settings.ca_key)
    assert "wrong horse" not in str(caught.value)
    assert pki.find_authority(settings, tmp_path)


def test_nobody_to_ask_is_an_error_that_tells_the_ways(tmp_path: Path) -> None:
    """In a notebook without a terminal: the variable and the keyring are named."""
    settings = imported(tmp_path)
    with pytest.raises(PkiError, match="nobody to ask") as caught:
        pki.find_authority(settings, tmp_path)
    assert "RUNBOOK_CA_PASSPHRASE" in caught.value.remedy
    assert f"keyring set runbook {settings.ca_key}" in caught.value.remedy


@pytest.mark.parametrize("source", SOURCES)
def test_an_own_key_is_made_encrypted(
    source: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On disk no file holds the open key; openssl opens it with the passphrase, and not with another."""
    source(monkeypatch)
    made = pki.create_authority(settings_of(encrypt_key=True), tmp_path, name="c")
    key = tmp_path / "ca-key.pem"
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in key.read_bytes()
    assert [one.name for one in tmp_path.iterdir() if b"BEGIN PRIVATE KEY" in one.read_bytes()] == []
    assert key.stat().st_mode & 0o777 == 0o600
    opened = ["openssl", "pkey", "-in", key, "-noout", "-passin"]
    assert subprocess.run([*opened, f"pass:{WORD}"], capture_output=True, check=False).returncode == 0
    assert subprocess.run([*opened, "pass:wrong"], capture_output=True, check=False).returncode != 0
    again = pki.find_authority(settings_of(), tmp_path)
    assert again is not None
    assert again.fingerprint == made.fingerprint


def test_a_key_that_lies_open_is_refused_where_it_is_to_be_encrypted(tmp_path: Path) -> None:
    """The setting is a promise: an older key in the open is named, with the command that encrypts it, which works."""
    pki.create_authority(settings_of(), tmp_path, name="c")
    with pytest.raises(PkiError, match="is not encrypted") as caught:
        pki.find_authority(settings_of(encrypt_key=True), tmp_path)
    command = caught.value.remedy.split("`")[1].replace("NEW", str(tmp_path / "NEW"))
    subprocess.run(["sh", "-c", f"{command} -passout pass:12345678"], check=True)
    assert passphrase.encrypted(Secret((tmp_path / "NEW").read_bytes()))


@pytest.mark.parametrize(
    ("answers", "why"), [((WORD, "another"), "the two passphrases differ"), (("short", "short"), "5 characters")]
)
def test_a_new_passphrase_is_long_and_meant(
    answers: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for twice and has 8 characters at least; else no CA is made."""
    answering(monkeypatch, *answers)
    with pytest.raises(PkiError, match=why):
        pki.create_authority(settings_of(encrypt_key=True), tmp_path, name="c")
    assert list(tmp_path.glob("*.pem*")) == []


def test_it_is_asked_for_before_other_processes_need_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it goes into the environment; where there is none, or no encrypted key, nothing is asked."""
    settings = imported(tmp_path)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: False))
    pki.ask_ahead(settings, tmp_path)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    pki.ask_ahead(settings_of(), tmp_path / "none")
    asked = answering(monkeypatch, WORD)
    pki.ask_ahead(settings, tmp_path)
    pki.ask_ahead(settings, tmp_path)
    assert len(asked) == 1
    assert passphrase.os.environ[passphrase.VARIABLE] == WORD
    assert WORD in redact.known_secrets(passphrase.os.environ)
