"""What a member's data folder holds: whose it is and which etcd wrote it; what would not fit it is refused.

etcd takes `--name`, the token and the peer addresses from its data once there are some, and reads past the flags
(etcd's "Configuration options"): a changed token over old data would change nothing but the unit. It reads data of its
own and of the next older minor line alone (etcd's "Upgrading", "Downgrading"). Nothing here removes or moves data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from runbook import etcdctl, versions
from runbook.plain_text import printable
from runbook.resources import Change, Found, Look, content

if TYPE_CHECKING:
    from runbook.params import Cluster, Node

UNIT = "etcd.service"
#: etcd's own default of --initial-cluster-token.
_DEFAULT_TOKEN = "etcd-cluster"  # noqa: S105 - not a secret
_FLAG = r"(?:^|\s)--?%s(?:=|\s+)[\"']?([^\s\"'\\]+)"
_OURS = re.compile(r"^Description=etcd \S+, member \S+ of cluster (\S+)$", re.MULTILINE)
_WRITTEN = re.compile(r"(?:clusterVersion|storageVersion)([0-9]+)\.([0-9]+)\.")
_LINE = re.compile(r"([0-9]+)\.([0-9]+)\.")
#: From here on `endpoint status` tells the storage version.
_TELLS_STORAGE = (3, 6)
_PEER = re.compile(r"https?://[^\"\s]+")
#: Settings that a unit takes from where they are not read here.
_ELSEWHERE = re.compile("EnvironmentFile=|--?config-file|ETCD_(?:INITIAL_CLUSTER_TOKEN|DATA_DIR|WAL_DIR)")
_SEARCH_S = 20


@dataclass(frozen=True)
class MemberData:
    """The data of one member, as they are: kept, and refused where what the params ask for does not fit them.

    Attributes:
        whose: Whether to look at whose they are as well, or only at the version that wrote them.
    """

    cluster: Cluster
    node: Node
    whose: bool = True

    @property
    def label(self) -> str:
        """`data in FOLDER`."""
        return f"data in {self.cluster.etcd.data_dir}"

    def there(self) -> str:
        """Tell whether the node has data, and whether its unit is another one than the params would make."""
        etcd, name = self.cluster.etcd, self.cluster.name
        unit, data, wal = (quote(path) for path in (f"{etcd.unit_dir}/{UNIT}", etcd.data_dir, etcd.wal_dir))
        ours = [f"Description=etcd {etcd.version}, member {self.node.name} of cluster {name}\n"]
        flags = {
            "data-dir": etcd.data_dir,
            "wal-dir": etcd.wal_dir,
            "initial-cluster-token": etcd.initial_cluster_token,
        }
        ours += [f" --{flag}={value} " for flag, value in flags.items()]
        known = "\n".join(f'case "$rb_unit" in *{quote(text)}*) ;; *) echo guarded=doubt ;; esac' for text in ours)
        return f"""
for rb in {wal}/*.wal {data}/member/wal/*.wal; do [ ! -e "$rb" ] || {{ echo guarded=yes; break; }}; done
if [ -e {unit} ]; then
rb_unit=$(cat {unit})
{known}
fi
"""

    def looks(self) -> tuple[Look, ...]:
        """No path: what matters is in the probe."""
        return ()

    def probe(self) -> str:
        """Read the unit and the running process; of a database that no process serves, versions and peer addresses.

        Where there is no WAL, nothing ran on this folder yet, and nothing more is read.
        """
        etcd = self.cluster.etcd
        unit, data, wal = quote(f"{etcd.unit_dir}/{UNIT}"), quote(etcd.data_dir), quote(etcd.wal_dir)
        line = versions.line(etcd.version)
        status = etcdctl.command(self.cluster, "endpoint", "status", "-w", "json", to=["https://127.0.0.1:2379"])
        return f"""
rb_wal() {{ find "$@" -maxdepth 1 -name '*.wal' 2>/dev/null | head -n 1 | base64 -w0; }}
rb_flag() {{ sed -n "s/.*--*$1[= ][\\"']*\\([^ \\"'\\\\\\\\]*\\).*/\\1/p" {unit} 2>/dev/null | head -n 1; }}
echo "wal=$(rb_wal {wal} {data}/member/wal)"
old=$(rb_flag data-dir); oldwal=$(rb_flag wal-dir)
echo "old_wal=$(rb_wal "${{oldwal:-/nonexistent}}" "${{old:-/nonexistent}}/member/wal")"
[ -e {data}/member/snap/db ] && echo db=there
[ -f {unit} ] && echo "unit=$(head -c 65536 {unit} | base64 -w0)"
if [ -n "$(rb_wal {wal} {data}/member/wal)" ]; then
  pid=$(systemctl show --no-pager -p MainPID {UNIT} 2>/dev/null | cut -d= -f2); runs=
  if [ "${{pid:-0}}" != 0 ] && [ -r "/proc/$pid/cmdline" ]; then
    echo "process=$(tr '\\0' ' ' <"/proc/$pid/cmdline" | base64 -w0)"
    runs=$(timeout 5 "/proc/$pid/exe" --version 2>/dev/null | sed -n 's/^etcd Version: *//p' | head -n 1)
    echo "runs=$runs"
  fi
  case "$runs" in
    {line}.*) ;;
    *) [ -z "$runs" ] || echo "status=$(timeout 5 env {status} 2>/dev/null | base64 -w0)"
      echo "written=$(timeout {_SEARCH_S} grep -a -o -E '(clusterVersion|storageVersion)[0-9]+\\.[0-9]+\\.' \
        {data}/member/snap/db 2>/dev/null | sort -u | base64 -w0)" ;;
  esac
  [ -n "$runs" ] || echo "peers=$(timeout {_SEARCH_S} grep -a -o -E '"peerURLs":\\["[^]]*' \
    {data}/member/snap/db 2>/dev/null | sort -u | head -c 16384 | base64 -w0)"
fi
"""

    def compare(self, found: Found) -> Change | None:
        """Refuse what does not fit the data; None where there are none, or they fit."""
        fault = self._version_fault(found) if _text(found, "wal") else ""
        if self.whose:
            fault = fault or self._moved(found)
            if self.cluster.etcd.reuse_data != self.cluster.etcd.data_dir:
                fault = fault or self._foreign(found)
        if not fault:
            return None
        return Change(self.label, "keep", fault, "holds data", "as it is", digest=fault, refusal=fault)

    def _version_fault(self, found: Found) -> str:
        wanted = versions.parse(self.cluster.etcd.version)
        there = written_by(found)
        if there is None or there == wanted[:2]:
            return ""
        major, minor = there
        if there > wanted[:2]:
            return (
                f"its data were written by etcd {major}.{minor}, and etcd {wanted} can't read them (it ends with"
                f" `invalid downgrade`): set etcd.version to a {major}.{minor} again. To go back, take a backup"
                " (`etcdctl snapshot save`), then, from 3.6 on, `etcdctl downgrade enable"
                f" {versions.line(wanted)}` on the running cluster and run again; before 3.6 only a snapshot that the"
                " older etcd took can be restored, into an empty folder"
            )
        if wanted[:2] > (major, minor + 1):
            return (
                f"its data were written by etcd {major}.{minor}, and etcd takes one minor line at a time: set"
                f" etcd.version to the newest {major}.{minor + 1}, run, see that phase 05 is good, and then go on"
                f" to {wanted}"
            )
        return ""

    def _moved(self, found: Found) -> str:
        """The unit that is there keeps its data in other folders, and the wanted ones hold none."""
        etcd, there = self.cluster.etcd, _flags(found)
        if not there or not _text(found, "old_wal"):
            return ""
        data, wal = there.get("data-dir", ""), there.get("wal-dir", "")
        if not ((data != etcd.data_dir and "db" not in found) or (wal != etcd.wal_dir and not _text(found, "wal"))):
            return ""
        old = printable(" and ".join(filter(None, (data, wal))))
        return (
            f"this member's data are in {old}, and the params ask for {etcd.data_dir} and {etcd.wal_dir}, which don't"
            " hold them: it would start as a new member. Keep etcd.data_dir and etcd.wal_dir; or stop etcd there, move"
            f" the folders by hand, and set etcd.reuse_data: {etcd.data_dir}"
        )

    def _foreign(self, found: Found) -> str:
        if not _text(found, "wal"):
            return ""
        etcd, why = self.cluster.etcd, ""
        there = _flags(found)
        peer = f"https://{self.node.host}:2380"
        peers = set(_PEER.findall(_text(found, "peers")))
        cluster = _OURS.search(_text(found, "unit"))
        if there is None:
            why = f"no {UNIT} here tells whose they are"
        elif (folder := there.get("data-dir", "")) != etcd.data_dir:
            why = f"{UNIT} here is for the data in {printable(folder) or 'another folder'}"
        elif (token := there.get("initial-cluster-token", _DEFAULT_TOKEN)) != etcd.initial_cluster_token:
            why = (
                f"they are of a cluster with the token {printable(token)}, and the params say"
                f" {etcd.initial_cluster_token} (etcd would read past it: keep the old one)"
            )
        elif cluster and cluster[1] != self.cluster.name:
            why = f"they are of the cluster {printable(cluster[1])}, and the params are of {self.cluster.name}"
        elif peers and peer not in peers:
            why = f"their members are {printable(', '.join(sorted(peers)), 300)}, and {peer} is none of them"
        if not why:
            return ""
        return (
            f"{etcd.data_dir} holds the data of a member: {why}. For a new cluster move the folders aside (`mv"
            f" {etcd.data_dir} {etcd.data_dir}.old`, and {etcd.wal_dir} too); to serve these very data, set"
            f" etcd.reuse_data: {etcd.data_dir}"
        )


def written_by(found: Found) -> tuple[int, int] | None:
    """The minor line that the data are of, by what a probe printed; None where nothing tells.

    A running etcd from 3.6 on tells itself (a downgrade that was enabled is known there at once), if it is asked by an
    etcdctl of its time: an older one was put beside it by a plan for which this was looked at before. Else what the
    database holds tells, whose old pages may name older lines; else the version that runs.
    """
    runs = _LINE.match(found.get("runs", ""))
    line = (int(runs[1]), int(runs[2])) if runs else None
    status = etcdctl.as_json(_text(found, "status"))
    if line and line >= _TELLS_STORAGE and isinstance(status, list) and status:
        storage = _LINE.match(str(status[0].get("Status", {}).get("storageVersion", "")))
        return (int(storage[1]), int(storage[2])) if storage else None
    if written := _WRITTEN.findall(_text(found, "written")):
        return max((int(major), int(minor)) for major, minor in written)
    return line


def _flags(found: Found) -> dict[str, str] | None:
    """The flags that tell whose data they are: of the running process, else of the unit; None where there is neither.

    A unit that takes its settings from elsewhere tells nothing.
    """
    text = _text(found, "process") or _text(found, "unit").replace("\\\n", " ")
    names = ("data-dir", "wal-dir", "initial-cluster-token")
    flags = {name: match[1] for name in names if (match := re.search(_FLAG % re.escape(name), text))}
    elsewhere = _ELSEWHERE.search(_text(found, "unit"))
    if not text or (elsewhere and len(flags) < len(names)):
        return None
    return flags


def _text(found: Found, key: str) -> str:
    return (content(found, key) or b"").decode("utf-8", "replace")
