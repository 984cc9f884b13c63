"""Which etcd and flannel do what: pure rules, so that no template or phase compares versions by itself.

The rules were read in the sources at each release and, for etcd 3.4 to 3.7 and flannel 0.17 and 0.26, tried. What is
not known here (an older or newer line) is refused by `etcd_fault` and `flannel_fault`, never guessed at.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple


class Version(NamedTuple):
    """A released version, ordered as releases are: `parse("3.5.9") < parse("3.5.21")`."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


ETCD_LINES: Final = ("3.3", "3.4", "3.5", "3.6", "3.7")
FLANNEL_LINES: Final = tuple(f"0.{minor}" for minor in range(10, 29))
ETCD_TRIED: Final = ("3.4.23", "3.5.21", "3.6.16", "3.7.3")
FLANNEL_TRIED: Final = ("0.17.0", "0.26.7")

_SHAPE: Final = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")

_ETCD_ALWAYS: Final = """
    name data-dir wal-dir listen-peer-urls listen-client-urls initial-advertise-peer-urls advertise-client-urls
    initial-cluster initial-cluster-state initial-cluster-token cert-file key-file trusted-ca-file client-cert-auth
    peer-cert-file peer-key-file peer-trusted-ca-file peer-client-cert-auth cipher-suites auto-compaction-mode
    auto-compaction-retention quota-backend-bytes max-request-bytes snapshot-count heartbeat-interval election-timeout
    listen-metrics-urls metrics max-snapshots max-wals enable-pprof strict-reconfig-check
    """

# Flag -> the lines that know it; a line given with a patch knows it from that patch on.
_ETCD_SOME: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("ca-file", "peer-ca-file"), ("3.3",)),
    **dict.fromkeys(("debug", "log-output", "log-package-levels"), ("3.3", "3.4")),
    **dict.fromkeys(("logger", "log-level", "log-outputs", "pre-vote"), ("3.4", "3.5", "3.6", "3.7")),
    **dict.fromkeys(("peer-cert-allowed-hostname", "enable-grpc-gateway"), ("3.4", "3.5", "3.6", "3.7")),
    **dict.fromkeys(("enable-v2", "experimental-enable-v2v3", "proxy"), ("3.3", "3.4", "3.5")),
    **dict.fromkeys(("discovery", "discovery-proxy"), ("3.3", "3.4", "3.5", "3.6")),
    **dict.fromkeys(("tls-min-version", "tls-max-version"), ("3.4.25", "3.5.8", "3.6", "3.7")),
    **dict.fromkeys(
        ("experimental-initial-corrupt-check", "experimental-corrupt-check-time"), ("3.3", "3.4", "3.5", "3.6")
    ),
    **dict.fromkeys(
        (
            *("log-format", "discovery-token", "discovery-endpoints", "corrupt-check-time"),
            *("watch-progress-notify-interval", "feature-gates", "max-learners"),
        ),
        ("3.6", "3.7"),
    ),
    "experimental-compact-hash-check-enabled": ("3.5.5", "3.6"),
    "experimental-watch-progress-notify-interval": ("3.4", "3.5", "3.6"),
    "v2-deprecation": ("3.5", "3.6", "3.7"),
}

# vxlan setting -> the flannel version that added it; an older one reads past it in silence.
_BACKEND_SINCE: Final[dict[str, Version]] = {"Learning": Version(0, 12, 0), "MTU": Version(0, 21, 3)}


def parse(version: str | Version) -> Version:
    """Read a version of three numbers, such as `3.6.16`.

    Raises:
        ValueError: It has another shape; the message tells which one is expected.
    """
    if isinstance(version, Version):
        return version
    found = _SHAPE.fullmatch(version)
    if found is None:
        bare = version.removeprefix("v")
        hint = f"; write it without the v: {bare}" if bare != version and _SHAPE.fullmatch(bare) else ""
        raise ValueError(f"{version!r} is not a released version: three numbers are expected, such as 3.6.16{hint}")
    return Version(*(int(part) for part in found.groups()))


def line(version: str | Version) -> str:
    """The minor line of a version, such as `3.6`."""
    v = parse(version)
    return f"{v.major}.{v.minor}"


def etcd_fault(version: str | Version) -> str:
    """Say why this etcd is not one that the rules here know; empty when it is."""
    v = parse(version)
    if line(v) in ETCD_LINES:
        return ""
    known = f"{ETCD_LINES[0]} to {ETCD_LINES[-1]}"
    return f"etcd {v} is not known to this runbook; known are {known}, tried {_list(ETCD_TRIED)}"


def flannel_fault(version: str | Version) -> str:
    """Say why this flannel is not one that the rules here know; empty when it is."""
    v = parse(version)
    if line(v) in FLANNEL_LINES:
        return ""
    known = f"{FLANNEL_LINES[0]} to {FLANNEL_LINES[-1]}"
    return f"flannel {v} is not known to this runbook; known are {known}, tried {_list(FLANNEL_TRIED)}"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def etcd_has_v2(version: str | Version) -> bool:
    """Whether this etcd can serve the v2 API at all (gone in 3.6)."""
    return parse(version) < (3, 6, 0)


def etcd_v2_flag(version: str | Version) -> bool:
    """Whether this etcd serves the v2 API only when `--enable-v2` is given (3.3 does so by default)."""
    return (3, 4, 0) <= parse(version) < (3, 6, 0)


def has_etcdutl(version: str | Version) -> bool:
    """Whether the release holds `etcdutl` beside etcd and etcdctl."""
    return parse(version) >= (3, 5, 0)


def etcdctl_api_variable(version: str | Version) -> dict[str, str]:
    """Return the environment that makes etcdctl speak the v3 API.

    3.3 speaks v2 without it; from 3.6 on the variable is unknown and each call would warn on stderr.
    """
    return {"ETCDCTL_API": "3"} if parse(version) < (3, 6, 0) else {}


def health_is_json(version: str | Version) -> bool:
    """Whether `etcdctl endpoint health -w json` answers in JSON (3.3 has text only)."""
    return parse(version) >= (3, 4, 0)


def unsupported_arch(version: str | Version) -> bool:
    """Whether this etcd starts on arm64 only with `ETCD_UNSUPPORTED_ARCH=arm64` in its environment."""
    return parse(version) < (3, 5, 0)


def etcd_supports(flag: str, version: str | Version) -> bool:
    """Whether this etcd server knows a flag; one it doesn't know stops it (rc 2).

    Args:
        flag: The flag's name, with or without leading dashes.
        version: A version that `etcd_fault` finds nothing wrong with.

    Raises:
        ValueError: No rule here tells of this flag or version: a fault in the caller, not in params.
    """
    v, name = parse(version), flag.lstrip("-")
    if fault := etcd_fault(v):
        raise ValueError(fault)
    if name in _ETCD_ALWAYS.split():
        return True
    if name not in _ETCD_SOME:
        raise ValueError(f"no rule tells which etcd knows --{name}")
    for entry in _ETCD_SOME[name]:
        major, minor, *patch = (int(part) for part in entry.split("."))
        if (major, minor) == v[:2]:
            return v.patch >= (patch[0] if patch else 0)
    return False


def flannel_api(version: str | Version) -> Literal[2, 3]:
    """Return the one etcd API that this flannel speaks; no version speaks both."""
    return 2 if parse(version) < (0, 18, 0) else 3


def backend_fault(key: str, version: str | Version) -> str:
    """Say why this flannel would read past a vxlan setting in silence; empty when it heeds it."""
    v, since = parse(version), _BACKEND_SINCE.get(key)
    return "" if since is None or v >= since else f"flannel {v} ignores {key} in silence; it came with flannel {since}"


def needs_br_netfilter(version: str | Version) -> bool:
    """Whether this flanneld refuses to start without the kernel module br_netfilter."""
    return parse(version) >= (0, 26, 0)


def has_auth_status(version: str | Version) -> bool:
    """Whether etcd tells if its auth is on (`etcdctl auth status`, since 3.5)."""
    return parse(version) >= (3, 5, 0)


def rbac_fault(etcd: str | Version, flannel: str | Version) -> str:
    """Say why etcd can't hold this flannel to its prefix by users and roles; empty when it can."""
    if flannel_api(flannel) == 2:  # noqa: PLR2004 - etcd's API versions
        return (
            f"flannel {parse(flannel)} speaks etcd's v2 API, which knows no users by certificate: only the keys of v3"
            " can be limited; take flannel 0.18.0 or newer (0.26.7 is tried), or leave rbac out"
        )
    if not has_auth_status(etcd):
        return (
            f"etcd {parse(etcd)} can't tell whether its auth is on (`auth status` came with 3.5): take 3.5 or newer"
            " (3.6.16 is tried), or leave rbac out"
        )
    return ""


def pair_fault(etcd: str | Version, flannel: str | Version) -> str:
    """Say why this flannel can't keep its leases in this etcd, and which versions would do; empty when it can."""
    if flannel_api(flannel) != 2 or etcd_has_v2(etcd):  # noqa: PLR2004 - the v2 API; every known etcd serves v3
        return ""
    return (
        f"flannel {parse(flannel)} speaks only etcd's v2 API, and etcd {parse(etcd)} has none (gone in 3.6): "
        f"take flannel 0.18.0 or newer (0.26.7 is tried), or etcd 3.3 to 3.5 (3.5.21 is tried)"
    )
