"""What a node's certificate holds, and whether it may stay.

Pure functions over the bytes found on a node. Garbage becomes a reason text, never an exception.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

from runbook.certs.certificates import (
    UNREADABLE,
    USAGES,
    extension,
    fingerprint,
    issued_by,
    load_certificate,
    public_fingerprint,
    subject_name,
)
from runbook.errors import PkiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.certs.certificates import Profile, Subject
    from runbook.certs.secret import Secret
    from runbook.pki import Authority

_USAGE_NAMES = {oid: name for name, oid in USAGES.items()}
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class _Facts:
    """All that is asked of a certificate, read at once: cryptography parses lazily, so a late fault would escape."""

    certificate: x509.Certificate
    subject: x509.Name
    issuer: x509.Name
    serial: str
    sans: tuple[str, ...]
    usage: tuple[str, ...]
    signs: bool
    is_ca: bool
    not_before: datetime
    not_after: datetime
    key_sha256: str


def _one_line(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def _san_text(name: x509.GeneralName) -> str:
    """A SAN as an operator writes it; all that is no plain address or DNS name carries its kind."""
    if isinstance(name, x509.IPAddress):
        return str(name.value)
    text = str(name.value).lower() if isinstance(name, x509.DNSName) else f"{type(name).__name__}:{name.value}"
    try:
        ipaddress.ip_address(text)
        text = f"DNSName:{text}"  # an address under the wrong kind: Go doesn't take it for one
    except ValueError:
        pass
    return _one_line(text)


def _read(pem: bytes) -> _Facts:
    certificate = load_certificate(pem)
    try:
        sans = extension(certificate, x509.SubjectAlternativeName)
        purposes = extension(certificate, x509.ExtendedKeyUsage)
        key_usage = extension(certificate, x509.KeyUsage)
        constraints = extension(certificate, x509.BasicConstraints)
        return _Facts(
            certificate=certificate,
            subject=certificate.subject,
            issuer=certificate.issuer,
            serial=f"{certificate.serial_number:x}",
            sans=tuple(dict.fromkeys(_san_text(name) for name in sans or ())),
            usage=tuple(_USAGE_NAMES.get(oid, oid.dotted_string) for oid in purposes or ()),
            signs=key_usage is None or key_usage.digital_signature,
            is_ca=constraints is not None and constraints.ca,
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            key_sha256=fingerprint(certificate),
        )
    except UNREADABLE:
        raise PkiError("certificate is damaged") from None


def name_text(name: x509.Name) -> str:
    """A subject in its own order: `C=CN, O=k8s, CN=etcd`."""
    return _one_line(", ".join(attribute.rfc4514_string() for attribute in name))


def _days(span: timedelta) -> str:
    if span < _DAY:
        return "less than a day"
    return "1 day" if span.days == 1 else f"{span.days} days"


def _validity(facts: _Facts, now: datetime) -> str:
    if now < facts.not_before:
        return f"not valid before {facts.not_before:%Y-%m-%d %H:%M} UTC"
    return f"expired {_days(now - facts.not_after)} ago" if now > facts.not_after else ""


def _near_end(facts: _Facts, ca_end: datetime, now: datetime, renew_before_days: int) -> str:
    if facts.not_after >= ca_end:
        return ""  # it ends with its CA: a new one would end then too, and be renewed by every run
    margin = min(timedelta(days=renew_before_days), (facts.not_after - facts.not_before) / 3)
    left = facts.not_after - now
    return f"expires in {_days(left)}" if left <= margin else ""


def _san_changes(facts: _Facts, profile: Profile) -> str:
    wanted = tuple(_san_text(name) for name in profile.general_names)
    changes = [f"+{name}" for name in wanted if name not in facts.sans]
    changes += [f"-{name}" for name in facts.sans if name not in wanted]
    return f"SANs changed: {' '.join(changes)}" if changes else ""


def renewal_reason(
    certificate: bytes | None,
    key: Secret | None,
    profile: Profile,
    authority: Authority | None,
    *,
    subject: Subject,
    now: datetime | None = None,
    renew_before_days: int = 30,
) -> str:
    """Why the pair on a node must be made anew, in one short phrase; '' where it may stay.

    It is renewed within `renew_before_days` of its end, or within the last third of its life where that is shorter;
    never for its end alone where it ends together with its CA.

    Args:
        certificate: PEM found on the node, None where there is none.
        key: PEM found on the node, None where there is none.
        profile: What it must be for.
        authority: The CA that must have issued it; None where that has not been made yet.
        subject: Values of C, ST, L, O, OU that it must have.
        now: An aware time; the present one by default.
        renew_before_days: Days before its end from which on it is renewed.

    Raises:
        PkiError: `subject` can't be a subject; never for what is found on the node.
    """
    if certificate is None:
        return "missing"
    if key is None:
        return "key missing"
    name = subject_name(subject, profile.common_name)

    def reasons(facts: _Facts, moment: datetime) -> Iterator[str]:
        yield "key does not match" if public_fingerprint(key) != facts.key_sha256 else ""
        if authority is None or not issued_by(facts.certificate, authority.certificate):
            yield "not issued by our CA"
            return
        yield _validity(facts, moment)
        yield _near_end(facts, authority.not_after, moment, renew_before_days)
        yield _san_changes(facts, profile)
        yield "subject changed" if facts.subject != name else ""
        same_use = facts.signs and not facts.is_ca and set(facts.usage) == set(profile.usage)
        yield "" if same_use else "usage changed"

    try:
        return next(filter(None, reasons(_read(certificate), now or datetime.now(UTC))), "")
    except PkiError as error:
        return f"not readable: {error.message}"


def _chain_fault(facts: _Facts, ca_pem: bytes | None, now: datetime) -> str:
    if ca_pem is None:
        return "CA missing"
    try:
        ca = _read(ca_pem)
    except PkiError as error:
        return f"CA not readable: {error.message}"
    if not ca.is_ca:
        return "CA file holds no CA certificate"
    if not issued_by(facts.certificate, ca.certificate):
        return "not issued by this CA"
    return _validity(facts, now) or (fault and f"CA {fault}" if (fault := _validity(ca, now)) else "")


def common_name(pem: bytes) -> str:
    """The common name in a certificate, etcd's name for its user; '' where there is none, or no certificate."""
    try:
        found = load_certificate(pem).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (PkiError, *UNREADABLE):
        return ""
    return _one_line(str(found[-1].value)) if found else ""


def describe(
    certificate: bytes | None, key: Secret | None, ca_pem: bytes | None, *, now: datetime | None = None
) -> dict[str, object]:
    """One row of the certificates table, from the three files on a node; never raises for what they hold.

    Args:
        certificate: PEM, None where the file is missing.
        key: PEM, None where the file is missing.
        ca_pem: PEM of the CA that must have issued it, None where the file is missing.
        now: An aware time; the present one by default.

    Returns:
        `subject`, `sans`, `issuer`, `usage` (text, parts joined by ", "), `serial` (hex), `not_after_days` (float, one
        decimal, negative after the end; None where unknown), `key_sha256` (of the key file's public part, 64 hex
        digits), `key_matches`, `chain_verifies` (signature, CA flag and dates, both certificates), and `fault`: ''
        or all that is wrong, joined by "; ".
    """
    moment = now or datetime.now(UTC)
    row: dict[str, object] = {"subject": "", "sans": "", "issuer": "", "serial": "", "not_after_days": None}
    row |= {"usage": "", "key_sha256": "", "key_matches": False, "chain_verifies": False, "fault": ""}
    faults: list[str] = []
    key_sha256 = ""
    if certificate is None:
        faults.append("missing")
    else:
        try:
            facts = _read(certificate)
        except PkiError as error:
            faults.append(error.message)
        else:
            key_sha256 = facts.key_sha256
            row["subject"], row["issuer"] = name_text(facts.subject), name_text(facts.issuer)
            row["sans"], row["usage"] = ", ".join(facts.sans), ", ".join(facts.usage)
            row["serial"], row["not_after_days"] = facts.serial, round((facts.not_after - moment) / _DAY, 1)
            faults.append(_chain_fault(facts, ca_pem, moment))
            row["chain_verifies"] = not faults[-1]
    if key is None:
        faults.append("key missing")
    else:
        try:
            row["key_sha256"] = public_fingerprint(key)
        except PkiError as error:
            faults.append(error.message)
        else:
            row["key_matches"] = row["key_sha256"] == key_sha256
            faults.append("" if row["key_matches"] or not key_sha256 else "key does not match")
    row["fault"] = "; ".join(filter(None, faults))
    return row
