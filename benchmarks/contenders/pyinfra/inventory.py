"""The nodes, from the job's folder (the working folder). pyinfra reads this once, and the deploy once a node."""

import json
import subprocess
from pathlib import Path

CONTENDERS = Path(__file__).resolve().parent.parent
subprocess.run(["bash", str(CONTENDERS / "certificates.sh")], check=True)
job = json.loads(Path("inventory.json").read_text())
shared = {
    "contenders": str(CONTENDERS),
    "ssh_user": "root",
    "ssh_key": job["key_file"],
    "ssh_known_hosts_file": job["known_hosts"],
    "ssh_strict_host_key_checking": "yes",
    "ssh_allow_agent": False,
    "ssh_look_for_keys": False,
}
nodes = [(address, {**shared, "node": name}) for name, address in job["nodes"].items()]
