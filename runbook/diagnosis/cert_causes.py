"""What is wrong with the certificates on the nodes, as Go's TLS would judge them there: pure functions of the case."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509

from runbook.certs.certificates import UNREADABLE, USAGES, extension, fingerprint, issued_by, load_certificate
from runbook.diagnosis.case import ETCD, FLANNELD, Cause
from runbook.errors import PkiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.diagnosis.case import Case
    from runbook.diagnosis.symptoms import Symptoms

_NAMES = {ETCD: ("etcd_ca", "etcd_pem"), FLANNELD: ("flanneld_ca", "flanneld_pem")}
_SHORT = 12


def certificates(case: Case) -> Iterator[Cause]:
    """Each node's CA and certificate, for etcd and for flannel."""
    wanted = _ca_of_most(case)
    for about, nodes in ((ETCD, case.members), (FLANNELD, case.hosts)):
        for one in nodes:
            unit = one.etcd if about == ETCD else one.flanneld
            if unit.loaded:
                yield from _of_node(case, one, about, wanted)


def _ca_of_most(case: Case) -> str:
    """The fingerprint of the CA that most nodes have; where they are even, of this side's."""
    found = [_fingerprint(one.file(_NAMES[ETCD][0])) for one in case.members]
    counts = Counter(one for one in found if one).most_common()
    best = [one for one, count in counts if count == counts[0][1]]
    own = _fingerprint(case.ca)
    return own if own in best or not best else best[0]


def _fingerprint(pem: bytes | None) -> str:
    try:
        return fingerprint(load_certificate(pem)) if pem else ""
    except (PkiError, *UNREADABLE):
        return ""


def _of_node(case: Case, one: Symptoms, about: str, wanted: str) -> Iterator[Cause]:
    ca_key, key = _NAMES[about]
    folder = case.cluster.etcd.cert_dir if about == ETCD else case.cluster.flannel.cert_dir
    path = f"{folder}/{'etcd' if about == ETCD else 'flanneld'}.pem"
    phases = "02 and 04" if about == ETCD else "06 and 09"
    name = one.node.name

    def cause(what: str, why: str, remedy: str, section: str) -> Cause:
        return Cause(name, what, why, remedy, section, about)

    again = f"run phases {phases}: they issue it anew and restart what reads it"
    ca, pem = one.file(ca_key), one.file(key)
    if ca is None or pem is None:
        missing = f"{folder}/ca.pem" if ca is None else path
        yield cause("a certificate is missing", f"there is no {missing}", again, "certificate-names")
        return
    try:
        ca_certificate, certificate = load_certificate(ca), load_certificate(pem)
        foreign_ca = bool(wanted) and fingerprint(ca_certificate) != wanted
        foreign = not issued_by(certificate, ca_certificate)
        sans, uses = _names(certificate), extension(certificate, x509.ExtendedKeyUsage)
        valid = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    except (PkiError, *UNREADABLE) as error:
        yield cause("a certificate can't be read", f"{path}: {error}", again, "certificate-names")
        return
    if foreign_ca:
        why = f"{folder}/ca.pem is CA {fingerprint(ca_certificate)[:_SHORT]}, the other nodes have {wanted[:_SHORT]}"
        remedy = f"on {name}: `mv {folder} {folder}.old`; then {again}"
        yield cause("another CA on one node", why, remedy, "certificates-of-another-ca")
        return
    if foreign:
        why = f"{path} was not issued by the CA {wanted[:_SHORT]} of {folder}/ca.pem, as every node's must be"
        yield cause("a certificate of another CA", why, again, "certificates-of-another-ca")
        return
    # A node judges by its own clock.
    moment = datetime.fromtimestamp(case.now, UTC) + timedelta(milliseconds=one.offset_ms)
    if not valid[0] <= moment <= valid[1]:
        word = "expired" if moment > valid[1] else "not valid yet"
        why = (
            f"{path} is valid from {valid[0]:%Y-%m-%d %H:%M} to {valid[1]:%Y-%m-%d %H:%M} UTC,"
            f" the node's clock says {moment:%Y-%m-%d %H:%M}"
        )
        remedy = again if word == "expired" else f"set the clocks of the node and of this machine; else {again}"
        yield cause(f"the certificate is {word}", why, remedy, "certificate-expired")
    if about == ETCD and sans is not None and one.node.host not in sans:
        why = f"{path} is valid for {', '.join(sans) or 'no name'}, expected {one.node.host} among them"
        yield cause("the certificate lacks the node's address", why, again, "certificate-names")
    needed = [USAGES["client"], *([USAGES["server"]] if about == ETCD else [])]
    if uses is not None and any(one_use not in uses for one_use in needed):
        why = (
            f"{path} is not for {'server and client' if about == ETCD else 'client'} use, which the other side asks for"
        )
        yield cause("the certificate is not for this use", why, again, "certificate-names")


def _names(certificate: x509.Certificate) -> list[str]:
    sans = extension(certificate, x509.SubjectAlternativeName)
    return [str(name.value) for name in sans or ()]


RULES = (certificates,)
