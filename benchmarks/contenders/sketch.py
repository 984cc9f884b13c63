"""The job as a hand-tuned script on paramiko: no plan, no record, no phases; one upload a node, few waits.

It is the lower bound that the runbook is held against. Usage, in the job's folder: sketch.py
"""

from __future__ import annotations

import hashlib
import io
import json
import socket
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko

HERE = Path(__file__).resolve().parent
CHUNK = 32 * 1024
CONFIG = '{"Network":"172.30.0.0/16","SubnetLen":21,"Backend":{"Type":"vxlan"}}'
KEY = "/kubernetes/network/config"
BINARIES = ("etcd", "etcdctl", "etcdutl", "flanneld", "mk-docker-opts.sh")
paramiko.Transport._preferred_ciphers = ("aes128-gcm@openssh.com",)  # noqa: SLF001 - there is no public way

INSTALL = """set -e
id etcd >/dev/null 2>&1 || useradd -r -s /usr/sbin/nologin etcd
install -d -m 755 /opt/k8s/bin /etc/flanneld/cert /etc/etcd/cert
install -d -m 700 -o etcd -g etcd /data/k8s/etcd /data/k8s/etcd/data /data/k8s/etcd/wal
tar -x -f - -C / --no-same-owner
gzip -d -f /opt/k8s/bin/*.gz
chmod 755 /opt/k8s/bin/*
chown -R etcd:etcd /etc/etcd/cert
chmod 600 /etc/etcd/cert/*-key.pem /etc/flanneld/cert/*-key.pem
systemctl daemon-reload
systemctl enable -q etcd flanneld
systemctl restart etcd
"""


class Node:
    """One connection."""

    def __init__(self, name: str, address: str, job: dict) -> None:
        self.name, self.address = name, address
        sock = socket.create_connection((address, 22))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = paramiko.SSHClient()
        self.client.load_host_keys(job["known_hosts"])
        self.client.connect(
            address, username="root", key_filename=job["key_file"], sock=sock, allow_agent=False, look_for_keys=False
        )

    def run(self, script: str, feed: bytes = b"") -> str:
        """Run a script, with a stream on its standard input; what it printed."""
        channel = self.client.get_transport().open_session()
        channel.exec_command(script)
        view = memoryview(feed)
        for start in range(0, len(view), CHUNK):
            channel.sendall(view[start : start + CHUNK])
        channel.shutdown_write()
        out = channel.makefile("rb").read().decode()
        err = channel.makefile_stderr("rb").read().decode()
        if channel.recv_exit_status():
            sys.exit(f"{self.name}: {err or out}")
        return out


def contents(node: Node, job: dict) -> dict[str, bytes]:
    """The small files of a node by their path."""
    etcd = Path("templates/etcd.service.template").read_text()
    flannel = Path("templates/flanneld.service.template").read_text()
    etcd = etcd.replace("##NODE_NAME##", node.name).replace("##ETCD_NODES##", job["etcd_nodes"])
    flannel = flannel.replace("##ETCD_ENDPOINTS##", job["endpoints"])
    units = {"etcd.service": etcd, "flanneld.service": flannel}
    found = {
        f"/etc/systemd/system/{name}": text.replace("##NODE_IP##", node.address).encode()
        for name, text in units.items()
    }
    for folder, pair in (("/etc/etcd/cert", "etcd"), ("/etc/flanneld/cert", "flanneld")):
        found |= {f"{folder}/{name}.pem": Path(f"{name}.pem").read_bytes() for name in ("ca", pair, f"{pair}-key")}
    return found


def archive(files: dict[str, bytes]) -> bytes:
    """A tar of the binaries, packed, and the small files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        packed = {f"/opt/k8s/bin/{name}.gz": Path(f"dist/{name}.gz").read_bytes() for name in BINARIES}
        for path, data in (packed | files).items():
            info = tarfile.TarInfo(path.lstrip("/"))
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sums(files: dict[str, bytes]) -> str:
    """The checksums of all that a node should have, as sha256sum prints them."""
    whole = {f"/opt/k8s/bin/{name}": Path(f"dist/{name}").read_bytes() for name in BINARIES} | files
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in sorted(whole.items()))


def main() -> None:
    """Do the job; what has the right bytes and runs already is left alone."""
    job = json.loads(Path("inventory.json").read_text())
    endpoints, count = job["endpoints"], len(job["nodes"])
    certs = "--cacert=/etc/etcd/cert/ca.pem --cert=/etc/etcd/cert/etcd.pem --key=/etc/etcd/cert/etcd-key.pem"
    etcdctl = f"/opt/k8s/bin/etcdctl --endpoints={endpoints} {certs}"
    with ThreadPoolExecutor(count) as pool:
        connecting = [pool.submit(Node, name, address, job) for name, address in job["nodes"].items()]
        if not Path("flanneld.pem").exists():
            subprocess.run(["bash", str(HERE / "certificates.sh")], check=True)
        nodes = [one.result() for one in connecting]
        small = {node.name: contents(node, job) for node in nodes}

        def install(node: Node) -> None:
            wanted = sums(small[node.name]).encode()
            look = "sha256sum -c --status 2>/dev/null && systemctl is-active -q etcd && echo same || echo other"
            if node.run(look, wanted).strip() != "same":
                node.run(INSTALL, archive(small[node.name]))

        def flannel(node: Node) -> None:
            verify = (HERE / "verify.sh").read_text()
            node.run(f"systemctl start flanneld && ENDPOINTS={endpoints} COUNT={count} && {{\n{verify}\n}}")

        list(pool.map(install, nodes))
        same = f"[ \"$({etcdctl} get --print-value-only {KEY})\" = '{CONFIG}' ]"
        nodes[0].run(f"{etcdctl} endpoint health 2>&1 && {{ {same} || {etcdctl} put {KEY} '{CONFIG}'; }}")
        list(pool.map(flannel, nodes))


main()
