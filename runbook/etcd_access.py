"""etcd's users, roles and auth (RBAC, API 3) as flannel's rights need them: what is wanted, and what is there.

etcd takes a client's user from the common name of its certificate. Each member's certificate is an administrator's, as
it is without auth; flannel's may read below its prefix and write its leases.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

from runbook import etcdctl
from runbook.settings.rbac_rules import FLANNEL_USER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runbook.params import Cluster

#: etcd's own name of the user and the role without which auth can't be turned on.
ADMIN = "root"
ROLE = "flannel"
USER = FLANNEL_USER
_KINDS = {0: "read", 1: "write", 2: "readwrite"}
#: The end of a range that has none (etcd's API, "Key ranges"); as the key, too, it stands for every key.
_OPEN = b"\0"


class Permission(NamedTuple):
    """What a role may do: read, write or readwrite, on a key, or from it up to `end`."""

    kind: str
    key: bytes
    end: bytes = b""

    def __str__(self) -> str:
        """As an operator says it."""
        key, end = (text.decode("utf-8", "replace") for text in (self.key, self.end))
        if not self.end:
            return f"{self.kind} {key}"
        if self.end == _OPEN:
            return f"{self.kind} every key" if self.key in (b"", _OPEN) else f"{self.kind} {key} and all keys after it"
        return f"{self.kind} {key}*" if self.end == _after(self.key) else f"{self.kind} {key} to {end}"

    @property
    def words(self) -> list[str]:
        """The range as etcdctl's arguments; none where its bytes can't stand on a command line."""
        if self.end == _OPEN and self.key in (b"", _OPEN):
            return ["", "--prefix"]
        ends = [] if self.end in (b"", _OPEN) else [self.end]
        try:
            words = [text.decode() for text in (self.key, *ends)]
        except UnicodeDecodeError:
            return []
        if not all(map(str.isprintable, words)):
            return []
        return [*words, "--from-key"] if self.end == _OPEN else words


def _after(prefix: bytes) -> bytes:
    """The first key behind all those that begin so (a prefix's last byte is never 255: it is a slash)."""
    return prefix[:-1] + bytes([prefix[-1] + 1]) if prefix and prefix[-1] < 255 else _OPEN  # noqa: PLR2004 - a byte


def permissions(cluster: Cluster) -> frozenset[Permission]:
    """What flannel's role may do: read the config and all leases, write leases (flannel's pkg/subnet/etcd)."""
    prefix = cluster.flannel.etcd_prefix.encode()
    whole, leases = prefix + b"/", prefix + b"/subnets/"
    return frozenset({Permission("read", whole, _after(whole)), Permission("readwrite", leases, _after(leases))})


def users(cluster: Cluster) -> dict[str, str]:
    """The users that are wanted, each with its role: the administrator, each member, flannel last."""
    admins = dict.fromkeys([ADMIN, *(node.name for node in cluster.etcd_nodes)], ADMIN)
    return {**admins, FLANNEL_USER: ROLE}


def kept_out(error: str) -> str:
    """What is wrong where etcd's auth refuses a member's certificate."""
    return f"etcd's auth is on, and it refuses a member's certificate ({error}): somebody else turned it on"


def let_in(cluster: Cluster) -> str:
    """What to do about it."""
    names = " ".join(node.name for node in cluster.etcd_nodes)
    return (
        f"its administrator lets the members in: `for u in {names}; do etcdctl user add $u --no-password; etcdctl user"
        f" grant-role $u {ADMIN}; done`; or turns it off: `etcdctl auth disable`"
    )


@dataclass(frozen=True)
class Seen:
    """What etcd has of users and roles.

    Attributes:
        enabled: Whether auth is on; None where it was not asked.
        error: Why it could not be read, or ''.
        users: The roles of each of our users that is there.
        others: Users that are none of ours.
        role: What flannel's role may do; None where there is none.
        keys: How many keys there are; None where that was not asked.
    """

    enabled: bool | None = None
    error: str = ""
    users: Mapping[str, frozenset[str]] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    role: frozenset[Permission] | None = None
    keys: int | None = None


def probe(cluster: Cluster) -> str:
    """Give the sh that asks for all of it, all at once, and prints it as `key=base64` lines."""
    in_json = ["-w", "json"]
    asks = {
        "auth": ["auth", "status", *in_json],
        "users": ["user", "list", *in_json],
        "role": ["role", "get", ROLE, *in_json],
        # etcdctl counts in no other format (tried with 3.5.21 and 3.6.16).
        "keys": ["get", "", "--from-key", "--count-only", "-w", "fields"],
        **{f"user.{name}": ["user", "get", name, *in_json] for name in users(cluster)},
    }
    started = "\n".join(
        f'{etcdctl.command(cluster, *words)} >"$rights/"{quote(key)} 2>&1 </dev/null &' for key, words in asks.items()
    )
    return f"""
rights=$(mktemp -d) || exit 1
{started}
wait
for file in "$rights"/*; do echo "${{file##*/}}=$(base64 -w0 <"$file")"; done
rm -rf "$rights"
"""


def parse(cluster: Cluster, said: Mapping[str, str]) -> Seen:
    """What etcdctl answered, as values.

    Args:
        cluster: The params.
        said: What it printed, by the probe's keys; without `auth` nothing was asked.
    """
    if "auth" not in said:
        return Seen()
    status, listed = answer(said["auth"]), answer(said.get("users", ""))
    # Who may ask whether auth is on may ask all the rest: below, "not found" is the user's or role's own.
    if status is None or listed is None:
        return Seen(error=_last(said["auth"] if status is None else said.get("users", "")))
    there = {}
    for name in users(cluster):
        text = said.get(f"user.{name}", "")
        if (one := answer(text)) is not None:
            there[name] = frozenset(one.get("roles") or ())
        elif "user name not found" not in text:
            return Seen(error=_last(text))
    role = answer(said.get("role", ""))
    if role is None and "role name not found" not in said.get("role", ""):
        return Seen(error=_last(said.get("role", "")))
    count = re.search(r'^"Count" : (\d+)$', said.get("keys", ""), re.MULTILINE)
    if count is None:
        return Seen(error=_last(said.get("keys", "")))
    return Seen(
        enabled=status.get("enabled") is True, users=there,
        others=tuple(sorted(set(listed.get("users") or ()) - set(users(cluster)))),
        role=None if role is None else granted(role), keys=int(count[1]),
    )  # fmt: skip


def answer(text: str) -> dict[str, Any] | None:
    """The JSON of an etcdctl call, beside which its log lines may stand; None where it failed."""
    found = (etcdctl.as_json(line) for line in text.splitlines() if line.startswith('{"header"'))
    return next((one for one in found if isinstance(one, dict)), None)


def granted(role: Mapping[str, Any]) -> frozenset[Permission]:
    """A role's permissions, from `role get` as JSON: base64 keys, and nothing for a kind of 0 or an empty key."""
    return frozenset(
        Permission(
            _KINDS.get(one.get("permType", 0), "unknown"),
            base64.b64decode(one.get("key", "")),
            base64.b64decode(one.get("range_end", "")),
        )
        for one in role.get("perm") or ()
    )


def told(some: Iterable[Permission]) -> str:
    """Permissions in words, in one order."""
    return "; ".join(map(str, sorted(some, key=lambda one: (one.key, one.end, one.kind))))


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no answer"])[-1].removeprefix("Error: ")[-300:]
