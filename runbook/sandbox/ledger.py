"""What a practice cluster has made in the kernel, written down before it is made.

So `down` finds what a killed `up` left behind, and nothing is ever touched that only has the same name.
What is written counts until the machine boots again: namespaces, links and routes don't outlive that.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

from runbook.errors import SandboxError
from runbook.sandbox.machine import write_private

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Ledger:
    """The claims of one practice cluster, kept in a file of its state folder.

    Args:
        path: The file; it need not exist.
        boot_id: Which boot of the machine this is; read from the kernel by default.
    """

    def __init__(self, path: Path, boot_id: str | None = None) -> None:
        self._path = path
        self._boot = boot_id or _BOOT_ID.read_text(encoding="ascii").strip()
        self._guard = threading.Lock()

    @property
    def claims(self) -> tuple[str, ...]:
        """What was made since the machine booted, e.g. "netns rbk0-sandbox-node1", in the order of making."""
        if not self._path.exists():
            return ()
        kept = json.loads(self._path.read_text(encoding="utf-8"))
        return tuple(kept["claims"]) if kept["boot_id"] == self._boot else ()

    def owns(self, kind: str, name: str) -> bool:
        """Whether we made it."""
        return f"{kind} {name}" in self.claims

    def named(self, kind: str) -> tuple[str, ...]:
        """The names claimed of one kind, in the order of making."""
        return tuple(name for claimed, _, name in (claim.partition(" ") for claim in self.claims) if claimed == kind)

    def claim(self, kind: str, name: str, *, exists: bool) -> None:
        """Note that `name` is about to be made.

        Raises:
            SandboxError: It exists already and we did not make it.
        """
        with self._guard:
            claims = self.claims
            if f"{kind} {name}" in claims:
                return
            if exists:
                raise SandboxError(
                    f"a {kind} of this name exists already, and this practice cluster did not make it",
                    subject=name,
                    remedy="remove it, or use another --slot",
                )
            self._write((*claims, f"{kind} {name}"))

    def release(self, kind: str, name: str) -> None:
        """Note that it is gone."""
        with self._guard:
            self._write(tuple(claim for claim in self.claims if claim != f"{kind} {name}"))

    def _write(self, claims: tuple[str, ...]) -> None:
        write_private(self._path, json.dumps({"boot_id": self._boot, "claims": claims}, indent=1) + "\n")
