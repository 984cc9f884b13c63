"""Properties of all that is issued and of all that is read, however garbled."""

from __future__ import annotations

import dataclasses
import ssl
from datetime import UTC, datetime, timedelta

from certificate_cases import (
    CLIENT,
    MEMBER,
    SUBJECT,
    reason,
)
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook.certs.secret import Secret
from runbook.pki import Authority, KeyPair, Profile, describe, renewal_reason

LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
NAMES = st.one_of(st.ip_addresses().map(str), st.lists(LABEL, min_size=1, max_size=4).map(".".join))
WORDS = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=64).filter(
    lambda text: text.isprintable() and bool(text.strip())
)


class TestProperties:
    @settings(deadline=None, max_examples=40)
    @given(sans=st.lists(NAMES, max_size=6), server=st.booleans())
    def test_issued_pair_may_stay_whatever_its_sans(
        self, authority: Authority, sans: list[str], *, server: bool
    ) -> None:
        """What is issued for a profile is found in order for it, in any order of SANs; and holds each SAN once."""
        profile = Profile("etcd", sans=tuple(sans), server=server)
        pair = authority.issue(profile, subject=SUBJECT, valid_days=100)
        assert reason(pair, authority, profile) == ""
        assert reason(pair, authority, dataclasses.replace(profile, sans=tuple(reversed(sans)))) == ""
        row = describe(pair.certificate, pair.key, authority.pem)
        assert (row["fault"], row["key_matches"], row["chain_verifies"]) == ("", True, True)
        assert sorted(filter(None, str(row["sans"]).split(", "))) == sorted(set(sans))

    @settings(deadline=None, max_examples=40)
    @given(
        subject=st.fixed_dictionaries({}, optional=dict.fromkeys(["ST", "L", "O", "OU"], WORDS)),
        country=st.from_regex("[A-Z]{2}", fullmatch=True),
        cn=WORDS.filter(lambda text: len(text.encode()) <= 64),  # as cryptography counts a common name
    )
    def test_any_printable_subject_comes_back(
        self, authority: Authority, subject: dict[str, str], country: str, cn: str
    ) -> None:
        """A subject is written in the order C, ST, L, O, OU, CN whatever the mapping's, and read back the same."""
        subject = dict(reversed([*subject.items(), ("C", country)]))
        profile = Profile(cn)
        pair = authority.issue(profile, subject=subject, valid_days=100)
        leaf = x509.load_pem_x509_certificate(pair.certificate)
        expected = [subject[key] for key in ("C", "ST", "L", "O", "OU") if key in subject]
        assert [attribute.value for attribute in leaf.subject] == [*expected, cn]
        assert reason(pair, authority, profile, subject=subject) == ""
        changed = {**subject, "OU": "" if "OU" in subject else "more"}
        assert reason(pair, authority, profile, subject=changed) == "subject changed"

    @settings(deadline=None, max_examples=30)
    @given(days=st.integers(1, 4000))
    def test_no_life_is_too_short_to_settle(self, authority: Authority, days: int) -> None:
        """A fresh certificate is never due, however short it lives; and due before it ends."""
        pair = authority.issue(CLIENT, subject=SUBJECT, valid_days=days)
        assert reason(pair, authority, CLIENT) == ""
        last = datetime.now(UTC) + timedelta(days=days, hours=-1)
        assert reason(pair, authority, CLIENT, now=last).startswith("expires in ")

    @settings(deadline=None, max_examples=300)
    @given(data=st.data())
    def test_damaged_files_never_raise(self, authority: Authority, member: KeyPair, data: st.DataObject) -> None:
        """Bytes changed anywhere, or garbage, become text: a reason and a fault, and never a line of a key."""
        texts = []
        for good in (member.certificate, member.key.reveal(), authority.pem):
            broken = bytearray(good)
            for _ in range(data.draw(st.integers(0, 3))):
                broken[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
            texts.append(bytes(broken[: data.draw(st.sampled_from([len(good), len(good) // 2, 0]))]))
        check_harmless(texts[0], texts[1], texts[2], authority)

    @settings(deadline=None, max_examples=300)
    @given(place=st.integers(0, 10**6), value=st.integers(0, 255), second=st.integers(0, 10**6))
    def test_damaged_certificates_never_raise(
        self, authority: Authority, member: KeyPair, place: int, value: int, second: int
    ) -> None:
        """A certificate whose PEM is whole but whose inside is not is read without an exception, and never trusted."""
        der = bytearray(ssl.PEM_cert_to_DER_cert(member.certificate.decode()))
        der[place % len(der)] = value
        der[second % len(der)] ^= 1
        pem = ssl.DER_cert_to_PEM_cert(bytes(der)).encode()
        check_harmless(pem, member.key.reveal(), pem, authority)
        if der != ssl.PEM_cert_to_DER_cert(member.certificate.decode()):
            assert not describe(pem, member.key, authority.pem)["chain_verifies"]

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=60), st.binary(max_size=60))
    def test_garbage_never_raises(self, authority: Authority, one: bytes, other: bytes) -> None:
        """Any bytes at all, and any bytes between PEM markers, become text."""
        check_harmless(one, other, one, authority)
        armoured = b"-----BEGIN CERTIFICATE-----\n" + one + b"\n-----END CERTIFICATE-----\n"
        check_harmless(armoured, armoured.replace(b"CERTIFICATE", b"EC PRIVATE KEY"), armoured, authority)


def check_harmless(certificate: bytes, key: bytes, ca: bytes, authority: Authority) -> None:
    row = describe(certificate, Secret(key), ca)
    phrase = renewal_reason(certificate, Secret(key), MEMBER, authority, subject=SUBJECT)
    assert bool(row["fault"]) == (not (row["key_matches"] and row["chain_verifies"]))
    assert "\n" not in phrase
    inside = [line.decode("latin-1") for line in key.splitlines() if len(line) > 20 and not line.startswith(b"--")]
    assert not any(line in phrase or line in str(row) for line in inside)
