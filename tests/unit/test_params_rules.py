"""runbook.settings.params_rules: the shape of values, and what they must be to each other."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.settings import params_rules as rules

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD: list[tuple[Callable[[str], str], list[str]]] = [
    (rules.cluster_name, ["sandbox", "sandbox-v2", "a.b_c", "0", "x" * 63]),
    (rules.node_name, ["node1", "a", "0a", "1", "node-1.example.com", "x" * 63]),
    (rules.node_host, ["198.18.0.11", "10.0.0.1", "192.168.27.135", "203.0.113.9"]),
    (rules.node_user, ["etcd", "_etcd", "e-1", "x" * 31]),
    (rules.login_user, ["root", "ops", "First.Last"]),
    (rules.jump, ["gate", "ops@gate", "ops@gate.example:2022", "10.0.0.1:22"]),
    (rules.iface, ["auto", "eth0", "eth0.100", "br-lan", "192.168.255.255"]),
    (rules.etcd_prefix, ["/kubernetes/network", "/a", "/coreos.com/network"]),
    (rules.token, ["etcd-cluster-0", "a"]),
    (rules.network, ["172.30.0.0/16", "10.0.0.0/8", "192.0.2.0/28"]),
    (rules.mirror, ["http://m", "https://m.example:8080/etcd/v{V}", "file:///srv/m", "/srv/m"]),
    (rules.node_path, ["/opt/k8s/bin", "/a", "/etc/systemd/system", "/a+b/c@1/d=e,f"]),
    (rules.own_path, ["/data", "/data/k8s/etcd/data", "/var/lib/etcd"]),
]
BAD: list[tuple[Callable[[str], str], list[str]]] = [
    (rules.cluster_name, ["", "-a", ".a", "..", "a/b", "a b", "x" * 64, "a\n", "é"]),
    (
        rules.node_name,
        ["", "Node1", "a_b", "-a", "a-", "a..b", "a.", "x" * 64, "10.0.0.1", ".".join(["x" * 63] * 4), "a\n"],
    ),
    (rules.node_host, ["", "198.18.0", "198.18.0.256", "198.018.0.1", "::1", "node1", "198.18.0.1/24", " 10.0.0.1"]),
    (rules.node_host, ["0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255"]),  # noqa: S104 - refused
    (rules.node_user, ["", "Etcd", "1e", "a b", "x" * 32, "a\n", "e$", "-e"]),
    (rules.login_user, ["", "-oProxyCommand=x", "a b", "a@b", "a\n"]),
    (
        rules.jump,
        ["", "@gate", "a@b@c", "gate:", "gate:0", "gate:65536", "gate:x", "-gate", "a b", "u:p@gate", "ga te"],
    ),
    (rules.iface, ["", "a b", "x" * 16, "-a", "a/b", "a%b", ".."]),
    (rules.etcd_prefix, ["", "/", "a/b", "/a/", "//a", "/a/../b", "/.", "/a b", "/a\n"]),
    (rules.token, ["", "a b", "-a", "a\n", "x" * 65]),
    (rules.network, ["", "172.30.0.0", "172.30.0.1/16", "172.30.0.0/33", "172.30.0.0/29", "fd00::/8", "x/16"]),
    (rules.network, ["127.0.0.0/16", "169.254.0.0/16", "224.0.0.0/8", "0.0.0.0/0", "0.0.0.0/8"]),
    (
        rules.mirror,
        ["", "m", "ftp://m", "http://", "http:///x", "file://", "http://u:p@m/x", "http://m/a b", "http://m:0/"],
    ),
    (rules.mirror, ["http://[x/", "http://m:99999/", "/a\n"]),
    (
        rules.node_path,
        ["", "a", "~/a", "/a/../b", "/a b", "/a%b", "/a'b", '/a"b', "/a\nb", "/a$b", "/a\\b", "/a;b", "/é"],
    ),
    (
        rules.node_path,
        ["/", "/home", "/home/x", "/root/bin", "/tmp/x", "/var/tmp/x", "/proc/1", "//tmp//x", "/./tmp/x"],  # noqa: S108 - refused
    ),
    (rules.own_path, ["/etc", "/etc/", "/var/lib", "/usr/local/bin", "/etc/systemd/system", "/opt"]),
]


@pytest.mark.parametrize(("check", "value"), [(check, value) for check, values in GOOD for value in values])
def test_good_values_pass_unchanged(check: Callable[[str], str], value: str) -> None:
    """A value of the right shape is returned as it is."""
    assert check(value) == value


@pytest.mark.parametrize(("check", "value"), [(check, value) for check, values in BAD for value in values])
def test_bad_values_are_refused_with_the_value(check: Callable[[str], str], value: str) -> None:
    """A value of another shape is refused in one line that shows it, a password in it masked."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        check(value)
    assert "\n" not in str(caught.value)
    assert rules.shown(value) in str(caught.value)


@given(
    st.text(max_size=30),
    st.text(st.characters(exclude_characters="@", exclude_categories=["Z", "C"]), min_size=6, max_size=20),
)
def test_a_password_in_an_address_is_masked(user: str, password: str) -> None:
    """Whatever stands between a colon and an at sign is never shown."""
    assert f"{password}@" not in rules.shown(f"http://{user}:{password}@host")


@given(st.text(max_size=300))
def test_a_shown_value_is_one_short_line(value: str) -> None:
    """A value in a message is one line that a terminal prints as it is."""
    assert rules.shown(value).isprintable()
    assert len(rules.shown("x" * 300)) < 130


@given(st.text("/.ab-_ %$'\n~\\", max_size=12))
def test_a_node_path_that_passes_is_safe_and_normal(value: str) -> None:
    """What passes as a path on a node has no dots to climb, nothing for a shell or systemd, and one form only."""
    try:
        path = rules.node_path(value)
    except ValueError:
        return
    assert path.startswith("/")
    assert not set(path) & set(" %$'\n~\\")
    assert not {"..", ".", ""} & set(path[1:].split("/"))
    assert rules.node_path(path) == path


def test_host_bits_in_a_network_are_told_with_the_network() -> None:
    """The commonest slip, an address with a prefix, is answered with the network that was meant."""
    with pytest.raises(ValueError, match=r"its network is 172\.30\.0\.0/16"):
        rules.network("172.30.0.1/16")


def faults(**sections: object) -> list[tuple[str, str]]:
    base: dict[str, Any] = {
        "nodes": [{"name": "a", "host": "10.0.0.1"}],
        "pki": {},
        "etcd": {"version": "3.6.16", "data_dir": "/d/data", "wal_dir": "/d/wal"},
        "flannel": {"version": "0.26.7", "network": "172.30.0.0/16", "subnet_len": 21, "backend": {}},
    }
    for key, value in sections.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) else value
    return [(".".join(str(part) for part in rule.loc), rule.text) for rule in rules.cross_faults(base)]


def test_settings_that_fit_have_no_faults() -> None:
    """What fits has nothing said of it."""
    assert faults() == []


@pytest.mark.parametrize(
    ("wal", "fault"),
    [
        ("/d/data", "is data_dir too"),
        ("/d/data/", "is data_dir too"),
        ("/d", "holds data_dir (/d/data)"),
        ("/var/lib/wal", "lies right in /var/lib, which etcd would have to own"),
        ("/wal", "lies right in /, which etcd would have to own"),
        ("/d/data/wal", ""),
        ("/d/wal", ""),
        ("/other/etcd/wal", ""),
    ],
)
def test_where_the_wal_may_lie(wal: str, fault: str) -> None:
    """The WAL lies beside or inside the data folder, never is it or around it, and its parent can be etcd's."""
    found = faults(etcd={"wal_dir": wal})
    assert [where for where, _ in found] == (["etcd.wal_dir"] if fault else [])
    assert all(fault in text for _, text in found)


@given(st.integers(8, 28), st.integers(1, 30), st.integers(1, 300))
def test_subnets_must_be_four_and_enough(prefix: int, length: int, count: int) -> None:
    """A subnet length is refused exactly when it makes fewer than four subnets, or fewer usable ones than nodes.

    Flannel leases from the second subnet on, so a /16 in /21s is enough for 31 nodes.
    """
    nodes = [{"name": f"n{n}", "host": f"192.168.{n // 250}.{n % 250 + 1}"} for n in range(count)]
    network = f"{ipaddress.ip_network((10 << 24, prefix))}"
    found = faults(nodes=nodes, flannel={"network": network, "subnet_len": length})
    usable = 2 ** (length - prefix) - 1 if length >= prefix + 2 else 0
    assert (found == []) == (usable >= count)
    for where, text in found:
        assert where == "flannel.subnet_len"
        if "or more" in text:
            better = int(text.rpartition("take ")[2].split()[0])
            assert faults(nodes=nodes, flannel={"network": network, "subnet_len": better}) == []


@pytest.mark.parametrize(("count", "good"), [(31, True), (32, False)])
def test_the_default_network_has_room_for_31_nodes(count: int, good: bool) -> None:  # noqa: FBT001 - a test's data
    """The default /16 in /21s serves 31 flannel nodes; etcd-only nodes don't count."""
    nodes: list[dict[str, object]] = [{"name": f"n{n}", "host": f"10.0.0.{n + 1}"} for n in range(count)]
    assert (faults(nodes=nodes) == []) is good
    assert faults(nodes=[*nodes[:31], {"name": "x", "host": "10.0.1.1", "roles": ["etcd"]}]) == []


@given(st.ip_addresses(v=4, network="172.28.0.0/14"))
def test_a_network_never_holds_a_node(address: ipaddress.IPv4Address) -> None:
    """The overlay's network is refused exactly when a node's address lies in it."""
    found = faults(nodes=[{"name": "a", "host": str(address)}])
    assert bool(found) == (address in ipaddress.IPv4Network("172.30.0.0/16"))
    assert all(where == "flannel.network" and str(address) in text for where, text in found)


def test_twins_are_told_with_both_places() -> None:
    """Two nodes with one name or one address are told with the places of both."""
    nodes = [{"name": "a", "host": "10.0.0.1"}, {"name": "b", "host": "10.0.0.2"}, {"name": "a", "host": "10.0.0.2"}]
    assert faults(nodes=nodes) == [
        ("nodes.2.name", "'a' is the name of nodes[0] already"),
        ("nodes.2.host", "'10.0.0.2' is the host of nodes[1] already"),
    ]


def test_versions_that_share_no_api_are_told() -> None:
    """A flannel of the v2 API with an etcd of v3 alone is refused; a faulty version is left to its own fault."""
    assert [where for where, _ in faults(flannel={"version": "0.17.0"})] == ["flannel.version"]
    assert faults(flannel={"version": "0.17.0"}, etcd={"version": "3.5.21"}) == []
    assert faults(flannel={"version": "0.17.0"}, etcd={"version": "3.9.0"}) == []
    assert faults(flannel={"version": "zero"}) == []


def test_parts_of_a_wrong_type_are_left_to_their_own_fault() -> None:
    """Rules between values skip what is no value at all, and still find the rest."""
    nodes = [{"name": "a", "host": 7, "roles": 3}, "x", {"name": "a", "host": "10.0.0.2"}]
    assert faults(nodes=nodes, etcd=None, pki="x", flannel=[]) == [
        ("nodes.2.name", "'a' is the name of nodes[0] already")
    ]
    assert faults(nodes=None, flannel={"subnet_len": "21"}) == []


def test_a_mirrors_token_is_not_shown() -> None:
    """A query may be a signed address: it is refused, and what it says is in no message."""
    with pytest.raises(ValueError, match="a password or a query") as caught:
        rules.mirror("https://m.example/x?X-Amz-Signature=s3cret")
    assert "s3cret" not in str(caught.value)
