"""flannel's rights in etcd as a plan, with `flannel.rbac`: users and roles, and auth last.

Everything is in place before auth is turned on: a run that breaks off before leaves nobody out, and the next one goes
on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runbook import etcd_access, etcdctl
from runbook.certs.leaf import common_name
from runbook.etcd_access import ADMIN, ROLE, Seen, permissions, told, users
from runbook.resources import Change, Found, Look, content, unified_diff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.params import Cluster, Node

AUTH = "etcd auth"


@dataclass(frozen=True)
class Rights:
    """The users, roles and auth of one cluster: how they are read, and what has to change."""

    cluster: Cluster
    label: str = "etcd users and roles"

    @property
    def wanted(self) -> bool:
        """Whether flannel is to be held to its prefix."""
        return self.cluster.flannel.rbac

    def looks(self) -> tuple[Look, ...]:
        """No path."""
        return ()

    def probe(self) -> str:
        """Read all of it; where it is not wanted, only if the config's probe, which comes before, found `auth` on."""
        ask = etcd_access.probe(self.cluster)
        return ask if self.wanted else f'if [ "$auth" = on ]; then\n{ask}\nfi'

    def compare(self, found: Found) -> None:
        """Not one thing: `changes` says what has to change."""

    def changes(self, found: Found, own_keys: int = 0) -> tuple[list[Change], list[str], int]:
        """What has to change, what the operator should know beside it, and how many things are right.

        Args:
            found: What the probe printed.
            own_keys: How many of etcd's keys are flannel's.
        """
        said = {key: (content(found, key) or b"").decode("utf-8", "replace") for key in found}
        seen = etcd_access.parse(self.cluster, said)
        if seen.error:
            why = seen.error
            if etcdctl.refused(seen.error):
                why = f"{etcd_access.kept_out(seen.error)}; {etcd_access.let_in(self.cluster)}"
            return [Change(self.label, "change", why, "unknown", refusal=why)], [], 0
        if not self.wanted:
            return self._off(seen)
        made = [*self._users(seen, ADMIN), self._role(seen), *self._users(seen, ROLE), self._on(seen, own_keys)]
        notes = []
        if made[-1] is not None:
            notes.append(
                "once auth is on, etcd answers only clients whose certificate's common name is one of its users"
            )
        changes = [one for one in made if one]
        return changes, notes, len(made) - len(changes)

    def _do(self, *words: str) -> str:
        return f"{etcdctl.command(self.cluster, *words)} >/dev/null"

    def _users(self, seen: Seen, role: str) -> Iterator[Change | None]:
        """The users that should have this role; flannel's has no other, an administrator's other roles don't matter."""
        for name in [name for name, one in users(self.cluster).items() if one == role]:
            roles = seen.users.get(name)
            extra = sorted((roles or frozenset()) - {role}) if role == ROLE else []
            if roles is not None and role in roles and not extra:
                yield None
                continue
            made = [] if roles is not None else [self._do("user", "add", name, "--no-password")]
            made += [] if roles and role in roles else [self._do("user", "grant-role", name, role)]
            made += [self._do("user", "revoke-role", name, one) for one in extra]
            why = "missing" if roles is None else f"it lacks the role {role}" if role not in roles else ""
            why = "; ".join(filter(None, [why, f"it has more roles: {', '.join(extra)}" if extra else ""]))
            current = "" if roles is None else f"roles: {', '.join(sorted(roles)) or 'none'}"
            desired = f"roles: {role}" + ("" if role == ROLE else " (every right, as without auth)")
            action = "create" if roles is None else "change"
            yield Change(f"etcd user {name}", action, why, current, desired,
                         unified_diff(f"etcd user {name}", current.encode(), f"roles: {role}".encode()),
                         f"{current} -> {role}", after="\n".join(made))  # fmt: skip

    def _role(self, seen: Seen) -> Change | None:
        label, wanted, there = f"etcd role {ROLE}", permissions(self.cluster), seen.role
        if there == wanted:
            return None
        lacks, extra = sorted(wanted - (there or frozenset())), sorted((there or frozenset()) - wanted)
        # Another kind for the same range is changed by granting anew.
        ranges = {one[1:] for one in wanted}
        taken = [one for one in extra if one[1:] not in ranges]
        if foreign := [one for one in taken if not one.words]:
            text = f"{label}: remove by hand what can't be written in a command: {', '.join(map(str, foreign))}"
            return Change(label, "change", text, refusal=text)
        made = [] if there is not None else [self._do("role", "add", ROLE)]
        made += [self._do("role", "grant-permission", ROLE, one.kind, *one.words) for one in lacks]
        made += [self._do("role", "revoke-permission", ROLE, *one.words) for one in taken]
        differs = [("it lacks", lacks), ("it has more", extra)]
        told_why = "; ".join(f"{what}: {', '.join(map(str, some))}" for what, some in differs if some)
        why = "missing" if there is None else told_why
        current, desired = told(there or frozenset()), told(wanted)
        diff = unified_diff(label, current.replace("; ", "\n").encode(), desired.replace("; ", "\n").encode())
        action = "create" if there is None else "change"
        return Change(label, action, why, current, desired, diff, f"{current} -> {desired}", after="\n".join(made))

    def _on(self, seen: Seen, own_keys: int) -> Change | None:
        if seen.enabled:
            return None
        me = self.cluster.etcd_nodes[0].name
        check = etcdctl.command(self.cluster, "user", "get", me, "-w", "json")
        stop = f"{{ echo 'user {me} has no role root: auth is not turned on, it would lock us out' >&2; exit 1; }}"
        look = etcdctl.command(self.cluster, "user", "list")
        # A member that hears of it a moment later refuses a question that another one has answered: asked again.
        after = f"""{check} | grep -q '"roles":.*"root"' || {stop}
{self._do("auth", "enable")}
{look} >/dev/null 2>&1 || {look} >/dev/null 2>&1 || {look} >/dev/null"""
        why = "off: flannel's certificate may read and write every key"
        if (others := (seen.keys or 0) - own_keys) > 0:
            why += f"; keys that are not flannel's: {others}, whoever uses them needs a user, too"
        return Change(AUTH, "enable", why, "off", "on", digest=f"on beside {', '.join(seen.others)}", after=after)

    def _off(self, seen: Seen) -> tuple[list[Change], list[str], int]:
        if not seen.enabled:
            return [], [], 0
        if seen.others or seen.role is None:
            who = f"and there are other users ({', '.join(seen.others)})" if seen.others else f"without a role {ROLE}"
            return [], [f"etcd's auth is on, {who}: somebody else's, so it stays on (flannel.rbac is false)"], 0
        why = "flannel.rbac is false; users and roles stay, and do nothing while it is off"
        return [Change(AUTH, "disable", why, "on", "off", digest="off", after=self._do("auth", "disable"))], [], 0


@dataclass(frozen=True)
class MemberName:
    """The name in a member's certificate: etcd would take another one for another user, and lock the member out."""

    cluster: Cluster
    node: Node

    @property
    def label(self) -> str:
        """The certificate's path."""
        return f"{self.cluster.etcd.cert_dir}/etcd.pem"

    def looks(self) -> tuple[Look, ...]:
        """Read the certificate."""
        return (Look(self.label, "content"),)

    def probe(self) -> str:
        """Nothing but the file."""
        return ""

    def compare(self, found: Found) -> Change | None:
        """Refuse where the name is not the node's; nothing is changed here."""
        name = common_name(content(found) or b"")
        if name == self.node.name:
            return None
        text = (
            f"its common name is {name or 'unknown'}, expected {self.node.name}, its user in etcd: run phase 02 first"
        )
        return Change(self.label, "change", text, name, self.node.name, refusal=text)
