from __future__ import annotations

import json
import os
import shutil
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pytest

from runbook.errors import SandboxError
from runbook.sandbox import Sandbox, base_image, network, requirements
from runbook.sandbox.addressing import Block
from runbook.sandbox.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "made.json", "boot-1")


def test_another_user_than_root_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the state folder is made."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match="needs root"):
        Sandbox().up(3)
    assert not (tmp_path / "state").exists()


def test_missing_tools_are_named_with_their_debian_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, each package once."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool, path: None if tool in {"systemd-nspawn", "debootstrap"} else path)
    with pytest.raises(SandboxError, match="systemd-nspawn, debootstrap not found") as caught:
        requirements.check_tools()
    assert caught.value.remedy == "apt-get install debootstrap systemd-container"


def stand_in_proc(folder: Path, limit: int, *uses: int) -> Path:
    """A /proc of processes that have so many inotify instances each, and other files, and of one that ended."""
    (folder / requirements.INSTANCES).parent.mkdir(parents=True)
    (folder / requirements.INSTANCES).write_text(f"{limit}\n")
    for pid, count in enumerate(uses, 1):
        (folder / str(pid) / "fd").mkdir(parents=True)
        for number in range(count):
            (folder / str(pid) / "fd" / str(number)).symlink_to("anon_inode:inotify")
        (folder / str(pid) / "fd" / "99").symlink_to("/dev/null")
    (folder / "98").mkdir()
    return folder


def test_more_nodes_than_the_kernel_has_inotify_instances_for_are_refused(tmp_path: Path) -> None:
    """Before anything is made: what is needed, in use and allowed, and the sysctl that mends it."""
    proc = stand_in_proc(tmp_path, 128, 20, 12)
    requirements.check_limits(16, proc)
    with pytest.raises(SandboxError, match="17 nodes need 102 inotify instances of root's, and 32 of 128") as caught:
        requirements.check_limits(17, proc)
    assert "sysctl -w fs.inotify.max_user_instances=512" in caught.value.remedy


def test_this_machines_limits_can_be_read() -> None:
    """The kernel's own /proc: no node needs none."""
    requirements.check_limits(0)


@pytest.mark.parametrize("kind", ["vxlan", "veth", "bridge"])
def test_a_kernel_without_a_kind_of_link_is_refused(kind: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel said is told, and the throwaway namespace is gone from the ledger."""

    def attempt(*argv: str) -> CompletedProcess[str]:
        failed = argv[-1] != "add" and f"probe-{kind}" in argv
        return CompletedProcess(argv, 2 if failed else 0, "", "Error: Unknown device type." if failed else "")

    monkeypatch.setattr(requirements, "attempt", attempt)
    with pytest.raises(SandboxError, match=f"this kernel makes no {kind} links: Error: Unknown device type"):
        requirements._try_links(Block("sandbox", 0), ledger)
    assert ledger.claims == ()


def addresses(name: str, local: str, prefixlen: int) -> list[dict[str, Any]]:
    return [{"ifname": name, "addr_info": [{"local": local, "prefixlen": prefixlen}]}]


@pytest.mark.parametrize(
    ("links", "routes", "found"),
    [
        (addresses("tun0", "198.18.0.1", 16), [], "tun0 has the address 198.18.0.1/16"),
        (addresses("eth1", "198.18.0.40", 32), [], "eth1 has the address 198.18.0.40/32"),
        (addresses("rbk0", "198.18.0.1", 26), [], "rbk0 has the address 198.18.0.1/26"),
        ([], [{"dst": "198.18.0.0/15", "dev": "wg0"}], "a route to 198.18.0.0/15 (wg0) exists"),
        ([], [{"dst": "198.18.0.0/24", "type": "unreachable"}], "a route to 198.18.0.0/24 (unreachable) exists"),
        (addresses("eth0", "192.0.2.2", 24), [{"dst": "default", "dev": "eth0"}], None),
        (addresses("rbk1", "198.18.0.65", 26), [{"dst": "198.18.0.64/26", "dev": "rbk1"}], None),
        ([], [{"dst": "128.0.0.0/1", "dev": "tun0"}], None),
    ],
)
def test_a_block_that_something_else_uses_is_refused(
    links: list[dict[str, Any]],
    routes: list[dict[str, Any]],
    found: str | None,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An address or route in the block counts, also a wider one; a default route and another slot's don't."""
    monkeypatch.setattr(network, "run", lambda *argv: json.dumps(links if "address" in argv else routes))
    its = network.Network(Block("sandbox", 0), ledger)
    if found is None:
        its._refuse_foreign_use()
        return
    with pytest.raises(SandboxError) as caught:
        its._refuse_foreign_use()
    assert found in str(caught.value)


def test_our_own_link_and_route_are_no_foreign_use(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ledger holds is ours, so a second up is not refused for the first one's sake."""
    ledger.claim("link", "rbk0", exists=False)
    ledger.claim("route", "unreachable 198.18.0.0/26", exists=False)
    links = addresses("rbk0", "198.18.0.1", 26)
    routes = [{"dst": "198.18.0.0/26", "dev": "rbk0"}, {"dst": "198.18.0.0/26", "type": "unreachable"}]
    monkeypatch.setattr(network, "run", lambda *argv: json.dumps(links if "address" in argv else routes))
    network.Network(Block("sandbox", 0), ledger)._refuse_foreign_use()


def test_the_mirror_is_the_one_apt_is_set_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what apt lists, the main archive of the image's suite; security, updates and other sites are left out."""
    listing = (
        "http://mirror.example/debian/ bookworm bookworm main\n"
        "http://mirror.example/debian/ bookworm-updates bookworm-updates main\n"
        "http://mirror.example/security/ bookworm-security bookworm-security main\n"
        "https://other.example/tools/ tools tools main\n"
        "http://flat.example/ ./\n"
    )
    monkeypatch.setattr(base_image, "attempt", lambda *argv: CompletedProcess(argv, 0, listing, ""))
    assert base_image._apt_mirrors() == ("http://mirror.example/debian/",)


def test_every_mirror_that_failed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mirror of apt first, then debootstrap's own; what debootstrap said is in the message; nothing stays."""

    def attempt(*argv: str, **_: object) -> CompletedProcess[str]:
        if argv[0] == "debootstrap":
            (tmp_path / "new").mkdir(exist_ok=True)
            return CompletedProcess(argv, 1, f"E: no answer from {argv[-1]}\n", "")
        return CompletedProcess(argv, 0, "http://mirror.example/debian bookworm bookworm main\n", "")

    monkeypatch.setattr(base_image, "attempt", attempt)
    with pytest.raises(SandboxError) as caught:
        base_image._debootstrap(tmp_path / "new")
    message = str(caught.value)
    assert message.index("E: no answer from http://mirror.example/debian") < message.index("the default mirror")
    assert not (tmp_path / "new").exists()
