"""Open an SSH connection to one node: ~/.ssh/config, jump host, host key, login.

paramiko's errors are mapped to ours here and nowhere else (`translate`).
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko import ssh_exception
from paramiko.hostkeys import InvalidHostKey

from runbook import errors
from runbook.certs import private_files
from runbook.transport import known_hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runbook.params import Node, Ssh

#: OpenSSH drops unauthenticated connections past its MaxStartups (10:30:100 by default): stay below the first figure.
MAX_CONNECTS_AT_ONCE = 8
#: AES-GCM first: with the AES instructions it is twice as fast here as paramiko's own first choice, AES-CTR with HMAC.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
#: A peer that acknowledges nothing for this long is gone (tcp(7), TCP_USER_TIMEOUT).
DEAD_AFTER_S = 9
_ATTEMPTS = 4
_connecting = threading.BoundedSemaphore(MAX_CONNECTS_AT_ONCE)


@dataclass(frozen=True)
class Target:
    """Where and as whom to log in, with ~/.ssh/config taken into account."""

    name: str
    host: str
    port: int
    user: str
    key_files: tuple[Path, ...]
    known_hosts: tuple[Path, ...]
    timeout_s: float
    jump: str | None = None
    proxy_command: str | None = None

    @property
    def host_key_name(self) -> str:
        """The name under which known_hosts lists the machine (sshd(8))."""
        return self.host if self.port == paramiko.config.SSH_PORT else f"[{self.host}]:{self.port}"


def target(node: Node, ssh: Ssh, *, config_file: Path | None = None) -> Target:
    """Say where `node` is reached: what params name wins, then ~/.ssh/config (ssh_config(5)), then our defaults."""
    found = _config(config_file).lookup(node.host)
    named = ssh.model_fields_set

    def choose(field: str, option: str) -> Any:  # noqa: ANN401 - ssh_config values are strings and lists of them
        return getattr(ssh, field) if field in named or option not in found else found[option]

    keys = [ssh.key_file] if ssh.key_file and ("key_file" in named or "identityfile" not in found) else []
    hosts = [ssh.known_hosts]
    if "known_hosts" not in named and "userknownhostsfile" in found:
        hosts = [Path(name).expanduser() for name in found["userknownhostsfile"].split()]
    return Target(
        name=node.name,
        host=str(found.get("hostname", node.host)),
        port=int(choose("port", "port")),
        user=str(choose("user", "user")),
        key_files=tuple(keys or [Path(name).expanduser() for name in found.get("identityfile", [])]),
        known_hosts=tuple(dict.fromkeys([*hosts, Path("/etc/ssh/ssh_known_hosts")])),
        timeout_s=ssh.connect_timeout_s,
        jump=ssh.jump or found.get("proxyjump"),
        proxy_command=None if ssh.jump else found.get("proxycommand"),
    )


def _config(path: Path | None) -> paramiko.SSHConfig:
    path = path or Path.home() / ".ssh" / "config"
    try:
        return paramiko.SSHConfig.from_path(str(path))
    except FileNotFoundError:
        return paramiko.SSHConfig()
    except paramiko.ConfigParseError as error:
        raise errors.RunbookError(f"can't be read: {error}", subject=str(path)) from error


def jump_target(through: Target) -> Target:
    """The last jump host of a target, from `[user@]host[:port][,…]`; reached with the same key and known_hosts."""
    before, _, last = (through.jump or "").rpartition(",")
    user, _, rest = last.rpartition("@")
    host, _, port = rest.partition(":")
    return Target(
        name=f"jump host {host}",
        host=host,
        port=int(port or paramiko.config.SSH_PORT),
        user=user or through.user,
        key_files=through.key_files,
        known_hosts=through.known_hosts,
        timeout_s=through.timeout_s,
        jump=before or None,
    )


def fingerprint(key: paramiko.PKey) -> str:
    """The key's SHA-256 fingerprint as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def password(environ: Mapping[str, str] = os.environ) -> str | None:
    """The SSH password, from the variable RUNBOOK_SSH_PASSWORD or the one that RUNBOOK_SSH_PASSWORD_VARIABLE names."""
    return environ.get(environ.get("RUNBOOK_SSH_PASSWORD_VARIABLE", "RUNBOOK_SSH_PASSWORD"))


class _Unknown(paramiko.MissingHostKeyPolicy):
    def __init__(self, to: Target) -> None:
        self.to = to

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        raise errors.HostKeyUnknown(
            f"the host key {key.get_name()} {fingerprint(key)} of {hostname} is in none of"
            f" {', '.join(map(str, self.to.known_hosts))}",
            node=self.to.name,
            remedy="compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the node's own console,"
            " then accept it with `runbook trust PARAMS`",
        )


def translate(error: BaseException, to: Target) -> errors.RunbookError:
    """Map an error of paramiko or the socket to ours, with what an operator can do about it."""
    where = f"{to.user}@{to.host}:{to.port}"
    if isinstance(error, errors.RunbookError):
        return error
    if isinstance(error, ssh_exception.BadHostKeyException):
        return errors.HostKeyMismatch(
            f"{to.host_key_name} shows the host key {fingerprint(error.key)};"
            f" the known one is {fingerprint(error.expected_key)}",
            node=to.name,
            remedy="if the machine was set up anew, remove the old key: "
            f"ssh-keygen -f {to.known_hosts[0]} -R '{to.host_key_name}'; else someone stands in between: stop here",
        )
    if isinstance(error, InvalidHostKey):
        return errors.HostKeyUnknown(
            f"a line of {', '.join(map(str, to.known_hosts))} is no host key: {error.line[:80]!r}",
            node=to.name,
            remedy="mend or remove that line",
        )
    if isinstance(error, ssh_exception.PasswordRequiredException):
        return errors.LoginRefused(
            f"the key {', '.join(map(str, to.key_files))} is encrypted", node=to.name, remedy="ssh-add it to an agent"
        )
    if isinstance(error, ssh_exception.AuthenticationException):
        keys = ", ".join(map(str, to.key_files)) or "no key file"
        return errors.LoginRefused(
            f"{where} refused the login ({keys}, the agent's keys{', a password' if password() else ''})",
            node=to.name,
            remedy="put the public key into the user's ~/.ssh/authorized_keys there, or set RUNBOOK_SSH_PASSWORD",
        )
    remedy = "is the machine up, its address right, sshd running, and the port open on the way?"
    if isinstance(error, ssh_exception.NoValidConnectionsError):
        reasons = sorted({str(reason) for reason in error.errors.values()})
        return errors.Unreachable(f"{where}: {', '.join(reasons)}", node=to.name, remedy=remedy)
    if isinstance(error, TimeoutError):
        return errors.Unreachable(f"{where}: no answer within {to.timeout_s:g} s", node=to.name, remedy=remedy)
    if isinstance(error, ssh_exception.SSHException | OSError | EOFError):
        return errors.Unreachable(f"{where}: {str(error) or type(error).__name__}", node=to.name, remedy=remedy)
    raise error


def dial(to: Target, *, ask: Callable[[str], str] = getpass.getpass) -> paramiko.SSHClient:
    """Connect and log in, at most 8 at once; a banner that did not come is asked for again.

    Raises:
        Unreachable, HostKeyUnknown, HostKeyMismatch, LoginRefused: each with the node and what to do.
    """
    # The login to a jump host takes a turn of its own: eight that hold one and wait for another would wait for ever.
    turn = contextlib.nullcontext() if to.jump and to.jump != "none" else _connecting
    for attempt in range(_ATTEMPTS):
        with turn:
            try:
                return _login(to, ask)
            except ssh_exception.AuthenticationException as error:
                raise translate(error, to) from error
            except (ssh_exception.SSHException, InvalidHostKey, OSError, EOFError) as error:
                banner = "banner" in str(error).lower() or isinstance(error, ConnectionResetError | EOFError)
                if not banner or attempt == _ATTEMPTS - 1:
                    raise translate(error, to) from error
        time.sleep(0.2 * 2**attempt)
    raise AssertionError  # pragma: no cover - the loop returns or raises


def _login(to: Target, ask: Callable[[str], str]) -> paramiko.SSHClient:
    for path in to.key_files:
        if why := private_files.fault(path):
            raise errors.LoginRefused(f"{path} is {why}", node=to.name, remedy=private_files.remedy(path))
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_Unknown(to))
    known = client.get_host_keys()
    for path in to.known_hosts:
        for key in known_hosts.keys(path, to.host_key_name):
            if key.get_name() not in (known.lookup(to.host_key_name) or ()):
                known.add(to.host_key_name, key.get_name(), key)
    secret = password()
    if secret == "-":  # noqa: S105 - the word for "ask me"
        try:
            secret = ask(f"password of {to.user}@{to.host}: ")
        except EOFError as error:
            raise errors.LoginRefused(
                "there is no terminal to ask for the password", node=to.name, remedy="put it into RUNBOOK_SSH_PASSWORD"
            ) from error
    try:
        client.connect(
            to.host,
            port=to.port,
            username=to.user,
            password=secret,
            key_filename=[str(path) for path in to.key_files if path.is_file()],  # type: ignore[arg-type]  # a list is fine
            look_for_keys=not to.key_files,
            sock=open_socket(to, ask),
            timeout=to.timeout_s,
            banner_timeout=to.timeout_s,
            auth_timeout=to.timeout_s,
            channel_timeout=to.timeout_s,
            transport_factory=_transport,
        )
    except BaseException as error:
        transport = client.get_transport()
        # paramiko raises the plain class where it had nothing to log in with, and where the last way that it tried was
        # reading a refused RSA key as an Ed25519 one.
        asked = transport is not None and transport.is_active() and transport.initial_kex_done
        hang_up(client)
        if asked and type(error) is ssh_exception.SSHException:
            raise ssh_exception.AuthenticationException(str(error)) from error
        raise
    return client


def hang_up(client: paramiko.SSHClient) -> None:
    """Close a connection, and those to the jump hosts that it went through."""
    way = client.get_transport()
    client.close()
    while way and isinstance(way.sock, paramiko.Channel):
        way = way.sock.get_transport()
        way.close()


def _transport(sock: Any, **options: Any) -> paramiko.Transport:  # noqa: ANN401 - paramiko's own loose types
    transport = paramiko.Transport(sock, **options)
    transport.get_security_options().ciphers = CIPHERS
    return transport


def open_socket(to: Target, ask: Callable[[str], str] = getpass.getpass) -> Any:  # noqa: ANN401 - a socket, a channel or a ProxyCommand
    """Open the way to a node: a TCP socket, or a channel through its jump host, or a ProxyCommand."""
    if to.jump and to.jump != "none":
        jump = dial(jump_target(to), ask=ask).get_transport()
        assert jump is not None  # noqa: S101 - connect() has just set it
        try:
            return jump.open_channel("direct-tcpip", (to.host, to.port), ("127.0.0.1", 0), timeout=to.timeout_s)
        except BaseException:
            jump.close()
            raise
    if to.proxy_command and to.proxy_command != "none":
        return paramiko.ProxyCommand(to.proxy_command)
    sock = socket.create_connection((to.host, to.port), timeout=to.timeout_s)
    # Without TCP_NODELAY each round trip waits for a delayed ACK (48 ms instead of 5).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_S * 1000)
    return sock
