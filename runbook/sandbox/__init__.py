"""The practice cluster: Debian nodes on this machine, each with a real systemd, sshd and kernel network of its own.

It knows nothing of the rest of the runbook; it only writes a params file.
"""

from __future__ import annotations

from runbook.sandbox.cluster import NodeStatus, Sandbox

__all__ = ["NodeStatus", "Sandbox"]
