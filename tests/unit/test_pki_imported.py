"""A CA from elsewhere: every form that is taken, and all that is refused."""

from __future__ import annotations

import os
import traceback
from datetime import timedelta
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
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from runbook.certs.secret import Secret
from runbook.errors import PkiError
from runbook.pki import create_authority, describe, find_authority

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.params import Pki


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def put(folder: Path, certificate: bytes, key: Secret | bytes, mode: int = 0o600) -> Pki:
    """Write an imported CA and give the settings that name it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "their.pem").write_bytes(certificate)
    (folder / "their-key.pem").write_bytes(key.reveal() if isinstance(key, Secret) else key)
    (folder / "their-key.pem").chmod(mode)
    return settings_of(ca_cert=folder / "their.pem", ca_key=folder / "their-key.pem")


class TestImportedAuthority:
    @pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
    @pytest.mark.parametrize("kind", ["rsa", "secp256r1", "secp384r1", "secp521r1"])
    def test_keys_of_all_forms(self, tmp_path: Path, rsa_key: Any, form: PrivateFormat, kind: str) -> None:  # noqa: ANN401
        """RSA and ECDSA keys as PKCS8, PKCS1 and SEC1 are taken, and what they sign verifies."""
        curves = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1(), "secp521r1": ec.SECP521R1()}
        key = rsa_key if kind == "rsa" else ec.generate_private_key(curves[kind])
        certificate, _ = make_ca(key)
        imported = put(tmp_path, certificate, key_pem(key, form))
        found = find_authority(imported, tmp_path / "own")
        assert found is not None
        assert create_authority(imported, tmp_path / "own", name="sandbox").pem == found.pem == certificate
        assert not (tmp_path / "own").exists()
        pair = found.issue(MEMBER, subject=SUBJECT, valid_days=10)
        assert reason(pair, found) == ""
        assert describe(pair.certificate, pair.key, found.pem)["chain_verifies"]

    def test_openssls_own_files(self, tmp_path: Path) -> None:
        """A CA made by openssl alone is taken: EC PARAMETERS before the key, text before the certificate."""
        key, cert = tmp_path / "k.pem", tmp_path / "c.pem"
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-out", key)
        openssl("req", "-x509", "-new", "-key", key, "-subj", "/CN=by openssl", "-days", "90", "-out", cert)
        text = openssl("x509", "-in", cert, "-text")
        assert "EC PARAMETERS" in key.read_text()
        assert "Version: 3" in text
        cert.write_text(text)
        key.chmod(0o600)
        found = find_authority(settings_of(ca_cert=cert, ca_key=key), tmp_path)
        assert found is not None
        pair = found.issue(CLIENT, subject={}, valid_days=1)
        assert describe(pair.certificate, pair.key, found.pem)["fault"] == ""

    @pytest.mark.parametrize("mode", [0o640, 0o644, 0o604, 0o660])
    def test_a_key_that_others_can_read_is_refused(self, tmp_path: Path, mode: int) -> None:
        """The mode found and the chmod that mends it are told."""
        imported = put(tmp_path, *make_ca(), mode=mode)
        with pytest.raises(PkiError, match=f"mode {mode:04o}") as caught:
            find_authority(imported, tmp_path)
        assert caught.value.remedy == f"chmod 600 {tmp_path}/their-key.pem"

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"ca": False}, "is not a CA's certificate"),
            ({"ca": None}, "is not a CA's certificate"),
            ({"sign": False}, "without keyCertSign"),
            ({"usage": (ExtendedKeyUsageOID.SERVER_AUTH,)}, "ExtendedKeyUsage without clientAuth"),
            ({"ends": NOW - timedelta(hours=1)}, "the CA expired on"),
            ({"starts": NOW + DAY}, "check this machine's clock"),
            ({"key": ed25519.Ed25519PrivateKey.generate()}, "neither RSA nor ECDSA"),
            ({"key": ec.generate_private_key(ec.SECP256K1())}, "curve secp256k1, expected one of secp256r1"),
            ({"key": rsa.generate_private_key(65537, 1024)}, "RSA key of 1024 bits, expected 2048"),  # noqa: S505
        ],
    )
    def test_what_is_no_ca_is_refused(self, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
        """Each way of not being a CA that etcd would accept is told with the file and a remedy."""
        imported = put(tmp_path, *make_ca(**changed))
        with pytest.raises(PkiError, match=message) as caught:
            find_authority(imported, tmp_path)
        assert "their" in caught.value.subject
        assert caught.value.remedy

    def test_any_use_is_every_use(self, tmp_path: Path) -> None:
        """AnyExtendedKeyUsage on a CA restricts nothing."""
        imported = put(tmp_path, *make_ca(usage=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)))
        assert find_authority(imported, tmp_path) is not None

    def test_files_that_cannot_be_used(self, tmp_path: Path, rsa_key: rsa.RSAPrivateKey) -> None:
        """Wrong key, two certificates, garbage, empty: a PkiError with the path, never key bytes."""
        certificate, key = make_ca()
        text = key.reveal()
        for number, (cert_bytes, key_bytes, message, name) in enumerate(
            [
                (certificate, key_pem(rsa_key), "doesn't belong to the key", "their.pem"),
                (certificate + certificate, text, "2 certificates", "their.pem"),
                (b"garbage", text, "no PEM certificate", "their.pem"),
                (b"", text, "empty", "their.pem"),
                (certificate, b"", "no PEM private key", "their-key.pem"),
                (certificate, text[:120] + text[130:], "no usable PEM private key", "their-key.pem"),
                (certificate, b"\n" * (1 << 20) + text, "is no PEM file", "their-key.pem"),
            ]
        ):
            imported = put(tmp_path / str(number), cert_bytes, key_bytes)
            with pytest.raises(PkiError, match=message) as caught:
                find_authority(imported, tmp_path)
            assert caught.value.subject.endswith(name)
            shown = "".join(traceback.format_exception(caught.value))
            assert text.splitlines()[1].decode() not in shown
            assert "cryptography" not in shown  # what it raised is not told on

    def test_paths_that_are_no_files(self, tmp_path: Path) -> None:
        """A missing file, a folder and a pipe (which must not block) are errors with the path."""
        good = put(tmp_path, *make_ca())
        os.mkfifo(tmp_path / "pipe", 0o600)
        for path, message in (("none", "No such file"), (".", "is no PEM file"), ("pipe", "is no PEM file")):
            for changed in ({"ca_cert": tmp_path / path}, {"ca_key": tmp_path / path}):
                with pytest.raises(PkiError, match=message):
                    find_authority(good.model_copy(update=changed), tmp_path)

    @pytest.mark.parametrize("missing", ["ca_cert", "ca_key"])
    def test_half_an_import_is_refused(self, tmp_path: Path, missing: str) -> None:
        """One of the two settings alone is an error, and no own CA is made in its stead."""
        imported = put(tmp_path, *make_ca())
        with pytest.raises(PkiError, match=f"pki.{missing}: is not set"):
            create_authority(imported.model_copy(update={missing: None}), tmp_path / "own", name="sandbox")
        assert not (tmp_path / "own").exists()
