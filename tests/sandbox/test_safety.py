"""What is refused on real members: connections, plans that would lose data or the quorum, and strings as commands."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import subprocess
import sys
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import DATA, UNITS, WAL, certificate, pki_folder, stop
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from practice import NODES, Practice, apply, until

from runbook import errors, etcd, etcd_quorum, etcdctl, phases, pki, plan, services, show, units
from runbook.etcd_data import MemberData
from runbook.flannel_config import EtcdKey
from runbook.fleet import values
from runbook.node_certs import _Files
from runbook.plans import reading, starting
from runbook.resources import Directory, File, User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.fleet import Fleet
    from runbook.params import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-5")]

CLIENT, PEER = 2379, 2380
CANARY = "srv/canary"
"""What no string may bring into being on a node."""


@pytest.fixture(scope="module")
def built(practice: Practice) -> Path:
    """The params of three members that run, with flannel's certificates beside them."""
    practice.make_virgin()
    path = practice.params()
    with practice.fleet(path) as fleet:
        apply(fleet, "01-04,06")
    return path


@pytest.fixture(scope="module")
def fleet(practice: Practice, built: Path) -> Iterator[Fleet]:
    """The connections to them, for all tests of this module."""
    with practice.fleet(built) as made:
        yield made


# ---- etcd's ports


def pairs(practice: Practice, built: Path, fleet: Fleet, node: str, folder: Path) -> dict[str, tuple[str, str]]:
    """Files of certificates and keys that somebody may come with to a node, by what they are."""
    sans = (practice.address(node), "127.0.0.1", "localhost")
    other = pki.create_authority(fleet.cluster.pki, folder / "other", name="other")
    assert other.pem != (pki_folder(built) / "ca.pem").read_bytes()
    made = {
        "another CA's": certificate(folder / "other", node, sans),
        "expired": certificate(pki_folder(built), node, sans, days=(-9, -2)),
        "not yet valid": certificate(pki_folder(built), node, sans, days=(2, 9)),
    }
    for name, at in (("member's own", "/etc/etcd/cert/etcd"), ("flannel's", "/etc/flanneld/cert/flanneld")):
        disk = practice.root(node) / at.lstrip("/")
        made[name] = (Path(f"{disk}.pem").read_bytes(), Path(f"{disk}-key.pem").read_bytes())
    files = {}
    for number, (name, (pem, key)) in enumerate(made.items()):
        files[name] = (str(folder / f"{node}-{number}.pem"), str(folder / f"{node}-{number}-key.pem"))
        for path, content in zip(files[name], (pem, key), strict=True):
            Path(path).write_bytes(content)
            Path(path).chmod(0o600)
    return {**files, "none": ("", "")}


def answers(practice: Practice, node: str, attempts: list[list[object]]) -> list[str]:
    """What came back of attempts that were made in a node's network, as if by a program on it."""
    (init,) = [row.init for row in practice.sandbox.status() if row.node == node]
    script = Path(__file__).with_name("tls_attempts.py")
    command = ["nsenter", "-t", str(init), "-n", sys.executable, str(script)]
    done = subprocess.run(command, input=json.dumps(attempts), capture_output=True, text=True, timeout=120, check=True)
    said: list[str] = json.loads(done.stdout)
    return said


def test_connections_that_are_refused(practice: Practice, built: Path, fleet: Fleet, tmp_path: Path) -> None:
    """Each member's two ports: no certificate, a wrong one, an old TLS and plain HTTP get no answer; the right ones do.

    Of 16 attempts a member that are to be refused all 48 are; 6 a member with a right certificate are answered.
    """
    counts = {"refused": 0, "answered": 0}
    for node in NODES:
        files = pairs(practice, built, fleet, node, tmp_path)
        cases = [
            *(
                (port, "TLSv1_3", name, False)
                for port in (CLIENT, PEER)
                for name in ("none", "another CA's", "expired")
            ),
            *((port, "TLSv1_3", "not yet valid", False) for port in (CLIENT, PEER)),
            *((port, old, "member's own", False) for port in (CLIENT, PEER) for old in ("TLSv1", "TLSv1_1")),
            *((port, "", "none", False) for port in (CLIENT, PEER)),
            *((PEER, new, "flannel's", False) for new in ("TLSv1_2", "TLSv1_3")),
            *((port, new, "member's own", True) for port in (CLIENT, PEER) for new in ("TLSv1_2", "TLSv1_3")),
            *((CLIENT, new, "flannel's", True) for new in ("TLSv1_2", "TLSv1_3")),
        ]
        attempts = [[practice.address(node), port, version, *files[name]] for port, version, name, _ in cases]
        for case, said in zip(cases, answers(practice, node, attempts), strict=True):
            answered = said == "HTTP/1.1 200 OK"
            assert answered == case[-1], (node, case, said)
            counts["answered" if answered else "refused"] += 1
    assert counts == {"refused": 48, "answered": 18}


# ---- what the services may do

SAMPLES = {
    "etcd": """[Unit]
Description=etcd key-value store
After=network-online.target local-fs.target remote-fs.target time-sync.target
[Service]
User=etcd
Type=notify
ExecStart=/opt/k8s/bin/etcd
Restart=always
RestartSec=10s
LimitNOFILE=40000
""",
    "flanneld": """[Unit]
Description=flanneld as guides write it
[Service]
Type=notify
ExecStart=/opt/k8s/bin/flanneld -ip-masq
Restart=always
""",
}
"""etcd's own unit (contrib/systemd/etcd.service), and a plain one for flanneld."""


def test_the_units_may_do_little(practice: Practice, fleet: Fleet) -> None:
    """The exposure that systemd-analyze gives them is a third of that of the usual units, or less."""
    apply(fleet, "08")
    for name, text in SAMPLES.items():
        (practice.root("node1") / f"etc/systemd/system/{name}-sample.service").write_text(text, encoding="ascii")
    practice.on("node1", "systemctl daemon-reload")
    node = fleet.cluster.nodes[0]
    found = {}
    for name in SAMPLES:
        for unit in (f"{name}-sample", name):
            (row,) = show.rows(units.files(fleet, [node], f"{UNITS}/{unit}.service"))
            found[unit] = row["exposure"]
    practice.on("node1", f"rm {UNITS}/*-sample.service; systemctl daemon-reload")
    assert found["etcd-sample"] >= 9
    assert found["flanneld-sample"] >= 9
    assert found["etcd"] <= 1.6, found
    assert found["flanneld"] <= 2.9, found


def test_an_encrypted_ca_issues_and_its_passphrase_is_nowhere(
    practice: Practice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run makes the CA's key encrypted; its passphrase and the open key are in no file here or on a node."""
    word = "a passphrase of the test"
    path = practice.params(pki={"dir": str(tmp_path), "encrypt_key": True}, etcd={"cert_dir": "/srv/sealed"})
    records = practice.folder / "sealed"
    command = ("run", path, "--approve", "--phases", "02", "--records", records)
    monkeypatch.delenv("RUNBOOK_CA_PASSPHRASE", raising=False)
    done = practice.cli(*command)
    assert done.returncode == 1, done.stdout
    assert "nobody to ask for its passphrase" in done.stdout
    monkeypatch.setenv("RUNBOOK_CA_PASSPHRASE", word)
    done = practice.cli(*command)
    assert done.returncode == 0, done.stdout
    monkeypatch.setenv("RUNBOOK_CA_PASSPHRASE", "another passphrase")
    done = practice.cli(*command)
    assert done.returncode == 1, done.stdout
    assert "the passphrase does not open the key" in done.stdout
    kept = [one for folder in (records, tmp_path) for one in folder.rglob("*") if one.is_file()]
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (tmp_path / "ca-key.pem").read_bytes()
    assert [one for one in kept if word.encode() in one.read_bytes() or b"another passphrase" in one.read_bytes()] == []
    assert [one for one in kept if b"BEGIN PRIVATE KEY" in one.read_bytes()] == []
    for node in NODES:
        names = [one.name for one in (practice.root(node) / "srv/sealed").iterdir()]
        assert sorted(names) == ["ca.pem", "etcd-key.pem", "etcd.pem"]
    practice.on("node1", "rm -r /srv/sealed")


# ---- data


def refusals(fleet: Fleet, only: str = "03-04") -> list[str]:
    """Why the plans of these phases may not be applied; each of them raises when it is applied all the same."""
    found = []
    for phase in phases.select(only):
        assert phase.plan
        made = phase.plan(fleet)
        found += made.refusals
        if made.refusals:
            with pytest.raises(errors.PlanRefused):
                asyncio.run(made.apply(approve=True))
    return found


@pytest.mark.parametrize(
    ("changed", "only", "expected"),
    [
        ({"etcd": {"version": "3.5.21"}}, "01,03-04", "written by etcd 3.6, and etcd 3.5.21 can't read them"),
        ({"etcd": {"initial_cluster_token": "another"}}, "03-04", "a cluster with the token etcd-cluster-0"),
        ({"name": "another"}, "03-04", "and the params are of another"),
        ({"etcd": {"data_dir": "/data/k8s/etcd/new"}}, "03-04", f"data are in {DATA} and {WAL}"),
    ],
    ids=["downgrade", "token", "name", "folder"],
)
def test_a_change_that_the_data_do_not_take(
    practice: Practice, fleet: Fleet, changed: dict[str, object], only: str, expected: str
) -> None:
    """Refused in every phase that would make it, on every member, with nothing changed on any node."""
    before = practice.traces()
    with practice.fleet(practice.params(**changed)) as other:
        told = refusals(other, only)
    assert len(told) == len(NODES) * len(phases.select(only))
    assert all(expected in text for text in told), told
    assert practice.traces() == before
    assert all(row["ok"] for row in show.rows(etcd.endpoints(fleet)))


@contextmanager
def stopped(practice: Practice, node: str) -> Iterator[None]:
    """A member that is stopped, with its unit kept aside; it runs again at the end."""
    stop(practice, node)
    practice.on(node, f"cp {UNITS}/etcd.service /root/kept.service")
    try:
        yield
    finally:
        practice.on(node, f"mv /root/kept.service {UNITS}/etcd.service; systemctl daemon-reload; systemctl start etcd")


def test_data_of_an_older_life_are_taken_only_where_their_folder_is_approved(
    practice: Practice, built: Path, fleet: Fleet
) -> None:
    """A member's data without its unit: refused; the params that name the folder start it, with its data in it."""
    practice.on("node1", etcdctl.command(fleet.cluster, "put", "/old", "life"))
    with stopped(practice, "node2"):
        practice.on("node2", f"rm {UNITS}/etcd.service; systemctl daemon-reload")
        (told, *_) = refusals(fleet, "03")
        assert told.startswith(f"node2 data in {DATA}: {DATA} holds the data of a member: no etcd.service here")
        approved = practice.params(etcd={"reuse_data": DATA})
        with practice.fleet(approved) as again:
            assert [row["result"] for row in show.rows(apply(again, "03-04")["etcd_start"])] == ["done"]
    get = etcdctl.command(
        fleet.cluster, "get", "/old", "--print-value-only", "--consistency=s", to=["https://127.0.0.1:2379"]
    )
    until(lambda: practice.on("node2", f"{get} || true") == "life")
    with practice.fleet(built) as plain:
        assert refusals(plain) == []


def test_data_of_another_cluster_are_never_taken_over(practice: Practice, fleet: Fleet) -> None:
    """Another cluster's data where the member's own should be: refused by whose members they name, and left alone."""
    flags = (
        f"--name=old --data-dir={DATA} --wal-dir={WAL} --initial-cluster=old=http://127.0.0.1:12380"
        " --listen-client-urls=http://127.0.0.1:12379 --advertise-client-urls=http://127.0.0.1:12379"
        " --listen-peer-urls=http://127.0.0.1:12380 --initial-advertise-peer-urls=http://127.0.0.1:12380"
    )
    look = f"cd {DATA}/.. && find data wal -type f | sort | xargs sha256sum"
    with stopped(practice, "node3"):
        practice.on("node3", f"mv {DATA} {DATA}.kept; mv {WAL} {WAL}.kept")
        try:
            practice.on("node3", f"systemd-run -q --uid=etcd --unit=old -p Type=notify /opt/k8s/bin/etcd {flags}")
            practice.on("node3", "systemctl stop old")
            before = practice.on("node3", look)
            told = refusals(fleet, "04")
            assert [text.split(":")[0] for text in told] == [f"node3 data in {DATA}"]
            assert "members are http://127.0.0.1:12380" in told[0]
            assert f"`mv {DATA} {DATA}.old`" in told[0]
            with practice.fleet(practice.params(etcd={"version": "3.5.21"})) as older:
                assert any("node3" in text and "written by etcd 3.6" in text for text in refusals(older, "04"))
            assert practice.on("node3", look) == before
        finally:
            practice.on("node3", f"rm -rf {DATA} {WAL}; mv {DATA}.kept {DATA}; mv {WAL}.kept {WAL}")


# ---- quorum


def test_restarts_are_refused_while_another_member_does_not_answer(practice: Practice, fleet: Fleet) -> None:
    """One member hangs, two would restart: the plan itself is refused, nothing restarts; once it answers, it is not."""
    for node in ("node1", "node2"):
        practice.on(node, f"echo '# by hand' >>{UNITS}/etcd.service")
    before = practice.starts()
    practice.on("node3", "systemctl kill -s STOP etcd")
    try:
        told = refusals(fleet, "04")
        assert [text.split(" ")[0] for text in told] == ["node1", "node2"]
        assert all("while it restarts, 1 of 3 members would be up, and a quorum needs 2" in text for text in told)
    finally:
        practice.on("node3", "systemctl kill -s CONT etcd")
    assert practice.starts() == before
    until(lambda: all(row["ok"] for row in show.rows(etcd.endpoints(fleet))))
    assert [(one.node, one.action, one.refusal) for one in etcd.start(fleet).changes] == [
        ("node1", "restart", ""),
        ("node2", "restart", ""),
    ]
    apply(fleet, "03-04")


# ---- strings that look like commands

PIECES = st.sampled_from(
    [
        *(
            f"$(touch /{CANARY})",
            f"`touch /{CANARY}`",
            f";touch /{CANARY};",
            f"' ;touch /{CANARY}; '",
            f'"|touch /{CANARY}#',
        ),
        *(
            f"\ntouch /{CANARY}\n",
            f"&&touch /{CANARY}",
            f">/{CANARY}",
            "${IFS}",
            "$HOME",
            "\\",
            "'",
            '"',
            "*",
            "~",
            "-rf",
        ),
        *("--help", " ", "%n", "%s", "{{ 1 }}", "\x1b[31m", "\u202e", "é", "!", "#", "=", "\t", "\r", "<b>", "'\\''"),
    ]
)
HOSTILE = st.lists(PIECES, min_size=3, max_size=6).map("".join).map(lambda text: text.replace("/", "\u2215"))


def hostile(text: str) -> str:
    """The text with its slashes again."""
    return text.replace("\u2215", "/")


def with_paths(cluster: Cluster, text: str) -> Cluster:
    """The cluster with strings that its params would refuse."""
    changed = {
        "etcd": cluster.etcd.model_copy(
            update={"data_dir": f"/srv/h/{text}", "wal_dir": f"/srv/h/{text}/wal", "unit_dir": f"/srv/{text}"}
        ),
        "flannel": cluster.flannel.model_copy(update={"etcd_prefix": f"/h/{text}"}),
    }
    return cluster.model_copy(update=changed)


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@example(text=f"' ;touch /{CANARY}; '$(touch /{CANARY})\n;touch /{CANARY}".replace("/", "\u2215"))
@example(text=f'"`touch /{CANARY}`--help*\\\x1b[31m\u202e'.replace("/", "\u2215"))
@given(text=HOSTILE)
def test_no_string_reaches_a_shell(practice: Practice, fleet: Fleet, text: str) -> None:
    """Paths, users, units, keys and values of every kind are read and made as they are, and run nothing on the node."""
    root, whole = practice.root("node1"), hostile(text)
    node, cluster = fleet.cluster.nodes[0], with_paths(fleet.cluster, whole)
    folder = f"/srv/h/{text}"
    file = File(f"{folder}/{text}", whole.encode())
    made = plan.of_resources("hostile", fleet, {"node1": [Directory("/srv/h"), Directory(folder), file]})
    asyncio.run(made.apply(approve=True))
    assert (root / file.path.lstrip("/")).read_bytes() == whole.encode()
    assert plan.of_resources("hostile", fleet, {"node1": [Directory(folder), file]}).empty
    member, key = MemberData(cluster, node), EtcdKey(cluster)
    probes = [member, key, User(whole), services.Service(f"{whole}.service", (whole,)), _Files((whole, whole))]
    found = reading.read(fleet, {"node1": probes}, what="hostile strings")["node1"]
    assert member.compare(found[0]) is None
    changes = [key.compare(found[1]), User(whole).compare(found[2])]
    scripts = [change.after or change.before for change in changes if change]
    scripts += [
        starting.script(f"{whole}.service", "enable", 1),
        etcd_quorum.first_member(cluster).begun,
        etcdctl.command(cluster, "put", f"/h{whole}", f"v{whole}"),
    ]
    for script in scripts:
        values(fleet.each(lambda one, script=script: one.run(script, what="hostile", timeout_s=20), [node]))
    get = etcdctl.command(cluster, "get", f"/h{whole}", "--print-value-only")
    done = fleet.run(get, what="hostile", nodes=[node])["node1"].value
    assert done is not None
    assert done.stdout == f"v{whole}\n".encode()
    services.states(fleet, [node], f"{whole}.service")
    assert not any(row["ok"] for row in show.rows(units.files(fleet, [node], f"/h{whole}")))
    assert not (root / CANARY).exists()
    practice.on("node1", "rm -rf /srv/h")


def test_settings_as_hostile_as_the_rules_allow(practice: Practice, built: Path) -> None:
    """A subject with quotes and commands, and paths of all characters that are allowed: certificates and units hold."""
    subject = {
        "O": f'\'; touch /{CANARY}; $(touch /{CANARY}) "`id`"',
        "OU": "<script>alert(1)</script> %n ${x} \\",
        "L": "*",
    }
    odd = "/srv/-a+b=c,d@e.f_g--/--help"
    path = practice.params(
        pki={"subject": subject},
        etcd={"cert_dir": f"{odd}/cert", "unit_dir": f"{odd}/unit", "reuse_data": DATA},
        flannel={"etcd_prefix": "/-a/--b._c"},
    )
    with practice.fleet(path) as odd_one:
        apply(odd_one, "02")
        rows = show.rows(etcd.cert_files(odd_one))
        assert all(row["ok"] for row in rows), rows
        assert f"touch /{CANARY}" in rows[0]["subject"]
        results = apply(odd_one, "03")
        assert {row["result"] for row in show.rows(results["etcd_units"])} == {"done"}
        assert [row["why"] for row in show.rows(etcd.unit_files(odd_one))] == [""] * len(NODES)
    for node, at in itertools.product(NODES, (CANARY, "canary", "root/canary")):
        assert not (practice.root(node) / at).exists()
    with practice.fleet(built) as fleet:
        apply(fleet, "02-03")
        assert etcd.units(fleet).empty


# ---- what nodes say

EVIL = "\x1b[2J\x1b[31mall done\x1b[0m\x07\r<script>alert(1)</script><img src=x onerror=alert(1)>"
EVIL += "\u202eok\u2066\u200b[red]x[/red] ![a](b)"
_TAGS = {
    *("b", "br", "caption", "code", "details", "p", "pre", "small", "span", "summary"),
    *("table", "tbody", "td", "th", "thead", "tr"),
}
_ATTRIBUTES = frozenset({"style", "scope", "colspan", "title"})


class _Seen(HTMLParser):
    """Fails at each tag and attribute that is not one of ours."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS, tag
        assert {name for name, _ in attrs} <= _ATTRIBUTES, (tag, attrs)


def harmless(shown: str) -> None:
    """Nothing in a text moves, colours, hides or turns another."""
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b-\u200f]", shown), ascii(shown)


def test_what_a_node_says_is_shown_and_forges_nothing(practice: Practice, fleet: Fleet) -> None:
    """Journal lines, a file and a key of etcd with codes, tags and marks: text in tables, plans, errors, a terminal."""
    coded = base64.b64encode(f"{EVIL}\n{EVIL}\n".encode()).decode()
    practice.on(
        "node2",
        f"systemd-run -q --unit=evil sh -c 'echo {coded} | base64 -d; exit 1'; echo {coded} | base64 -d >/srv/evil",
    )
    config = File("/kubernetes/network/config", b"wanted")
    practice.on(
        "node1", f"{etcdctl.command(fleet.cluster, 'put', config.path)} < /dev/stdin <<END\n{json.dumps(EVIL)}\nEND"
    )
    node = fleet.cluster.nodes[1]
    until(lambda: "failed" in practice.on("node2", "systemctl is-active evil || true"))
    states = services.states(fleet, [node], "evil.service")
    made = plan.of_resources(
        "files", fleet, {"node2": [File("/srv/evil", b"good\n")], "node1": [EtcdKey(fleet.cluster)]}
    )
    assert "all done" in str(show.rows(states)[0]["why"])
    assert len(made.changes) == 2
    for shown in (states, made):
        bundle = shown._repr_mimebundle_()
        _Seen().feed(str(bundle["text/html"]))
        for mime in ("text/html", "text/plain"):
            harmless(str(bundle[mime]))
            assert "all done" in str(bundle[mime])
    failed = fleet.run("cat /srv/evil >&2; exit 1", what="cat", nodes=[node])["node2"].value
    assert failed is not None
    with pytest.raises(errors.CommandFailed) as caught:
        failed.check()
    harmless(str(caught.value))
    done = practice.cli("plan", practice.params(), "--phases", "07")
    assert "all done" in done.stdout
    harmless(done.stdout)
    practice.on("node1", etcdctl.command(fleet.cluster, "del", config.path))
