"""What releases are called, and what is in them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.downloads.releases import Release, arch, names
from runbook.errors import ArtifactError


@pytest.mark.parametrize(
    ("machine", "expected"), [("x86_64", "amd64"), ("aarch64\n", "arm64"), ("arm64", "arm64"), ("AMD64", "amd64")]
)
def test_machine_is_mapped(machine: str, expected: str) -> None:
    """What `uname -m` prints becomes the name that releases use."""
    assert arch(machine) == expected


@pytest.mark.parametrize("machine", ["armv7l", "riscv64", "i686", ""])
def test_other_machines_are_refused(machine: str) -> None:
    """A machine without binaries is named in the error."""
    with pytest.raises(ArtifactError, match=re.escape(repr(machine))):
        arch(machine)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3.3.10", ("etcd", "etcdctl")),
        ("3.4.23", ("etcd", "etcdctl")),
        ("3.5.0", ("etcd", "etcdctl", "etcdutl")),
        ("3.6.16", ("etcd", "etcdctl", "etcdutl")),
    ],
)
def test_etcdutl_came_with_3_5(version: str, expected: tuple[str, ...]) -> None:
    """Etcd has etcdutl from 3.5.0 on."""
    assert names("etcd", version) == expected


def test_layout_in_the_tarball() -> None:
    """The archive of etcd has a top folder, that of flannel has none."""
    assert Release("etcd", "3.4.23", "arm64").members == {
        "etcd-v3.4.23-linux-arm64/etcd": "etcd",
        "etcd-v3.4.23-linux-arm64/etcdctl": "etcdctl",
    }
    flannel = Release("flannel", "0.17.0", "amd64")
    assert flannel.members == {"flanneld": "flanneld", "mk-docker-opts.sh": "mk-docker-opts.sh"}
    assert flannel.tarball == "flannel-v0.17.0-linux-amd64.tar.gz"


def test_unknown_parts_are_refused() -> None:
    """Product and architecture are one of those that are known."""
    with pytest.raises(ArtifactError, match="'calico'"):
        Release("calico", "3.6.16", "amd64")
    with pytest.raises(ArtifactError, match="'arm'"):
        Release("etcd", "3.6.16", "arm")


@given(st.text(max_size=12) | st.sampled_from(["../3.6.16", "v3.6.16", "3.6", "3.6.16/..", "3.6.16\n", ""]))
def test_no_odd_version_reaches_a_path(version: str) -> None:
    """A version is three numbers, or it is refused: it goes into paths and addresses."""
    try:
        release = Release("etcd", version, "amd64")
    except ArtifactError as error:
        assert error.remedy  # noqa: PT017 - both outcomes are looked at
    else:
        assert re.fullmatch(r"\d+\.\d+\.\d+", release.version, re.ASCII)
