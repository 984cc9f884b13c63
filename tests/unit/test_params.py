"""runbook.params: what a params file may say, and how its faults are told."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runbook import params
from runbook.errors import ParamsError

HERE = Path(__file__).parent / "test_params"
SHIPPED = Path(__file__).parents[2] / "params"
NODES = [{"name": f"node{n}", "host": f"198.18.0.1{n}"} for n in (1, 2, 3)]


def settings(**sections: object) -> dict[str, Any]:
    return {"name": "c", "nodes": copy.deepcopy(NODES), **sections}


def faults(source: object) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        params.load(source)  # type: ignore[arg-type]
    return caught.value.faults


def test_only_name_and_nodes_are_needed() -> None:
    """Everything but the name and the nodes has the default that the documentation gives."""
    cluster = params.load(settings())
    assert cluster.model_dump(mode="json") == {
        "name": "c",
        "nodes": [{**node, "roles": ["etcd", "flannel"], "iface": None} for node in NODES],
        "ssh": {
            "user": "root",
            "port": 22,
            "key_file": None,
            "known_hosts": str(Path("~/.ssh/known_hosts").expanduser()),
            "sudo": False,
            "jump": None,
            "connect_timeout_s": 10.0,
        },
        "bin_dir": "/opt/k8s/bin",
        "pki": {
            "dir": None,
            "ca_cert": None,
            "ca_key": None,
            "encrypt_key": False,
            "valid_days": 3650,
            "key_type": "ecdsa",
            "subject": {"O": "k8s"},
        },
        "artifacts": {"cache": None, "mirrors": [], "offline": False},
        "etcd": {
            "version": "3.6.16",
            "user": "etcd",
            "data_dir": "/data/k8s/etcd/data",
            "wal_dir": "/data/k8s/etcd/wal",
            "cert_dir": "/etc/etcd/cert",
            "unit_dir": "/etc/systemd/system",
            "initial_cluster_token": "etcd-cluster-0",
            "reuse_data": None,
        },
        "flannel": {
            "version": "0.26.7",
            "etcd_prefix": "/kubernetes/network",
            "network": "172.30.0.0/16",
            "subnet_len": 21,
            "backend": {"Type": "vxlan"},
            "iface": "auto",
            "rbac": False,
            "cert_dir": "/etc/flanneld/cert",
            "unit_dir": "/etc/systemd/system",
        },
    }
    assert cluster.warnings == ()


def test_every_key_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key takes a value; paths here are resolved against the file's folder, paths there are normalised."""
    monkeypatch.setenv("HOME", "/srv/me")
    file = shutil.copy(HERE / "everything.yaml", tmp_path)
    cluster = params.load(str(file))
    assert cluster.etcd_nodes == cluster.nodes[:1]
    assert cluster.flannel_nodes == cluster.nodes
    assert cluster.nodes[1].iface == "eth1"
    assert cluster.ssh.model_dump() == {
        "user": "ops",
        "port": 2222,
        "key_file": tmp_path / "keys/id",
        "known_hosts": Path("/srv/me/kh"),
        "sudo": True,
        "jump": "me@gate:2022",
        "connect_timeout_s": 5,
    }
    assert (cluster.pki.dir, cluster.pki.ca_cert) == (tmp_path.parent / "pki", tmp_path / "ca.pem")
    assert (cluster.pki.ca_key, cluster.pki.key_type) == (Path("/etc/ca-key.pem"), "rsa")
    assert cluster.artifacts.cache == tmp_path / "cache"
    assert cluster.artifacts.mirrors == ("https://mirror.example/etcd", "file:///srv/m", "/srv/m")
    assert (cluster.etcd.data_dir, cluster.etcd.wal_dir) == ("/data/etcd", "/data/etcd/wal")
    assert cluster.flannel.network_config() == {
        "Network": "10.240.0.0/12",
        "SubnetLen": 24,
        "Backend": {
            "Type": "vxlan",
            "VNI": 7,
            "Port": 4789,
            "MTU": 1400,
            "DirectRouting": True,
            "Learning": True,
            "GBP": False,
        },
    }
    assert params.load_approve(file) == "3f9c0d1e"


@pytest.mark.parametrize("name", ["sandbox", "sandbox-v2", "follow-me"])
def test_the_shipped_params_are_good(name: str) -> None:
    """Each shipped file loads, bears its file's name, has no warning and asks for approval."""
    cluster = params.load(SHIPPED / f"{name}.yaml")
    assert (cluster.name, len(cluster.etcd_nodes), cluster.warnings) == (name, 3, ())
    assert params.load_approve(SHIPPED / f"{name}.yaml") is False


def test_the_shipped_params_say_what_they_promise() -> None:
    """The practice clusters use the documented nodes and versions, and follow-me is the tutorial's own cluster."""
    sandbox, v2, follow = (params.load(SHIPPED / f"{name}.yaml") for name in ("sandbox", "sandbox-v2", "follow-me"))
    assert [(node.name, node.host) for node in sandbox.nodes] == [
        (n["name"], f"198.18.0.1{n['name'][-1]}") for n in NODES
    ]
    assert (sandbox.nodes, sandbox.ssh) == (v2.nodes, v2.ssh)
    assert sandbox.ssh.key_file == Path("~/.local/state/runbook/practice/sandbox/id_ed25519").expanduser()
    assert sandbox.ssh.known_hosts == Path("~/.local/state/runbook/practice/sandbox/known_hosts").expanduser()
    assert (sandbox.etcd.version, sandbox.flannel.version) == ("3.6.16", "0.26.7")
    assert (v2.etcd.version, v2.flannel.version) == ("3.5.21", "0.17.0")
    assert {node.name: node.host[-3:] for node in follow.nodes} == {"master": "135", "node1": "133", "node2": "134"}
    assert (follow.etcd.version, follow.flannel.version) == ("3.3.10", "0.10.0")
    assert list(follow.pki.subject.items()) == [
        *(("C", "CN"), ("ST", "BeiJing"), ("L", "BeiJing"), ("O", "k8s"), ("OU", "4Paradigm"))
    ]


def test_all_faults_of_a_file_are_shown_at_once() -> None:
    """One look tells every fault, in the order of the lines, and no secret among them."""
    told = faults(HERE / "all_wrong.yaml")
    assert told == (HERE / "all_wrong.txt").read_text().splitlines()
    assert "hunter2" not in "\n".join(told)


def test_a_mapping_may_have_the_outer_key() -> None:
    """The whole content of a file, as a mapping, is taken like the value of `cluster`."""
    assert params.load({"cluster": settings(), "approve": True}) == params.load(settings())
    assert params.load_approve({"cluster": settings(), "approve": True}) is True


def test_a_cluster_is_returned_as_it_is() -> None:
    """What was loaded already is taken as it is."""
    cluster = params.load(settings())
    assert params.load(cluster) is cluster
    assert params.load_approve(cluster) is False


@pytest.mark.parametrize(
    ("section", "key"),
    [("ssh", "key_file"), ("ssh", "known_hosts"), ("pki", "dir"), ("pki", "ca_cert"), ("artifacts", "cache")],
)
def test_a_relative_path_among_values_is_refused(section: str, key: str) -> None:
    """Without a params file a relative path would depend on the folder we run in, so it is a fault that says so."""
    told = faults(settings(**{section: {key: "here/x"}}))[0]
    assert told.startswith(
        f"cluster.{section}.{key}: 'here/x' is relative, and settings given as values have no params file"
    )
    assert "write an absolute path" in told


def test_relative_paths_do_not_depend_on_the_name_or_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file means the same paths, from any folder and through a symbolic link."""
    real = Path(shutil.copy(HERE / "everything.yaml", tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/link.yaml").symlink_to(real)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert params.load("../everything.yaml") == params.load("link.yaml") == params.load(real)


def test_tilde_of_nobody_is_refused() -> None:
    """A `~user` that isn't there stays no path."""
    assert "no such user" in faults(settings(ssh={"key_file": "~no-such-user-here/id"}))[0]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"name": "../x"}, "cluster.name: '../x' is not a cluster name"),
        ({"name": None}, "cluster.name: has no value; text is expected"),
        ({"nodes": []}, "cluster.nodes: is empty; at least one is needed"),
        ({"nodes": "node1"}, "cluster.nodes: 'node1' is text; a list, such as [one, two] is expected"),
        ({"ssh": {"port": 0}}, "cluster.ssh.port: 0 is out of range: at least 1 is expected"),
        ({"ssh": {"port": 65536}}, "cluster.ssh.port: 65536 is out of range: at most 65535 is expected"),
        ({"ssh": {"port": "22"}}, "cluster.ssh.port: '22' is text; a whole number is expected (without quotes)"),
        ({"ssh": {"port": True}}, "cluster.ssh.port: is true; a whole number is expected"),
        ({"ssh": {"sudo": 1}}, "cluster.ssh.sudo: is the number 1; true or false is expected"),
        ({"ssh": {"user": "a b"}}, "cluster.ssh.user: 'a b' is not a user name to log in with"),
        ({"ssh": {"user": "-oX"}}, "cluster.ssh.user: '-oX' is not a user name to log in with"),
        (
            {"ssh": {"connect_timeout_s": 0}},
            "cluster.ssh.connect_timeout_s: 0 is out of range: more than 0 is expected",
        ),
        ({"ssh": {"known_hosts": None}}, "cluster.ssh.known_hosts: has no value; a path is expected"),
        ({"ssh": {"key_file": ""}}, "cluster.ssh.key_file: '' is not a path"),
        ({"ssh": ["root"]}, "cluster.ssh: is a list; keys with values is expected"),
        ({"pki": {"ca_cert": "/ca.pem"}}, "cluster.pki.ca_key: is missing, and ca_cert is given"),
        ({"pki": {"ca_key": "/ca.pem"}}, "cluster.pki.ca_cert: is missing, and ca_key is given"),
        ({"pki": {"key_type": "ECDSA"}}, "cluster.pki.key_type: 'ECDSA' is not known"),
        ({"pki": {"valid_days": 0}}, "cluster.pki.valid_days: 0 is out of range"),
        ({"pki": {"subject": {"C": "CHN"}}}, "cluster.pki.subject: C is 'CHN'; a country code of two letters"),
        ({"pki": {"subject": {"CN": "x"}}}, "cluster.pki.subject.CN: unknown key"),
        ({"pki": {"subject": {"O": ""}}}, "cluster.pki.subject.O: '' is not 1 to 64 printable characters"),
        ({"etcd": {"version": "3.6"}}, "cluster.etcd.version: '3.6' is not a released version"),
        ({"etcd": {"version": 3.1}}, "cluster.etcd.version: is the number 3.1, and text is expected"),
        ({"etcd": {"version": "3.8.0"}}, "cluster.etcd.version: etcd 3.8.0 is not known to this runbook"),
        ({"etcd": {"user": "Etcd"}}, "cluster.etcd.user: 'Etcd' is not a user name"),
        ({"etcd": {"initial_cluster_token": "a b"}}, "cluster.etcd.initial_cluster_token: 'a b' is not a token"),
        ({"etcd": {"password": "s3cret"}}, "cluster.etcd.password: unknown key; a secret never belongs in params"),
        (
            {"etcd": {"intial_cluster_token": "t"}},
            "cluster.etcd.intial_cluster_token: unknown key; the nearest known one",
        ),
        ({"data_dir": "/d"}, "cluster.data_dir: unknown key; it belongs under `etcd`"),
        ({"flannel": {"subnet_len": 31}}, "cluster.flannel.subnet_len: 31 is out of range: at most 30"),
        (
            {"flannel": {"subnet_len": 83_691_854_543}},
            "cluster.flannel.subnet_len: 83691854543 is out of range: at most 30",
        ),
        ({"flannel": {"version": "0.30.0"}}, "cluster.flannel.version: flannel 0.30.0 is not known"),
        ({"flannel": {"backend": {"type": "udp"}}}, "cluster.flannel.backend.Type: 'udp' is not supported"),
        ({"flannel": {"backend": "vxlan"}}, "cluster.flannel.backend: 'vxlan' is text; keys with values is expected"),
        ({"flannel": {"backend": {"VNI": 10_000_000}}}, "cluster.flannel.backend.VNI: 10000000 is out of range"),
        (
            {"flannel": {"backend": {"Prot": 1}}},
            "cluster.flannel.backend.Prot: unknown key; the nearest known one is `Port`",
        ),
        ({"flannel": {"backend": {"VNI": 1, "vni": 2}}}, "cluster.flannel.backend: VNI stands twice"),
        (
            {"flannel": {"version": "0.20.0", "backend": {"mtu": 1400}}},
            "cluster.flannel.backend.MTU: flannel 0.20.0 ignores MTU in silence",
        ),
        ({"flannel": {"version": "0.17.0"}}, "cluster.flannel.version: flannel 0.17.0 speaks only etcd's v2 API"),
        ({5: 1}, "cluster.5: a key must be text, and this is the number 5"),
    ],
)
def test_one_fault_is_told_alone_with_key_and_value(given: dict[str, Any], fault: str) -> None:
    """Each fault names the key, what it holds and what is expected, and nothing else is wrong with it."""
    told = faults({**settings(), **given})
    assert len(told) == 1
    assert told[0].startswith(fault)


@pytest.mark.parametrize(
    ("node", "fault"),
    [
        ({"name": "node2"}, "host: is missing"),
        ({"name": "node1", "host": "198.18.0.9"}, "name: 'node1' is the name of nodes[0] already"),
        ({"name": "x", "host": "198.18.0.11"}, "host: '198.18.0.11' is the host of nodes[0] already"),
        ({"name": "x", "host": "198.18.0.9", "roles": []}, "roles: is empty"),
        ({"name": "x", "host": "198.18.0.9", "roles": ["etcd", "etcd"]}, "roles: etcd, etcd: a role stands twice"),
        ({"name": "x", "host": "198.18.0.9", "roles": ["etdc"]}, "roles[0]: 'etdc' is not known"),
        ({"name": "x", "host": "198.18.0.9", "roles": "etcd"}, "roles: 'etcd' is text; a list"),
        ({"name": "x", "host": "198.18.0.9", "hots": 1}, "hots: unknown key; the nearest known one is `host`"),
        ({"name": "x", "host": "198.18.0.9", "iface": "a/b"}, "iface: 'a/b' is not `auto`"),
        ({"name": 1, "host": "198.18.0.9"}, "name: is the number 1, and text is expected"),
    ],
)
def test_a_faulty_node(node: dict[str, Any], fault: str) -> None:
    """A fault of a node is told with its place in the list; no other rule fails because of it."""
    told = faults(settings(nodes=[NODES[0], node]))
    assert told[0].startswith(f"cluster.nodes[1].{fault}")
    assert len(told) == 1


def test_nodes_without_etcd_are_refused() -> None:
    """A cluster without an etcd member is none."""
    told = faults(settings(nodes=[{**node, "roles": ["flannel"]} for node in NODES]))
    assert told == ["cluster.nodes: no node has the role etcd; at least one is needed"]


@pytest.mark.parametrize(("count", "warned"), [(1, False), (2, True), (3, False), (4, True)])
def test_an_even_number_of_members_is_a_warning(count: int, warned: bool) -> None:  # noqa: FBT001 - a test's data
    """Two or four members survive no more than one or three: that is said, and not refused."""
    nodes = [{"name": f"n{n}", "host": f"10.0.0.{n}"} for n in range(1, count + 1)]
    warnings = params.load(settings(nodes=nodes)).warnings
    assert len(warnings) == int(warned)
    assert all("odd number" in text and str(count) in text for text in warnings)


def test_a_bad_approve_is_told() -> None:
    """An id of digits alone is a number to YAML, and the answer is to quote it."""
    assert faults({"cluster": settings(), "approve": 12345678}) == [
        "approve: 12345678 is not false, true or a plan's id; put an id in quotes"
    ]
    with pytest.raises(ParamsError, match="put an id in quotes"):
        params.load_approve({"cluster": settings(), "approve": 12345678})


def test_settings_at_the_top_of_a_file_are_told_where_they_belong(tmp_path: Path) -> None:
    """A file whose `cluster` key was forgotten gets one answer a key."""
    file = tmp_path / "p.yaml"
    file.write_text("nodes: []\nbin_dir: /x\n")
    assert faults(file) == [
        "cluster: is missing: all settings stand under this key",
        "line 1: nodes: unknown key; it belongs under `cluster`",
        "line 2: bin_dir: unknown key; it belongs under `cluster`",
    ]


def test_what_is_no_source_is_refused() -> None:
    """A list, say, is neither a path nor settings."""
    assert faults(["params.yaml"]) == ["is a list; a params file's path or its settings are expected"]


def test_params_are_frozen() -> None:
    """No part of the params changes once they were checked, the groups of free keys included."""
    cluster = params.load(settings())
    with pytest.raises(ValidationError, match="frozen"):
        cluster.name = "other"
    with pytest.raises(TypeError, match="frozen"):
        cluster.pki.subject["O"] = "x"
    with pytest.raises(TypeError, match="frozen"):
        cluster.flannel.backend.update(VNI=2)
    assert cluster == pickle.loads(pickle.dumps(cluster)) == copy.deepcopy(cluster)  # noqa: S301 - our own


def test_written_settings_stay_known_as_written() -> None:
    """What was written can be told from defaults, also after a round trip of the written settings alone."""
    cluster = params.load(settings(ssh={"port": 22}))
    again = params.load(cluster.model_dump(mode="json", exclude_unset=True))
    assert again.ssh.model_fields_set == {"port"}


octet = st.integers(1, 254)
label = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
folder = st.lists(label, min_size=1, max_size=3).map(lambda parts: "/data/" + "/".join(parts))


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(label, min_size=1, max_size=7, unique=True))
    hosts = draw(st.lists(octet, min_size=len(names), max_size=len(names), unique=True))
    roles = st.sampled_from([["etcd"], ["flannel"], ["etcd", "flannel"], ["flannel", "etcd"]])
    nodes = [
        {"name": name, "host": f"10.9.8.{host}", "roles": draw(roles)} for name, host in zip(names, hosts, strict=True)
    ]
    nodes[0]["roles"] = ["etcd", "flannel"]
    etcd = draw(st.sampled_from(["3.5.21", "3.6.16", "3.7.3"]))
    backend = draw(st.fixed_dictionaries({}, optional={"VNI": st.integers(1, 4095), "directrouting": st.booleans()}))
    data = draw(folder)
    return {
        "name": draw(label),
        "nodes": nodes,
        "ssh": draw(st.fixed_dictionaries({}, optional={"port": st.integers(1, 65535), "sudo": st.booleans()})),
        "pki": {"dir": draw(st.one_of(st.none(), folder)), "subject": {"O": draw(label)}},
        "etcd": {"version": etcd, "data_dir": data, "wal_dir": data + "-wal/" + draw(label)},
        "flannel": {"version": draw(st.sampled_from(["0.22.0", "0.26.7"])), "backend": backend},
    }


@given(clusters())
def test_resolved_settings_load_as_the_same_cluster(values: dict[str, Any]) -> None:
    """What a cluster was resolved to, dumped, loads as an equal cluster with an equal hash."""
    cluster = params.load(values)
    again = params.load(cluster.model_dump(mode="json"))
    assert again == cluster
    assert hash(again) == hash(cluster)
    assert again.flannel.network_config() == cluster.flannel.network_config()


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.text(max_size=8), st.integers()), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = ["name", "nodes", "ssh", "bin_dir", "pki", "artifacts", "etcd", "flannel"]
INNER = [
    "version",
    "host",
    "roles",
    "port",
    "network",
    "subnet_len",
    "data_dir",
    "wal_dir",
    "backend",
    "mirrors",
    "jump",
]


@given(
    st.dictionaries(
        st.sampled_from(KEYS), st.one_of(anything, st.dictionaries(st.sampled_from(INNER), anything, max_size=4))
    )
)
def test_nonsense_ends_in_faults_never_in_another_error(values: dict[str, Any]) -> None:
    """Whatever the settings hold, the answer is a ParamsError with at least one line, each of one line only."""
    told = faults({"name": "c", **values, "nodes": values.get("nodes", 0)})
    assert told
    assert all("\n" not in fault and len(fault) < 400 for fault in told)


# ---- records.sign_key


def params_file(folder: Path, records: str) -> Path:
    path = folder / "p.yaml"
    path.write_text(f"cluster: {{name: c, nodes: [{{name: node1, host: 198.18.0.11}}]}}\n{records}")
    return path


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ("", None),
        ("records:\n", None),
        ("records: {}\n", None),
        ("records: {sign_key: null}\n", None),
        ("records: {sign_key: ''}\n", None),
        ("records: {sign_key: keys/id}\n", "{folder}/keys/id"),
        ("records: {sign_key: /abs/id.pub}\n", "/abs/id.pub"),
        ("records: {sign_key: ~/.ssh/id}\n", "{home}/.ssh/id"),
    ],
)
def test_the_sign_key_is_a_path_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: str, expected: str | None
) -> None:
    """`records.sign_key` is relative to the params file, `~` is the operator's home; without it there is none."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = params_file(tmp_path, records)
    wanted = expected and Path(expected.format(folder=tmp_path.resolve(), home=tmp_path / "home"))
    assert params.load_sign_key(path) == (wanted or None)
    monkeypatch.chdir(tmp_path)
    assert params.load_sign_key("p.yaml") == (wanted or None)
    assert params.load(path).name == "c"


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ("records: [a]\n", "sign_key: ~/.ssh/id"),
        ("records: no\n", "sign_key: ~/.ssh/id"),
        ("records: {sign_key: 1}\n", "is not a path"),
        ("records: {sign_key: [a]}\n", "is not a path"),
        ("records: {signkey: a}\n", "sign_key"),
    ],
)
def test_faults_of_records_are_told(tmp_path: Path, records: str, told: str) -> None:
    """What `records` can't be is a fault of the params file, whoever reads it, with the line and what is expected."""
    path = params_file(tmp_path, records)
    with pytest.raises(ParamsError) as caught:
        params.load_sign_key(path)
    assert faults(path) == caught.value.faults
    (fault,) = caught.value.faults
    assert "records" in fault
    assert "line 2" in fault
    assert told in fault


def test_settings_without_a_file_name_a_sign_key_too() -> None:
    """A mapping may have it; a Cluster, which is only the cluster, has none."""
    assert params.load_sign_key({"cluster": settings(), "records": {"sign_key": "/abs/id"}}) == Path("/abs/id")
    assert params.load_sign_key(settings()) is None
    assert params.load_sign_key(params.load(settings())) is None
