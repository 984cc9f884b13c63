"""Phase 01: the release binaries, fetched on this side, streamed packed to all nodes at once."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Literal

from runbook import artifacts, plan, show
from runbook.etcd_data import MemberData
from runbook.fleet import values
from runbook.plain_text import printable
from runbook.resources import PRELUDE, Directory, File, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runbook.artifacts import Binary
    from runbook.fleet import Fleet, Outcome
    from runbook.params import Cluster, Node
    from runbook.ssh import Completed

__all__ = ["install", "versions"]


def __dir__() -> list[str]:
    return __all__  # what Tab shows in a notebook


def _wanted(cluster: Cluster, node: Node) -> list[tuple[Literal["etcd", "flannel"], str]]:
    wanted: list[tuple[Literal["etcd", "flannel"], str]] = []
    if "etcd" in node.roles:
        wanted.append(("etcd", cluster.etcd.version))
    if "flannel" in node.roles:
        wanted.append(("flannel", cluster.flannel.version))
    return wanted


def _machines(fleet: Fleet) -> dict[str, Outcome[Completed]]:
    return fleet.run("uname -m", what="uname -m")


def _fetched(fleet: Fleet, machines: Mapping[str, Completed]) -> dict[str, list[Binary]]:
    """The binaries of each of these nodes, by node name; fetched once for each product and architecture."""
    cluster = fleet.cluster
    fetched: dict[tuple[str, str, str], tuple[Binary, ...]] = {}
    result: dict[str, list[Binary]] = {}
    for node in (node for node in cluster.nodes if node.name in machines):
        arch = artifacts.arch(machines[node.name].check().text)
        for product, version in _wanted(cluster, node):
            key = (product, version, arch)
            if key not in fetched:
                fetched[key] = artifacts.fetch(
                    product, version, arch, cache=cluster.artifacts.cache, mirrors=cluster.artifacts.mirrors,
                    offline=cluster.artifacts.offline, report=lambda text: fleet.journal.note("", text),
                )  # fmt: skip
            result.setdefault(node.name, []).extend(fetched[key])
    return result


def install(fleet: Fleet) -> plan.Plan:
    """Plan phase 01: each node's binaries in `bin_dir`, mode 0755; what has the same bytes already stays.

    On the etcd nodes etcd, etcdctl and etcdutl, on the flannel nodes flanneld and mk-docker-opts.sh. They come from the
    cache, the mirrors, the release site or a Go build on this side, in this order; each checksum is compared first, and
    the plan notes with what. A running process keeps its old binary until phase 04 or 09 restarts it.

    Returns:
        The plan: one row a node and file. Nothing on a node is changed by making it.

    Raises:
        ArtifactError: no source has a binary, or a checksum is wrong.
        NodeError: a node can't be reached.

    Next: `await plan.apply()`, then look at `binaries.versions(fleet)`.
    """
    binaries = _fetched(fleet, values(_machines(fleet)))
    folder = fleet.cluster.bin_dir
    resources: dict[str, list[Resource]] = {
        name: [Directory(folder), *(File(f"{folder}/{one.name}", one, 0o755) for one in files)]
        for name, files in binaries.items()
    }
    for node in fleet.cluster.etcd_nodes:
        resources[node.name].append(MemberData(fleet.cluster, node, whose=False))
    origins = {
        f"{one.product} {one.version} {one.arch}: from {one.source}, checked against {one.compared_with}"
        for files in binaries.values()
        for one in files
    }
    return plan.of_resources("binaries", fleet, resources, notes=sorted(origins))


def versions(fleet: Fleet) -> show.Table:
    """What is in `bin_dir`, as the binaries themselves tell it. Changes nothing.

    Returns:
        One row a node and file: node, path, ok, version (told by the binary), sha256, bytes, source and compared_with
        (where this side's copy comes from, and what its checksum was compared with), why, remedy.

    Raises:
        ArtifactError: the binaries to compare with can't be had on this side.

    Next: where a row is not ok, `binaries.install(fleet)`.
    """
    rows: list[dict[str, object]] = []
    machines = _machines(fleet)
    binaries = _fetched(fleet, {name: one.value for name, one in machines.items() if one.value is not None})
    folder = fleet.cluster.bin_dir

    def script(node: Node) -> str:
        lines = [PRELUDE]
        for one in binaries[node.name]:
            path = quote(f"{folder}/{one.name}")
            ask = {"etcd": "--version", "etcdctl": "version", "etcdutl": "version", "flanneld": "--version"}
            told = f"timeout 10 {path} {ask[one.name]} 2>&1 | head -n 1" if one.name in ask else "echo script"
            ctime, sha256 = fleet.sums.get((node.name, f"{folder}/{one.name}"), ("", ""))
            same = f'[ "$(stat -c %.9Z -- {path} 2>/dev/null)" = {quote(ctime)} ] && echo {quote(sha256)}'
            summed = f"{same} || rb_sha256 {path}" if ctime else f"rb_sha256 {path}"
            lines.append(f'echo "$({summed})|$(stat -c %s {path})|$({told})"')
        return "\n".join(lines)

    for name, machine in machines.items():
        if machine.error:
            rows.append({"node": name, "ok": False, "why": machine.error.message, "remedy": machine.error.remedy})
    nodes = [node for node in fleet.cluster.nodes if node.name in binaries]
    for outcome in fleet.run(script, what="versions of the binaries", nodes=nodes).values():
        text = printable(outcome.value.text, 20_000).splitlines() if outcome.value else []
        for one, line in zip(binaries[outcome.node.name], [*text, *[""] * 9], strict=False):
            sha256, size, told = [*line.split("|", 2), "", "", ""][:3]
            why = "" if sha256 == one.sha256 else f"sha256 {sha256[:12] or 'none'}, expected {one.sha256[:12]}"
            why = outcome.error.message if outcome.error else why
            rows.append(
                {
                    "node": outcome.node.name,
                    "path": f"{folder}/{one.name}",
                    "ok": not why,
                    "version": told,
                    "sha256": sha256,
                    "bytes": int(size) if size.isdigit() else None,
                    "source": one.source,
                    "compared_with": one.compared_with,
                    "why": why,
                    "remedy": "run phase 01 again" if why else "",
                }
            )
    columns = ["node", "path", "ok", "version", "sha256", "bytes", "source", "compared_with", "why", "remedy"]
    return show.table(rows, columns, f"Binaries in {folder}")
