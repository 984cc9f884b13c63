"""The job in pyinfra: its own operations wherever it has them; the working folder is the job's."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import host
from pyinfra.operations import files, server, systemd
from pyinfra.operations.util import any_changed

if TYPE_CHECKING:
    from pyinfra.api.operation import OperationMeta

CONTENDERS = Path(host.data.contenders)
job = json.loads(Path("inventory.json").read_text())
node = host.data.node
address = job["nodes"][node]
work = Path.cwd()
config = '{"Network":"172.30.0.0/16","SubnetLen":21,"Backend":{"Type":"vxlan"}}'
etcdctl = (
    f"/opt/k8s/bin/etcdctl --endpoints={job['endpoints']} --cacert=/etc/etcd/cert/ca.pem"
    " --cert=/etc/etcd/cert/etcd.pem --key=/etc/etcd/cert/etcd-key.pem"
)


def unit(name: str, **marks: str) -> io.StringIO:
    """A unit with its marks filled in, as a file that pyinfra uploads."""
    text = (work / "templates" / f"{name}.service.template").read_text()
    for mark, value in marks.items():
        text = text.replace(f"##{mark}##", value)
    return io.StringIO(text)


def put(folder: str, target: str, names: tuple[str, ...], **attributes: Any) -> list[OperationMeta]:  # noqa: ANN401
    """Upload files; what each came to."""
    return [
        files.put(name=one, src=str((work / folder / one).resolve()), dest=f"{target}/{one}", **attributes)
        for one in names
    ]


def service(name: str, text: io.StringIO, changed: list[OperationMeta]) -> None:
    """Write the unit, and start the service, or restart it where a file of its is new."""
    written = files.put(name=f"{name}.service", src=text, dest=f"/etc/systemd/system/{name}.service", mode="644")
    systemd.daemon_reload(name=f"{name}: reload", _if=written.did_change)
    new = any_changed(*changed, written)
    systemd.service(name=f"{name}: anew", service=f"{name}.service", restarted=True, enabled=True, _if=new)
    systemd.service(name=f"{name}: runs", service=f"{name}.service", running=True, enabled=True)


server.user(name="user", user="etcd", system=True, shell="/usr/sbin/nologin", ensure_home=False)  # noqa: S604
files.directory(name="certificates", path="/etc/etcd/cert", user="etcd", group="etcd", mode="755")
for folder in ("", "/data", "/wal"):
    files.directory(name=f"etcd{folder}", path=f"/data/k8s/etcd{folder}", user="etcd", group="etcd", mode="700")
changed = put("dist", "/opt/k8s/bin", ("etcd", "etcdctl", "etcdutl"), mode="755")
changed += put("", "/etc/etcd/cert", ("ca.pem", "etcd.pem", "etcd-key.pem"), user="etcd", group="etcd", mode="600")
service("etcd", unit("etcd", NODE_NAME=node, NODE_IP=address, ETCD_NODES=job["etcd_nodes"]), changed)
server.shell(name="etcd is healthy", commands=[f"{etcdctl} endpoint health"])
if node == job["members"][0]:
    key = "/kubernetes/network/config"
    script = f"[ \"$({etcdctl} get --print-value-only {key})\" = '{config}' ] || {etcdctl} put {key} '{config}'"
    server.shell(name="network config", commands=[script])
changed = put("dist", "/opt/k8s/bin", ("flanneld", "mk-docker-opts.sh"), mode="755")
changed += put("", "/etc/flanneld/cert", ("ca.pem", "flanneld.pem", "flanneld-key.pem"), mode="600")
service("flanneld", unit("flanneld", NODE_IP=address, ETCD_ENDPOINTS=job["endpoints"]), changed)
verify = (CONTENDERS / "verify.sh").read_text()
server.shell(name="leases and pings", commands=[f"ENDPOINTS={job['endpoints']}\nCOUNT={len(job['nodes'])}\n{verify}"])
