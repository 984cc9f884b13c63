"""What is wrong with what flannel keeps in etcd: its network config and its leases; pure functions of the case."""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING, Any

from runbook.diagnosis.case import CLUSTER, FLANNELD, OVERLAY, STATE, STORE, Cause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.diagnosis.case import Case
    from runbook.diagnosis.symptoms import Symptoms

_CONFIG = "flannel-finds-no-config"
_LEASES = "leases-contradict"
#: What flannel asks of SubnetLen (pkg/subnet/config.go): room for four subnets, and for hosts in each.
_MOST_LENGTH, _LEAST_MORE = 30, 2
_MOST_TEXT = 200


def config(case: Case) -> Iterator[Cause]:
    """The network config: where flanneld looks, by its API, readable, and the wanted one."""
    if not case.store_known or not any(one.flanneld.loaded for one in case.hosts):
        return
    flannel = case.cluster.flannel
    key = f"{flannel.etcd_prefix}/config"
    text = case.keys.get(key)
    other = case.v3_keys if case.api == 2 else case.v2_keys  # noqa: PLR2004 - etcd's API versions
    again = "run phase 07, then phase 09 where flanneld does not run"

    def cause(what: str, why: str, remedy: str = again) -> Cause:
        return Cause(CLUSTER, what, why, remedy, _CONFIG, STORE)

    if text is None and key in other:
        found = 3 if case.api == 2 else 2  # noqa: PLR2004
        why = f"{key} is there by API {found}, and this flannel reads API {case.api}: neither sees the other's keys"
        yield cause("the network config is in the other API's store", why)
    elif text is None and (elsewhere := case.configs_elsewhere(case.api)):
        why = f"there is no {key}, and there is {', '.join(elsewhere)}"
        yield cause(
            "the network config is under another prefix", why, f"{again}; or mend flannel.etcd_prefix in params"
        )
    elif text is None:
        yield cause("the network config is missing", f"there is no {key} by API {case.api}")
    elif fault := _malformed(text):
        yield cause("the network config is malformed", f"{key}: {fault}; it is {text[:_MOST_TEXT]!r}")
    elif json.loads(text) != flannel.network_config():
        wanted = json.dumps(flannel.network_config(), sort_keys=True)
        why = f"{key} is {text[:_MOST_TEXT]}, expected {wanted}"
        yield cause("the network config is not the wanted one", why, f"{again}: a change under live leases is refused")


def _malformed(text: str) -> str:
    """Why flannel can't take this for its config, or ''."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        return f"it is no JSON ({error})"
    if not isinstance(found, dict) or not isinstance(found.get("Network"), str):
        return "it has no Network"
    try:
        network = ipaddress.IPv4Network(found["Network"])
    except ValueError as error:
        return f"Network: {error}"
    length = found.get("SubnetLen")
    if length is not None and not (
        isinstance(length, int) and network.prefixlen + _LEAST_MORE <= length <= _MOST_LENGTH
    ):
        return f"SubnetLen {length} does not fit Network {network}: {network.prefixlen + _LEAST_MORE} to {_MOST_LENGTH}"
    backend = found.get("Backend")
    if not isinstance(backend, dict) or "Type" not in backend:
        return "it has no Backend with a Type, which flannel takes for udp"
    return ""


def prefix(case: Case) -> Iterator[Cause]:
    """A flanneld that looks under another prefix than the params have."""
    wanted = case.cluster.flannel.etcd_prefix
    for one in case.hosts:
        found = one.flanneld.flags.get("etcd-prefix", wanted)
        if found != wanted:
            why = f"flanneld.service has -etcd-prefix={found}, expected {wanted}, where the config is"
            remedy = "run phases 08 and 09: they write the unit as the params have it, and restart flanneld"
            yield Cause(one.node.name, "flanneld looks under another prefix", why, remedy, _CONFIG, FLANNELD)


def leases(case: Case) -> Iterator[Cause]:
    """Two leases of one public address; leases by an address that the node is not meant to use."""
    folder, api = f"{case.cluster.flannel.etcd_prefix}/subnets", case.api
    by_ip: dict[str, list[dict[str, Any]]] = {}
    for row in case.leases:
        by_ip.setdefault(row["public_ip"], []).append(row)
    remove = "rm" if api == 2 else "del"  # noqa: PLR2004 - etcd's API versions
    for ip, rows in by_ip.items():
        owner = next((one for one in case.hosts if ip in one.kernel.addresses), None)
        if len(rows) > 1:
            own = own_subnet(owner)
            others = [row["lease"] for row in rows if row["lease"] != own]
            keys = " ".join(f"{folder}/{one.replace('/', '-')}" for one in (others if own else others[1:]))
            why = f"{', '.join(row['lease'] for row in rows)} are both {ip}'s, expected one lease an address"
            kept = f"the node uses {own}" if own else "see which one its subnet.env has"
            remedy = f"{kept}: `etcdctl {remove} {keys}`"
            name = owner.node.name if owner else CLUSTER
            yield Cause(name, "one public address in two leases", why, remedy, _LEASES, OVERLAY)
    yield from _interfaces(case, by_ip)


def own_subnet(owner: Symptoms | None) -> str:
    """The subnet that a node uses, by what flanneld wrote there; '' where it wrote none."""
    subnet = owner.kernel.env.get("FLANNEL_SUBNET", "") if owner else ""
    try:
        return str(ipaddress.IPv4Interface(subnet).network)
    except ValueError:
        return ""


def _interfaces(case: Case, by_ip: dict[str, list[dict[str, Any]]]) -> Iterator[Cause]:
    """A flanneld that took another interface than it is meant to: its lease has another of the node's addresses."""
    for one in case.hosts:
        chosen = one.node.iface or case.cluster.flannel.iface
        flag = one.flanneld.flags.get("iface", "")
        wanted = one.node.host if chosen == "auto" else chosen
        told = [ip for ip in one.kernel.addresses if ip in by_ip and ip != one.node.host]
        if chosen == "auto" and told and one.node.host not in by_ip:
            why = f"its lease has {', '.join(told)}, expected {one.node.host}"
        elif flag and flag != wanted and not one.flanneld.active:
            why = f"flanneld.service has -iface={flag}, expected {wanted}"
        else:
            continue
        remedy = "run phases 08 and 09: they write -iface as the params have it; a wrong lease is given back by itself"
        yield Cause(one.node.name, "flannel uses the wrong interface", why, remedy, "wrong-interface", FLANNELD)


def lost_lease(case: Case) -> Iterator[Cause]:
    """A flanneld that runs and has no lease in etcd."""
    if not case.store_known:
        return
    for one in case.hosts:
        if one.flanneld.active and not any(row["public_ip"] in one.kernel.addresses for row in case.leases):
            why = (
                f"flanneld.service is active, and no lease under {case.cluster.flannel.etcd_prefix}/subnets is its own"
            )
            remedy = f"`systemctl restart flanneld` on {one.node.name}: it takes a lease anew"
            unless = frozenset({(STORE, ""), (FLANNELD, one.node.name)})
            yield Cause(one.node.name, "its lease is gone", why, remedy, _LEASES, OVERLAY, STATE, unless)


RULES = (config, prefix, leases, lost_lease)
