"""Certificates that the tests of several modules use."""

from __future__ import annotations

import functools
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from runbook.certs.authority import new_authority
from runbook.certs.secret import Secret
from runbook.params import Pki
from runbook.pki import Authority, KeyPair, Profile, renewal_reason

if TYPE_CHECKING:
    from pathlib import Path

SUBJECT = {"C": "CN", "ST": "BeiJing", "L": "BeiJing", "O": "k8s", "OU": "4Paradigm"}
MEMBER = Profile("etcd", sans=("198.18.0.11", "127.0.0.1", "localhost", "node1"), server=True)
CLIENT = Profile("flanneld")
# An hour ahead: certificates that a test issues long after this was read are valid at it all the same.
NOW = datetime.now(UTC) + timedelta(hours=1)
DAY = timedelta(days=1)


def settings_of(**changed: Any) -> Pki:  # noqa: ANN401
    return Pki(**({"subject": SUBJECT} | changed))


def key_pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes = b"") -> bytes:  # noqa: ANN401
    sealed = BestAvailableEncryption(password) if password else NoEncryption()
    return bytes(key.private_bytes(Encoding.PEM, form, sealed))


def make_ca(
    key: Any = None,  # noqa: ANN401
    *,
    cn: str = "their CA",
    ca: bool | None = True,
    sign: bool = True,
    usage: tuple[x509.ObjectIdentifier, ...] = (),
    starts: datetime = NOW - DAY,
    ends: datetime = NOW + 3650 * DAY,
) -> tuple[bytes, Secret]:
    """A CA as someone else's tools may have made it."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(starts).not_valid_after(ends)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if not sign:
        flags = dict.fromkeys(["content_commitment", "key_encipherment", "data_encipherment", "key_agreement"], False)
        flags |= dict.fromkeys(["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"], False)
        builder = builder.add_extension(x509.KeyUsage(digital_signature=True, **flags), critical=True)
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM), Secret(key_pem(key))


@functools.cache
def our_authority() -> Authority:
    """An own CA, made once."""
    pair = new_authority(SUBJECT, name="sandbox", valid_days=3650, key_type="ecdsa")
    return Authority(pair.certificate, pair.key)


@functools.cache
def our_member() -> KeyPair:
    """A member's pair of `our_authority`."""
    return our_authority().issue(MEMBER, subject=SUBJECT, valid_days=3650)


def reason(pair: KeyPair, authority: Authority | None, profile: Profile = MEMBER, **changed: Any) -> str:  # noqa: ANN401
    options = {"subject": SUBJECT} | changed
    return renewal_reason(pair.certificate, pair.key, profile, authority, **options)


def openssl(*arguments: str | Path) -> str:
    """Run openssl; its output, which is an error unless it ended with 0."""
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
