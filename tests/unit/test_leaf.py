"""When a pair on a node may stay, and what is shown of it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from certificate_cases import (
    CLIENT,
    DAY,
    MEMBER,
    NOW,
    SUBJECT,
    key_pem,
    make_ca,
    openssl,
    reason,
    settings_of,
)
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runbook import pki
from runbook.certs.authority import new_authority
from runbook.certs.leaf import common_name
from runbook.certs.secret import Secret
from runbook.errors import PkiError
from runbook.pki import Authority, KeyPair, Profile, create_authority, describe, renewal_reason

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class TestRenewal:
    @pytest.mark.parametrize(
        ("certificate", "key", "expected"),
        [(None, None, "missing"), (None, Secret(b"x"), "missing"), (b"x", None, "key missing")],
    )
    def test_missing_files(
        self, authority: Authority, certificate: bytes | None, key: Secret | None, expected: str
    ) -> None:
        """A missing file is named before anything is read."""
        assert renewal_reason(certificate, key, MEMBER, authority, subject=SUBJECT) == expected

    def test_key_of_another(self, authority: Authority, member: KeyPair) -> None:
        """A key that was not made for this certificate is found, and shown by `describe`."""
        other = authority.issue(MEMBER, subject=SUBJECT, valid_days=10)
        mixed = KeyPair(member.certificate, other.key)
        assert reason(mixed, authority) == "key does not match"
        row = describe(mixed.certificate, mixed.key, authority.pem)
        assert (row["key_matches"], row["chain_verifies"], row["fault"]) == (False, True, "key does not match")
        assert row["key_sha256"] == pki.public_fingerprint(other.key)

    def test_another_ca_of_the_same_name(self, authority: Authority, member: KeyPair, tmp_path: Path) -> None:
        """Only the signature tells two CAs of one name apart; without a CA nothing is ours."""
        twin = create_authority(settings_of(), tmp_path, name="sandbox")
        assert twin.certificate.subject == authority.certificate.subject
        assert reason(member, twin) == "not issued by our CA"
        assert reason(member, None) == "not issued by our CA"
        assert describe(member.certificate, member.key, twin.pem)["fault"] == "not issued by this CA"

    def test_same_ca_certificate_renewed(self, rsa_key: rsa.RSAPrivateKey) -> None:
        """A CA's certificate made anew with the same key and name keeps what it issued."""
        old, new = (Authority(*make_ca(rsa_key, ends=NOW + days * DAY)) for days in (400, 800))
        pair = old.issue(CLIENT, subject=SUBJECT, valid_days=300)
        assert old.pem != new.pem
        assert reason(pair, new, CLIENT) == ""

    @pytest.mark.parametrize(
        ("valid_days", "after", "expected"),
        [
            (365, timedelta(days=330), ""),
            (365, timedelta(days=352, hours=12), "expires in 12 days"),
            (365, timedelta(days=363, hours=12), "expires in 1 day"),
            (365, timedelta(days=364, hours=12), "expires in less than a day"),
            (365, timedelta(days=367, hours=12), "expired 2 days ago"),
            (30, timedelta(days=19), ""),
            (30, timedelta(days=20, hours=12), "expires in 9 days"),
            (365, timedelta(hours=-1), "not valid before"),
        ],
    )
    def test_dates(self, authority: Authority, valid_days: int, after: timedelta, expected: str) -> None:
        """Due 30 days before its end, or in the last third of a shorter life; the phrase counts whole days."""
        pair = authority.issue(MEMBER, subject=SUBJECT, valid_days=valid_days)
        found = reason(pair, authority, now=datetime.now(UTC) + after)
        assert found.startswith(expected)
        assert bool(found) == bool(expected)

    def test_days_before_the_end_can_be_chosen(self, authority: Authority) -> None:
        """A longer margin is taken as given, as far as a third of the life."""
        pair = authority.issue(MEMBER, subject=SUBJECT, valid_days=365)
        at = datetime.now(UTC) + 300 * DAY
        assert reason(pair, authority, now=at) == ""
        assert reason(pair, authority, now=at, renew_before_days=90) == "expires in 64 days"

    @pytest.mark.parametrize(
        ("profile", "expected"),
        [
            (
                dataclasses.replace(MEMBER, sans=("198.18.0.12", *MEMBER.sans[1:])),
                "SANs changed: +198.18.0.12 -198.18.0.11",
            ),
            (dataclasses.replace(MEMBER, sans=()), "SANs changed: -198.18.0.11 -127.0.0.1 -localhost -node1"),
            (dataclasses.replace(MEMBER, sans=(*MEMBER.sans, "NODE1")), ""),
            (dataclasses.replace(MEMBER, server=False), "usage changed"),
            (dataclasses.replace(MEMBER, client=False), "usage changed"),
            (dataclasses.replace(MEMBER, common_name="other"), "subject changed"),
        ],
    )
    def test_changed_profile(self, authority: Authority, member: KeyPair, profile: Profile, expected: str) -> None:
        """Each change of the profile is named; names in other case or twice are none."""
        assert reason(member, authority, profile) == expected

    def test_unsuitable_certificates_of_our_ca(self, rsa_key: rsa.RSAPrivateKey) -> None:
        """Signed by our CA, but as a CA, or with an address as a DNS name: none may stay."""
        ours = Authority(*make_ca(rsa_key))
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "etcd")])
        base = x509.CertificateBuilder(ours.certificate.subject, name, key.public_key(), 5, NOW - DAY, NOW + 90 * DAY)
        base = base.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        as_ca = base.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        named = base.add_extension(x509.SubjectAlternativeName([x509.DNSName("10.0.0.1")]), critical=False)
        for builder, algorithm, sans, expected in (
            (base, SHA256(), (), ""),
            (as_ca, SHA256(), (), "usage changed"),
            (named, SHA256(), ("10.0.0.1",), "SANs changed: +10.0.0.1 -DNSName:10.0.0.1"),
        ):
            pem = builder.sign(rsa_key, algorithm).public_bytes(Encoding.PEM)
            found = reason(KeyPair(pem, Secret(key_pem(key))), ours, Profile("etcd", sans=sans), subject={})
            assert found == expected

    @pytest.mark.parametrize(("digest", "expected"), [("sha256", "usage changed"), ("sha1", "not issued by our CA")])
    def test_a_signature_that_go_refuses(self, tmp_path: Path, digest: str, expected: str) -> None:
        """Our CA's own signature doesn't count where it was made over SHA-1: etcd would refuse it."""
        ours = new_authority({}, name="sandbox", valid_days=90, key_type="ecdsa")
        (tmp_path / "ca.pem").write_bytes(ours.certificate)
        (tmp_path / "ca-key.pem").write_bytes(ours.key.reveal())
        leaf, leaf_key = tmp_path / "leaf.pem", tmp_path / "leaf-key.pem"
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", leaf_key)
        issuer = ("-CA", tmp_path / "ca.pem", "-CAkey", tmp_path / "ca-key.pem")
        openssl("req", "-x509", "-new", f"-{digest}", *issuer, "-key", leaf_key, "-subj", "/CN=flanneld", "-out", leaf)
        pair = KeyPair(leaf.read_bytes(), Secret(leaf_key.read_bytes()))
        assert reason(pair, Authority(ours.certificate, ours.key), CLIENT, subject={}) == expected

    def test_unreadable_files_say_why(self, authority: Authority, member: KeyPair) -> None:
        """Several in a file, encrypted, of another kind, empty: each has its own words."""
        key: Any = load_pem_private_key(member.key.reveal(), None)
        good, pem = member.certificate, member.key.reveal()
        ed = key_pem(ed25519.Ed25519PrivateKey.generate())
        for certificate, secret, expected in (
            (good + authority.pem, pem, "not readable: 2 certificates in it, expected 1"),
            (b" \n", pem, "not readable: certificate is empty"),
            (b"hello", pem, "not readable: no PEM certificate in it"),
            (good[:300], pem, "not readable: certificate is damaged"),
            (good, b"", "not readable: no PEM private key in it"),
            (good, good, "not readable: no PEM private key in it"),
            (good, pem + pem, "not readable: 2 keys in it, expected 1"),
            (good, pem[:100] + b"\n-----END PRIVATE KEY-----\n", "not readable: no usable PEM private key"),
            (good, key_pem(key, password=b"pw"), "not readable: key is encrypted, expected one without a password"),
            (good, ed, "not readable: key is neither RSA nor ECDSA"),
        ):
            assert reason(KeyPair(certificate, Secret(secret)), authority) == expected

    def test_a_subject_that_cannot_be_is_the_params_fault(self, authority: Authority, member: KeyPair) -> None:
        """A bad wanted subject is raised, never taken for a fault of the node's file."""
        with pytest.raises(PkiError, match=r"pki\.subject\.C"):
            reason(member, authority, subject={"C": "nowhere"})


class TestDescribe:
    def test_a_good_pair(self, authority: Authority, member: KeyPair) -> None:
        """The row holds what openssl would show, with the end in days."""
        leaf = x509.load_pem_x509_certificate(member.certificate)
        row = describe(member.certificate, member.key, authority.pem, now=NOW)
        assert row == {
            "subject": "C=CN, ST=BeiJing, L=BeiJing, O=k8s, OU=4Paradigm, CN=etcd",
            "sans": "198.18.0.11, 127.0.0.1, localhost, node1",
            "issuer": "C=CN, ST=BeiJing, L=BeiJing, O=k8s, OU=4Paradigm, CN=sandbox CA",
            "serial": f"{leaf.serial_number:x}",
            "not_after_days": 3650.0,
            "usage": "server, client",
            "key_sha256": pki.public_fingerprint(member.key),
            "key_matches": True,
            "chain_verifies": True,
            "fault": "",
        }

    def test_nothing_there(self) -> None:
        """Missing files are a row as well."""
        row = describe(None, None, None)
        assert row["fault"] == "missing; key missing"
        assert (row["key_matches"], row["chain_verifies"], row["not_after_days"]) == (False, False, None)

    def test_every_fault_is_told(self, authority: Authority, member: KeyPair) -> None:
        """A chain fails for a missing, garbled or expired CA, a CA that is none, and an expired certificate."""
        other = authority.issue(MEMBER, subject=SUBJECT, valid_days=10)
        for certificate, ca, now, fault in (
            (member.certificate, None, NOW, "CA missing"),
            (member.certificate, b"?", NOW, "CA not readable: no PEM certificate in it"),
            (member.certificate, other.certificate, NOW, "CA file holds no CA certificate"),
            (member.certificate, authority.pem, NOW + 3652.5 * DAY, "expired 2 days ago"),
            (member.certificate, authority.pem, NOW - DAY, "not valid before"),
        ):
            row = describe(certificate, member.key, ca, now=now)
            assert not row["chain_verifies"]
            assert str(row["fault"]).startswith(fault)

    def test_expired_ca(self, rsa_key: rsa.RSAPrivateKey) -> None:
        """A certificate that outlives its CA fails by the CA's date."""
        long = Authority(*make_ca(rsa_key))
        pair = long.issue(CLIENT, subject=SUBJECT, valid_days=300)
        row = describe(pair.certificate, pair.key, make_ca(rsa_key, ends=NOW + 5 * DAY)[0], now=NOW + 9.5 * DAY)
        assert row["fault"] == "CA expired 4 days ago"


def test_the_common_name_is_the_one_that_etcd_takes(member: KeyPair) -> None:
    """The subject's CN; where there is none, or no certificate, it is empty and never an error."""
    assert common_name(member.certificate) == "etcd"
    assert [common_name(pem) for pem in (b"", b"x", member.certificate * 2)] == ["", "", ""]
