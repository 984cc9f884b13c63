#!/usr/bin/env bash
# Builds etcd and flannel on a practice cluster of three nodes, and says where the records are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "$(id -u)" -ne 0 ]; then
  echo "demo: the practice cluster makes containers and network interfaces, so it needs root: sudo make demo" >&2
  exit 1
fi
bash tools/setup.sh
.venv/bin/runbook sandbox up
outcome=0
.venv/bin/runbook run params/sandbox.yaml --approve || outcome=$?
records=$(find records/sandbox -mindepth 1 -maxdepth 1 -type d 2>/dev/null | sort | tail -n 1)
cat <<TEXT

Record:        ${records:-none was written}   (open its index.html; the executed notebooks and their pages are beside it)
Check it:      .venv/bin/runbook verify ${records}
Step through:  make jupyter
A node:        .venv/bin/runbook sandbox ssh node1
Take it down:  .venv/bin/runbook sandbox down
TEXT
exit "$outcome"
