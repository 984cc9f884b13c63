"""What lines of etcd's and flanneld's journals mean: one row each, found by trying the fault (docs/reliability.md).

Texts of TLS errors are Go's and vary with its version: only what follows `x509:` is looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One row: a line that matches, the cause, what was expected, what to do.

    In `expected` and `remedy` the words in braces are filled in: node, host, bin_dir, data_dir, wal_dir, user, unit,
    unit_path, prefix, network, params' versions.
    """

    unit: str
    pattern: str
    cause: str
    expected: str
    remedy: str
    section: str

    def found(self, journal: tuple[str, ...]) -> str:
        """The newest line that matches, or ''."""
        return next((line for line in reversed(journal) if re.search(self.pattern, line)), "")


_ASIDE = "systemctl stop etcd; mv {data_dir} {data_dir}.old; mv {wal_dir} {wal_dir}.old"
_AGAIN = (
    "on another member: `etcdctl member remove ID` with this node's ID (`etcdctl member list`), then `etcdctl member"
    f" add {{node}} --peer-urls=https://{{host}}:2380`; on {{node}}: `{_ASIDE}`, run phase 03, write"
    " --initial-cluster-state=existing into {unit_path}, `systemctl daemon-reload; systemctl restart etcd`; then run"
    " phases 03 to 05, which set the unit back"
)
_UNITS_AGAIN = "run phases 03 and 04: they write the unit as the params have it, and start it"
_FLANNEL_AGAIN = "run phases 08 and 09: they write the unit as the params have it, and start it"
_CERTS = "run phases 02 and 04: they issue a certificate as the params ask, and restart this member"
_FLANNEL_CERTS = "run phases 06 and 09: they issue a certificate as the params ask, and restart flanneld"

_TLS = (
    (r"x509: certificate is valid for", "a certificate lacks the address that is dialled",
     "every dialled address among the SANs", "certificate-names"),
    (r"x509: certificate signed by unknown authority", "a certificate of another CA", "one CA on all nodes",
     "certificates-of-another-ca"),
    (r"x509: certificate has expired or is not yet valid", "a certificate is not valid now",
     "a certificate and a clock that agree", "certificate-expired"),
    (r"x509: certificate specifies an incompatible key usage", "a certificate is not for this use",
     "etcd's for server and client use, flannel's for client use", "certificate-names"),
    (r"tls: private key does not match public key", "key and certificate are no pair",
     "the key that the certificate was issued for", "certificate-names"),
)  # fmt: skip

_SYSTEMD = (
    (r"status=203/EXEC|Failed at step EXEC", "its binary can't be executed", "a binary in {bin_dir}",
     "run phases 01 and 04"),
    (r"status=217/USER|Failed at step USER", "its user is not there", "the user {user}", "run phase 03"),
    (r"status=226/NAMESPACE|Failed at step NAMESPACE", "a folder that its unit names is not there",
     "every folder of ReadWritePaths", "run phase 03"),
    (r"status=200/CHDIR|Failed at step CHDIR", "its working directory is not there", "the folder {data_dir}",
     "run phase 03"),
    (r"flag provided but not defined|unknown (?:shorthand )?flag", "a flag that this version does not know",
     "flags of the version that the params name", "run phases 01, 03, 04 and 08: binaries and units of one version"),
    (r"conflicting environment variable", "a setting stands twice, as a flag and as a variable", "it once, in the unit",
     "remove the variable: `systemctl cat {unit}` shows where it is from"),
)  # fmt: skip

LINES = (
    Line("etcd", r"has already been bootstrapped", "the cluster knows this member, and its data folder is empty",
         "the member's own data in {data_dir}", _AGAIN, "member-without-its-data"),
    Line("etcd", r"tocommit\(\d+\) is out of range", "the member lost its data, and was started as if it had it",
         "the member's own data in {data_dir}", _AGAIN, "member-without-its-data"),
    Line("etcd", r"permanently removed from the cluster", "this member was removed from the cluster",
         "a member that the others list", _AGAIN, "member-without-its-data"),
    Line("etcd", r"member count is unequal|error validating peerURLs|unmatched member while checking PeerURLs",
         "--initial-cluster differs from the cluster's own members", "the members that `etcdctl member list` shows",
         _UNITS_AGAIN, "data-of-another-cluster"),
    Line("etcd", r"couldn't find local name", "--name is not among --initial-cluster", "both the same",
         _UNITS_AGAIN, "data-of-another-cluster"),
    Line("etcd", r"--initial-cluster has .* but missing from --initial-advertise-peer-urls",
         "its peer URL differs from its entry in --initial-cluster", "both the same", _UNITS_AGAIN,
         "data-of-another-cluster"),
    Line("etcd", r"cluster ID mismatch", "its data are another cluster's", "the id that the other members have",
         f"`{_ASIDE}`, then run phases 03 and 04", "data-of-another-cluster"),
    Line("etcd", r"bind: address already in use", "another process has its port", "2379 and 2380 free",
         "`ss -lntp` on {node} shows who; stop it, then run phase 04", "port-taken"),
    Line("etcd", r"bind: cannot assign requested address|expected IP in URL for binding",
         "it listens on an address that the node does not have", "an address of {node}'s own", _UNITS_AGAIN,
         "address-not-on-the-node"),
    Line("etcd", r"no space left on device", "its disk is full", "64 MiB free for the next WAL file",
         "free space on that disk, then run phase 04", "disk-full"),
    Line("etcd", r"database space exceeded", "its database is over its quota", "a database below it",
         "compact, defragment each member, `etcdctl alarm disarm`, raise the quota", "database-over-its-quota"),
    Line("etcd", r"disallowed (?:custom content in v2store|v2 WAL)", "its data hold keys of API 2, which 3.6 refuses",
         "no v2 keys", "go back to 3.5, delete flannel's v2 keys, `etcdutl check v2store`, then upgrade",
         "etcd-does-not-answer"),
    Line("etcd", r"unmarshal should never fail", "its WAL is older than 3.7 can read", "a snapshot made by 3.6",
         "go back to 3.6, start it with a low --snapshot-count once, then upgrade", "etcd-does-not-answer"),
    Line("etcd", r"invalid downgrade|cannot be downgraded|version \S+ is not supported",
         "an older etcd on a newer one's data", "the version that wrote the data, or newer",
         "install the newer version (etcd.version in the params, phases 01 and 04)", "etcd-does-not-answer"),
    Line("etcd", r"should be at least as 5 times as", "its election timeout is too short", "5 heartbeats or more",
         _UNITS_AGAIN, "etcd-does-not-answer"),
    Line("etcd", r"missing an HTTP/2-required", "its cipher suites lack one that HTTP/2 needs", "AES_128_GCM_SHA256",
         _UNITS_AGAIN, "etcd-does-not-answer"),
    *(Line("etcd", pattern, cause, expected, _CERTS, section) for pattern, cause, expected, section in _TLS),
    *(Line("etcd", pattern, cause, expected, remedy, "unit-not-ready")
      for pattern, cause, expected, remedy in _SYSTEMD),
    Line("etcd", r"open \S+: no such file or directory|stat \S+: no such file", "a file that it reads is not there",
         "certificates and folders as the unit names them", "run phases 02 to 04", "unit-not-ready"),
    Line("etcd", r"permission denied", "it may not read a file of its own", "its folders and keys owned by {user}",
         "run phases 02 to 04: they set owner and mode", "unit-not-ready"),
    Line("flanneld", r"Couldn't fetch network config: 100: Key not found",
         "etcd's v2 store has no network config where it looks", "the key {prefix}/config, by API 2", "run phase 07",
         "flannel-finds-no-config"),
    Line("flanneld", r"flannel config not found in etcd store|etcdserver: key not found",
         "etcd's v3 store has no network config where it looks", "the key {prefix}/config, by API 3", "run phase 07",
         "flannel-finds-no-config"),
    Line("flanneld", r"etcdserver: permission denied", "etcd refuses flannel's certificate",
         "auth off, or the user flanneld with the role flannel", "run phase 07: it sets users and roles as the params"
         " have them, or says who turned auth on", "etcd-refuses-a-certificate"),
    Line("flanneld", r"response is invalid json", "etcd does not speak API 2, which this flannel needs",
         "etcd 3.5 or older with --enable-v2, or flannel 0.18 or newer", "run phases 03 and 04, then 09",
         "flannel-finds-no-config"),
    Line("flanneld", r"must be able to accommodate at least four subnets", "SubnetLen is too small for Network",
         "SubnetLen of Network's length + 2 or more", "mend flannel.subnet_len in the params, then run phase 07",
         "flannel-finds-no-config"),
    Line("flanneld", r"out of subnets", "every subnet is leased", "a free one in {network}",
         "delete the leases of machines that are gone (phase 10 lists them), or take a larger network",
         "no-subnet-left"),
    Line("flanneld", r"Could not find valid interface|[Uu]nable to find default route|"
         r"[Ff]ailed to find (?:any valid )?interface|error looking up interface",
         "it can't find the interface that it is told to use", "-iface: a name or address of the node network",
         _FLANNEL_AGAIN, "wrong-interface"),
    Line("flanneld", r"registering network: operation not permitted", "it may not change the network",
         "root, or the capability CAP_NET_ADMIN", _FLANNEL_AGAIN, "unit-not-ready"),
    Line("flanneld", r"registering network: (?:Link not found|file exists|address already in use)",
         "another vxlan device has its VNI and port", "one device with this VNI",
         "`ip -d link show type vxlan` on {node}; `ip link del` the other one, then run phase 09",
         "stale-overlay-device"),
    Line("flanneld", r"br_netfilter", "the kernel module br_netfilter is not loaded", "it loaded",
         "`modprobe br_netfilter; echo br_netfilter >/etc/modules-load.d/br_netfilter.conf`", "kernel-module-missing"),
    Line("flanneld", r'exec: "iptables": executable file not found', "iptables is not installed", "it in PATH",
         "install iptables, then run phase 09", "kernel-module-missing"),
    *(Line("flanneld", pattern, cause, expected, _FLANNEL_CERTS, section)
      for pattern, cause, expected, section in _TLS),
    *(Line("flanneld", pattern, cause, expected, remedy, "unit-not-ready")
      for pattern, cause, expected, remedy in _SYSTEMD),
    Line("flanneld", r"open \S+: no such file or directory", "a file that it reads is not there",
         "certificates as the unit names them", "run phases 06 to 09", "unit-not-ready"),
    Line("flanneld", r"Couldn't fetch network config: (?:invalid character|unexpected end of JSON|json:)|"
         r"(?:decode|parse|retrieve).*(?:config|subnet).*(?:invalid character|unexpected end)",
         "the network config in etcd can't be read", "JSON with Network, SubnetLen and Backend", "run phases 07 and 09",
         "flannel-finds-no-config"),
)  # fmt: skip

#: What only says that others don't answer: it explains nothing by itself.
WAITS = (
    r"connection refused|no route to host|i/o timeout|has no leader|leaderless|prober detected unhealthy"
    r"|context deadline exceeded|etcd cluster is unavailable or misconfigured"
)
