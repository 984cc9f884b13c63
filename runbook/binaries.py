"""Phases 01 and 04: the release binaries, fetched on this side, streamed packed to all nodes at once.

etcd's are put on their nodes in phase 01; flannel's in phase 04, while etcd's members elect their leader.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from runbook import artifacts, plan, show
from runbook.downloads import artifact_cache
from runbook.downloads.artifact_cache import Binary
from runbook.etcd_data import MemberData
from runbook.plain_text import printable
from runbook.plans import beside, looking, reading, rollout
from runbook.resources import Directory, File, Found, Look, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runbook.artifacts import Product
    from runbook.fleet import Fleet
    from runbook.params import Cluster, Node

__all__ = ["install", "versions"]


def __dir__() -> list[str]:
    return __all__  # what Tab shows in a notebook


_COLUMNS = [
    "node", "path", "ok", "version", "told_by", "sha256", "bytes", "source", "compared_with", "why", "remedy",
]  # fmt: skip
#: How each binary is asked for its version; one that is not here is a script.
_ASK = {"etcd": "--version", "etcdctl": "version", "etcdutl": "version", "flanneld": "--version"}
_VERSION = re.compile(r"\bv?([0-9]+\.[0-9]+\.[0-9]+\S*)")
_BOTH: tuple[Product, Product] = ("etcd", "flannel")
_TIMEOUT_S = 300


def _version(cluster: Cluster, product: Product) -> str:
    return cluster.etcd.version if product == "etcd" else cluster.flannel.version


def _paths(cluster: Cluster, node: Node, product: Product) -> list[str]:
    """Where a node has a product's binaries, in the order of `_fetched`: their names are the same on every machine."""
    if product not in node.roles:
        return []
    return [f"{cluster.bin_dir}/{name}" for name in artifacts.names(product, _version(cluster, product))]


def _fetched(
    fleet: Fleet, machines: Mapping[str, str], products: Sequence[Product], *, unread: bool
) -> dict[str, list[Binary]]:
    """These products' binaries for each of these nodes, by node name; each fetched once for an architecture.

    `unread`: those in the cache are not read; whoever sends one compares it first.
    """
    cluster = fleet.cluster
    fetched: dict[tuple[str, str], tuple[Binary, ...]] = {}
    result: dict[str, list[Binary]] = {}
    for node in (node for node in cluster.nodes if node.name in machines):
        arch = artifacts.arch(machines[node.name])
        for product in (one for one in products if one in node.roles):
            key = (product, arch)
            if key not in fetched:
                fetched[key] = artifacts.fetch(
                    product, _version(cluster, product), arch, cache=cluster.artifacts.cache,
                    mirrors=cluster.artifacts.mirrors, offline=cluster.artifacts.offline,
                    report=lambda text: fleet.journal.note("", text), unread=unread,
                )  # fmt: skip
            result.setdefault(node.name, []).extend(fetched[key])
    return result


@dataclass(frozen=True)
class _Machine:
    """The machine's type and whether it has zstd: what binaries are wanted, and how packed; nothing to change."""

    label: str = "uname -m"

    def looks(self) -> tuple[Look, ...]:
        return ()

    def probe(self) -> str:
        return 'echo "machine=$(uname -m)"; if command -v zstd >/dev/null; then echo zstd=yes; fi'

    def compare(self, found: Found) -> None:
        """Never changes anything."""


def _machines(found: Mapping[str, Sequence[Found]]) -> dict[str, str]:
    """What each node said of its machine, by node name."""
    return {name: states[0].get("machine", "") for name, states in found.items()}


@dataclass(frozen=True)
class _Placed:
    """A binary as it is, whatever is wanted.

    Attributes:
        path: Where it is.
        asked: sh that asks it for its version, or ''.
    """

    path: str
    asked: str = ""

    @property
    def label(self) -> str:
        return self.path

    def looks(self) -> tuple[Look, ...]:
        return (Look(self.path, "sum"),)

    def probe(self) -> str:
        return self.asked

    def compare(self, found: Found) -> None:
        """Never changes anything."""


def part(fleet: Fleet, product: Product, *, ahead: Sequence[Product] = ()) -> beside.Part:
    """The part of a plan that puts a product's binaries on its nodes.

    Args:
        fleet: The nodes.
        product: Whose binaries.
        ahead: What is fetched with it, for a later phase: what can't be had is told before anything is changed.
    """
    cluster, what = fleet.cluster, f"read for {product} binaries"
    folder = Directory(cluster.bin_dir)
    whose = cluster.etcd_nodes if product == "etcd" else ()
    guards = {node.name: MemberData(cluster, node, whose=False) for node in whose}
    placed = {node.name: list(map(_Placed, _paths(cluster, node, product))) for node in cluster.nodes}
    asked: dict[str, list[Resource]] = {
        name: [_Machine(), folder, *files] if files else [_Machine()]
        for name, files in placed.items()
        if files or ahead
    }

    def judge(found: Mapping[str, Sequence[Found]]) -> beside.Made:
        there = {name: states[1:] for name, states in found.items()}
        for unread in (True, False):  # the whole cache is read, and mended, only where what is to travel is damaged
            fetched = _fetched(fleet, _machines(found), (product, *ahead), unread=unread)
            binaries = {name: [one for one in files if one.product == product] for name, files in fetched.items()}
            resources: dict[str, list[Resource]] = {
                name: [folder, *(_file(cluster, one, zstd="zstd" in found[name][0]) for one in files)]
                for name, files in binaries.items()
                if files
            }
            changes, unchanged = reading.judged(fleet, resources, there, what=what, guards=guards)
            travel = [payload.source for change in changes for payload in change.payloads()]
            with contextlib.suppress(artifact_cache.NotInCache):
                artifact_cache.verify({one.packed: one.packed_sha256 for one in travel if isinstance(one, Binary)})
                break
        origins = {_origin(one, later=one.product != product) for files in fetched.values() for one in files}
        return changes, sorted(origins), unchanged

    making = rollout.everywhere("binaries", _TIMEOUT_S)
    return beside.Part(f"{product} binaries", reading.guarded(asked, guards), judge, making)


def _file(cluster: Cluster, one: Binary, *, zstd: bool) -> File:
    return File(f"{cluster.bin_dir}/{one.name}", one.by_zstd() if zstd else one, 0o755)


def _origin(one: Binary, *, later: bool) -> str:
    told = f"{one.product} {one.version} {one.arch}: from {one.source}, checked against {one.compared_with}"
    return f"{told}; it travels in phase 04" if later else told


def install(fleet: Fleet) -> plan.Plan:
    """Plan phase 01: etcd, etcdctl and etcdutl in `bin_dir` of the etcd nodes, mode 0755.

    What has the same bytes already stays. They come from the cache, the mirrors, the release site or a Go build on this
    side, in this order; the checksum of each that is to travel is compared first, and the plan notes with what. They
    travel packed: by zstd to a node that has it, else by gzip. A running process keeps its old binary until phase 04
    restarts it.

    Flannel's are fetched and checked here too. They travel in phase 04 (`etcd.start`), while etcd starts.

    Returns:
        The plan: one row a node and file. Nothing on a node is changed by making it.

    Raises:
        ArtifactError: no source has a binary, or a checksum is wrong.
        NodeError: a node can't be reached.

    Next: `await plan.apply()`, then look at `binaries.versions(fleet)`.
    """
    together = beside.Together(fleet, part(fleet, "etcd", ahead=("flannel",)))
    return plan.Plan("binaries", fleet, together.make, rollout=together.rollout)


def versions(fleet: Fleet, *products: Product) -> show.Table:
    """What is in `bin_dir`: each file's sum, its version, and that the node lets it be run. Changes nothing.

    A binary is asked for its version, unless the plan of this fleet has found it to have the very bytes of the release,
    or has put them there, and it was not changed since: then its version is that release's.

    Args:
        fleet: The nodes.
        products: Whose binaries: "etcd", "flannel"; by default both.

    Returns:
        One row a node and file: node, path, ok, version, told_by (the binary, or its sha256), sha256, bytes, source and
        compared_with (where this side's copy comes from, and what its checksum was compared with), why, remedy.

    Raises:
        ArtifactError: the binaries to compare with can't be had on this side.

    Next: where a row is not ok, `binaries.install(fleet)`; of flannel's, `etcd.start(fleet)`.
    """
    cluster, whose = fleet.cluster, products or _BOTH

    def asked(node: Node, path: str) -> _Placed:
        # The kernel's own answer, which knows of a file system that is mounted noexec.
        runs = f"if [ -x {quote(path)} ]; then echo runs=yes; fi"
        if not (words := _ASK.get(path.rsplit("/", 1)[-1])):
            return _Placed(path, runs)
        ask = f'echo "told=$(timeout 10 {quote(path)} {words} 2>&1 | head -n 1)"'
        known = fleet.sums.get((node.name, path))
        return _Placed(path, f"{runs}\n{looking.unless_known(path, known, ask) if known else ask}")

    resources: dict[str, list[Resource]] = {
        node.name: [_Machine(), *(asked(node, path) for product in whose for path in _paths(cluster, node, product))]
        for node in cluster.nodes
        if set(whose) & set(node.roles)
    }
    read = reading.outcomes(fleet, resources, what="versions of the binaries")
    answered = {name: one.value for name, one in read.items() if one.value is not None}
    binaries = _fetched(fleet, _machines(answered), whose, unread=True)
    rows: list[dict[str, object]] = []
    for name, outcome in read.items():
        if name not in answered:
            why, remedy = (outcome.error.message, outcome.error.remedy) if outcome.error else ("no answer", "")
            rows.append({"node": name, "ok": False, "why": why, "remedy": remedy})
            continue
        rows += [
            {"node": name, "path": f"{cluster.bin_dir}/{one.name}", **_row(one, found, cluster.bin_dir)}
            for one, found in zip(binaries[name], answered[name][1:], strict=True)
        ]
    return show.table(rows, _COLUMNS, f"Binaries in {cluster.bin_dir}")


def _row(one: Binary, found: Found, bin_dir: str) -> dict[str, object]:
    sha256 = found.get("sha256", "")
    why = remedy = ""
    if sha256 != one.sha256:
        why = f"sha256 {sha256[:12] or 'none'}, expected {one.sha256[:12]}"
        remedy = f"run phase {'01' if one.product == 'etcd' else '04'} again"
    elif "runs" not in found:
        why = "the node does not let it be run: it is not executable, or lies where nothing is"
        remedy = f"is `noexec` among `findmnt -no OPTIONS -T {bin_dir}`? Then set bin_dir elsewhere, or remount"
    told = printable(found.get("told", ""))
    version = _VERSION.search(told)
    if "told" in found:
        shown, by = version[1] if version else told, "the binary"
    elif one.name in _ASK:
        shown, by = ("", "") if why else (one.version, "its sha256")
    else:
        shown, by = "script", ""
    return {
        "ok": not why,
        "version": shown,
        "told_by": by,
        "sha256": sha256,
        "bytes": int(found["size"]) if "size" in found else None,
        "source": one.source,
        "compared_with": one.compared_with,
        "why": why,
        "remedy": remedy,
    }
