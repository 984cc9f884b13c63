"""The passphrase of an encrypted CA key: from the environment, a keyring, or whoever is asked.

Kept in this process alone, and in the environment of what it starts; never in params, a record or a log.
"""

from __future__ import annotations

import getpass
import importlib
import os
import sys
from typing import TYPE_CHECKING

from runbook.certs.secret import Secret
from runbook.errors import PkiError

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "RUNBOOK_CA_PASSPHRASE"
#: The keyring's service; its user name is the key's path.
SERVICE = "runbook"
LEAST = 8
_told: dict[str, Secret] = {}


def encrypted(key: Secret) -> bool:
    """Whether a PEM text holds an encrypted key (PKCS8's own header, or RFC 1421's as OpenSSL writes it)."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in key.reveal() or b"Proc-Type: 4,ENCRYPTED" in key.reveal()


def find(path: Path, *, new: bool = False) -> Secret:
    """The passphrase of a key file: from RUNBOOK_CA_PASSPHRASE, the keyring (where the package `keyring` is), or asked.

    Args:
        path: The key file.
        new: Whether it is for a key that is made now: it is asked for twice, and a short one is refused.

    Raises:
        PkiError: nobody can be asked, the two answers differ, or it is too short for a new key.
    """
    found = os.environ.get(VARIABLE, "").encode() or _from_keyring(path)
    if not found and str(path) in _told:
        return _told[str(path)]
    if not found:
        found = _ask(f"passphrase of the CA's key {path}: ", path)
        if new and _ask("the same again: ", path) != found:
            raise PkiError("the two passphrases differ", subject=str(path), remedy="run it again")
        _told[str(path)] = Secret(found)
    if new and len(found) < LEAST:
        _told.pop(str(path), None)
        raise PkiError(
            f"a passphrase of {len(found)} characters is too short for the CA's key, expected {LEAST} or more",
            subject=str(path),
            remedy=f"take a longer one ({VARIABLE}, the keyring, or when it is asked for)",
        )
    return Secret(found)


def forget(path: Path) -> None:
    """Ask again next time: what was answered did not open the key."""
    _told.pop(str(path), None)


def ask_ahead(path: Path, *, new: bool) -> None:
    """Ask on this terminal for what notebooks in other processes will need, and leave it in their environment.

    Does nothing where it is known already, or where there is no terminal: then the notebook that needs it says so.
    """
    if os.environ.get(VARIABLE) or _from_keyring(path) or not sys.stdin.isatty():
        return
    os.environ[VARIABLE] = find(path, new=new).reveal().decode("utf-8", "surrogateescape")


def _from_keyring(path: Path) -> bytes:
    try:
        keyring = importlib.import_module("keyring")
        return (keyring.get_password(SERVICE, str(path)) or "").encode()
    except Exception:  # noqa: BLE001 - not installed, no backend, locked: then it is asked for
        return b""


def _ask(text: str, path: Path) -> bytes:
    try:
        return getpass.getpass(text).encode()
    except (EOFError, OSError, RuntimeError):  # no terminal; ipykernel's StdinNotImplementedError is a RuntimeError
        raise PkiError(
            "the CA's key is encrypted, and there is nobody to ask for its passphrase",
            subject=str(path),
            remedy=f"put it into {VARIABLE}, or into the keyring: `keyring set {SERVICE} {path}`",
        ) from None
