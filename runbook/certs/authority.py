"""A certificate authority: checked when it is made, then it issues certificates."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from runbook.certs.certificates import (
    UNREADABLE,
    USAGES,
    KeyPair,
    PrivateKey,
    extension,
    fingerprint,
    load_certificate,
    load_key,
    subject_name,
)
from runbook.certs.secret import Secret
from runbook.errors import PkiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.certs.certificates import Profile, Subject

KeyType = Literal["ecdsa", "rsa"]

_CLOCK_SKEW = timedelta(minutes=5)
_CA_DAYS_MORE = 3650  # the CA outlives all that it issues in its first ten years
_NEAR_END = timedelta(days=30)
_RSA_BITS, _RSA_BITS_LEAST = 3072, 2048
_CURVES = ("secp256r1", "secp384r1", "secp521r1")  # those of Go's crypto/tls
_COMMON_NAME_CHARS = 64
_REMEDY_ENDED = (
    "renew it with the same key and subject (then all certificates stay), or move ca.pem and ca-key.pem away to have "
    "a new CA made; then run the certificate phases 02 and 06 again"
)


class Authority:
    """A CA that can issue certificates now.

    Args:
        certificate: PEM of one CA certificate.
        key: PEM of its private key, RSA or ECDSA.
        passphrase: Opens the key where it is encrypted.
        certificate_name: What errors call the certificate; its path.
        key_name: What errors call the key; its path.

    Attributes:
        certificate: The parsed certificate.
        pem: The same as PEM, without any text around it.
        fingerprint: SHA-256 of the public key (SubjectPublicKeyInfo), 64 hex digits.
        not_after: Its end; certificates that it issues end then at the latest.

    Raises:
        PkiError: One of them can't be read, they don't match, it is no CA, or is expired.
    """

    def __init__(
        self, certificate: bytes, key: Secret, *, passphrase: Secret | None = None,
        certificate_name: str = "ca.pem", key_name: str = "ca-key.pem",
    ) -> None:  # fmt: skip
        with _about(key_name):
            self._key = load_key(key, passphrase)
        with _about(certificate_name):
            self.certificate = load_certificate(certificate)
            try:
                _check_ca(self.certificate, self._key)
                self.not_after = self.certificate.not_valid_after_utc
                self.fingerprint = fingerprint(self.certificate)
                self.pem = self.certificate.public_bytes(Encoding.PEM)
            except UNREADABLE:
                raise PkiError("certificate is damaged") from None
            if self.fingerprint != fingerprint(self._key):
                raise PkiError(
                    f"this certificate doesn't belong to the key {key_name}: its public key is "
                    f"{self.fingerprint[:16]}, the key's {fingerprint(self._key)[:16]}",
                    remedy="give a certificate and the private key that it was made for",
                )

    def __repr__(self) -> str:
        return f"Authority({self.fingerprint[:16]}, until {self.not_after:%Y-%m-%d})"

    @property
    def warning(self) -> str:
        """A phrase where the CA ends within 30 days (certificates can't outlive it), else ''."""
        left = self.not_after - datetime.now(UTC)
        if left > _NEAR_END:
            return ""
        return f"the CA ends on {self.not_after:%Y-%m-%d}, in {left.days} days, and its certificates with it"

    def issue(
        self,
        profile: Profile,
        *,
        subject: Subject,
        valid_days: int,
        key_type: KeyType = "ecdsa",
    ) -> KeyPair:
        """Make a key and a certificate for it; the certificate never outlives the CA.

        Args:
            profile: What it is for.
            subject: Values of C, ST, L, O, OU.
            valid_days: Days from now to its end.
            key_type: `ecdsa` is P-256, `rsa` 3072 bits.

        Raises:
            PkiError: The subject can't be one, or is the CA's own; or there is no such time or kind of key.
        """
        name = subject_name(subject, profile.common_name)
        if name == self.certificate.subject:
            # OpenSSL would take the certificate for self-signed and look no further for its issuer.
            raise PkiError("subject is the same as the CA's", subject=profile.common_name, remedy="change pki.subject")
        key = _new_key(key_type)
        own_id = extension(self.certificate, x509.SubjectKeyIdentifier)
        issuer_id = (
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id)
            if own_id
            else x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        )
        usage = _key_usage(digital_signature=True, key_encipherment=key_type == "rsa")
        ends = min(_end(valid_days), self.not_after)
        builder = (
            _builder(name, self.certificate.subject, key, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([USAGES[use] for use in profile.usage]), critical=False)
            .add_extension(issuer_id, critical=False)
        )
        if profile.general_names:
            builder = builder.add_extension(x509.SubjectAlternativeName(profile.general_names), critical=False)
        return KeyPair(builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM), _key_pem(key))


def new_authority(subject: Subject, *, name: str, valid_days: int, key_type: KeyType) -> KeyPair:
    """A self-signed CA for leaf certificates only; its end lies ten years after the last of them issued today.

    Raises:
        PkiError: The subject can't be one, or there is no such time or kind of key.
    """
    suffix = " CA"  # keeps the subject apart from that of every leaf
    own = subject_name(subject, name[: _COMMON_NAME_CHARS - len(suffix)] + suffix)
    key = _new_key(key_type)
    certificate = (
        _builder(own, own, key, _end(valid_days + _CA_DAYS_MORE))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, SHA256())
    )
    return KeyPair(certificate.public_bytes(Encoding.PEM), _key_pem(key))


def sealed(key: Secret, passphrase: Secret) -> Secret:
    """A key (PEM) encrypted with a passphrase (PKCS8, PBES2 with AES-256)."""
    seal = BestAvailableEncryption(passphrase.reveal())
    return Secret(load_key(key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, seal))


@contextmanager
def _about(subject: str) -> Iterator[None]:
    """Name the file in an error about its content."""
    try:
        yield
    except PkiError as error:
        raise PkiError(error.message, subject=subject, remedy=error.remedy) from None


def _check_ca(certificate: x509.Certificate, key: PrivateKey) -> None:
    """Raise PkiError for what keeps a CA's certificates from being accepted by etcd and flanneld."""
    constraints = extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise PkiError("is not a CA's certificate (BasicConstraints without CA:TRUE)")
    usage = extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise PkiError("may not sign certificates (KeyUsage without keyCertSign)")
    purposes = extension(certificate, x509.ExtendedKeyUsage)
    # Go holds a CA's extended key usage, where there is one, against that of what it signed.
    if purposes is not None and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in purposes:
        lacking = [name for name, oid in USAGES.items() if oid not in purposes]
        if lacking:
            raise PkiError(f"may not sign for TLS (ExtendedKeyUsage without {', '.join(f'{x}Auth' for x in lacking)})")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _RSA_BITS_LEAST:
        raise PkiError(f"RSA key of {key.key_size} bits, expected {_RSA_BITS_LEAST} or more")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _CURVES:
        raise PkiError(f"ECDSA key on curve {key.curve.name}, expected one of {', '.join(_CURVES)}")
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise PkiError(f"the CA expired on {certificate.not_valid_after_utc:%Y-%m-%d}", remedy=_REMEDY_ENDED)
    if now < certificate.not_valid_before_utc:
        start = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M}"
        raise PkiError(f"the CA is valid from {start} UTC on only", remedy="check this machine's clock")


def _new_key(key_type: str) -> PrivateKey:
    if key_type == "ecdsa":
        return ec.generate_private_key(ec.SECP256R1())
    if key_type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    raise PkiError(f"{key_type!r} is no kind of key, expected 'ecdsa' or 'rsa'", subject="pki.key_type")


def _key_pem(key: PrivateKey) -> Secret:
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _end(valid_days: int) -> datetime:
    try:
        if valid_days > 0:
            return datetime.now(UTC).replace(microsecond=0) + timedelta(days=valid_days)
    except OverflowError:
        pass
    raise PkiError(f"{valid_days} days is no time that a certificate can be valid", subject="pki.valid_days")


def _key_usage(**wanted: bool) -> x509.KeyUsage:
    unused = ("content_commitment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only")
    ours = ("digital_signature", "key_encipherment", "key_cert_sign", "crl_sign")
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in (*ours, *unused)})


def _builder(subject: x509.Name, issuer: x509.Name, key: PrivateKey, ends: datetime) -> x509.CertificateBuilder:
    """What all certificates share; valid from five minutes ago on, for nodes whose clocks are behind."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC).replace(microsecond=0) - _CLOCK_SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
