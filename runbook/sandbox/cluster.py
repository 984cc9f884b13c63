"""The practice cluster as a whole: up, down, status, and one node's power switch."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from platformdirs import user_state_path

from runbook.errors import SandboxError
from runbook.sandbox import base_image, cgroups, containers, login, params_file, requirements
from runbook.sandbox.addressing import Block, node_index, node_name
from runbook.sandbox.disk import Disk, ensure_key
from runbook.sandbox.ledger import Ledger
from runbook.sandbox.machine import lock, write_private
from runbook.sandbox.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_LOCK_WAIT_S = 300.0


@dataclass(frozen=True)
class NodeStatus:
    """One node as it is now: `state` is running or stopped; `pid` and `init` are 0 when it is stopped.

    `pid` is systemd-nspawn's, `init` the node's own systemd's as this machine counts (for nsenter).
    """

    node: str
    address: str
    state: str
    pid: int
    init: int
    uptime_s: float
    root: Path


class Sandbox:
    """A practice cluster: nodes with a real systemd, sshd and kernel network on this machine.

    Args:
        name: Names its state folder, namespaces and containers.
        slot: Which of the eight /26 blocks of 198.18.0.0/23 it uses (0 to 7).
        tell: Called with a line for the operator before something that takes long.
    """

    def __init__(self, name: str = "sandbox", slot: int = 0, tell: Callable[[str], None] = lambda _: None) -> None:
        self.block = Block(name, slot)
        self.folder = user_state_path("runbook") / "practice" / name
        self.key_file = self.folder / "id_ed25519"
        self.known_hosts = self.folder / "known_hosts"
        self._tell = tell
        self._ledger = Ledger(self.folder / "made.json")
        self._network = Network(self.block, self._ledger)

    def up(self, nodes: int = 3) -> list[NodeStatus]:
        """Make node1 to node`nodes` and start those that are stopped; what is up is left as it is.

        Returns when each answers by SSH with its own host key and its systemd has started all.

        Raises:
            SandboxError: This machine can't carry it, or a node did not come up.
        """
        self.block.address(nodes)
        requirements.check_tools()
        with self._locked():
            self._check_slot()
            wanted = [node_name(index) for index in range(1, nodes + 1)]
            running = self._running(wanted)
            self._boot([node for node in wanted if node not in running], check=running)
            return self.status()

    def down(self) -> None:
        """Remove all of it: processes, mounts, namespaces, link, route, disks. The SSH key stays for the next time.

        Raises:
            SandboxError: Something of it can't be removed; running it again goes on from there.
        """
        if not self.folder.exists():
            return
        requirements.check_tools()
        with self._locked():
            self._check_slot()
            nodes = self._nodes()
            self._each(nodes, self._stop)
            self._network.remove()
            self._each(nodes, lambda node: self._disk(node).remove())
            self.known_hosts.unlink(missing_ok=True)
            (self.folder / "slot").unlink(missing_ok=True)

    def status(self) -> list[NodeStatus]:
        """Every node that was made, stopped ones too, in order."""
        disks = {node: self._disk(node) for node in self._nodes()}
        found = containers.find([disk.uuid for disk in disks.values()])
        rows = []
        for node, disk in disks.items():
            processes = found[disk.uuid]
            up = processes.running
            rows.append(
                NodeStatus(
                    node=node,
                    address=str(self.block.address(node_index(node))),
                    state="running" if up else "stopped",
                    pid=processes.supervisors[0] if up else 0,
                    init=processes.inits[0] if up else 0,
                    uptime_s=round(containers.uptime_s(processes.inits[0]), 1) if up else 0.0,
                    root=disk.root,
                )
            )
        return rows

    def stop(self, *nodes: str) -> None:
        """Cut the nodes' power: everything on them is killed at once, their disks stay.

        Raises:
            SandboxError: There is no such node.
        """
        self._need(nodes)
        with self._locked():
            self._each(nodes, self._stop)

    def start(self, *nodes: str) -> list[NodeStatus]:
        """Boot nodes that are stopped, with their disks and host keys; nothing happens to one that runs.

        Raises:
            SandboxError: There is no such node, or one did not come up.
        """
        self._need(nodes)
        with self._locked():
            running = self._running(nodes)
            self._boot([node for node in nodes if node not in running], check=running)
            return self.status()

    def reset(self, *nodes: str) -> list[NodeStatus]:
        """Set the nodes' disks back to the base image and boot them; names, addresses and host keys stay.

        Args:
            nodes: Names; all nodes when none is given.

        Raises:
            SandboxError: There is no such node, or one did not come up.
        """
        chosen = nodes or tuple(self._nodes())
        self._need(chosen)

        def wipe(node: str) -> None:
            self._stop(node)
            self._disk(node).wipe()

        with self._locked():
            self._each(chosen, wipe)
            self._boot(list(chosen), check=())
            return self.status()

    def ssh(self, node: str, *command: str) -> NoReturn:
        """Become an ssh to the node: this process is replaced."""
        argv = self.ssh_command(node, *command)
        os.execvp(argv[0], argv)  # noqa: S606 (replacing this process by ssh is what is asked for)

    def ssh_command(self, node: str, *command: str, user: str = "root") -> list[str]:
        """The command line that runs `command` on a node, or a shell; host keys are checked, no config is read.

        Raises:
            SandboxError: There is no such node.
        """
        self._need([node])
        address = str(self.block.address(node_index(node)))
        return login.command_line(address, self.key_file, self.known_hosts, command, user)

    def params(self, nodes: int | None = None, **overrides: Any) -> dict[str, Any]:  # noqa: ANN401 (plain YAML values)
        """The params of the runbook for this cluster, plain values; see `params_file.build`.

        Args:
            nodes: How many; by default those that were made, or 3.
            overrides: Keys of `cluster`; mappings are merged, other values replace.
        """
        count = nodes or len(self._nodes()) or 3
        return params_file.build(self.block, count, self.key_file, self.known_hosts, overrides)

    def _boot(self, nodes: list[str], check: Iterable[str]) -> None:
        """Start `nodes`, wait for them and for those in `check`, which run already."""
        if nodes:
            requirements.check_limits(len(nodes))
            requirements.check_kernel(self.block, self._ledger, self.folder / "probe")
            base = base_image.ensure(self._tell)
            authorized = ensure_key(self.key_file)
            write_private(self.folder / "slot", f"{self.block.slot}\n")
            self._network.ensure()
            for node in nodes:
                self._disk(node).ensure()
            self._write_known_hosts()
            self._each(nodes, lambda node: self._start(node, base, authorized))
        self._each([*nodes, *check], self._wait)

    def _wait(self, node: str) -> None:
        address = str(self.block.address(node_index(node)))
        login.wait_until_up(self._disk(node), address, self.ssh_command(node))

    def _start(self, node: str, base: Path, authorized_key: str) -> None:
        self._stop(node)
        disk, index = self._disk(node), node_index(node)
        machine = self.block.namespace(index)
        disk.mount(base, authorized_key)
        groups = cgroups.folders(machine)
        for group in groups:
            self._ledger.claim("cgroup", str(group), exists=group.exists())
            group.mkdir()
        containers.start(
            disk.root,
            uuid=disk.uuid,
            machine=machine,
            hostname=node,
            namespace=self._network.connect(index),
            groups=groups,
            console=disk.console,
        )

    def _stop(self, node: str) -> None:
        """Leave nothing of a node but its folder; also of one that powered itself off or was killed."""
        disk = self._disk(node)
        containers.power_off(disk.uuid)
        index = node_index(node)
        for group in self._ledger.named("cgroup"):
            if group.endswith(f"/{self.block.namespace(index)}"):
                cgroups.remove(Path(group))
                self._ledger.release("cgroup", group)
        self._network.disconnect(index)
        disk.unmount()

    def _write_known_hosts(self) -> None:
        lines = [f"{self.block.address(node_index(node))} {self._disk(node).host_key}\n" for node in self._nodes()]
        write_private(self.known_hosts, "".join(lines))

    def _nodes(self) -> list[str]:
        folder = self.folder / "nodes"
        names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        return sorted(names, key=node_index)

    def _disk(self, node: str) -> Disk:
        return Disk(self.folder / "nodes" / node, node)

    def _running(self, nodes: Iterable[str]) -> list[str]:
        return [row.node for row in self.status() if row.node in set(nodes) and row.state == "running"]

    def _need(self, nodes: Iterable[str]) -> None:
        made = self._nodes()
        for node in nodes:
            if node not in made:
                raise SandboxError(
                    f"there is no {node!r}; there are: {', '.join(made) or 'none'}", remedy="runbook sandbox up"
                )

    def _check_slot(self) -> None:
        file = self.folder / "slot"
        if file.exists() and (slot := file.read_text(encoding="ascii").strip()) != str(self.block.slot):
            raise SandboxError(
                f"the practice cluster {self.block.name!r} is in slot {slot}, not {self.block.slot}",
                remedy=f"give --slot {slot}, or another --name",
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
            with lock(self.folder / "lock", wait_s=_LOCK_WAIT_S):
                yield
        except OSError as error:
            raise SandboxError(str(error), remedy="mend that, then run it again: it goes on from there") from error

    @staticmethod
    def _each(nodes: Iterable[str], do: Callable[[str], None]) -> None:
        """Do it on all nodes at once; one node's failure doesn't stop the others, all failures are told."""
        chosen = list(nodes)
        if not chosen:
            return
        with ThreadPoolExecutor(max_workers=len(chosen)) as pool:
            futures = [(node, pool.submit(do, node)) for node in chosen]
        failures = {node: error for node, future in futures if (error := future.exception())}
        for error in failures.values():
            if len(failures) == 1 or not isinstance(error, SandboxError | OSError):
                raise error
        if failures:
            raise SandboxError("\n".join(f"{node}: {error}" for node, error in failures.items()))
