"""What a release of etcd or flannel is called, and which files of it a node needs (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from runbook import versions
from runbook.errors import ArtifactError

Arch = Literal["amd64", "arm64"]
Product = Literal["etcd", "flannel"]
_ARCHES: Final[dict[str, Arch]] = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def arch(machine: str) -> Arch:
    """Map what `uname -m` prints to the name that releases use.

    Args:
        machine: The machine's name, such as `x86_64` or `aarch64`.

    Raises:
        ArtifactError: There are no binaries for this machine.
    """
    try:
        return _ARCHES[machine.strip().lower()]
    except KeyError:
        raise ArtifactError(
            f"no binaries for a machine of type {machine.strip()!r}; known are x86_64 and aarch64",
            remedy="use a node with an amd64 or arm64 processor",
        ) from None


def names(product: str, version: str) -> tuple[str, ...]:
    """Name the files of a release that go to a node, in a fixed order.

    Raises:
        ArtifactError: The product is unknown, or the version is no release's.
    """
    try:
        known = str(versions.parse(version))
    except ValueError as error:
        raise ArtifactError(str(error), subject=product, remedy=f"set {product}.version in the params") from None
    if product == "etcd":
        return ("etcd", "etcdctl", "etcdutl") if versions.has_etcdutl(known) else ("etcd", "etcdctl")
    if product == "flannel":
        return ("flanneld", "mk-docker-opts.sh")
    raise ArtifactError(f"unknown product {product!r}; known are etcd and flannel", remedy="ask for one of these")


@dataclass(frozen=True)
class Release:
    """One release for one architecture; making one checks that its parts are safe in a path and an address."""

    product: str
    version: str
    arch: str

    def __post_init__(self) -> None:
        names(self.product, self.version)
        if self.arch not in _ARCHES.values():
            raise ArtifactError(
                f"no release for architecture {self.arch!r}; known are amd64 and arm64",
                subject=f"{self.product} {self.version}",
                remedy="use a node with an amd64 or arm64 processor",
            )

    def __str__(self) -> str:
        return f"{self.product} {self.version} for linux/{self.arch}"

    @property
    def folder(self) -> str:
        """The name of its folder in the cache."""
        return f"{self.product}-{self.version}-{self.arch}"

    @property
    def tarball(self) -> str:
        """The name of its archive, as upstream has it."""
        return f"{self.product}-v{self.version}-linux-{self.arch}.tar.gz"

    @property
    def names(self) -> tuple[str, ...]:
        """The files of it that go to a node."""
        return names(self.product, self.version)

    @property
    def members(self) -> dict[str, str]:
        """Where each wanted file lies in the archive: etcd has a top folder, flannel has none."""
        top = f"{self.tarball.removesuffix('.tar.gz')}/" if self.product == "etcd" else ""
        return {top + name: name for name in self.names}
