"""flannel's network config as a key in etcd: read, compared, and written only as it was seen."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from runbook import etcd_access, etcdctl, versions
from runbook.resources import Change, Found, Look, content, unified_diff

if TYPE_CHECKING:
    from runbook.params import Cluster


#: A login that nobody has: refused where etcd's auth is on, and not looked at where it is off.
_NOBODY = "--user=is-auth-on:asked-by-runbook"


@dataclass(frozen=True)
class EtcdKey:
    """The network config under flannel's prefix, by the API that this flannel speaks."""

    cluster: Cluster

    @property
    def label(self) -> str:
        """The key."""
        return f"{self.cluster.flannel.etcd_prefix}/config"

    @property
    def api(self) -> int:
        """2 or 3."""
        return versions.flannel_api(self.cluster.flannel.version)

    def wanted(self) -> dict[str, object]:
        """The config as flannel reads it."""
        return self.cluster.flannel.network_config()

    def looks(self) -> tuple[Look, ...]:
        """No path."""
        return ()

    def probe(self) -> str:
        """Read the key and the names of the leases beside it."""
        folder = f"{self.cluster.flannel.etcd_prefix}/subnets"
        if self.api == 2:  # noqa: PLR2004 - etcd's API versions
            names = etcdctl.command(self.cluster, "ls", folder, api=2)
        else:
            names = etcdctl.command(self.cluster, "get", f"{folder}/", "--prefix", "--keys-only")
        return f"""{self.probe_value(ask_auth=True)}
echo "leases=$({names} 2>/dev/null | base64 -w0)"
"""

    def probe_value(self, *, ask_auth: bool = False) -> str:
        """Read the key; `status` is etcdctl's exit status.

        Args:
            ask_auth: Find out beside it whether etcd's auth is on where it should not be: the variable `auth` is then
                `on`. The question costs no other command: etcd reads past a login while auth is off.
        """
        if self.api == 2:  # noqa: PLR2004 - as above
            get = etcdctl.command(self.cluster, "-o", "json", "get", self.label, api=2)
        else:
            get = etcdctl.command(self.cluster, "get", self.label, "-w", "json")
        first, again = get, ""
        if ask_auth and self._may_have_been_limited:
            first = etcdctl.command(self.cluster, _NOBODY, "get", self.label, "-w", "json")
            known = "grep -q 'authentication failed' \"$err\" && auth=on"
            again = f'[ "$status" = 0 ] || {{ {known}; out=$({get} 2>"$err"); status=$?; }}'
        return f"""
err=$(mktemp) || exit 1
out=$({first} 2>"$err"); status=$?
{again}
echo "status=$status"
echo "config=$(printf %s "$out" | base64 -w0)"; echo "error=$(base64 -w0 <"$err")"; rm -f "$err"
"""

    @property
    def _may_have_been_limited(self) -> bool:
        """Whether flannel.rbac, which is off, may have been on."""
        flannel, etcd = self.cluster.flannel, self.cluster.etcd
        return not flannel.rbac and not versions.rbac_fault(etcd.version, flannel.version)

    def there(self, found: Found) -> tuple[str | None, str]:
        """The value that is there, None for none, and why it could not be read, '' when it could."""
        text = (content(found, "config") or b"").decode("utf-8", "replace")
        error = (content(found, "error") or b"").decode("utf-8", "replace")
        got = etcdctl.as_json(text) or {}
        # v2 says "100: Key not found" with status 4; v3 a missing key with status 0 and no kvs.
        if found.get("status") != "0" and "Key not found" not in error:
            return None, error.strip()[-300:] or "no answer"
        if self.api == 2:  # noqa: PLR2004
            return (got.get("node") or {}).get("value"), ""
        kvs = got.get("kvs") or []
        return (etcdctl.decoded(kvs[0].get("value", "")) if kvs else None), ""

    def compare(self, found: Found) -> Change | None:
        """Write it where it is missing; change another one only where no live lease would fall out of it."""
        value, error = self.there(found)
        wanted = json.dumps(self.wanted(), sort_keys=True)
        if error:
            why = f"etcd does not answer yet (phases 04 and 05 come first): {error}"
            if etcdctl.refused(error):
                why = f"{etcd_access.kept_out(error)}; {etcd_access.let_in(self.cluster)}"
            diff = unified_diff(self.label, b"", _pretty(wanted))
            return Change(self.label, "create", why, "unknown", wanted, diff, wanted, refusal=why)
        if value is not None and same(value, wanted):
            return None
        diff = unified_diff(self.label, _pretty(value or ""), _pretty(wanted))
        why = "missing" if value is None else "another config is there"
        refusal = self._shrinks(found)
        digest = f"{value} -> {wanted}"
        action = "create" if value is None else "change"
        return Change(
            self.label, action, refusal or why, value or "", wanted, diff, digest, after=self._put(value, wanted),
            refusal=refusal,
        )  # fmt: skip

    def own_keys(self, found: Found) -> int:
        """How many of etcd's keys are flannel's: the config and the leases."""
        return len((content(found, "leases") or b"").split()) + (self.there(found)[0] is not None)

    def _shrinks(self, found: Found) -> str:
        network = ipaddress.IPv4Network(str(self.wanted()["Network"]))
        length = int(str(self.wanted()["SubnetLen"]))
        names = (content(found, "leases") or b"").decode("utf-8", "replace").split()
        lost = []
        for name in names:
            address, _, prefix = name.rsplit("/", 1)[-1].partition("-")
            try:
                subnet = ipaddress.IPv4Network(f"{address}/{prefix}", strict=False)
            except ValueError:
                lost.append(name)  # no IPv4 lease: what can't be read can't be judged harmless
                continue
            if not subnet.subnet_of(network) or subnet.prefixlen != length:
                lost.append(str(subnet))
        if not lost:
            return ""
        return (
            f"live leases don't fit the wanted config: {', '.join(lost)}; stop flanneld on their nodes and delete the"
            f" leases under {self.cluster.flannel.etcd_prefix}/subnets first, or keep Network and SubnetLen"
        )

    def _put(self, value: str | None, wanted: str) -> str:
        """Write only if the key is still as the plan saw it: another operator's write in between is not lost."""
        if self.api == 2:  # noqa: PLR2004
            if value is None:
                return etcdctl.command(self.cluster, "mk", self.label, wanted, api=2) + " >/dev/null"
            swap = ["set", "--swap-with-value", value, self.label, wanted]
            return etcdctl.command(self.cluster, *swap, api=2) + " >/dev/null"
        key, new = json.dumps(self.label), json.dumps(wanted)
        seen = f'mod({key}) = "0"' if value is None else f"value({key}) = {json.dumps(value)}"
        txn = f"{seen}\n\nput {key} {new}\n\n\n"
        command = etcdctl.command(self.cluster, "txn")
        told = quote(f"the key {self.label} was changed by someone else meanwhile: look again")
        stop = f"{{ echo {told} >&2; exit 1; }}"
        return f"printf %s {quote(txn)} | {command} | grep -q '^SUCCESS' || {stop}"


def _pretty(text: str) -> bytes:
    try:
        return json.dumps(json.loads(text), indent=2, sort_keys=True).encode() if text else b""
    except json.JSONDecodeError:
        return text.encode()


def same(one: str, other: str) -> bool:
    """Whether two texts are the same JSON, however they are written."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except json.JSONDecodeError:
        return False
