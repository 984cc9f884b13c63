"""Everything that this library raises on purpose; each message is written for an operator.

RunbookError                  exit status 1
├── ParamsError               2  the params file; carries every fault found in it
├── UsageError                2  the command line
├── StateError                2  the user's state folder is another cluster's, or can't be used
├── ArtifactError                a release binary can't be had or has the wrong checksum
├── PkiError                     a CA or certificate can't be used
├── SandboxError                 the practice cluster can't be made
├── CommandFailed                a command on a node failed or passed its deadline
├── CheckFailed                  a table has rows that don't hold
├── ApplyFailed                  a plan was applied in part
├── PlanRefused                  a plan would do harm, or can't be made
├── LockHeld                     another run holds the cluster's lock
├── ApprovalRequired          3  nothing was changed: a plan waits for approval
│   └── PlanChanged           3  the approved plan is not the one that would be applied now
└── NodeError                 4  a node can't be reached, or refused us
    ├── Unreachable
    ├── ConnectionLost
    ├── HostKeyUnknown
    ├── HostKeyMismatch
    └── LoginRefused
"""

from __future__ import annotations

import html
import re
from pathlib import Path

#: The page that tells more of every kind of error, and the sections of it by what a message may hold: the first counts.
PAGE = "troubleshooting.md"
SYMPTOMS = (
    ("No space left on device", "disk-full"),
    ("address already in use", "port-taken"),
    ("has already been bootstrapped", "member-without-its-data"),
    ("cluster ID mismatch", "data-of-another-cluster"),
    ("holds the data of a member", "data-of-another-cluster"),
    ("would start as a new member", "data-of-another-cluster"),
    ("data were written by etcd", "data-of-another-version"),
    ("members would be up, and a quorum needs", "quorum-lost"),
    ("not issued by our CA", "certificates-of-another-ca"),
    ("belongs to other nodes", "cluster-name-taken"),
    ("certificate is valid for", "certificate-names"),
    ("etcdserver: permission denied", "etcd-refuses-a-certificate"),
    ("somebody else turned it on", "etcd-refuses-a-certificate"),
    ("flannel config not found in etcd store", "flannel-finds-no-config"),
    ("Couldn't fetch network config", "flannel-finds-no-config"),
    ("out of subnets", "no-subnet-left"),
    ("live leases don't fit", "live-leases-do-not-fit"),
    ("br_netfilter", "kernel-module-missing"),
    ("UDP 8472 is dropped", "overlay-loses-packets"),
    ("context deadline exceeded", "etcd-does-not-answer"),
    ("etcd does not answer", "etcd-does-not-answer"),
    ("not ready within", "unit-not-ready"),
)


def section(kind: str, text: str) -> str:
    """The section of docs/troubleshooting.md on an error, by what its text holds, or else by its class.

    Args:
        kind: The class's name.
        text: The error's text.

    Returns:
        The section's anchor; '' for an error that is none of ours.
    """
    if not any(kind == one.__name__ for one in _kinds(RunbookError)):
        return ""
    found = (anchor for phrase, anchor in SYMPTOMS if phrase in text)
    return next(found, re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind).lower())


def see(kind: str, text: str) -> str:
    """Where the remedy of an error is told at length: `see docs/troubleshooting.md#…`; '' where that is nowhere."""
    anchor = section(kind, text)
    return f"see docs/{PAGE}#{anchor}" if anchor else ""


def _kinds(kind: type[RunbookError]) -> list[type[RunbookError]]:
    return [kind, *(one for below in kind.__subclasses__() for one in _kinds(below))]


class RunbookError(Exception):
    """An error that an operator can act on.

    Args:
        message: What happened: what was found, and what was expected.
        node: The name of the node it happened on, where there is one.
        subject: The file, command, params key or address it is about.
        remedy: What to do now.
    """

    exit_status = 1

    def __init__(self, message: str, *, node: str = "", subject: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.node = node
        self.subject = subject
        self.remedy = remedy
        self._linked = False

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.node, self.subject) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}\n  -> {self.remedy}" if self.remedy else text

    @property
    def see(self) -> str:
        """Where its remedy is told at length: `see docs/troubleshooting.md#…`."""
        return see(type(self).__name__, str(self))

    def _render_traceback_(self) -> list[str]:
        """Show the message alone in a notebook (IPython asks for this): an operator can't mend a traceback.

        Where the page is beside the notebook, as in a record that is stepped through, a link that opens it comes first.
        """
        if Path(PAGE).is_file() and not self._linked:
            self._linked = True  # IPython asks twice for one error
            _show_link(section(type(self).__name__, str(self)))
        return [f"{type(self).__name__}: {self}\n  {self.see}"]


class ParamsError(RunbookError):
    """The params can't be used; `faults` has one line for each thing wrong, all of them at once."""

    exit_status = 2

    def __init__(self, source: str, faults: list[str]) -> None:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"{count}:\n" + "\n".join(f"  - {fault}" for fault in faults), subject=source)
        self.faults = faults


class UsageError(RunbookError):
    """The command line asks for something that there is not."""

    exit_status = 2


class StateError(RunbookError):
    """The user's state folder belongs to another cluster, or can't be written."""

    exit_status = 2


class ArtifactError(RunbookError):
    """A release binary can't be had from any source, or its checksum is wrong."""


class PkiError(RunbookError):
    """A certificate authority or a certificate can't be read or used."""


class SandboxError(RunbookError):
    """The practice cluster can't be made on this machine."""


class CommandFailed(RunbookError):
    """A command on a node ended with another status than 0, or passed its deadline."""


class CheckFailed(RunbookError):
    """Rows of a table don't hold."""


class ApplyFailed(RunbookError):
    """Some changes of a plan were not made; its results tell which."""


class PlanRefused(RunbookError):
    """A plan can't be made or would do harm; nothing was changed."""


class LockHeld(RunbookError):
    """Another run holds the lock on nodes of this cluster; nothing was changed."""


class ApprovalRequired(RunbookError):
    """A plan waits for approval; nothing was changed."""

    exit_status = 3


class PlanChanged(ApprovalRequired):
    """The plan that was approved is not the one that would be applied now; nothing was changed."""


class NodeError(RunbookError):
    """A node can't be reached or refused us."""

    exit_status = 4


class Unreachable(NodeError):
    """No SSH server answered."""


class ConnectionLost(NodeError):
    """An open connection ended in the middle of work."""


class HostKeyUnknown(NodeError):
    """The node's host key is in no known_hosts file."""


class HostKeyMismatch(NodeError):
    """The node shows another host key than the one we know."""


class LoginRefused(NodeError):
    """The node refused the user, key or password, or sudo."""


def _show_link(anchor: str) -> None:
    from IPython.display import publish_display_data  # noqa: PLC0415 - only IPython itself asks for this

    words = f"What to do: {anchor.replace('-', ' ')}"
    link = f'<p><a href="{PAGE}#{anchor}">{html.escape(words)}</a></p>'
    publish_display_data({"text/html": link, "text/plain": f"{words}: {PAGE}#{anchor}"})  # type: ignore[no-untyped-call]


def together(failed: list[RunbookError]) -> RunbookError:
    """One error for several nodes: itself where there is one, else one that lists them all."""
    if len(failed) == 1:
        return failed[0]
    kinds = {type(error) for error in failed}
    if len(kinds) == 1:
        kind = kinds.pop()
    elif any(isinstance(error, NodeError) for error in failed):
        kind = NodeError
    else:
        kind = max(kinds, key=lambda one: (one.exit_status, one.__name__))
    return kind("\n".join([f"{len(failed)} nodes:", *map(str, failed)]))
