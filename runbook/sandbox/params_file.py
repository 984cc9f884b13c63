"""The params file that makes the runbook work on a practice cluster: plain YAML, the only thing the two share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from runbook.sandbox.addressing import node_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runbook.sandbox.addressing import Block

_MOST_MEMBERS = 5


def etcd_members(nodes: int) -> int:
    """How many of `nodes` nodes run etcd: an odd number, at most 5 (more make etcd slower, not safer)."""
    most = min(nodes, _MOST_MEMBERS)
    return most if most % 2 else most - 1


def build(
    block: Block, nodes: int, key_file: Path, known_hosts: Path, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The params for node1 to node`nodes` of a practice cluster.

    Args:
        block: Its name and addresses.
        nodes: How many; those past the etcd members run flannel only.
        key_file: The private SSH key.
        known_hosts: The nodes' host keys.
        overrides: Keys of `cluster`; a mapping is merged into what is there, any other value replaces it.

    Raises:
        SandboxError: The block hasn't that many addresses.
    """
    rows: list[dict[str, Any]] = []
    for index in range(1, nodes + 1):
        row: dict[str, Any] = {"name": node_name(index), "host": str(block.address(index))}
        if index > etcd_members(nodes):
            row["roles"] = ["flannel"]
        rows.append(row)
    cluster = {
        "name": block.name,
        "nodes": rows,
        "ssh": {"user": "root", "key_file": str(key_file), "known_hosts": str(known_hosts)},
    }
    return {"cluster": _merged(cluster, overrides or {}), "approve": False}


def text(params: Mapping[str, Any]) -> str:
    """The params as YAML, with a line that says where they are from."""
    body = yaml.safe_dump(dict(params), sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    return f"# Made by `runbook sandbox params`: the practice cluster on this machine.\n{body}"


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
