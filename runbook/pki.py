"""The cluster's certificate authority on this side: found, or made once; and all of `runbook` about certificates.

An own CA is two files in a folder. They get their names in an order from which every crash can be mended:

1. `ca-key.pem.new` (0600) and `ca.pem.new` are written and synced;
2. `ca-key.pem.new` is renamed to `ca-key.pem`;
3. `ca.pem.new` is renamed to `ca.pem`: only from here on there is a CA, and only now can it have issued anything.

A crash before 2 leaves files that the next creation replaces; between 2 and 3 it leaves a key beside a staged
certificate, which the next creation completes. A key or a certificate alone was left by a person, and is an error:
a second CA would cut the nodes off from each other. Creators exclude each other by flock on `.ca.lock` (flock, since
fcntl's record locks don't hold between the threads of one process).
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING, NoReturn

from runbook import file_lock
from runbook.certs import passphrase
from runbook.certs.authority import Authority, new_authority, sealed
from runbook.certs.certificates import KeyPair, Profile, public_fingerprint
from runbook.certs.leaf import describe, renewal_reason
from runbook.certs.secret import Secret
from runbook.errors import PkiError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbook.params import Pki

__all__ = [
    "Authority",
    "KeyPair",
    "Profile",
    "create_authority",
    "describe",
    "find_authority",
    "public_fingerprint",
    "renewal_reason",
]

_CERTIFICATE, _KEY, _STAGED = "ca.pem", "ca-key.pem", ".new"
_LOCK = ".ca.lock"
_LOCK_SECONDS = 60.0
_MAX_FILE_BYTES = 1 << 20
_REMEDY_IMPORTED = "give a CA that can sign, or leave pki.ca_cert and pki.ca_key out to have one made"
_REMEDY_BROKEN = "put ca.pem and ca-key.pem back from a copy; a new CA would mean new certificates on every node"
_REMEDY_LOST = (
    "put the missing file back from a copy; only if it is lost for good, move the other one away too: "
    "then a new CA is made, and every node needs new certificates"
)


def find_authority(pki: Pki, directory: Path) -> Authority | None:
    """The CA of a cluster: the imported one where params name it, else the own one in `directory`. Changes nothing.

    A CA near its end is still good (see `Authority.warning`).

    Args:
        pki: Settings; `ca_cert` and `ca_key` name an imported CA.
        directory: The folder of the own CA.

    Returns:
        None where no CA was made yet, or its making was cut short: `create_authority` then makes or completes it.

    Raises:
        PkiError: A file is missing, unreadable or no CA's, the two don't match, the CA is expired, or others can read
            its key.
    """
    if pki.ca_cert is None and pki.ca_key is None:
        return _find_own(directory, encrypted=pki.encrypt_key)
    if pki.ca_cert is None or pki.ca_key is None:
        missing = "pki.ca_cert" if pki.ca_cert is None else "pki.ca_key"
        raise PkiError("is not set, but an imported CA needs both files", subject=missing, remedy="set both or none")
    return _load(pki.ca_cert, pki.ca_key, _REMEDY_IMPORTED, encrypted=pki.encrypt_key)


def create_authority(pki: Pki, directory: Path, *, name: str) -> Authority:
    """The CA of a cluster, made now where there is none yet; never a second one, however many creators there are.

    Args:
        pki: Settings; `subject`, `valid_days` and `key_type` shape a new CA.
        directory: The folder of the own CA; made (0700) where missing.
        name: The cluster's name; the CA's CN is `<name> CA`.

    Raises:
        PkiError: As `find_authority`; or the files can't be written, and then none has its name.
    """
    found = find_authority(pki, directory)
    if found is not None:
        return found
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(directory):
            if _find_own(directory, encrypted=pki.encrypt_key) is None:
                _make(pki, directory, name)
            return _load(directory / _CERTIFICATE, directory / _KEY, _REMEDY_BROKEN, encrypted=pki.encrypt_key)
    except OSError as error:
        raise PkiError(
            f"the CA can't be written: {error.strerror or error}",
            subject=str(directory),
            remedy="make room, or give this user the folder; then run again",
        ) from None


def ask_ahead(pki: Pki, directory: Path) -> None:
    """Ask on this terminal for the passphrase that notebooks in other processes will need; see `passphrase`.

    Args:
        pki: Settings.
        directory: The folder of the own CA.
    """
    path = pki.ca_key or directory / _KEY
    made = path.is_file()
    if passphrase.encrypted(_read(path, private=True)) if made else pki.encrypt_key:
        passphrase.ask_ahead(path, new=not made)


def _find_own(directory: Path, *, encrypted: bool) -> Authority | None:
    certificate, key = directory / _CERTIFICATE, directory / _KEY
    for _look in range(2):  # a creator may be between its renames at the first
        if _present(certificate):
            if _present(key):
                return _load(certificate, key, _REMEDY_BROKEN, encrypted=encrypted)
            raise PkiError("the CA's key is missing beside its ca.pem", subject=str(key), remedy=_REMEDY_LOST)
        if not _present(key) or _present(_staged(certificate)):
            return None
    raise PkiError("the CA's certificate is missing beside its key", subject=str(certificate), remedy=_REMEDY_LOST)


def _load(certificate: Path, key: Path, remedy: str, *, encrypted: bool = False) -> Authority:
    """Read a pair; `remedy` is for what has none of its own, `encrypted` refuses a key that lies open."""
    try:
        secret = _read(key, private=True)
        closed = passphrase.encrypted(secret)
        if encrypted and not closed:
            _refuse_open(key)
        return Authority(
            _read(certificate).reveal(),
            secret,
            passphrase=passphrase.find(key) if closed else None,
            certificate_name=str(certificate),
            key_name=str(key),
        )
    except PkiError as error:
        passphrase.forget(key)
        raise PkiError(error.message, subject=error.subject, remedy=error.remedy or remedy) from None


def _refuse_open(key: Path) -> NoReturn:
    seal = f"umask 077; openssl pkcs8 -topk8 -v2 aes-256-cbc -in {quote(str(key))} -out NEW"
    raise PkiError(
        "is not encrypted, and pki.encrypt_key asks for it",
        subject=str(key),
        remedy=f"`{seal}`; then put NEW in its place",
    )


def _make(pki: Pki, directory: Path, name: str) -> None:
    """Write both files, or complete what a crash left, in the order that the module tells; under the lock."""
    certificate, key = directory / _CERTIFICATE, directory / _KEY
    if _present(key):
        _load(_staged(certificate), key, _REMEDY_LOST, encrypted=pki.encrypt_key)  # refuses a pair that isn't one
        _rename(_staged(certificate), certificate)
        return
    word = passphrase.find(key, new=True) if pki.encrypt_key else None
    pair = new_authority(pki.subject, name=name, valid_days=pki.valid_days, key_type=pki.key_type)
    try:
        _write(_staged(key), sealed(pair.key, word) if word else pair.key, 0o600)
        _write(_staged(certificate), Secret(pair.certificate), 0o644)
        _sync(directory)
        _rename(_staged(key), key)
        _rename(_staged(certificate), certificate)
    except BaseException:
        if not _present(certificate):
            for path in (key, _staged(key), _staged(certificate)):  # the key first: alone, it would be an error
                path.unlink(missing_ok=True)
        raise


def _staged(path: Path) -> Path:
    return path.with_name(path.name + _STAGED)


def _present(path: Path) -> bool:
    """Whether there is anything by this name; a folder that can't be read is an error, not an absence."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise PkiError(f"can't be looked at: {error.strerror}", subject=str(path)) from None
    return True


def _read(path: Path, *, private: bool = False) -> Secret:
    """A file's bytes, unless it is no file or (`private`) not its owner's alone."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # O_NONBLOCK: a pipe must not hold us
    except OSError as error:
        raise PkiError(f"can't be read: {error.strerror}", subject=str(path)) from None
    try:
        status = os.fstat(file)
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE_BYTES:
            raise PkiError("is no PEM file", subject=str(path))
        if private and mode & 0o077:
            raise PkiError(
                f"a private key that others can read (mode {mode:04o}), expected 0600",
                subject=str(path),
                remedy=f"chmod 600 {path}",
            )
        return Secret(os.read(file, _MAX_FILE_BYTES))
    except OSError as error:
        raise PkiError(f"can't be read: {error.strerror}", subject=str(path)) from None
    finally:
        os.close(file)


def _write(path: Path, content: Secret, mode: int) -> None:
    path.unlink(missing_ok=True)  # left by a crash; the lock is ours
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(file, "wb") as stream:
        os.fchmod(file, mode)  # the umask may have taken bits
        stream.write(content.reveal())
        stream.flush()
        os.fsync(file)


def _rename(source: Path, target: Path) -> None:
    source.rename(target)
    _sync(target.parent)


def _sync(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    file = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not file_lock.take(file, _LOCK_SECONDS):
            raise PkiError(
                f"another process has been making the CA for {_LOCK_SECONDS:.0f} s",
                subject=str(directory / _LOCK),
                remedy="end it, then run again",
            )
        yield
    finally:
        os.close(file)
