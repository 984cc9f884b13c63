"""The rules that params keep, as pure functions: the shape of one value, and what values must be to each other.

A shape function returns its value (in its one normal form) or raises ValueError with the value in the message.
`cross_faults` works on plain settings, faulty ones too, so that one look at a file finds all that is wrong with it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from runbook import versions

Loc = tuple[str | int, ...]
T = TypeVar("T")
ROLES: Final = ("etcd", "flannel")

_LABEL: Final = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
_NODE_PATH: Final = re.compile(r"(/[A-Za-z0-9._+@=,-]+)+")
_MAX_HOSTNAME: Final = 253
_MAX_PORT: Final = 65535
_LONGEST_NETWORK: Final = 28
_LEAST_BITS: Final = 2  # flannel wants at least four subnets
_MOST_LEN: Final = 30
# The units run with ProtectHome, PrivateTmp and PrivateDevices (systemd.exec(5)): below these they see nothing of ours.
_UNSEEN: Final = ("/home", "/root", "/tmp", "/var/tmp", "/dev", "/proc", "/sys")  # noqa: S108 - refused, not used
# Folders that other software shares: a change of their owner or mode breaks the machine.
_SHARED: Final = frozenset(
    f"/{name}"
    for name in (
        *("", "bin", "boot", "etc", "lib", "lib64", "media", "mnt", "opt", "run", "sbin", "srv", "usr", "usr/bin"),
        *("usr/lib", "usr/local", "usr/local/bin", "usr/sbin", "usr/share", "var", "var/cache", "var/lib", "var/log"),
        *("var/run", "var/spool", "etc/systemd", "etc/systemd/system", "etc/ssl", "etc/ssl/certs", "etc/ssl/private"),
    )
)
# What can't carry node addresses or an overlay: "this" network, loopback, link-local, multicast and above.
_SPECIAL: Final = tuple(
    ipaddress.IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
)


class Rule(NamedTuple):
    """A fault between values: where it is (a path of keys below `cluster`) and what is wrong."""

    loc: Loc
    text: str


def shown(value: object) -> str:
    """A value for a message: short, control characters escaped, a password in an address masked."""
    if not isinstance(value, str):
        return reprlib.repr(value)
    masked = re.sub(r"(?<=:)[^@\s]*(?=@)", "***", value)
    return repr(masked if len(masked) <= 120 else masked[:117] + "...")  # noqa: PLR2004 - a line's length


def _shape(pattern: str, expected: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise ValueError(f"{shown(value)} is not {expected}")
        return value

    return check


cluster_name = _shape(
    "[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
    "a cluster name: 1 to 63 letters, digits, dots, dashes and underscores, a letter or digit first",
)
node_user = _shape(
    "[a-z_][a-z0-9_-]{0,30}", "a user name: lower-case letters, digits, - and _, at most 31, no digit first"
)
login_user = _shape(
    "[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", "a user name to log in with: letters, digits, dots, - and _, no dash first"
)
token = _shape("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "a token: 1 to 64 letters, digits, dots, dashes and underscores")
iface = _shape("[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}", "`auto`, an interface's name or an address of the node")
etcd_prefix = _shape(
    r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+", "a key prefix such as /kubernetes/network: starts with /, ends without one"
)
_jump = _shape(
    rf"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?{_HOST}(:[1-9][0-9]{{0,4}})?", "a jump host such as ops@gate.example:22"
)


def node_name(value: str) -> str:
    """A host name by RFC 1123 in lower case: labels of letters, digits and dashes; no address."""
    if len(value) > _MAX_HOSTNAME or re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", value) is None:
        raise ValueError(f"{shown(value)} is not a host name: lower-case letters, digits, dashes and dots between")
    if re.fullmatch("[0-9.]+", value) and "." in value:
        raise ValueError(f"{shown(value)} looks like an address; a node's name is its host name")
    return value


def node_host(value: str) -> str:
    """An IPv4 address that the other nodes can reach."""
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        raise ValueError(f"{shown(value)} is not an IPv4 address") from None
    if any(address in special for special in _SPECIAL):
        raise ValueError(f"{shown(value)} is not an address that other nodes can reach")
    return str(address)


def jump(value: str) -> str:
    """A jump host, `[user@]host[:port]`."""
    _jump(value)
    port = value.rpartition("@")[2].partition(":")[2]
    if port and int(port) > _MAX_PORT:
        raise ValueError(f"port {port} in {shown(value)} is not one of 1 to {_MAX_PORT}")
    return value


def node_path(value: str) -> str:
    """A path on a node that is safe in a unit file and seen by our units; doubled and trailing slashes are dropped."""
    if not value.startswith("/"):
        raise ValueError(f"{shown(value)} is not absolute: a path on a node starts with /")
    if ".." in value.split("/"):
        raise ValueError(f"{shown(value)} holds '..'; write the path that is meant")
    path = str(PurePosixPath("/" + value.lstrip("/")))
    if _NODE_PATH.fullmatch(path) is None:
        raise ValueError(f"{shown(value)} is not a safe path on a node: below /, of letters, digits and . _ + @ = , -")
    for unseen in _UNSEEN:
        if PurePosixPath(path).is_relative_to(unseen):
            raise ValueError(f"{shown(value)} lies under {unseen}, which the units can't see; take another place")
    return path


def own_path(value: str) -> str:
    """A path on a node whose folder is ours alone: its owner and mode are changed."""
    path = node_path(value)
    if path in _SHARED:
        raise ValueError(f"{shown(value)} is the system's; its owner and mode would be changed: take a folder below it")
    return path


def network(value: str) -> str:
    """The overlay's network in CIDR notation, with no bit set beyond its prefix."""
    if "/" not in value:
        raise ValueError(f"{shown(value)} has no prefix length: write it as 172.30.0.0/16")
    try:
        found = ipaddress.IPv4Network(value)
    except ValueError as error:
        beyond = "has host bits set" in str(error)
        hint = f"; its network is {ipaddress.IPv4Network(value, strict=False)}" if beyond else ""
        raise ValueError(f"{shown(value)} is not an IPv4 network{hint}") from None
    if any(found.overlaps(special) for special in _SPECIAL):
        raise ValueError(f"{shown(value)} holds addresses that are not routed between nodes")
    if found.prefixlen > _LONGEST_NETWORK:
        raise ValueError(f"{shown(value)} is too small for flannel: a prefix of at most /{_LONGEST_NETWORK} is needed")
    return str(found)


def mirror(value: str) -> str:
    """Where release tarballs may lie: an http(s):// or file:// address, or an absolute path on this machine."""
    expected = "an http(s):// or file:// address or an absolute path"
    value = os.path.expanduser(value)  # noqa: PTH111 - an address is no Path
    if re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError(f"{shown(value)} holds white space or control characters; {expected} is expected")
    if value.startswith("/"):
        return value
    try:
        url = urlsplit(value)
        host = url.hostname if url.port != 0 else None
    except ValueError:
        raise ValueError(f"{shown(value)} is not {expected}") from None
    if "@" in url.netloc or url.query:
        held = f"{shown(value.partition('?')[0])} holds a user, a password or a query"
        raise ValueError(f"{held}; params are kept in records, so none belongs there")
    if (url.scheme in ("http", "https") and host) or (url.scheme == "file" and url.path.startswith("/")):
        return value
    raise ValueError(f"{shown(value)} is not {expected}")


def subject_value(value: str) -> str:
    """A value of a certificate's subject."""
    if not (value.strip() and value.isprintable() and len(value) <= 64):  # noqa: PLR2004 - X.520's upper bound
        raise ValueError(f"{shown(value)} is not 1 to 64 printable characters")
    return value


def backend_type(value: str) -> str:
    """The one backend whose state on the hosts is verified here."""
    if value != "vxlan":
        raise ValueError(f"{shown(value)} is not supported: this runbook builds and verifies vxlan only")
    return value


def cross_faults(values: Mapping[str, Any]) -> Iterator[Rule]:
    """Hold the settings of a cluster against each other; a value that is missing or has a fault of its own is left out.

    Args:
        values: The value of `cluster`, defaults filled in; any part may be of a wrong type.
    """
    listed = values.get("nodes")
    nodes = list(enumerate(listed)) if isinstance(listed, (list, tuple)) else []
    named = [(index, node) for index, node in nodes if isinstance(node, Mapping)]
    yield from _twice(named, "name")
    yield from _twice(named, "host")
    counts = _role_counts(nodes)
    if counts and nodes and not counts["etcd"]:
        yield Rule(("nodes",), "no node has the role etcd; at least one is needed")
    etcd, flannel = (values[key] if isinstance(values.get(key), Mapping) else {} for key in ("etcd", "flannel"))
    pki = values.get("pki")
    yield from _own_ca(pki if isinstance(pki, Mapping) else {})
    yield from _storage(etcd)
    yield from _overlay(flannel, named, counts.get("flannel", 0))
    yield from _pair(etcd.get("version"), flannel.get("version"), flannel.get("backend"))


def _twice(nodes: list[tuple[int, Mapping[str, Any]]], key: str) -> Iterator[Rule]:
    first: dict[str, int] = {}
    for index, node in nodes:
        value = node.get(key)
        if isinstance(value, str) and first.setdefault(value, index) != index:
            yield Rule(("nodes", index, key), f"{shown(value)} is the {key} of nodes[{first[value]}] already")


def _role_counts(nodes: list[tuple[int, Any]]) -> dict[str, int]:
    """How many nodes have each role; empty where a node's roles can't be told."""
    roles = [node.get("roles", ROLES) if isinstance(node, Mapping) else None for _, node in nodes]
    if not all(isinstance(own, (list, tuple)) and all(role in ROLES for role in own) for own in roles):
        return {}
    return {role: sum(role in own for own in roles if own is not None) for role in ROLES}


def _own_ca(pki: Mapping[str, Any]) -> Iterator[Rule]:
    for given, other in (("ca_cert", "ca_key"), ("ca_key", "ca_cert")):
        if pki.get(given) is not None and pki.get(other) is None:
            yield Rule(("pki", other), f"is missing, and {given} is given; the two go together")


def _storage(etcd: Mapping[str, Any]) -> Iterator[Rule]:
    data, wal = (_ok(own_path, etcd.get(key)) for key in ("data_dir", "wal_dir"))
    if data is None or wal is None:
        return
    reused = _ok(own_path, etcd.get("reuse_data"))
    if reused is not None and reused != data:
        yield Rule(("etcd", "reuse_data"), f"{shown(reused)} is not data_dir ({data}), the one folder that is meant")
    where, below = ("etcd", "wal_dir"), PurePosixPath(wal).is_relative_to(data)
    if data == wal:
        yield Rule(where, f"{shown(wal)} is data_dir too; the two must differ")
    elif PurePosixPath(data).is_relative_to(wal):
        yield Rule(where, f"{shown(wal)} holds data_dir ({data}); it may lie beside or inside it, not around it")
    elif not below and (parent := str(PurePosixPath(wal).parent)) in _SHARED:
        # etcd makes wal_dir.tmp beside wal_dir and renames it, so the parent must belong to etcd.
        yield Rule(where, f"{shown(wal)} lies right in {parent}, which etcd would have to own; take a folder below it")


def _overlay(flannel: Mapping[str, Any], nodes: list[tuple[int, Mapping[str, Any]]], leases: int) -> Iterator[Rule]:
    text, length = _ok(network, flannel.get("network")), flannel.get("subnet_len")
    if text is None:
        return
    whole = ipaddress.IPv4Network(text)
    for index, node in nodes:
        host = _ok(node_host, node.get("host"))
        if host is not None and ipaddress.IPv4Address(host) in whole:
            text_ = f"{shown(text)} overlaps the node network: it holds the address of nodes[{index}], {host}"
            yield Rule(("flannel", "network"), text_)
    if not isinstance(length, int) or isinstance(length, bool) or length > _MOST_LEN:
        return  # told with the value itself; two to the power of any number would take all memory
    subnets = 2 ** max(0, length - whole.prefixlen) - 1  # flannel leases from the second subnet on
    where, least = ("flannel", "subnet_len"), whole.prefixlen + _LEAST_BITS
    if length < least:
        yield Rule(where, f"{length} makes fewer than four subnets of {text}; at least {least} is needed")
    elif leases > subnets:
        fits = whole.prefixlen + leases.bit_length()
        way = f"take {fits} or more" if fits <= _MOST_LEN else "take a larger network"
        yield Rule(where, f"{length} makes {subnets} subnets of {text} for {leases} flannel nodes; {way}")


def _pair(etcd: object, flannel: object, backend: object) -> Iterator[Rule]:
    known_etcd = isinstance(etcd, str) and _ok(versions.parse, etcd) is not None and not versions.etcd_fault(etcd)
    if not isinstance(flannel, str) or _ok(versions.parse, flannel) is None or versions.flannel_fault(flannel):
        return
    if known_etcd and (fault := versions.pair_fault(str(etcd), flannel)):
        yield Rule(("flannel", "version"), fault)
    for key in ("Learning", "MTU"):
        asked = isinstance(backend, Mapping) and any(str(name).casefold() == key.casefold() for name in backend)
        if asked and (fault := versions.backend_fault(key, flannel)):
            yield Rule(("flannel", "backend", key), fault)


def _ok(check: Callable[[str], T], value: object) -> T | None:
    """The checked value, or None where it has a fault that is reported with the value itself."""
    try:
        return check(value) if isinstance(value, str) else None
    except ValueError:
        return None
