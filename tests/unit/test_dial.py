"""transport.dial: where a node is reached, and what is told when it can't be; a stand-in for sshd on the loopback."""

from __future__ import annotations

import base64
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest
from paramiko import ssh_exception
from ssh_server import NODE, StandInSshd

from runbook import errors, params
from runbook.transport import dial
from runbook.transport.dial import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAIN = params.Node(name="node1", host="198.18.0.11")
TO = Target("node1", "198.18.0.11", 22, "root", (Path("/k/id"),), (Path("/k/known_hosts"),), 10.0)
#: Public, and made for this test; the fingerprint is what `ssh-keygen -lf` prints of it.
PUBLIC = "AAAAC3NzaC1lZDI1NTE5AAAAIPxNs14KMhv64rCH1bG7bXU/G3b0MfvUBeL8TaRqIa8/"


@pytest.fixture(autouse=True)
def plain_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No agent, password or ~/.ssh of the person who runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("SSH_AUTH_SOCK", "RUNBOOK_SSH_PASSWORD", "RUNBOOK_SSH_PASSWORD_VARIABLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandInSshd]:
    with StandInSshd(tmp_path, user_password="geheim") as one:  # noqa: S106 - of a stand-in
        yield one


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between attempts, in place of waiting."""
    waited: list[float] = []
    monkeypatch.setattr(dial.time, "sleep", waited.append)
    return waited


def ssh_config(tmp_path: Path, text: str) -> Path:
    (tmp_path / "config").write_text(text)
    return tmp_path / "config"


# ---- where a node is reached

CONFIG = """
Host 198.18.0.*
  User ops
  Port 2222
  IdentityFile /keys/config
  ProxyJump gate.example
Host 198.18.0.11
  HostName 203.0.113.9
"""


def test_without_a_config_the_defaults_hold(tmp_path: Path) -> None:
    """Params alone: root, port 22, no key file, the params' known_hosts and the machine's."""
    to = dial.target(PLAIN, params.Ssh(), config_file=tmp_path / "missing")
    assert (to.host, to.port, to.user, to.key_files, to.jump) == ("198.18.0.11", 22, "root", (), None)
    assert to.known_hosts[-1] == Path("/etc/ssh/ssh_known_hosts")


def test_the_config_fills_what_params_leave_open(tmp_path: Path) -> None:
    """~/.ssh/config wins over our defaults."""
    to = dial.target(PLAIN, params.Ssh(), config_file=ssh_config(tmp_path, CONFIG))
    assert (to.host, to.port, to.user, to.jump) == ("203.0.113.9", 2222, "ops", "gate.example")
    assert to.key_files == (Path("/keys/config"),)


def test_params_win_over_the_config(tmp_path: Path) -> None:
    """What params name is used, even where it is the default's value."""
    ssh = params.Ssh.model_validate(
        {"user": "root", "port": 22, "key_file": "/keys/params", "jump": "me@other.example:23"}
    )
    to = dial.target(PLAIN, ssh, config_file=ssh_config(tmp_path, CONFIG))
    assert (to.port, to.user, to.key_files) == (22, "root", (Path("/keys/params"),))
    assert to.jump == "me@other.example:23"


def test_the_users_own_config_is_read(tmp_path: Path) -> None:
    """Without a file given it is ~/.ssh/config."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n  User fromhome\n")
    assert dial.target(PLAIN, params.Ssh()).user == "fromhome"


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A fault in ~/.ssh/config is an error with its path."""
    with pytest.raises(errors.RunbookError, match="config: can't be read"):
        dial.target(PLAIN, params.Ssh(), config_file=ssh_config(tmp_path, "Match all host x\n"))


def test_a_jump_in_params_beats_a_proxy_command(tmp_path: Path) -> None:
    """One way leads to a node: the params' jump host, not the config's ProxyCommand."""
    config = ssh_config(tmp_path, "Host *\n  ProxyCommand nc %h %p\n")
    assert dial.target(PLAIN, params.Ssh(), config_file=config).proxy_command == "nc 198.18.0.11 22"
    assert dial.target(PLAIN, params.Ssh(jump="gate"), config_file=config).proxy_command is None


@pytest.mark.parametrize(
    ("jump", "user", "host", "port"),
    [
        ("gate.example", "root", "gate.example", 22),
        ("ops@gate.example", "ops", "gate.example", 22),
        ("gate.example:2222", "root", "gate.example", 2222),
        ("a.b@gate:1", "a.b", "gate", 1),
    ],
)
def test_a_jump_host_is_user_host_and_port(jump: str, user: str, host: str, port: int) -> None:
    """`[user@]host[:port]`; what is left out is the node's user and port 22, with the same key and known_hosts."""
    through = dial.jump_target(Target(**{**vars(TO), "jump": jump}))
    assert (through.user, through.host, through.port, through.jump) == (user, host, port, None)
    assert (through.key_files, through.known_hosts) == (TO.key_files, TO.known_hosts)
    assert through.name == f"jump host {host}"


def test_known_hosts_has_the_port_where_it_is_another() -> None:
    """As sshd(8) has it: the name alone on port 22, else in brackets with the port."""
    assert TO.host_key_name == "198.18.0.11"
    assert Target(**{**vars(TO), "port": 2222}).host_key_name == "[198.18.0.11]:2222"


def test_a_fingerprint_is_the_one_of_ssh_keygen() -> None:
    """What is shown can be compared with what `ssh-keygen -l` prints on the node."""
    key = paramiko.PKey.from_type_string("ssh-ed25519", base64.b64decode(PUBLIC))
    assert dial.fingerprint(key) == "SHA256:R9XbvTj+7REQkeCpDCRJS/QftkWtflgKLsVCEe0oJwI"


# ---- passwords


@pytest.mark.parametrize(
    ("environ", "password"),
    [
        ({}, None),
        ({"RUNBOOK_SSH_PASSWORD": "a"}, "a"),
        ({"RUNBOOK_SSH_PASSWORD_VARIABLE": "MINE", "MINE": "b", "RUNBOOK_SSH_PASSWORD": "a"}, "b"),
        ({"RUNBOOK_SSH_PASSWORD_VARIABLE": "MINE"}, None),
    ],
)
def test_a_password_comes_from_the_environment(environ: dict[str, str], password: str | None) -> None:
    """From RUNBOOK_SSH_PASSWORD, or from the variable that RUNBOOK_SSH_PASSWORD_VARIABLE names."""
    assert dial.password(environ) == password


def test_login_by_password(server: StandInSshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password from the environment logs in; `-` asks for it."""
    monkeypatch.setattr(dial.password, "__defaults__", ({"RUNBOOK_SSH_PASSWORD": "geheim"},))
    to = dial.target(NODE, server.settings(key_file=None))
    dial.dial(to).close()
    monkeypatch.setattr(dial.password, "__defaults__", ({"RUNBOOK_SSH_PASSWORD": "-"},))
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "geheim"

    dial.dial(to, ask=ask).close()
    assert asked == ["password of root@127.0.0.1: "]


def test_a_wrong_password_is_not_shown(server: StandInSshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused login says what was tried, never the password."""
    monkeypatch.setattr(dial.password, "__defaults__", ({"RUNBOOK_SSH_PASSWORD": "wrong-horse"},))
    with pytest.raises(errors.LoginRefused, match="a password") as caught:
        dial.dial(dial.target(NODE, server.settings(key_file=None)))
    assert "wrong-horse" not in str(caught.value)
    assert "wrong-horse" not in repr(caught.value.__cause__)


# ---- logging in


def test_login_by_key(server: StandInSshd) -> None:
    """The params' key and known host key are enough."""
    client = dial.dial(dial.target(NODE, server.settings()))
    transport = client.get_transport()
    assert transport is not None
    assert transport.is_authenticated()
    assert transport.get_security_options().ciphers == dial.CIPHERS
    client.close()


@pytest.mark.parametrize("kind", [paramiko.ECDSAKey.generate, lambda: paramiko.RSAKey.generate(2048)])
def test_a_key_that_is_refused(server: StandInSshd, tmp_path: Path, kind: Callable[[], paramiko.PKey]) -> None:
    """The error names user, address, key file and the way out, whatever kind of key it is."""
    kind().write_private_key_file(str(tmp_path / "other"))
    with pytest.raises(errors.LoginRefused) as caught:
        dial.dial(dial.target(NODE, server.settings(key_file=str(tmp_path / "other"))))
    assert f"root@127.0.0.1:{server.port} refused the login ({tmp_path / 'other'}" in caught.value.message
    assert "authorized_keys" in caught.value.remedy


def test_nothing_to_log_in_with(server: StandInSshd) -> None:
    """Without key, agent and password the node is not unreachable: the login is refused."""
    with pytest.raises(errors.LoginRefused, match="no key file"):
        dial.dial(dial.target(NODE, server.settings(key_file=None)))


def test_an_unknown_host_key_is_shown(server: StandInSshd, tmp_path: Path) -> None:
    """An unknown host key stops the login, with its fingerprint and how to accept it; nothing is sent."""
    to = dial.target(NODE, server.settings(known_hosts=str(tmp_path / "empty")))
    with pytest.raises(errors.HostKeyUnknown) as caught:
        dial.dial(to)
    assert dial.fingerprint(server.key) in caught.value.message
    assert "runbook trust" in caught.value.remedy
    assert not (tmp_path / "empty").exists()


def test_another_host_key_stops_the_login(server: StandInSshd) -> None:
    """A changed host key is refused, with both fingerprints and the command that removes the old one."""
    ssh = server.settings()
    old = paramiko.ECDSAKey.generate()
    Path(ssh.known_hosts).write_text(f"[127.0.0.1]:{server.port} {old.get_name()} {old.get_base64()}\n")
    with pytest.raises(errors.HostKeyMismatch) as caught:
        dial.dial(dial.target(NODE, ssh))
    assert dial.fingerprint(server.key) in caught.value.message
    assert dial.fingerprint(old) in caught.value.message
    assert f"ssh-keygen -f {ssh.known_hosts} -R '[127.0.0.1]:{server.port}'" in caught.value.remedy


def test_a_damaged_known_hosts_is_named(server: StandInSshd) -> None:
    """A line of known_hosts about the node that is no key is an error of ours, with the file's path."""
    ssh = server.settings()
    with Path(ssh.known_hosts).open("a") as file:
        file.write(f"[127.0.0.1]:{server.port} ssh-ed25519 A\n")
    with pytest.raises(errors.RunbookError, match="known_hosts"):
        dial.dial(dial.target(NODE, ssh))


def test_a_banner_that_did_not_come_is_asked_for_again(server: StandInSshd, waits: list[float]) -> None:
    """Sshd drops connections when many come at once: a few more attempts, each a little later."""
    server.drop = 2
    dial.dial(dial.target(NODE, server.settings())).close()
    assert server.accepted == 3
    assert waits == [0.2, 0.4]


def test_a_banner_that_never_comes_is_unreachable(server: StandInSshd, waits: list[float]) -> None:
    """After four attempts it is an error."""
    server.drop = 99
    with pytest.raises(errors.Unreachable):
        dial.dial(dial.target(NODE, server.settings()))
    assert (server.accepted, len(waits)) == (4, 3)


def test_a_closed_port_is_unreachable(server: StandInSshd, waits: list[float]) -> None:
    """Where nothing listens the error says so at once, with the address."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(errors.Unreachable, match=f"root@127.0.0.1:{port}: .*refused") as caught:
        dial.dial(dial.target(NODE, server.settings(port=port)))
    assert caught.value.exit_status == 4
    assert waits == []


def test_through_a_jump_host(server: StandInSshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jump host is logged in to first, with its own host key checked, and opens the way."""
    opened: list[tuple[str, int]] = []

    def forward(_self: object, _chanid: int, _origin: object, destination: tuple[str, int]) -> int:
        opened.append(destination)
        return paramiko.OPEN_FAILED_CONNECT_FAILED  # type: ignore[attr-defined,no-any-return]

    monkeypatch.setattr(StandInSshd, "check_channel_direct_tcpip_request", forward, raising=False)
    to = dial.target(NODE, server.settings(jump=f"ops@127.0.0.1:{server.port}"))
    with pytest.raises(errors.Unreachable):
        dial.dial(to)
    assert opened[0] == ("127.0.0.1", server.port)


# ---- errors of others

MAPPED: dict[str, tuple[Exception, type[errors.RunbookError]]] = {
    "SSHException": (ssh_exception.SSHException("x"), errors.Unreachable),
    "AuthenticationException": (ssh_exception.AuthenticationException("x"), errors.LoginRefused),
    "PasswordRequiredException": (ssh_exception.PasswordRequiredException("x"), errors.LoginRefused),
    "BadAuthenticationType": (ssh_exception.BadAuthenticationType("x", ["publickey"]), errors.LoginRefused),
    "PartialAuthentication": (ssh_exception.PartialAuthentication(["x"]), errors.LoginRefused),
    "UnableToAuthenticate": (ssh_exception.UnableToAuthenticate("x"), errors.LoginRefused),
    "ChannelException": (ssh_exception.ChannelException(1, "x"), errors.Unreachable),
    "BadHostKeyException": (
        ssh_exception.BadHostKeyException("h", paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()),
        errors.HostKeyMismatch,
    ),
    "IncompatiblePeer": (ssh_exception.IncompatiblePeer("x"), errors.Unreachable),
    "ProxyCommandFailure": (ssh_exception.ProxyCommandFailure("nc", "x"), errors.Unreachable),
    "NoValidConnectionsError": (
        ssh_exception.NoValidConnectionsError({("198.18.0.11", 22): OSError(111, "refused")}), errors.Unreachable,
    ),
    "CouldNotCanonicalize": (ssh_exception.CouldNotCanonicalize("x"), errors.Unreachable),
    "ConfigParseError": (ssh_exception.ConfigParseError("x"), errors.Unreachable),
    "MessageOrderError": (ssh_exception.MessageOrderError("x"), errors.Unreachable),
}  # fmt: skip


def test_every_exception_of_paramiko_is_mapped() -> None:
    """A release of paramiko with a new exception fails here until somebody has decided what it means."""
    theirs = {
        name for name, kind in vars(ssh_exception).items() if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert theirs == set(MAPPED)


@pytest.mark.parametrize("name", MAPPED)
def test_an_exception_becomes_ours(name: str) -> None:
    """Each has the node, what happened and a remedy."""
    error, kind = MAPPED[name]
    ours = dial.translate(error, TO)
    assert type(ours) is kind
    assert (ours.node, bool(ours.message), bool(ours.remedy)) == ("node1", True, True)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError(), "no answer within 10 s"), (ConnectionResetError(104, "reset by peer"), "reset by peer"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"), (EOFError(), "EOFError"),
    ],
)  # fmt: skip
def test_errors_of_sockets_become_ours(error: Exception, text: str) -> None:
    """Whatever the network says, the node is unreachable, with user, address and reason."""
    ours = dial.translate(error, TO)
    assert type(ours) is errors.Unreachable
    assert "root@198.18.0.11:22" in ours.message
    assert text in ours.message


def test_our_own_errors_stay_and_faults_are_not_hidden() -> None:
    """An error of ours is handed on; a fault in the program is no node's fault."""
    ours = errors.HostKeyUnknown("x")
    assert dial.translate(ours, TO) is ours
    with pytest.raises(ZeroDivisionError):
        dial.translate(ZeroDivisionError(), TO)
