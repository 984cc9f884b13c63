"""A practice node's disk and identity: an overlay on the base image, and the keys, name and uuid that are its own."""

from __future__ import annotations

import shutil
import uuid
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runbook.errors import SandboxError
from runbook.sandbox.machine import mounts_below, run, unmount_below, write_private

if TYPE_CHECKING:
    from pathlib import Path

_HOST_KEY = "ssh_host_ed25519_key"
_OPS_IDS = (1000, 1000)


class Disk:
    """One node's folder: upper, work and root of the overlay, the host key, the uuid and the console's log.

    Args:
        folder: The node's own folder; need not exist.
        hostname: The node's name.
    """

    def __init__(self, folder: Path, hostname: str) -> None:
        self.folder = folder
        self.hostname = hostname
        self.root = folder / "root"
        self.console = folder / "console.log"

    @property
    def exists(self) -> bool:
        """Whether the node was ever begun."""
        return self.folder.is_dir()

    @property
    def uuid(self) -> str:
        """The mark of the node's processes; "" for a node that was never begun."""
        file = self.folder / "uuid"
        return file.read_text(encoding="ascii").strip() if file.exists() else ""

    @property
    def host_key(self) -> str:
        """The public host key, "ssh-ed25519 AAAA…"; kept for as long as the node is."""
        return (self.folder / f"{_HOST_KEY}.pub").read_text(encoding="ascii").strip()

    def ensure(self) -> None:
        """Give the node its folder, uuid and host key, where it has none."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.uuid:
            write_private(self.folder / "uuid", f"{uuid.uuid4()}\n")
        ensure_key(self.folder / _HOST_KEY)

    def mount(self, base: Path, authorized_key: str) -> None:
        """Mount the overlay, filled with what is the node's own the first time.

        Raises:
            SandboxError: This file system can't carry an overlay.
        """
        unmount_below(self.root)
        filled = self.folder / "filled"
        if not filled.exists():
            self.wipe()
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(exist_ok=True)
        mount_overlay(base, self.folder)
        if not filled.exists():
            self._fill(authorized_key)
            filled.touch()

    def wipe(self) -> None:
        """Set the disk back to the base image; the uuid and the host key stay. The node must be off."""
        (self.folder / "filled").unlink(missing_ok=True)
        self.unmount()
        for part in ("upper", "work"):
            if (self.folder / part).exists():
                shutil.rmtree(self.folder / part)

    def remove(self) -> None:
        """Remove the disk and the node's identity. The node must be off."""
        self.unmount()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def unmount(self) -> None:
        """Unmount the disk, if it is mounted; what is on it stays."""
        unmount_below(self.folder)
        if still := mounts_below(self.folder):
            raise SandboxError("still mounted, so nothing below it is removed", subject=str(still[0]))

    def _fill(self, authorized_key: str) -> None:
        etc = self.root / "etc"
        (etc / "hostname").write_text(f"{self.hostname}\n", encoding="ascii")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.hostname}\n::1 localhost\n", encoding="ascii")
        (etc / "machine-id").write_text(self.uuid.replace("-", "") + "\n", encoding="ascii")
        for name, mode in ((_HOST_KEY, 0o600), (f"{_HOST_KEY}.pub", 0o644)):
            write_private(etc / "ssh" / name, (self.folder / name).read_text(encoding="ascii"), mode)
        for home, (user, group) in ((self.root / "root", (0, 0)), (self.root / "home/ops", _OPS_IDS)):
            ssh = home / ".ssh"
            ssh.mkdir(mode=0o700, exist_ok=True)
            ssh.chmod(0o700)
            write_private(ssh / "authorized_keys", f"{authorized_key}\n")
            for path in (ssh, ssh / "authorized_keys"):
                shutil.chown(path, user, group)


def mount_overlay(lower: Path, folder: Path) -> None:
    """Mount an overlay of `lower` and folder/upper on folder/root.

    Raises:
        SandboxError: The kernel has no overlayfs, or the folder lies on a file system that can't carry one.
    """
    options = f"lowerdir={lower},upperdir={folder / 'upper'},workdir={folder / 'work'}"
    if any(sign in f"{lower}{folder}" for sign in ',:\\"'):
        raise SandboxError(
            "overlayfs can't take a path with a comma, colon, backslash or quote",
            subject=str(folder),
            remedy="set XDG_STATE_HOME and XDG_CACHE_HOME to plainer folders",
        )
    run("mount", "-t", "overlay", "overlay", "-o", options, str(folder / "root"))


def ensure_key(path: Path) -> str:
    """Make an ed25519 key in OpenSSH's form, and `path`.pub, unless they are there; give the public line."""
    public = path.with_name(f"{path.name}.pub")
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        openssh = serialization.PrivateFormat.OpenSSH
        text = key.private_bytes(serialization.Encoding.PEM, openssh, serialization.NoEncryption()).decode()
        write_private(path, text)
        public.unlink(missing_ok=True)
    if not public.exists():
        loaded = serialization.load_ssh_private_key(path.read_bytes(), None)
        form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        write_private(public, f"{loaded.public_key().public_bytes(*form).decode()} practice\n", 0o644)
    return public.read_text(encoding="ascii").strip()
