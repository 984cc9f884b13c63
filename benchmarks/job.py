"""The job that every contender does, and the check that what it built is that cluster."""

from __future__ import annotations

import json
import platform
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from runbook import artifacts, etcd, flannel, params
from runbook.downloads import releases
from runbook.sandbox.params_file import etcd_members

if TYPE_CHECKING:
    from practice import Nodes

HERE = Path(__file__).resolve().parent
CONTENDERS = HERE / "contenders"
_BIN = "/opt/k8s/bin"
_CERTS = "--cacert=/etc/etcd/cert/ca.pem --cert=/etc/etcd/cert/etcd.pem --key=/etc/etcd/cert/etcd-key.pem"
_PREFIX = "/kubernetes/network"


@dataclass(frozen=True)
class Job:
    """A folder in which a contender works, with all that is on this side before the clock starts.

    Attributes:
        folder: `environment.sh`, `inventory.json`, `hosts.ini`, `ssh_config`, `params.yaml`, `dist/` (the binaries, raw
            and packed) and `templates/`; what a contender keeps for its second run stays here too.
        addresses: The nodes' addresses by name.
        members: The names of those that run etcd.
    """

    folder: Path
    addresses: dict[str, str]
    members: tuple[str, ...]


def fetch() -> dict[str, str]:
    """Have the binaries in the cache (outside of all timing); give the versions by product."""
    defaults = params.load({"name": "job", "nodes": [{"name": "node1", "host": "192.0.2.1"}]})
    wanted = {"etcd": defaults.etcd.version, "flannel": defaults.flannel.version}
    for product, version in wanted.items():
        _fetch(product, version)
    return wanted


def _fetch(product: str, version: str) -> tuple[artifacts.Binary, ...]:
    return artifacts.fetch(product, version, releases.arch(platform.machine()))  # type: ignore[arg-type]


def prepare(nodes: Nodes, folder: Path, count: int, versions: dict[str, str]) -> Job:
    """Fill an empty folder for one contender."""
    folder.mkdir(parents=True)
    sandbox = nodes.sandbox
    addresses = dict(list(nodes.addresses().items())[:count])
    members = tuple(addresses)[: etcd_members(count)]
    dist = folder / "dist"
    dist.mkdir()
    for product, version in versions.items():
        for binary in _fetch(product, version):
            (dist / binary.name).symlink_to(binary.path)
            (dist / f"{binary.name}.gz").symlink_to(binary.packed)
    _write_templates(folder, params.load(sandbox.params(count)["cluster"]))
    (folder / "ssh_config").write_text(
        f"Host *\n  User root\n  IdentityFile {sandbox.key_file}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {sandbox.known_hosts}\n  StrictHostKeyChecking yes\n  BatchMode yes\n",
        encoding="utf-8",
    )
    peers = ",".join(f"{name}=https://{addresses[name]}:2380" for name in members)
    endpoints = ",".join(f"https://{addresses[name]}:2379" for name in members)
    (folder / "environment.sh").write_text(
        f"NODE_NAMES=({' '.join(addresses)})\nNODE_IPS=({' '.join(addresses.values())})\n"
        f"ETCD_IPS=({' '.join(addresses[name] for name in members)})\n"
        f"ETCD_NODES='{peers}'\nETCD_ENDPOINTS='{endpoints}'\n",
        encoding="utf-8",
    )
    inventory = {
        "nodes": addresses, "members": list(members), "etcd_nodes": peers, "endpoints": endpoints,
        "key_file": str(sandbox.key_file), "known_hosts": str(sandbox.known_hosts),
    }  # fmt: skip
    (folder / "inventory.json").write_text(json.dumps(inventory), encoding="utf-8")
    hosts = "".join(f"{name} ansible_host={address}\n" for name, address in addresses.items())
    (folder / "hosts.ini").write_text(f"[nodes]\n{hosts}", encoding="utf-8")
    (folder / "params.yaml").write_text(yaml.safe_dump(sandbox.params(count)), encoding="utf-8")
    return Job(folder, addresses, members)


def _write_templates(folder: Path, cluster: params.Cluster) -> None:
    """Write the units' templates with the flags that the runbook gives, and marks for what differs between nodes."""
    node = cluster.nodes[0]
    marks = {
        "name": "##NODE_NAME##", "initial-cluster": "##ETCD_NODES##", "etcd-endpoints": "##ETCD_ENDPOINTS##",
    }  # fmt: skip
    (folder / "templates").mkdir()
    for unit, dash, flags in (
        ("etcd", "--", etcd.flags(cluster, node)),
        ("flanneld", "-", flannel.flags(cluster, node)),
    ):
        marked = {flag: marks.get(flag) or value.replace(node.host, "##NODE_IP##") for flag, value in flags.items()}
        lines = " \\\n".join(f"  {dash}{flag}={value}" for flag, value in marked.items())
        name = f"{unit}.service.template"
        text = (CONTENDERS / "templates" / name).read_text(encoding="utf-8").replace("##FLAGS##", lines)
        (folder / "templates" / name).write_text(text, encoding="utf-8")


class WrongCluster(Exception):
    """What a contender built is not the cluster that was asked for."""


def check(nodes: Nodes, job: Job) -> None:
    """Look by plain ssh, with nothing of the runbook but its flags: the same for every contender.

    Healthy endpoints that want a client certificate, the members, the leases, the units' flags as the processes run
    with them, both services enabled, and the overlay pinged from every node to every node without loss.

    Raises:
        WrongCluster: with what differs.
    """
    cluster = params.load(job.folder / "params.yaml")
    every = ",".join(f"https://{job.addresses[name]}:2379" for name in job.members)
    ctl = f"{_BIN}/etcdctl --endpoints={every} {_CERTS}"
    asks = ("endpoint health -w json", "member list -w json", f"get {_PREFIX}/subnets/ --prefix --keys-only")
    said = nodes.on(job.members[0], "; echo @; ".join(f"{ctl} {ask}" for ask in asks)).split("@\n")
    _same("healthy endpoints", sum(one["health"] for one in json.loads(said[0])), len(job.members))
    _same("members", len(json.loads(said[1])["members"]), len(job.members))
    leases = {one.rsplit("/", 1)[1].split("-")[0] for one in said[2].split()}
    _same("leases", len(leases), len(job.addresses))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda node: _check_node(nodes, job, cluster, node, leases), cluster.nodes))


def _check_node(nodes: Nodes, job: Job, cluster: params.Cluster, node: params.Node, leases: set[str]) -> None:
    member = node.name in job.members
    pings = " ".join(f"{{ ping -q -n -c 2 -i 0.2 -W 2 {one} >/dev/null || echo {one}; }} &" for one in sorted(leases))
    bare = f"{_BIN}/etcdctl --endpoints=https://{node.host}:2379 --cacert=/etc/etcd/cert/ca.pem --command-timeout=2s"
    parts = [
        *(f"tr '\\0' '\\n' </proc/$(systemctl show -p MainPID --value {one})/cmdline" for one in ("etcd", "flanneld")),
        "for unit in etcd flanneld; do systemctl is-enabled $unit 2>/dev/null; done; true",
        "ip -4 -o addr show flannel.1",
        f"{bare} get x >/dev/null 2>&1 && echo open || echo shut",
        f"{pings} wait",
    ]
    if not member:
        parts[0] = "true"
    etcd_runs, flanneld_runs, enabled, overlay, without, lost = (
        one.strip() for one in nodes.on(node.name, "\necho; echo @@\n".join(parts) + "\necho").split("@@")
    )
    _same(f"{node.name}: etcd's flags", _flags(etcd_runs), etcd.flags(cluster, node) if member else {})
    _same(f"{node.name}: flanneld's flags", _flags(flanneld_runs), flannel.flags(cluster, node))
    _same(f"{node.name}: enabled", enabled.split().count("enabled"), 1 + member)
    _same(f"{node.name}: overlay address among the leases", overlay.split()[3].split("/")[0] in leases, True)  # noqa: FBT003
    _same(f"{node.name}: etcd without a client certificate", without, "shut")
    _same(f"{node.name}: lost pings to", lost, "")


def _flags(cmdline: str) -> dict[str, str]:
    return dict(re.findall(r"^-{1,2}([a-z-]+)=(.*)$", cmdline, re.MULTILINE))


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise WrongCluster(f"{what}: found {found!r}, expected {expected!r}")


def main_processes(nodes: Nodes, job: Job) -> dict[str, str]:
    """The main processes of both services on each node: equal before and after a run that restarts nothing."""
    return {name: nodes.on(name, "systemctl show -p MainPID --value etcd flanneld") for name in job.addresses}
