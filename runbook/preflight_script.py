"""The script that prints what a node is; it starts as few programs as it can, for each costs the node a millisecond."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from runbook.transport import answers

if TYPE_CHECKING:
    from runbook.params import Cluster

_TOOLS = "systemctl systemd-analyze journalctl gzip sha256sum base64 stat flock mktemp ip bridge ping ss"
_SCRIPT = f"""
{answers.SAY}
rb_say clock "$(date +%s.%N)"
rb_say os "$(. /etc/os-release; echo "$PRETTY_NAME")"
rb_both=$(uname -rm)
rb_say kernel "${{rb_both% *}}"
rb_say machine "${{rb_both##* }}"
rb_both=$(systemctl show -p Version -p UnitPath 2>/dev/null)
rb_version=${{rb_both##*Version=}} rb_path=${{rb_both##*UnitPath=}}
case "$rb_both" in *Version=*) rb_say systemd "systemd ${{rb_version%%"$rb_nl"*}}" ;;
  *) rb_say systemd "$(systemctl --version 2>/dev/null)" ;; esac
rb_say unit_path "${{rb_path%%"$rb_nl"*}}"
rb_say tools "$(for t in {_TOOLS} iptables modprobe; do command -v $t || echo "missing $t"; done)"
rb_say addresses "$(ip -o -4 addr show 2>/dev/null)"
rb_say vxlan_links "$(ip -o -d link show type vxlan 2>/dev/null)"
rb_listen=$(ss -Hlntup 'sport = :2379 or sport = :2380 or sport = :8472' 2>/dev/null)
rb_say listeners "$rb_listen"
# Which of them are processes of our units: the kernel knows it by the control group.
while :; do
  case "$rb_listen" in *pid=*) rb_listen=${{rb_listen#*pid=}} ;; *) break ;; esac
  rb_pid=${{rb_listen%%[!0-9]*}}
  while read -r rb_line; do
    case "$rb_line" in */etcd.service | */flanneld.service) rb_say pids "$rb_pid"; break ;; esac
  done 2>/dev/null <"/proc/$rb_pid/cgroup"
done
rb_vxlan() {{
  if [ -d /sys/module/vxlan ]; then echo loaded
  elif [ -n "$(ip link show type vxlan)" ]; then echo built in
  elif modprobe -n vxlan; then echo loadable
  elif grep -qs '/vxlan.ko' "/lib/modules/$(uname -r)/modules.builtin"; then echo built in
  elif zcat /proc/config.gz | grep -q '^CONFIG_VXLAN=y'; then echo built in
  fi 2>/dev/null
}}
rb_say vxlan "$(rb_vxlan)"
if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then rb_say br_netfilter yes; else rb_say br_netfilter no; fi
read -r rb_both </proc/sys/net/ipv4/ip_forward; rb_say ip_forward "$rb_both"
# A folder may not be there yet: the nearest parent that is there names its disk.
rb_disk() {{
  rb_folder=$1
  while [ ! -d "$rb_folder" ]; do rb_folder=${{rb_folder%/*}}; [ -n "$rb_folder" ] || rb_folder=/; done
}}
"""


def probe(cluster: Cluster) -> str:
    """Give the sh that prints what a node is, for `answers.parse`."""
    data, wal = quote(cluster.etcd.data_dir), quote(cluster.etcd.wal_dir)
    return f"""{_SCRIPT}
rb_disk {data}; rb_data=$rb_folder
rb_disk {wal}
rb_free=$(df -Pk -- "$rb_data" "$rb_folder" 2>/dev/null)
rb_say wal_free "${{rb_free##*"$rb_nl"}}"
rb_free=${{rb_free%"$rb_nl"*}}
rb_say data_free "${{rb_free##*"$rb_nl"}}"
"""
