"""Certificates on nodes: the plan that issues and renews them, and the table that shows what is there."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from functools import cache
from shlex import quote
from typing import TYPE_CHECKING

from runbook import pki, plan, show, state
from runbook.certs.secret import Secret
from runbook.plans import reading
from runbook.resources import Change, Directory, File, Found, Look, Payload, Resource, access_reason, content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runbook.fleet import Fleet
    from runbook.params import Cluster, Node

_COLUMNS = [
    "node",
    "path",
    "ok",
    "subject",
    "sans",
    "issuer",
    "serial",
    "not_after_days",
    "usage",
    "key_matches",
    "chain_verifies",
    "key_sha256",
    "why",
    "remedy",
]


@dataclass(frozen=True)
class Leaf:
    """A certificate and its key in a folder: NAME.pem and NAME-key.pem, with the CA's certificate as ca.pem.

    Attributes:
        renewed: Says why the pair there may not stay, or ''.
        issue: Issues a pair; called only when the plan is applied.
        digest: What would be issued: subject, SANs, usage and CA.
    """

    folder: str
    name: str
    owner: str
    renewed: Callable[[bytes | None, Secret | None], str]
    issue: Callable[[], pki.KeyPair]
    digest: str

    @property
    def label(self) -> str:
        """The certificate's path."""
        return posixpath.join(self.folder, f"{self.name}.pem")

    @property
    def key_path(self) -> str:
        """The key's path."""
        return posixpath.join(self.folder, f"{self.name}-key.pem")

    def looks(self) -> tuple[Look, ...]:
        """The pair; the key comes over SSH to see that it matches, and is never shown."""
        return (Look(self.label, "content"), Look(self.key_path, "content", "key_"))

    def probe(self) -> str:
        """Nothing else."""
        return ""

    def compare(self, found: Found) -> Change | None:
        """Issue a pair where it is missing, near its end, not ours, or not what the params ask for."""
        secret = content(found, "key_content")
        reason = self.renewed(content(found), Secret(secret) if secret is not None else None)
        key_path = quote(self.key_path)
        if not reason:
            key = access_reason({"mode": found["key_mode"], "owner": found["key_owner"]}, 0o600, self.owner)
            certificate = access_reason(found, 0o644, self.owner)
            why = "; ".join(f"{what}: {text}" for what, text in (("key", key), ("certificate", certificate)) if text)
            if not why:
                return None
            both = f"{quote(self.label)} {key_path}"
            after = f"chown {quote(self.owner)} {both}; chmod 644 {quote(self.label)}; chmod 600 {key_path}"
            desired = f"key 0600, certificate 0644, {self.owner}"
            return Change(self.label, "change", why, "", desired, digest=why, after=after)

        def payloads() -> tuple[Payload, ...]:
            pair = self.issue()
            return (
                Payload(self.key_path, 0o600, self.owner, pair.key),
                Payload(self.label, 0o644, self.owner, pair.certificate),
            )

        current = found.get("sha256", "")[:12]
        action = "create" if reason == "missing" else "renew"
        return Change(
            self.label, action, reason, current, self.digest, digest=f"{self.digest} {current}", payloads=payloads
        )


def certificates_plan(
    title: str, fleet: Fleet, nodes: Iterable[Node], folder: str, name: str, profile: Callable[[Node], pki.Profile],
    *, before: tuple[Resource, ...] = (), owner: str = "root:root",
) -> plan.Plan:  # fmt: skip
    """A plan that gives each node the CA's certificate and a pair of its own in `folder`.

    Where there is no CA yet, making it on this side is the plan's first row.
    """
    cluster, chosen = fleet.cluster, list(nodes)

    def make() -> tuple[list[Change], list[str], int]:
        directory = state.pki_dir(cluster, create=False)
        authority = pki.find_authority(cluster.pki, directory)

        @cache
        def ensured() -> pki.Authority:
            return authority or pki.create_authority(cluster.pki, state.pki_dir(cluster), name=cluster.name)

        resources: dict[str, list[Resource]] = {}
        for node in chosen:
            leaf = _leaf(cluster, folder, name, profile(node), owner, authority, ensured)
            path = posixpath.join(folder, "ca.pem")
            ca = _CaFile(path, authority.pem) if authority else _NewCaFile(path, ensured)
            resources[node.name] = [*before, Directory(folder, 0o755), leaf, ca]
        made, unchanged = reading.compared(fleet, resources, what=f"read for {title}")
        if authority is None:
            why, wanted = "this cluster has no CA yet", f"CN={cluster.name}"
            made = [Change(str(directory / "ca.pem"), "create", why, "", wanted, digest="ca", here=ensured), *made]
        notes = [authority.warning] if authority and authority.warning else []
        return made, notes, unchanged

    return plan.Plan(title, fleet, make)


def _refused(change: Change, here: str) -> Change:
    """The change of a ca.pem that is another CA's: members with certificates of two CAs don't trust each other."""
    text = (
        f"{change.resource} is another CA's certificate than {here}: bring that CA here (pki.ca_cert, pki.ca_key), or,"
        f" if the cluster that used it is gone, remove {posixpath.dirname(change.resource)} on the node"
    )
    return replace(change, why="another CA's certificate", refusal=text)


@dataclass(frozen=True)
class _CaFile(File):
    """The CA's certificate: put where it is missing, never put over another CA's."""

    def compare(self, found: Found) -> Change | None:
        """Refuse to change it."""
        change = super().compare(found)
        if change is None or change.action == "create" or "sha256" not in found or found["sha256"] == self.sha256:
            return change
        return _refused(change, "this cluster's here")


@dataclass(frozen=True)
class _NewCaFile:
    """The certificate of a CA that is still to be made: put where none lies yet.

    Attributes:
        ensured: Makes the CA.
    """

    label: str
    ensured: Callable[[], pki.Authority]

    def looks(self) -> tuple[Look, ...]:
        """Whether it is there."""
        return (Look(self.label),)

    def probe(self) -> str:
        """Nothing else."""
        return ""

    def compare(self, found: Found) -> Change:
        """Refuse where a CA's certificate lies already: it is in use there, and its key is on another machine."""

        def payloads() -> tuple[Payload, ...]:
            return (Payload(self.label, 0o644, "root:root", self.ensured().pem),)

        why = "the new CA's certificate"
        change = Change(self.label, "create", why, "", "0644 root:root", digest="new ca", payloads=payloads)
        return change if found.get("type", "none") == "none" else _refused(change, "the one that would be made here")


def _leaf(
    cluster: Cluster, folder: str, name: str, profile: pki.Profile, owner: str,
    authority: pki.Authority | None, ensured: Callable[[], pki.Authority],
) -> Leaf:  # fmt: skip
    subject = cluster.pki.subject

    def renewed(certificate: bytes | None, key: Secret | None) -> str:
        return pki.renewal_reason(certificate, key, profile, authority, subject=subject)

    def issue() -> pki.KeyPair:
        return ensured().issue(
            profile, subject=subject, valid_days=cluster.pki.valid_days, key_type=cluster.pki.key_type
        )

    usage = "server and client" if profile.server else "client"
    sans = ", ".join(profile.sans) or "none"
    by = authority.fingerprint[:12] if authority else "the new CA"
    text = f"CN={profile.common_name}, SANs {sans}, {usage}, by {by}, {cluster.pki.valid_days} days"
    return Leaf(folder, name, owner, renewed, issue, text)


def table(fleet: Fleet, nodes: Iterable[Node], folder: str, name: str) -> show.Table:
    """The certificates that are on the nodes.

    Returns:
        One row a node: node, path, ok, subject, sans, issuer, serial, not_after_days, usage, key_matches,
        chain_verifies, key_sha256 (of the public part), why, remedy.
    """
    chosen = list(nodes)
    directory = state.pki_dir(fleet.cluster, create=False)
    authority = pki.find_authority(fleet.cluster.pki, directory)
    certificate, ca = posixpath.join(folder, f"{name}.pem"), posixpath.join(folder, "ca.pem")
    probe = _Files((certificate, posixpath.join(folder, f"{name}-key.pem"), ca))
    rows = []
    read = reading.outcomes(fleet, {node.name: [probe] for node in chosen}, what=f"read {certificate}")
    for node, outcome in read.items():
        row: dict[str, object] = {"node": node, "path": certificate}
        if outcome.value is None:
            why, remedy = (outcome.error.message, outcome.error.remedy) if outcome.error else ("no answer", "")
            rows.append({**row, "ok": False, "why": why, "remedy": remedy})
        else:
            rows.append(row | _described(outcome.value[0], authority))
    return show.table(rows, _COLUMNS, f"{name}.pem on the nodes")


def _described(found: Mapping[str, str], authority: pki.Authority | None) -> dict[str, object]:
    secret, ca = content(found, "1_content"), content(found, "2_content")
    described = pki.describe(content(found, "0_content"), Secret(secret) if secret is not None else None, ca)
    why = str(described.pop("fault", ""))
    if not why and found.get("1_mode") != "600":
        why = f"the key's mode is {found.get('1_mode')}, expected 600"
    if not why and authority is not None and ca != authority.pem:
        why = "ca.pem there is not the CA on this side"
    return {**described, "ok": not why, "why": why, "remedy": "run the certificates phase again" if why else ""}


@dataclass(frozen=True)
class _Files:
    """Reads several files whole; changes nothing."""

    paths: tuple[str, ...]
    label: str = "files"

    def looks(self) -> tuple[Look, ...]:
        return tuple(Look(path, "content", f"{number}_") for number, path in enumerate(self.paths))

    def probe(self) -> str:
        return ""

    def compare(self, found: Found) -> None:
        """Never changes anything."""
