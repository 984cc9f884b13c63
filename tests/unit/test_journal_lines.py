"""runbook.diagnosis.journal_lines: lines of etcd's and flanneld's journals, and what they come to."""

from __future__ import annotations

import re

import pytest

from runbook.diagnosis.journal_lines import LINES, WAITS

SEEN = [
    ("etcd", '{"msg":"discovery failed","error":"member 4288739b90c6ab2d has already been bootstrapped"}',
     "the cluster knows this member, and its data folder is empty"),
    ("etcd", "panic: tocommit(9) is out of range [lastIndex(0)]. Was the raft log corrupted, truncated, or lost?",
     "the member lost its data, and was started as if it had it"),
    ("etcd", '{"msg":"the member has been permanently removed from the cluster"}',
     "this member was removed from the cluster"),
    ("etcd", "error validating peerURLs {ClusterID:1 Members:[…]}: member count is unequal",
     "--initial-cluster differs from the cluster's own members"),
    ("etcd", "couldn't find local name \"x\" in the initial cluster configuration",
     "--name is not among --initial-cluster"),
    ("etcd", "--initial-cluster has node1=https://198.18.0.1:2380 but missing from --initial-advertise-peer-urls=x",
     "its peer URL differs from its entry in --initial-cluster"),
    ("etcd", '{"msg":"request sent was ignored by remote peer due to cluster ID mismatch"}',
     "its data are another cluster's"),
    ("etcd", '{"error":"listen tcp 198.18.0.12:2379: bind: address already in use"}', "another process has its port"),
    ("etcd", '{"error":"listen tcp 198.18.0.99:2380: bind: cannot assign requested address"}',
     "it listens on an address that the node does not have"),
    ("etcd", "expected IP in URL for binding (https://node1:2380)",
     "it listens on an address that the node does not have"),
    ("etcd", "failed to create WAL: write /data/wal.tmp: no space left on device", "its disk is full"),
    ("etcd", "etcdserver: mvcc: database space exceeded", "its database is over its quota"),
    ("etcd", "detected disallowed custom content in v2store for stage --v2-deprecation=write-only",
     "its data hold keys of API 2, which 3.6 refuses"),
    ("etcd", "unmarshal should never fail (proto: cannot parse invalid wire-format data)",
     "its WAL is older than 3.7 can read"),
    ("etcd", '{"msg":"invalid downgrade; server version is lower than determined cluster version"}',
     "an older etcd on a newer one's data"),
    ("etcd", "--election-timeout[500ms] should be at least as 5 times as --heartbeat-interval[250ms]",
     "its election timeout is too short"),
    ("etcd", "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher",
     "its cipher suites lack one that HTTP/2 needs"),
    ("etcd", "tls: failed to verify certificate: x509: certificate is valid for 127.0.0.1, not 198.18.0.12",
     "a certificate lacks the address that is dialled"),
    ("etcd", "x509: certificate signed by unknown authority", "a certificate of another CA"),
    ("etcd", "x509: certificate has expired or is not yet valid: current time", "a certificate is not valid now"),
    ("etcd", "x509: certificate specifies an incompatible key usage", "a certificate is not for this use"),
    ("etcd", "tls: private key does not match public key", "key and certificate are no pair"),
    ("etcd", "etcd.service: Main process exited, code=exited, status=203/EXEC", "its binary can't be executed"),
    ("etcd", "etcd.service: Failed at step USER spawning /opt/k8s/bin/etcd", "its user is not there"),
    ("etcd", "etcd.service: Main process exited, code=exited, status=226/NAMESPACE",
     "a folder that its unit names is not there"),
    ("etcd", "etcd.service: Main process exited, code=exited, status=200/CHDIR",
     "its working directory is not there"),
    ("etcd", "flag provided but not defined: -enable-v2", "a flag that this version does not know"),
    ("etcd", 'conflicting environment variable "ETCD_NAME" is shadowed by corresponding command-line flag',
     "a setting stands twice, as a flag and as a variable"),
    ("etcd", "open /etc/etcd/cert/etcd.pem: no such file or directory", "a file that it reads is not there"),
    ("etcd", "open /etc/etcd/cert/etcd-key.pem: permission denied", "it may not read a file of its own"),
    ("flanneld", "E1123 08:02:08.869557 1590 main.go:464] Couldn't fetch network config: etcdserver: permission denied",
     "etcd refuses flannel's certificate"),
    ("flanneld", "Couldn't fetch network config: 100: Key not found (/kubernetes) [3]",
     "etcd's v2 store has no network config where it looks"),
    ("flanneld", "flannel config not found in etcd store. Did you create your config using etcdv3 API?",
     "etcd's v3 store has no network config where it looks"),
    ("flanneld", "client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint.",
     "etcd does not speak API 2, which this flannel needs"),
    ("flanneld", "network must be able to accommodate at least four subnets", "SubnetLen is too small for Network"),
    ("flanneld", "failed to acquire lease: out of subnets", "every subnet is leased"),
    ("flanneld", "Could not find valid interface matching eth7: error looking up interface eth7",
     "it can't find the interface that it is told to use"),
    ("flanneld", "Error registering network: operation not permitted", "it may not change the network"),
    ("flanneld", "Error registering network: Link not found", "another vxlan device has its VNI and port"),
    ("flanneld", "Failed to check br_netfilter: stat /proc/sys/net/bridge/bridge-nf-call-iptables: no such file",
     "the kernel module br_netfilter is not loaded"),
    ("flanneld", 'exec: "iptables": executable file not found in $PATH', "iptables is not installed"),
    ("flanneld", "cluster is unavailable or misconfigured; error #0: x509: certificate signed by unknown authority",
     "a certificate of another CA"),
    ("flanneld", "open /etc/flanneld/cert/ca.pem: no such file or directory", "a file that it reads is not there"),
    ("flanneld", "Couldn't fetch network config: unexpected end of JSON input",
     "the network config in etcd can't be read"),
]  # fmt: skip
WORDS = dict.fromkeys(
    ["node", "host", "bin_dir", "data_dir", "wal_dir", "user", "unit", "unit_path", "prefix", "network"], "X"
)


@pytest.mark.parametrize(("unit", "line", "cause"), SEEN)
def test_each_line_means_its_own_cause(unit: str, line: str, cause: str) -> None:
    """The first row that matches is the one that was written for it: no other row takes its line."""
    found = [row.cause for row in LINES if row.unit == unit and row.found(("Starting …", line, "Stopped …"))]
    assert found[0] == cause


def test_every_row_has_a_line_that_shows_it() -> None:
    """No row stands there that no line was seen for; rows for both units need one of either."""
    shown = {cause for _, _, cause in SEEN}
    assert [row.cause for row in LINES if row.cause not in shown] == []


@pytest.mark.parametrize("row", LINES, ids=lambda row: f"{row.unit}: {row.cause}")
def test_every_row_can_be_told(row: object) -> None:
    """Expectation and remedy are there, and every word in braces is one that is filled in."""
    for text in (row.expected, row.remedy):  # type: ignore[attr-defined]
        assert text.format(**WORDS)
        assert "{" not in text.format(**WORDS)


def test_the_newest_line_is_told() -> None:
    """Of several starts it is the last one's line that counts."""
    row = next(row for row in LINES if "already in use" in row.pattern)
    assert row.found(("1: bind: address already in use", "2: bind: address already in use", "x")).startswith("2")
    assert row.found(("x",)) == ""


def test_waiting_for_others_is_no_cause() -> None:
    """What only says that others don't answer matches no row."""
    line = "dial tcp 198.18.0.11:2379: connect: connection refused"
    assert re.search(WAITS, line)
    assert [row.cause for row in LINES if row.found((line,))] == []
