"""runbook.etcdctl: the command line of etcdctl by API version, and its JSON."""

from __future__ import annotations

import base64
import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_node import cluster_of

from runbook import etcdctl

ENDPOINTS = "--endpoints=https://198.18.0.11:2379,https://198.18.0.12:2379,https://198.18.0.13:2379"
CERTS = "/etc/etcd/cert"


def test_a_v3_command() -> None:
    """v3 options, each member's endpoint, the node's own certificate; from 3.6 on no variable is needed."""
    assert shlex.split(etcdctl.command(cluster_of(), "endpoint", "health", "-w", "json")) == [
        "/opt/k8s/bin/etcdctl", ENDPOINTS, f"--cacert={CERTS}/ca.pem", f"--cert={CERTS}/etcd.pem",
        f"--key={CERTS}/etcd-key.pem", "--command-timeout=10s", "endpoint", "health", "-w", "json",
    ]  # fmt: skip


@pytest.mark.parametrize("version", ["3.3.10", "3.4.23", "3.5.21"])
def test_older_etcdctl_is_told_the_api(version: str) -> None:
    """Below 3.6 the variable makes etcdctl speak v3."""
    cluster = cluster_of(etcd={"version": version}, flannel={"version": "0.17.0"})
    assert etcdctl.command(cluster, "alarm", "list").startswith("ETCDCTL_API=3 /opt/k8s/bin/etcdctl ")


def test_a_v2_command() -> None:
    """v2 has other names for the same options."""
    cluster = cluster_of(etcd={"version": "3.5.21"}, flannel={"version": "0.17.0"})
    assert shlex.split(etcdctl.command(cluster, "ls", "/k", api=2, to=["https://a:2379"])) == [
        "ETCDCTL_API=2", "/opt/k8s/bin/etcdctl", "--endpoints=https://a:2379", f"--ca-file={CERTS}/ca.pem",
        f"--cert-file={CERTS}/etcd.pem", f"--key-file={CERTS}/etcd-key.pem", "--total-timeout=10s", "ls", "/k",
    ]  # fmt: skip


def test_a_command_with_flannels_certificate() -> None:
    """The same call with the node's other certificate, and that one's CA file."""
    files = ["--cacert=/etc/flanneld/cert/ca.pem", "--cert=/etc/flanneld/cert/flanneld.pem"]
    files.append("--key=/etc/flanneld/cert/flanneld-key.pem")
    assert shlex.split(etcdctl.command(cluster_of(), "get", "/k", as_flannel=True))[2:5] == files


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("Error: etcdserver: permission denied", True),
        ("Error: etcdserver: user name not found", True),
        ("Error: etcdserver: user name is empty", True),
        ("Failed to defragment (rpc error: code = Unknown desc = auth: user not found)", True),
        ("open /etc/etcd/cert/etcd-key.pem: permission denied", False),
        ("Error: etcdserver: role name not found", False),
        ("context deadline exceeded", False),
        ("", False),
    ],
)
def test_a_refusal_by_auth_is_told_from_other_faults(text: str, *, refused: bool) -> None:
    """As etcd 3.5.21 and 3.6.16 say it; a file that can't be read is none."""
    assert etcdctl.refused(text) is refused


@settings(max_examples=50)
@given(
    words=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), max_size=4),
    api=st.sampled_from([2, 3]),
)
def test_arguments_reach_etcdctl_as_they_are(words: list[str], api: int) -> None:
    """No argument is read by the shell, a JSON value with quotes and dollars included."""
    command = etcdctl.command(cluster_of(), *words, api=api)
    assert shlex.split(command, comments=False)[-len(words) :] == words or not words


def test_a_real_sh_passes_arguments_on() -> None:
    """What sh hands to the program is each argument, whole."""
    hostile = ['{"Network": "172.30.0.0/16"}', "$(touch x)", "a'b", "two\nlines", ""]
    command = etcdctl.command(cluster_of(), *hostile).replace("/opt/k8s/bin/etcdctl", "printf '%s\\0'", 1)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[-6:-1] == hostile


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a": 1}', {"a": 1}), ("[]\n", []), ("", None), (" \n", None), ("{", None), ("Error: x", None)],
)
def test_json_or_nothing(text: str, value: object) -> None:
    """Empty output and garbage are None."""
    assert etcdctl.as_json(text) == value


@given(st.text())
def test_v3_values_are_base64(value: str) -> None:
    """Keys and values of v3 JSON come back as text."""
    encoded = base64.b64encode(value.encode("utf-8", "replace")).decode()
    assert etcdctl.decoded(encoded) == value.encode("utf-8", "replace").decode()
