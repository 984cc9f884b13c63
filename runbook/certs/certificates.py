"""Certificates and keys as values: what one is for, the names in it, how PEM is read.

Pure functions: no disk, no node. Rules are of RFC 5280 and of what Go's crypto/x509 (etcd, flanneld) accepts.
Garbage becomes a PkiError, never another exception, and never with bytes of a key in it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runbook.errors import PkiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runbook.certs.secret import Secret

    Subject: TypeAlias = Mapping[str, str] | Mapping[Literal["C", "ST", "L", "O", "OU"], str]

Extension = TypeVar("Extension", bound=x509.ExtensionType)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

# Everything that cryptography raises on input it can't read; most of it only when a field is looked at.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    Warning,  # under -W error
)
USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
_SUBJECT_ORDER = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
}
_ATTRIBUTE_CHARS = 64  # RFC 5280 appendix A.1, the least upper bound of these attributes
_DNS_CHARS = 253
_DNS_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Profile:
    """What a certificate is for.

    Args:
        common_name: The subject's CN.
        sans: Addresses and DNS names it is valid for.
        server: May be shown by a TLS server.
        client: May be shown by a TLS client.

    Raises:
        PkiError: A SAN is neither an IP address nor a DNS name, or there is no use at all.
    """

    common_name: str
    sans: tuple[str, ...] = ()
    server: bool = False
    client: bool = True

    def __post_init__(self) -> None:
        if not self.usage:
            raise PkiError("a certificate must be for a server, a client or both", subject=self.common_name)
        _ = self.general_names

    @property
    def general_names(self) -> tuple[x509.GeneralName, ...]:
        """The SANs by type, each once, in the order given."""
        return tuple(dict.fromkeys(_general_name(name) for name in self.sans))

    @property
    def usage(self) -> tuple[str, ...]:
        """`server`, `client` or both."""
        return tuple(name for name, wanted in (("server", self.server), ("client", self.client)) if wanted)


@dataclass(frozen=True)
class KeyPair:
    """A certificate (PEM) and its private key (PEM, PKCS8, not encrypted)."""

    certificate: bytes
    key: Secret


def _general_name(name: str) -> x509.GeneralName:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        labels = name.split(".")
        # A last label of digits is a mistyped address, which no TLS client would look up among the names.
        if len(name) > _DNS_CHARS or labels[-1].isdigit() or not all(_DNS_LABEL.fullmatch(label) for label in labels):
            raise PkiError(f"{name!r} is neither an IP address nor a DNS name", subject="SANs") from None
        return x509.DNSName(name.lower())
    if getattr(address, "scope_id", None):
        raise PkiError(f"{name!r} has a zone, which a certificate can't hold", subject="SANs")
    return x509.IPAddress(address)


def subject_name(subject: Subject, common_name: str) -> x509.Name:
    """A name in the order C, ST, L, O, OU, CN; empty values are left out.

    Raises:
        PkiError: An unknown key, or a value that X.509 has no room for.
    """
    values: dict[str, str] = dict([*subject.items(), ("CN", common_name)])
    for key, value in values.items():
        expected = ""
        if key not in _SUBJECT_ORDER or (key == "CN" and "CN" in subject):
            expected = "not a known key: expected C, ST, L, O, OU"
        elif key == "C" and value and not re.fullmatch("[A-Za-z]{2}", value):
            expected = f"{value!r} is not a country code of two letters"
        elif len(value) > _ATTRIBUTE_CHARS or not value.isprintable() or (not value.strip() and (value or key == "CN")):
            expected = f"{value!r} is not 1 to {_ATTRIBUTE_CHARS} printable characters"
        if expected:
            raise PkiError(expected, subject="common name" if key == "CN" else f"pki.subject.{key}")
    return x509.Name([x509.NameAttribute(oid, values[key]) for key, oid in _SUBJECT_ORDER.items() if values.get(key)])


def load_certificate(pem: bytes) -> x509.Certificate:
    """The one certificate in a PEM text.

    Raises:
        PkiError: None, more than one, or a damaged one.
    """
    if not pem.strip():
        raise PkiError("certificate is empty")
    try:
        found = x509.load_pem_x509_certificates(pem)
    except UNREADABLE:
        damaged = b"-----BEGIN CERTIFICATE-----" in pem
        raise PkiError("certificate is damaged" if damaged else "no PEM certificate in it") from None
    if len(found) != 1:
        raise PkiError(f"{len(found)} certificates in it, expected 1")
    return found[0]


def load_key(key: Secret, passphrase: Secret | None = None) -> PrivateKey:
    """The one RSA or ECDSA key in a PEM text (PKCS8, PKCS1 or SEC1), opened by `passphrase` where it is encrypted.

    Raises:
        PkiError: None, more than one, encrypted (and no passphrase given, or a wrong one), damaged, or of another kind.
    """
    if (count := len(re.findall(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----", key.reveal()))) > 1:
        raise PkiError(f"{count} keys in it, expected 1")
    try:
        loaded = load_pem_private_key(key.reveal(), password=passphrase.reveal() if passphrase else None)
    except TypeError:
        remedy = "decrypt it first: openssl pkey -in KEY -out NEWKEY (and chmod 600 NEWKEY)"
        raise PkiError("key is encrypted, expected one without a password", remedy=remedy) from None
    except UNREADABLE:
        if passphrase:
            raise PkiError("the passphrase does not open the key", remedy="give the key's own passphrase") from None
        raise PkiError("no usable PEM private key" if count else "no PEM private key in it") from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise PkiError("key is neither RSA nor ECDSA")
    return loaded


def fingerprint(owner: PrivateKey | x509.Certificate) -> str:
    """SHA-256 of the public key (SubjectPublicKeyInfo), 64 hex digits: equal for a key and its certificates."""
    public = owner.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()


def public_fingerprint(key: Secret) -> str:
    """SHA-256 of a private key's public part (SubjectPublicKeyInfo), 64 hex digits.

    Raises:
        PkiError: The key can't be read.
    """
    return fingerprint(load_key(key))


def issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether the CA's key signed the certificate, its name is the issuer's, and Go takes the signature's hash."""
    try:
        certificate.verify_directly_issued_by(ca)
        algorithm = certificate.signature_hash_algorithm
    except (*UNREADABLE, InvalidSignature):
        return False
    # Go refuses SHA-1 and MD5; so does cryptography, but not in every version that we allow.
    return algorithm is None or algorithm.name in ("sha256", "sha384", "sha512")


def extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    """The value of one extension, None where the certificate hasn't got it."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
