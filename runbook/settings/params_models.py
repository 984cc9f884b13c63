"""The models of params: what keys there are, their defaults, and which rule each value keeps (`params_rules`)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from runbook import versions
from runbook.settings import params_rules, rbac_rules
from runbook.settings.params_rules import Rule, shown

Role = Literal["etcd", "flannel"]
T = TypeVar("T")


class _FrozenDict(dict[str, Any]):
    """A dict that stays as it is, so that the settings that hold it can be hashed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]:
        return type(self), (dict(self),)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("params are frozen")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


def _local_path(value: object, info: ValidationInfo) -> object:
    """A path on this machine: `~` expanded, a relative one taken from the params file's folder."""
    if not isinstance(value, (str, Path)):
        return value
    text = os.path.expanduser(value)  # noqa: PTH111 - Path.expanduser raises where this leaves a `~`
    if not text or not text.isprintable():
        raise ValueError(f"{shown(text)} is not a path")
    if text.startswith("~"):
        raise ValueError(f"{shown(text)}: there is no such user on this machine")
    base = (info.context or {}).get("base")
    if not os.path.isabs(text) and base is None:  # noqa: PTH117
        raise ValueError(
            f"{shown(text)} is relative, and settings given as values have no params file to be relative to: "
            "write an absolute path or ~/…, or give the path of the params file instead (-p cluster FILE)"
        )
    return Path(os.path.normpath(Path(base or "/") / text))


def _version(value: str) -> str:
    return str(versions.parse(value))


def _some(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:  # pydantic's min_length would also count the values that have a fault of their own
        raise ValueError("is empty; at least one is needed")
    return values


LocalPath = Annotated[Path, BeforeValidator(_local_path)]
NodePath = Annotated[str, AfterValidator(params_rules.node_path)]
OwnPath = Annotated[str, AfterValidator(params_rules.own_path)]
Whole = Annotated[int, Strict()]


class Settings(BaseModel):
    """What all of them share: frozen, no unknown keys, defaults checked as well."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Node(Settings):
    """One machine; `iface` overrides `flannel.iface` for it."""

    name: Annotated[str, AfterValidator(params_rules.node_name)]
    host: Annotated[str, AfterValidator(params_rules.node_host)]
    roles: Annotated[tuple[Role, ...], AfterValidator(_some)] = params_rules.ROLES
    iface: Annotated[str, AfterValidator(params_rules.iface)] | None = None

    @field_validator("roles")
    @classmethod
    def _once(cls, roles: tuple[Role, ...]) -> tuple[Role, ...]:
        if len(set(roles)) < len(roles):
            raise ValueError(f"{', '.join(roles)}: a role stands twice")
        return roles


class Ssh(Settings):
    """How nodes are reached; without a key file the agent's and the user's usual keys are tried. Never a password."""

    user: Annotated[str, AfterValidator(params_rules.login_user)] = "root"
    port: Annotated[Whole, Field(ge=1, le=65535)] = 22
    key_file: LocalPath | None = None
    known_hosts: LocalPath = Path("~/.ssh/known_hosts")
    sudo: StrictBool = False
    jump: Annotated[str, AfterValidator(params_rules.jump)] | None = None
    connect_timeout_s: Annotated[float, Strict(), Field(gt=0, le=600, allow_inf_nan=False)] = 10.0


class Pki(Settings):
    """The cluster's CA and certificates; `dir` None is the cluster's folder in the user's state folder."""

    dir: LocalPath | None = None
    ca_cert: LocalPath | None = None
    ca_key: LocalPath | None = None
    encrypt_key: StrictBool = False
    valid_days: Annotated[Whole, Field(ge=1, le=36500)] = 3650
    key_type: Literal["ecdsa", "rsa"] = "ecdsa"
    subject: Annotated[
        dict[Literal["C", "ST", "L", "O", "OU"], Annotated[str, AfterValidator(params_rules.subject_value)]],
        AfterValidator(_FrozenDict),
    ] = {"O": "k8s"}

    @field_validator("subject")
    @classmethod
    def _country(cls, subject: dict[str, str]) -> dict[str, str]:
        country = subject.get("C", "CN")
        if not (len(country) == 2 and country.isascii() and country.isalpha()):  # noqa: PLR2004 - ISO 3166
            raise ValueError(f"C is {shown(country)}; a country code of two letters is expected")
        return subject


class Artifacts(Settings):
    """Where release binaries come from; `cache` None is the user's cache folder."""

    cache: LocalPath | None = None
    mirrors: tuple[Annotated[str, AfterValidator(params_rules.mirror)], ...] = ()
    offline: StrictBool = False


class Etcd(Settings):
    """The etcd members."""

    version: Annotated[str, AfterValidator(_version)] = "3.6.16"
    user: Annotated[str, AfterValidator(params_rules.node_user)] = "etcd"
    data_dir: OwnPath = "/data/k8s/etcd/data"
    wal_dir: OwnPath = "/data/k8s/etcd/wal"
    cert_dir: OwnPath = "/etc/etcd/cert"
    unit_dir: NodePath = "/etc/systemd/system"
    initial_cluster_token: Annotated[str, AfterValidator(params_rules.token)] = "etcd-cluster-0"  # noqa: S105
    reuse_data: OwnPath | None = None

    @field_validator("version")
    @classmethod
    def _known(cls, version: str) -> str:
        if fault := versions.etcd_fault(version):
            raise ValueError(fault)
        return version


class Vxlan(Settings):
    """Flannel's own names of its vxlan settings; a device `flannel.VNI` must fit the kernel's 15 characters."""

    Type: Annotated[str, AfterValidator(params_rules.backend_type)] = "vxlan"
    VNI: Annotated[Whole, Field(ge=1, le=9_999_999)] = 1
    Port: Annotated[Whole, Field(ge=0, le=65535)] = 0
    MTU: Annotated[Whole, Field(ge=68, le=65535)] = 1450
    DirectRouting: StrictBool = False
    Learning: StrictBool = False
    GBP: StrictBool = False


def _backend(value: object) -> object:
    """The backend in flannel's own names, whatever case they were written in; only what was written, and the type."""
    if not isinstance(value, Mapping):
        return value
    names = {name.casefold(): name for name in Vxlan.model_fields}
    values: dict[object, Any] = {}
    for key, one in value.items():
        name = names.get(key.casefold(), key) if isinstance(key, str) else key
        if name in values:
            raise ValueError(f"{name} stands twice, in upper and in lower case")
        values[name] = one
    checked = Vxlan.model_validate(values)
    return {"Type": checked.Type, **checked.model_dump(exclude_unset=True)}


class Flannel(Settings):
    """The overlay network."""

    version: Annotated[str, AfterValidator(_version)] = "0.26.7"
    etcd_prefix: Annotated[str, AfterValidator(params_rules.etcd_prefix)] = "/kubernetes/network"
    network: Annotated[str, AfterValidator(params_rules.network)] = "172.30.0.0/16"
    subnet_len: Annotated[Whole, Field(ge=1, le=30)] = 21
    backend: Annotated[dict[str, Any], BeforeValidator(_backend), AfterValidator(_FrozenDict)] = {"Type": "vxlan"}
    iface: Annotated[str, AfterValidator(params_rules.iface)] = "auto"
    rbac: StrictBool = False
    cert_dir: OwnPath = "/etc/flanneld/cert"
    unit_dir: NodePath = "/etc/systemd/system"

    @field_validator("version")
    @classmethod
    def _known(cls, version: str) -> str:
        if fault := versions.flannel_fault(version):
            raise ValueError(fault)
        return version

    def network_config(self) -> dict[str, Any]:
        """The value of flannel's config key in etcd, by flannel's own names."""
        return {"Network": self.network, "SubnetLen": self.subnet_len, "Backend": dict(self.backend)}


class Cluster(Settings):
    """All settings of one cluster."""

    name: Annotated[str, AfterValidator(params_rules.cluster_name)]
    nodes: Annotated[tuple[Node, ...], AfterValidator(_some)]
    ssh: Ssh = Ssh()
    bin_dir: NodePath = "/opt/k8s/bin"
    pki: Pki = Pki()
    artifacts: Artifacts = Artifacts()
    etcd: Etcd = Etcd()
    flannel: Flannel = Flannel()

    @property
    def etcd_nodes(self) -> tuple[Node, ...]:
        """The nodes that are etcd members."""
        return tuple(node for node in self.nodes if "etcd" in node.roles)

    @property
    def flannel_nodes(self) -> tuple[Node, ...]:
        """The nodes that the overlay connects."""
        return tuple(node for node in self.nodes if "flannel" in node.roles)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What works, and yet is hardly meant."""
        members = len(self.etcd_nodes)
        if members % 2:
            return ()
        less = f"{members} etcd members survive the loss of {(members - 1) // 2}, no more than {members - 1} would"
        return (f"cluster.nodes: {less}; take an odd number",)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if rules := list(cross(self.model_dump())):
            raise PydanticCustomError("cluster_rules", "the settings don't fit each other", {"rules": rules})
        return self


def cross(values: Mapping[str, Any]) -> Iterator[Rule]:
    """The faults between values, with the defaults filled in where a section is missing or lacks a key."""
    filled = dict(values)
    for name, model in (("pki", Pki), ("etcd", Etcd), ("flannel", Flannel)):
        own = values.get(name, {})
        filled[name] = {**model().model_dump(), **own} if isinstance(own, Mapping) else None
    yield from params_rules.cross_faults(filled)
    yield from rbac_rules.faults(filled)


# The sections of a params file and their keys, for what is said of an unknown one.
SECTIONS: Final[dict[str, type[BaseModel]]] = {
    "cluster": Cluster,
    "nodes": Node,
    "ssh": Ssh,
    "pki": Pki,
    "artifacts": Artifacts,
    "etcd": Etcd,
    "flannel": Flannel,
    "backend": Vxlan,
}
