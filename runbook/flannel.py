"""The flannel phases: certificates, network config, units, start. Each function gives a plan or a table."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from runbook import etcdctl, node_certs, pki, plan, services, show, versions
from runbook import units as unit_files_of
from runbook.flannel_state import leases, subnets
from runbook.resources import Change, Directory, File, Found, Resource, content, unified_diff

if TYPE_CHECKING:
    from runbook.fleet import Fleet
    from runbook.params import Cluster, Node

__all__ = [
    "cert_files", "certs", "config", "config_there", "leases", "start", "states", "subnets", "unit_files", "units",
]  # fmt: skip

UNIT = "flanneld.service"


def certs(fleet: Fleet) -> plan.Plan:
    """Plan phase 06: each flannel node's client certificate for etcd (client use only, no SANs), with ca.pem."""
    return node_certs.certificates_plan(
        "flannel certificates", fleet, fleet.cluster.flannel_nodes, fleet.cluster.flannel.cert_dir, "flanneld",
        lambda _node: pki.Profile("flanneld", (), server=False, client=True),
    )  # fmt: skip


def cert_files(fleet: Fleet) -> show.Table:
    """The certificates that are on the flannel nodes: one row a node."""
    return node_certs.table(fleet, fleet.cluster.flannel_nodes, fleet.cluster.flannel.cert_dir, "flanneld")


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

    def probe(self) -> str:
        """Read the key and the names of the leases beside it; `status` is etcdctl's exit status."""
        folder = f"{self.cluster.flannel.etcd_prefix}/subnets"
        if self.api == 2:  # noqa: PLR2004 - etcd's API versions
            get = etcdctl.command(self.cluster, "-o", "json", "get", self.label, api=2)
            names = etcdctl.command(self.cluster, "ls", folder, api=2)
        else:
            get = etcdctl.command(self.cluster, "get", self.label, "-w", "json")
            names = etcdctl.command(self.cluster, "get", f"{folder}/", "--prefix", "--keys-only")
        return f"""
err=$(mktemp) || exit 1
out=$({get} 2>"$err"); echo "status=$?"
echo "config=$(printf %s "$out" | base64 -w0)"; echo "error=$(base64 -w0 <"$err")"; rm -f "$err"
echo "leases=$({names} 2>/dev/null | base64 -w0)"
"""

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
            diff = unified_diff(self.label, b"", _pretty(wanted))
            return Change(self.label, "create", why, "unknown", wanted, diff, wanted, refusal=why)
        if value is not None and _same(value, wanted):
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
        stop = f"{{ echo 'the key {self.label} was changed by someone else meanwhile: look again' >&2; exit 1; }}"
        return f"printf %s {quote(txn)} | {command} | grep -q '^SUCCESS' || {stop}"


def _pretty(text: str) -> bytes:
    try:
        return json.dumps(json.loads(text), indent=2, sort_keys=True).encode() if text else b""
    except json.JSONDecodeError:
        return text.encode()


def _same(one: str, other: str) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except json.JSONDecodeError:
        return False


def config(fleet: Fleet) -> plan.Plan:
    """Plan phase 07: flannel's network config in etcd, by the v2 or v3 API as the versions ask.

    A different one that is there is shown as a diff; a change under which a live lease would fall out is refused.
    """
    node = fleet.cluster.etcd_nodes[0]
    return plan.of_resources("flannel config", fleet, {node.name: [EtcdKey(fleet.cluster)]})


def config_there(fleet: Fleet) -> show.Table:
    """The config that is in etcd.

    Returns:
        One row: path (the key), api, ok (same as wanted), there, wanted, why, remedy.
    """
    key = EtcdKey(fleet.cluster)
    done = fleet.first(fleet.cluster.etcd_nodes, key.probe(), what=f"etcdctl get {key.label}")
    value, error = key.there(dict(line.split("=", 1) for line in done.text.splitlines() if "=" in line))
    wanted = json.dumps(key.wanted(), sort_keys=True)
    ok = value is not None and _same(value, wanted)
    why = "" if ok else error or ("there is none" if value is None else "it is not the wanted one")
    row = {"path": key.label, "api": f"v{key.api}", "ok": ok, "there": value, "wanted": wanted, "why": why}
    row["remedy"] = "" if ok else "run phase 07"
    return show.table([row], ["path", "api", "ok", "there", "wanted", "why", "remedy"], "flannel's network config")


def flags(cluster: Cluster, node: Node) -> dict[str, str]:
    """Flanneld's command line for a node (flannel's "Configuration", command line options)."""
    flannel = cluster.flannel
    iface = node.iface or flannel.iface
    return {
        "etcd-cafile": f"{flannel.cert_dir}/ca.pem",
        "etcd-certfile": f"{flannel.cert_dir}/flanneld.pem",
        "etcd-keyfile": f"{flannel.cert_dir}/flanneld-key.pem",
        "etcd-endpoints": ",".join(etcdctl.endpoints(cluster)),
        "etcd-prefix": flannel.etcd_prefix,
        # flanneld takes an interface's name or one of its addresses: the node's own address names the right one.
        "iface": node.host if iface == "auto" else iface,
        "ip-masq": "true",
    }


def units(fleet: Fleet) -> plan.Plan:
    """Plan phase 08: flanneld.service of each flannel node."""
    cluster = fleet.cluster
    resources: dict[str, list[Resource]] = {}
    for node in cluster.flannel_nodes:
        text = unit_files_of.render(
            "flanneld.service.j2", version=cluster.flannel.version, cluster=cluster.name, bin_dir=cluster.bin_dir,
            flags=flags(cluster, node),
        )  # fmt: skip
        resources[node.name] = [
            Directory(cluster.flannel.unit_dir),
            File(f"{cluster.flannel.unit_dir}/{UNIT}", text),
        ]
    return plan.of_resources("flannel units", fleet, resources)


def unit_files(fleet: Fleet) -> show.Table:
    """What `systemd-analyze verify` and `security` say of flanneld.service: one row a node."""
    return unit_files_of.files(fleet, fleet.cluster.flannel_nodes, f"{fleet.cluster.flannel.unit_dir}/{UNIT}")


def start(fleet: Fleet) -> plan.Plan:
    """Plan phase 09: start flanneld where it does not run; restart one at a time those that run old files."""
    cluster = fleet.cluster
    folder = cluster.flannel.cert_dir
    service = services.Service(
        UNIT,
        (
            f"{cluster.flannel.unit_dir}/{UNIT}",
            f"{cluster.bin_dir}/flanneld",
            *(f"{folder}/{name}" for name in ("ca.pem", "flanneld.pem", "flanneld-key.pem")),
        ),
    )

    def nothing(_fleet: Fleet, _node: Node) -> None:
        """Other nodes don't depend on this one's flanneld: the kernel forwards while it restarts."""

    return services.start_plan(
        "flannel start", fleet, cluster.flannel_nodes, service, may_stop=nothing, healthy=nothing
    )


def states(fleet: Fleet) -> show.Table:
    """flanneld.service as systemd sees it: one row a node, with the last journal lines where it does not run."""
    return services.states(fleet, fleet.cluster.flannel_nodes, UNIT)
