"""Params: everything a cluster is to be, checked whole before any node is touched.

A params file has the top-level keys `cluster` (all settings) and `approve`; they are the papermill parameters of every
notebook. Only `cluster.name` and `cluster.nodes` have no default. What `load` returns is frozen and hashable, and
`load(cluster.model_dump(mode="json"))` is the same cluster again (with `exclude_unset=True` it also still tells which
settings were written, which lets ~/.ssh/config fill the others).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from runbook.errors import ParamsError
from runbook.settings import params_file
from runbook.settings.params_faults import Describer
from runbook.settings.params_file import Document, Fault
from runbook.settings.params_models import SECTIONS, Artifacts, Cluster, Etcd, Flannel, Node, Pki, Role, Ssh, cross
from runbook.settings.params_rules import shown

__all__ = [
    "Artifacts",
    "Cluster",
    "Etcd",
    "Flannel",
    "Node",
    "Pki",
    "Role",
    "Source",
    "Ssh",
    "load",
    "load_approve",
]

Source = str | Path | Mapping[str, Any] | Cluster
_KNOWN: Final = {name: tuple(model.model_fields) for name, model in SECTIONS.items()} | {
    "subject": ("C", "ST", "L", "O", "OU"),
    "": ("cluster", "approve", "records"),
    "records": ("sign_key",),
}


def load(source: Source) -> Cluster:
    """Read and check the settings of a cluster.

    Args:
        source: The path of a params file; or the settings themselves (the value of `cluster`, as papermill's `-f` hands
            it on, or a mapping with that key); or a Cluster, which is returned as it is.

    Raises:
        ParamsError: It has faults: all of them, each with its key and, from a file, its line.
    """
    if isinstance(source, Cluster):
        return source
    document, top = _read(source)
    describer = Describer(_KNOWN, document)
    faults = [*(document.faults if document else ()), *_top_faults(describer, top)]
    cluster: Cluster | None = None
    if "cluster" in top:
        cluster, found = _cluster(describer, top["cluster"], document)
        told = {fault.loc for fault in faults}
        faults += [fault for fault in found if fault.loc not in told]
    if faults or cluster is None:
        faults.sort(key=lambda fault: fault.line)
        raise ParamsError(_name(source), [str(fault) for fault in faults])
    return cluster


def load_approve(source: Source) -> bool | str:
    """The `approve` of a params file: false, true, or the id of the plan that was reviewed; false where there is none.

    Raises:
        ParamsError: The file can't be read, or `approve` is something else.
    """
    if isinstance(source, Cluster):
        return False
    document, top = _read(source)
    if fault := _approve_fault(Describer(_KNOWN, document), top):
        raise ParamsError(_name(source), [str(fault)])
    approve: bool | str = top.get("approve", False)
    return approve


def load_sign_key(source: Source) -> Path | None:
    """The `records.sign_key` of a params file: the SSH key that signs records; None where there is none.

    Raises:
        ParamsError: The file can't be read, or `records` is something else.
    """
    if isinstance(source, Cluster):
        return None
    document, top = _read(source)
    if faults := list(_records_faults(Describer(_KNOWN, document), top)):
        raise ParamsError(_name(source), [str(fault) for fault in faults])
    key = (top.get("records") or {}).get("sign_key")
    base = document.path.parent if document else Path("/")
    return base / os.path.expanduser(key) if key else None  # noqa: PTH111 - leaves an unknown `~user`


def _name(source: Source) -> str:
    return str(source) if isinstance(source, (str, Path)) else "cluster settings"


def _read(source: object) -> tuple[Document | None, Mapping[Any, Any]]:
    """The file, where there is one, and the top-level keys."""
    if isinstance(source, (str, Path)):
        document = params_file.read(Path(os.path.expanduser(source)))  # noqa: PTH111 - leaves an unknown `~user`
        return document, document.values
    if not isinstance(source, Mapping):
        raise ParamsError(
            "cluster", [f"is {params_file.made(source)}; a params file's path or its settings are expected"]
        )
    return None, source if "cluster" in source else {"cluster": source}


def _top_faults(describer: Describer, top: Mapping[Any, Any]) -> Iterator[Fault]:
    yield from (describer.unknown((str(key),), "") for key in top if key not in _KNOWN[""])
    if "cluster" not in top:
        yield Fault(("cluster",), 0, "is missing: all settings stand under this key")
    if fault := _approve_fault(describer, top):
        yield fault
    yield from _records_faults(describer, top)


def _records_faults(describer: Describer, top: Mapping[Any, Any]) -> Iterator[Fault]:
    records = top.get("records")
    if records is None:
        return
    if not isinstance(records, Mapping):
        yield describer.fault(("records",), f"is {params_file.made(records)}; as in records: {{sign_key: ~/.ssh/id}}")
        return
    yield from (describer.unknown(("records", str(key)), "records") for key in records if key != "sign_key")
    if not isinstance(records.get("sign_key"), str | None):
        yield describer.fault(("records", "sign_key"), f"{shown(records['sign_key'])} is not a path")


def _approve_fault(describer: Describer, top: Mapping[Any, Any]) -> Fault | None:
    approve = top.get("approve", False)
    if isinstance(approve, bool) or (isinstance(approve, str) and re.fullmatch("[A-Za-z0-9_-]{1,128}", approve)):
        return None
    quotes = "" if isinstance(approve, str) else "; put an id in quotes"
    return describer.fault(("approve",), f"{shown(approve)} is not false, true or a plan's id{quotes}")


def _cluster(describer: Describer, values: object, document: Document | None) -> tuple[Cluster | None, list[Fault]]:
    """The cluster, or all that is wrong with it: between values too where a value alone is wrong."""
    context = {"base": document.path.parent if document else None}
    try:
        return Cluster.model_validate(values, context=context), []
    except ValidationError as error:
        faults = describer.all(error)
        whole = any(details["type"] == "cluster_rules" for details in error.errors(include_url=False))
    if isinstance(values, Mapping) and not whole:
        told = {fault.loc for fault in faults}
        rules = (describer.fault(("cluster", *rule.loc), rule.text) for rule in cross(values))
        faults += [fault for fault in rules if fault.loc not in told]
    return None, faults
