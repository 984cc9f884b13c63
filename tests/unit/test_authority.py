"""What is issued: by parsed certificates, by openssl, and by real TLS connections."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
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
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runbook.certs.secret import Secret
from runbook.errors import PkiError
from runbook.pki import Authority, KeyPair, Profile, create_authority, describe

if TYPE_CHECKING:
    from pathlib import Path


class TestIssue:
    def test_ca_may_sign_leaves_and_nothing_else(self, authority: Authority) -> None:
        """Our CA: CA:TRUE with path length 0, keyCertSign and cRLSign, both critical; self-signed; ten years more."""
        ca = x509.load_pem_x509_certificate(authority.pem)
        constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
        assert constraints.critical
        assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
        assert usage.critical
        assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)
        ca.verify_directly_issued_by(ca)
        assert [attribute.value for attribute in ca.subject] == [*SUBJECT.values(), "sandbox CA"]
        assert 7299 < (ca.not_valid_after_utc - NOW) / DAY < 7301

    @pytest.mark.parametrize(("key_type", "kind", "bits"), [("ecdsa", "secp256r1", 256), ("rsa", None, 3072)])
    def test_leaf_of_each_key_type(self, authority: Authority, key_type: Any, kind: str | None, bits: int) -> None:  # noqa: ANN401
        """A leaf is no CA, signs (RSA also enciphers keys), and its key is the PKCS8 one in the pair."""
        pair = authority.issue(MEMBER, subject=SUBJECT, valid_days=10, key_type=key_type)
        leaf = x509.load_pem_x509_certificate(pair.certificate)
        constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
        key: Any = load_pem_private_key(pair.key.reveal(), None)
        assert constraints.critical
        assert not constraints.value.ca
        assert usage.critical
        assert usage.value.digital_signature
        assert usage.value.key_encipherment == (key_type == "rsa")
        assert not usage.value.key_cert_sign
        assert pair.key.reveal().startswith(b"-----BEGIN PRIVATE KEY-----")
        assert key.key_size == bits
        assert kind is None or key.curve.name == kind
        assert key.public_key() == leaf.public_key()

    def test_leaf_says_who_issued_it_and_what_for(self, authority: Authority, member: KeyPair) -> None:
        """A member's certificate: subject in order, both uses, SANs by type, identifiers that lead to the CA."""
        leaf = x509.load_pem_x509_certificate(member.certificate)
        ca = x509.load_pem_x509_certificate(authority.pem)
        sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        assert [attribute.value for attribute in leaf.subject] == [*SUBJECT.values(), "etcd"]
        assert list(uses) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        assert sans.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(a) for a in MEMBER.sans[:2]]
        assert sans.get_values_for_type(x509.DNSName) == ["localhost", "node1"]
        assert issuer.key_identifier == own.digest
        assert leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest != own.digest

    def test_flannel_client_has_no_names_and_one_use(self, authority: Authority) -> None:
        """Flanneld's certificate is for clients only and has no SAN extension."""
        pair = authority.issue(CLIENT, subject=SUBJECT, valid_days=10)
        leaf = x509.load_pem_x509_certificate(pair.certificate)
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        with pytest.raises(x509.ExtensionNotFound):
            leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)

    def test_dates(self, authority: Authority) -> None:
        """Valid from five minutes ago, for clocks that are behind, and for the days asked for from now."""
        before = datetime.now(UTC).replace(microsecond=0)
        pair = authority.issue(CLIENT, subject=SUBJECT, valid_days=10)
        leaf = x509.load_pem_x509_certificate(pair.certificate)
        assert timedelta() <= leaf.not_valid_before_utc - (before - timedelta(minutes=5)) < timedelta(minutes=1)
        assert timedelta() <= leaf.not_valid_after_utc - (before + 10 * DAY) < timedelta(minutes=1)

    def test_leaf_ends_with_its_ca_at_the_latest(self) -> None:
        """A CA near its end still issues, says so, and its leaf ends when it ends and is then left alone."""
        ends = (NOW + 5.5 * DAY).replace(microsecond=0)
        short = Authority(*make_ca(ends=ends))
        pair = short.issue(CLIENT, subject=SUBJECT, valid_days=3650)
        assert x509.load_pem_x509_certificate(pair.certificate).not_valid_after_utc == ends
        assert "in 5 days" in short.warning
        assert reason(pair, short, CLIENT) == ""
        assert reason(pair, short, CLIENT, now=ends - timedelta(hours=1)) == ""

    def test_serials_are_random(self, authority: Authority) -> None:
        """No two certificates share a serial, and it has at least 64 random bits."""
        pairs = [authority.issue(CLIENT, subject=SUBJECT, valid_days=1) for _ in range(8)]
        serials = {x509.load_pem_x509_certificate(pair.certificate).serial_number for pair in pairs}
        assert len(serials) == len(pairs)
        assert max(serials).bit_length() > 64

    def test_the_cas_own_key_identifier_is_used(self) -> None:
        """An imported CA may have made its identifier by another rule; the leaf must name that very one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd CA")])
        builder = x509.CertificateBuilder(name, name, key.public_key(), 9, NOW - DAY, NOW + DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier(b"chosen by hand"), critical=False)
        odd = Authority(builder.sign(key, SHA256()).public_bytes(Encoding.PEM), Secret(key_pem(key)))
        pair = odd.issue(CLIENT, subject={}, valid_days=1)
        leaf = x509.load_pem_x509_certificate(pair.certificate)
        identifier = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert identifier.key_identifier == b"chosen by hand"

    @pytest.mark.parametrize(
        ("profile", "changed", "message"),
        [
            (CLIENT, {"valid_days": 0}, "pki.valid_days: 0 days is no time"),
            (CLIENT, {"valid_days": 10**9}, "pki.valid_days: 1000000000 days is no time"),
            (CLIENT, {"key_type": "dsa"}, "pki.key_type: 'dsa' is no kind of key"),
            (CLIENT, {"subject": {"C": "CHN"}}, "pki.subject.C: 'CHN' is not a country code"),
            (CLIENT, {"subject": {"C": "Ö1"}}, "pki.subject.C: 'Ö1' is not a country code"),
            (CLIENT, {"subject": {"O": "x" * 65}}, "pki.subject.O: 'x+' is not 1 to 64 printable"),
            (CLIENT, {"subject": {"O": "k8s\nX"}}, r"pki.subject.O: 'k8s\\nX' is not 1 to 64 printable"),
            (CLIENT, {"subject": {"O": "\ud800"}}, "pki.subject.O"),
            (CLIENT, {"subject": {"org": "k8s"}}, "pki.subject.org: not a known key: expected C, ST, L, O, OU"),
            (CLIENT, {"subject": {"CN": "k8s"}}, "not a known key"),
            (Profile(""), {}, "common name: '' is not 1 to 64"),
            (Profile("sandbox CA"), {}, "same as the CA's"),
        ],
    )
    def test_what_cannot_be_issued(
        self, authority: Authority, profile: Profile, changed: dict[str, Any], message: str
    ) -> None:
        """Each bad value is a PkiError that names its key and shows it."""
        with pytest.raises(PkiError, match=message):
            authority.issue(profile, **({"subject": SUBJECT, "valid_days": 10} | changed))

    def test_empty_subject_values_are_left_out(self, authority: Authority) -> None:
        """An empty value takes an attribute away, as in a params file that overrides a default."""
        pair = authority.issue(CLIENT, subject={"O": "", "L": "here"}, valid_days=1)
        assert describe(pair.certificate, pair.key, authority.pem)["subject"] == "L=here, CN=flanneld"

    @pytest.mark.parametrize(
        "san", ["", "a b", "999.1.1.1", "1.2.3", "-x", "x-", "ö.de", "x..y", "fe80::1%eth0", "x" * 64, "a\n", "*.x"]
    )
    def test_bad_sans_are_refused(self, san: str) -> None:
        """What is neither an address nor a name (a mistyped address above all) never becomes a DNS name."""
        with pytest.raises(PkiError, match="SANs: "):
            Profile("etcd", sans=(san,))

    def test_a_profile_needs_a_use(self) -> None:
        """Without any use a certificate would be good for every one."""
        with pytest.raises(PkiError, match="server, a client or both"):
            Profile("etcd", client=False)

    def test_keys_are_masked(self, authority: Authority, member: KeyPair) -> None:
        """No repr shows a key."""
        assert "PRIVATE" not in repr(member)
        assert re.fullmatch(r"Authority\([0-9a-f]{16}, until \d{4}-\d\d-\d\d\)", repr(authority))


@pytest.fixture(params=["ecdsa", "rsa"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """ca.pem, and etcd and flanneld pairs as files, of one key type."""
    made = create_authority(settings_of(key_type=request.param), tmp_path / "pki", name="sandbox")
    (tmp_path / "ca.pem").write_bytes(made.pem)
    for profile in (MEMBER, CLIENT):
        pair = made.issue(profile, subject=SUBJECT, valid_days=10, key_type=request.param)
        (tmp_path / f"{profile.common_name}.pem").write_bytes(pair.certificate)
        (tmp_path / f"{profile.common_name}-key.pem").write_bytes(pair.key.reveal())
    return tmp_path


class TestOtherImplementations:
    def test_openssl_verifies_each_for_its_purpose(self, files: Path) -> None:
        """By openssl's strict rules a member is server and client, flanneld a client and no server."""
        verify = ("verify", "-x509_strict", "-check_ss_sig", "-CAfile", files / "ca.pem")
        openssl(*verify, files / "ca.pem")
        for purpose, name in (("sslserver", "etcd"), ("sslclient", "etcd"), ("sslclient", "flanneld")):
            openssl(*verify, "-purpose", purpose, files / f"{name}.pem")
        openssl(*verify, "-verify_ip", "198.18.0.11", files / "etcd.pem")
        openssl(*verify, "-verify_hostname", "node1", files / "etcd.pem")
        with pytest.raises(AssertionError, match=r"(unsuitable|unsupported) certificate purpose"):
            openssl(*verify, "-purpose", "sslserver", files / "flanneld.pem")
        with pytest.raises(AssertionError, match="mismatch"):
            openssl(*verify, "-verify_ip", "198.18.0.12", files / "etcd.pem")

    def test_openssl_reads_the_same_as_describe(self, files: Path, authority: Authority) -> None:
        """Subject, serial, SANs and the key's fingerprint are those that openssl finds."""
        certificate, key = (files / "etcd.pem").read_bytes(), Secret((files / "etcd-key.pem").read_bytes())
        row = describe(certificate, key, authority.pem)
        text = openssl("x509", "-in", files / "etcd.pem", "-noout", "-text")
        assert f"Subject: {str(row['subject']).replace('=', ' = ')}" in text
        assert "DNS:localhost, DNS:node1" in text
        assert "IP Address:198.18.0.11, IP Address:127.0.0.1" in text
        assert "X509v3 Key Usage: critical" in text
        serial = openssl("x509", "-in", files / "etcd.pem", "-noout", "-serial").strip().removeprefix("serial=")
        assert int(serial, 16) == int(str(row["serial"]), 16)
        openssl("pkey", "-in", files / "etcd-key.pem", "-pubout", "-outform", "DER", "-out", files / "public.der")
        digest = openssl("dgst", "-sha256", "-r", files / "public.der").split()[0]
        assert digest == row["key_sha256"]

    def test_mutual_tls(self, files: Path) -> None:
        """Member with member, and flanneld with a member, by address and by name, over real sockets."""
        assert handshake(files, server="etcd", client="etcd", name="127.0.0.1") == "etcd"
        assert handshake(files, server="etcd", client="flanneld", name="localhost") == "flanneld"

    def test_flanneld_is_refused_as_a_server(self, files: Path) -> None:
        """A stolen flanneld certificate can't be shown to clients as an etcd."""
        with pytest.raises(ssl.SSLCertVerificationError, match=r"(unsuitable|unsupported) certificate purpose"):
            handshake(files, server="flanneld", client="etcd", name="")

    def test_a_member_is_refused_under_an_address_it_has_not(self, files: Path) -> None:
        """An address outside its SANs fails the handshake."""
        with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
            handshake(files, server="etcd", client="etcd", name="198.18.0.12")

    def test_a_client_of_another_ca_is_refused(self, files: Path, member: KeyPair) -> None:
        """A certificate of a CA with the same name does not open the door."""
        (files / "etcd.pem").write_bytes(member.certificate)
        (files / "etcd-key.pem").write_bytes(member.key.reveal())
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            handshake(files, server="flanneld", client="etcd", name="", ask_name=False)


def handshake(files: Path, *, server: str, client: str, name: str, ask_name: bool = True) -> str:
    """Connect with mutual TLS on loopback; the CN that the server saw of the client, or the first side's error.

    `ask_name=False` has the client look at no certificate, so that the server's verdict alone counts.
    """
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.verify_mode = ssl.CERT_REQUIRED
    dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dialling.check_hostname = bool(name)
    if not ask_name:
        dialling.verify_mode = ssl.CERT_NONE
    for context, own in ((accepting, server), (dialling, client)):
        context.load_verify_locations(files / "ca.pem")
        context.load_cert_chain(files / f"{own}.pem", files / f"{own}-key.pem")

    def serve(listener: socket.socket) -> str:
        plain, _ = listener.accept()
        with plain, accepting.wrap_socket(plain, server_side=True) as secure:
            peer: Any = secure.getpeercert()
            secure.sendall(b"!")
            return str(dict(part[0] for part in peer["subject"])["commonName"])

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(10)
        served = pool.submit(serve, listener)
        with socket.create_connection(listener.getsockname(), timeout=10) as plain:
            try:
                with dialling.wrap_socket(plain, server_hostname=name or None) as secure:
                    secure.recv(1)
            except ssl.SSLCertVerificationError:
                raise
            except (ssl.SSLError, OSError):
                pass  # the server refused; its own error says why
        return served.result(timeout=10)
