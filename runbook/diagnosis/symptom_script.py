"""The script that reads one node for a diagnosis, in one round trip: nothing is changed, what is slow runs at once."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from runbook import etcd_access, etcdctl, flannel_state, preflight_script, versions

if TYPE_CHECKING:
    from runbook.params import Cluster, Node

UNITS = ("etcd", "flanneld")
_PROPERTIES = (
    "LoadState ActiveState SubState Result UnitFileState ExecMainCode ExecMainStatus NRestarts MainPID ExecStart"
)
#: etcdctl's deadline for one look; a healthy member answers within milliseconds.
_ASK_S = 2
_JOURNAL_LINES = 400
_LINE_CHARS = 1500
#: Keys are only looked through for a config under another prefix; a big cluster has more.
_MOST_KEYS = 5000


def script(cluster: Cluster, node: Node) -> str:
    """Give the sh that prints all of it, for `answers.parse`; what takes long runs side by side."""
    slow = {**_of_units(cluster), **_of_network(cluster, node)}
    if "etcd" in node.roles:
        slow |= _of_etcd(cluster, node)
    started = "\n".join(f'{{ {command}; }} >"$work/{key}" 2>&1 </dev/null &' for key, command in slow.items())
    # /run: the disk may be the one that is full.
    return f"""
{preflight_script.probe(cluster)}
work=$(mktemp -d /run/runbook-look.XXXXXX) || exit 1
trap 'rm -rf "$work"' EXIT
{started}
{flannel_state.kernel_script(cluster)}
wait
for file in "$work"/*; do echo "${{file##*/}}=$(base64 -w0 <"$file")"; done
"""


def _of_units(cluster: Cluster) -> dict[str, str]:
    names = " ".join(f"-p {name}" for name in _PROPERTIES.split())
    made = {}
    for unit in UNITS:
        made[f"unit_{unit}"] = f"systemctl show --no-pager {names} {unit}.service"
        made[f"journal_{unit}"] = (
            f"journalctl -q --no-pager --no-hostname -o short-unix -n {_JOURNAL_LINES} -u {unit}.service"
            f" | cut -c1-{_LINE_CHARS}"
        )
    etcd, flannel = cluster.etcd.cert_dir, cluster.flannel.cert_dir
    for key, path in (
        ("etcd_ca", f"{etcd}/ca.pem"),
        ("etcd_pem", f"{etcd}/etcd.pem"),
        ("flanneld_ca", f"{flannel}/ca.pem"),
        ("flanneld_pem", f"{flannel}/flanneld.pem"),
    ):
        made[f"file_{key}"] = f"[ ! -f {quote(path)} ] || head -c 65536 {quote(path)}"
    made["bin_free"] = f"df -Pk -- {quote(cluster.bin_dir)} | tail -n 1"
    made["flanneld_version"] = f"{quote(f'{cluster.bin_dir}/flanneld')} -version"
    return made


def _of_network(cluster: Cluster, node: Node) -> dict[str, str]:
    name = quote(flannel_state.device(cluster))
    hosts = " ".join(quote(one.host) for one in cluster.flannel_nodes if one != node)
    # An address of a tunnel's other end is the gateway of its route.
    ends = f"$(ip -4 route show dev {name} 2>/dev/null | sed -n 's/.* via \\([0-9.]*\\) .*/\\1/p' | head -n 64)"
    ping = 'ping -n -q -c 10 -i 0.05 -W 1 "$a" 2>&1'
    return {
        "links": "ip -o -d link show",
        "routes_all": "ip -4 -o route show table main",
        "iptables": "iptables-save; ! command -v iptables-legacy-save >/dev/null || iptables-legacy-save",
        "nft": "! command -v nft >/dev/null || nft list ruleset",
        "pings": f'for a in {hosts} {ends}; do {ping} | sed "s/^/$a /" & done; wait',
    }


def _of_etcd(cluster: Cluster, node: Node) -> dict[str, str]:
    own, limit = [f"https://{node.host}:2379"], f"--command-timeout={_ASK_S}s"
    prefix = cluster.flannel.etcd_prefix
    json_words = ["-w", "json", limit]
    health_words = json_words if versions.health_is_json(cluster.etcd.version) else [limit]
    serial = [*json_words, "--consistency=s"]

    def ask(*words: str, to: list[str] | None = None) -> str:
        return f"timeout {_ASK_S + 2} env {etcdctl.command(cluster, *words, to=to)}"

    keys = ask("get", "/", "--prefix", "--keys-only", f"--limit={_MOST_KEYS}", limit, "--consistency=s", to=own)
    data, wal = quote(cluster.etcd.data_dir), quote(cluster.etcd.wal_dir)
    made = {
        # etcdctl asks for the status of one endpoint after the other, and waits for each that is down.
        "status": " ".join(
            f"{ask('endpoint', 'status', *json_words, to=[one])} &" for one in etcdctl.endpoints(cluster)
        )
        + " wait",
        "health": ask("endpoint", "health", *health_words),
        "members": ask("member", "list", *json_words, to=own),
        "alarms": ask("alarm", "list", limit, to=own),
        "v3": ask("get", f"{prefix}/", "--prefix", *serial, to=own),
        "v3_configs": f"{keys} | grep '/config$' | head -n 20",
        "data": f"ls -A {data}/member {data}/member/snap {wal} | head -n 40",
        "cluster_id": "journalctl -q --no-pager -o cat -n 5000 -u etcd.service"
        ' | sed -nE \'s/.*"cluster-id":"([0-9a-f]+)".*/\\1/p; s/.* in cluster ([0-9a-f]+).*/\\1/p\' | tail -n 1',
    }
    if versions.has_auth_status(cluster.etcd.version):
        status = ask("auth", "status", *json_words, to=own)
        of_flannel = [
            ask("user", "get", etcd_access.USER, *json_words, to=own),
            ask("role", "get", etcd_access.ROLE, *json_words, to=own),
        ]
        on = "; ".join(f"echo @; {one}" for one in of_flannel)
        made["auth"] = f's=$({status} 2>&1); echo "$s"; case $s in *\'"enabled":true\'*) {on};; esac'
    if versions.etcd_has_v2(cluster.etcd.version):
        made |= _of_v2(cluster, own)
    return made


def _of_v2(cluster: Cluster, own: list[str]) -> dict[str, str]:
    def ask(*words: str) -> str:
        return f"timeout {_ASK_S} env {etcdctl.command(cluster, *words, api=2, to=own)}"

    prefix = cluster.flannel.etcd_prefix
    get, names = ask("-o", "json", "get"), ask("ls", f"{prefix}/subnets")
    keys = f"{quote(f'{prefix}/config')} $({names} 2>/dev/null)"
    return {
        "v2": f'for key in {keys}; do {get} "$key" | tr -d "\\n"; echo; done',
        "v2_configs": f"{ask('ls', '--recursive', '/')} | grep '/config$' | head -n 20",
    }
