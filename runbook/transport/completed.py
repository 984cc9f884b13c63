"""What a script on a node left."""

from __future__ import annotations

from dataclasses import dataclass

from runbook import errors
from runbook.plain_text import printable


@dataclass(frozen=True)
class Completed:
    """What a script left: its exit status, and stdout and stderr apart."""

    node: str
    what: str
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Stdout as text."""
        return self.stdout.decode("utf-8", "replace")

    def check(self, remedy: str = "") -> Completed:
        """Return itself, or raise CommandFailed with the end of stderr when the status is not 0."""
        if self.status:
            said = printable(self.stderr) or "it printed nothing on stderr"
            raise errors.CommandFailed(
                f"ended with status {self.status}: {said}", node=self.node, subject=self.what, remedy=remedy
            )
        return self
