"""What one node shows when something is wrong, as plain values: parsed from what `symptom_script` printed there.

What preflight and flannel_state can read is read by them; here is what only a diagnosis asks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runbook import etcdctl, flannel_state, mesh, preflight
from runbook.plain_text import clean
from runbook.transport import answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runbook.params import Node


@dataclass(frozen=True)
class Unit:
    """One unit as systemd has it, with what it said at its last start.

    Attributes:
        name: etcd or flanneld.
        state: The properties that `systemctl show` gave; none where the node was not asked.
        journal: Its own and systemd's messages since the last start, oldest first, cleaned; where it does not run,
            since the last but one: the last may have only just begun.
        flags: Its command line's `--name=value` words.
    """

    name: str
    state: Mapping[str, str] = field(default_factory=dict)
    journal: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)

    @property
    def loaded(self) -> bool:
        """Whether there is such a unit."""
        return self.state.get("LoadState") == "loaded"

    @property
    def active(self) -> bool:
        """Whether it runs and is ready."""
        return self.state.get("ActiveState") == "active"

    @property
    def stopped(self) -> bool:
        """Whether it was stopped, and did not fail."""
        return self.state.get("ActiveState") == "inactive" and self.state.get("Result") == "success"

    @property
    def told(self) -> str:
        """Its state in words: `activating/auto-restart, exit-code, status 1, 3 restarts`."""
        state = self.state
        parts = [f"{state.get('ActiveState', 'unknown')}/{state.get('SubState', '')}"]
        if state.get("Result", "success") != "success":
            parts.append(f"{state['Result']}, status {state.get('ExecMainStatus', '?')}")
        if state.get("NRestarts", "0") != "0":
            parts.append(f"{state['NRestarts']} restarts")
        return ", ".join(parts)


@dataclass(frozen=True)
class Link:
    """A network device: its MTU, and of a vxlan device its id, port and the address it sends from."""

    name: str
    mtu: int
    vni: int | None = None
    port: int | None = None
    local: str = ""


@dataclass(frozen=True)
class Symptoms:
    """What one node shows.

    Attributes:
        node: The node.
        error: Why it could not be asked; then all else is empty.
        said: What each command printed, by its key in the script.
        facts: Preflight's row.
        offset_ms: Its clock against this machine's, in milliseconds: by how much it is off at least.
    """

    node: Node
    error: str = ""
    said: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    kernel: flannel_state.Kernel = field(default_factory=flannel_state.Kernel)
    offset_ms: float = 0.0

    @cached_property
    def etcd(self) -> Unit:
        """etcd.service."""
        return self._unit("etcd")

    @cached_property
    def flanneld(self) -> Unit:
        """flanneld.service."""
        return self._unit("flanneld")

    def _unit(self, name: str) -> Unit:
        lines = self.said.get(f"unit_{name}", "").splitlines()
        state = dict(line.split("=", 1) for line in lines if "=" in line)
        command = re.search(r"argv\[\]=(.*?) ; ignore_errors=", state.get("ExecStart", ""))
        flags = dict(re.findall(r"\s--?([a-z][a-z0-9-]*)=(\S*)", command[1])) if command else {}
        starts = 1 if state.get("ActiveState") == "active" else 2
        return Unit(name, state, _since_start(self.said.get(f"journal_{name}", ""), starts), flags)

    @cached_property
    def links(self) -> Mapping[str, Link]:
        """The network devices by name."""
        found = {}
        for line in self.said.get("links", "").splitlines():
            name, mtu = re.match(r"\d+: ([^:@ ]+)", line), re.search(r"\bmtu (\d+)", line)
            if name and mtu:
                vni, port = re.search(r"\bvxlan id (\d+)", line), re.search(r"\bdstport (\d+)", line)
                local = re.search(r"\blocal ([0-9.]+)", line) if vni else None
                found[name[1]] = Link(
                    name[1], int(mtu[1]), int(vni[1]) if vni else None, int(port[1]) if port else None,
                    local[1] if local else "",
                )  # fmt: skip
        return found

    @cached_property
    def losses(self) -> Mapping[str, float]:
        """How many percent of its pings each address did not answer."""
        by_address: dict[str, list[str]] = {}
        for line in self.said.get("pings", "").splitlines():
            address, _, rest = line.partition(" ")
            by_address.setdefault(address, []).append(rest)
        answers = {address: mesh.parse_ping("\n".join(lines)) for address, lines in by_address.items()}
        return {address: float(str(answer["loss_pct"])) for address, answer in answers.items()}

    @cached_property
    def pings(self) -> Mapping[str, bool]:
        """Whether each address that was pinged answered at least once."""
        return {address: loss < 100 for address, loss in self.losses.items()}  # noqa: PLR2004 - percent

    def file(self, key: str) -> bytes | None:
        """A certificate file's bytes; None where it is not there, or the node was not asked."""
        text = self.said.get(f"file_{key}", "")
        return text.encode() if text.strip() else None

    def free_bytes(self, folder: str) -> int | None:
        """What is free for `data`, `wal` or `bin`; None where that is unknown."""
        fields = self.said.get(f"{folder}_free", "").split()
        return int(fields[3]) * 1024 if len(fields) > 3 and fields[3].isdigit() else None  # noqa: PLR2004 - POSIX df -P

    def json(self, key: str) -> Any:  # noqa: ANN401 - JSON
        """The JSON among what a command printed: etcdctl logs to stderr too, which stands beside it.

        Several lists, one of each of several calls, are one.
        """
        lines = self.said.get(key, "").splitlines()
        found = [etcdctl.as_json(line) for line in lines if line.startswith(("[", '{"header', '{"members'))]
        if found and all(isinstance(one, list) for one in found):
            return [row for one in found for row in one]
        return found[0] if found else None


def parse(node: Node, text: str, clock: tuple[float, float]) -> Symptoms:
    """What the script printed, as values.

    Args:
        node: The node.
        text: The script's standard output.
        clock: The times on this side, in seconds since the epoch, when it was begun and when its first line was there:
            somewhere between them the node told its own.
    """
    said = {key: clean(value) for key, value in answers.parse(text).items()}
    facts = preflight.described(node, text, clock)
    return Symptoms(node, "", said, facts, flannel_state.parse_kernel(text), float(facts["clock_offset_ms"]))


def _since_start(journal: str, starts: int) -> tuple[str, ...]:
    """The messages since the last starts of a unit, without time and process."""
    lines = [line.split(" ", 2)[1:] for line in journal.splitlines() if line.count(" ") > 1]
    begun = [n for n, (who, what) in enumerate(lines) if who.startswith("systemd[") and what.startswith("Starting ")]
    first = begun[-starts:][0] if begun else 0
    return tuple(what for _, what in lines[first:])


def message(line: str) -> str:
    """A journal line in words: of zap's JSON what it says and its error, also where the line was cut; else as it is."""
    if not line.startswith("{"):
        return line
    found = [re.search(rf'"{name}":("(?:[^"\\]|\\.)*")', line) for name in ("msg", "error")]
    told = [etcdctl.as_json(one[1]) for one in found if one]
    return ": ".join(filter(None, told)) or line
