"""The rules of `flannel.rbac`: what etcd's users and roles need, held against the other settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from runbook import versions
from runbook.settings.params_rules import Rule

#: The common name of flannel's certificates, which etcd takes for the user's name.
FLANNEL_USER: Final = "flanneld"


def faults(values: Mapping[str, Any]) -> Iterator[Rule]:
    """Say why flannel can't be held to its prefix with these settings.

    Args:
        values: The value of `cluster`, defaults filled in; any part may be of a wrong type.
    """
    etcd, flannel = (values[key] if isinstance(values.get(key), Mapping) else {} for key in ("etcd", "flannel"))
    if flannel.get("rbac") is not True:
        return
    if fault := _versions(etcd.get("version"), flannel.get("version")):
        yield Rule(("flannel", "rbac"), fault)
    nodes = values.get("nodes")
    for index, node in enumerate(nodes if isinstance(nodes, (list, tuple)) else ()):
        if isinstance(node, Mapping) and node.get("name") == FLANNEL_USER and "etcd" in (node.get("roles") or ["etcd"]):
            text = f"'{FLANNEL_USER}' is flannel's user in etcd, so no member may be called so with flannel.rbac"
            yield Rule(("nodes", index, "name"), text)


def _versions(etcd: object, flannel: object) -> str:
    try:
        return versions.rbac_fault(str(etcd), str(flannel))
    except ValueError:
        return ""  # a version that can't be read is reported with the version itself
