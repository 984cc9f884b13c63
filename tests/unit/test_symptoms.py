"""runbook.diagnosis.symptoms and symptom_script: what a node shows, from what a script printed there."""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING

import pytest
from local_node import cluster_of, fleet_of, local

from runbook.diagnosis import symptom_script, symptoms
from runbook.diagnosis.symptoms import Symptoms
from runbook.transport import answers

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.params import Cluster

CLUSTER = cluster_of()
OLD = cluster_of(etcd={"version": "3.5.21"}, flannel={"version": "0.17.0"})


def shows(**said: str) -> Symptoms:
    """A node that said these things."""
    return Symptoms(CLUSTER.nodes[0], "", said)


def parsed(times: tuple[float, float], /, **said: str) -> Symptoms:
    """What a script printed, at least what preflight needs."""
    keys = "os kernel machine systemd unit_path tools addresses data_free wal_free listeners vxlan_links vxlan"
    needed = dict.fromkeys(f"{keys} br_netfilter ip_forward pids".split(), "")
    lines = [f"{key}={base64.b64encode(text.encode()).decode()}" for key, text in {**needed, **said}.items()]
    return symptoms.parse(CLUSTER.nodes[0], "\n".join(lines), times)


@pytest.mark.parametrize(
    ("state", "active", "stopped", "told"),
    [
        ("ActiveState=active\nSubState=running\nResult=success\nNRestarts=0", True, False, "active/running"),
        ("ActiveState=inactive\nSubState=dead\nResult=success\nNRestarts=0", False, True, "inactive/dead"),
        ("ActiveState=activating\nSubState=auto-restart\nResult=exit-code\nExecMainStatus=2\nNRestarts=3", False, False,
         "activating/auto-restart, exit-code, status 2, 3 restarts"),
        ("", False, False, "unknown/"),
    ],
)  # fmt: skip
def test_a_units_state_is_systemds(state: str, active: bool, stopped: bool, told: str) -> None:  # noqa: FBT001
    """Active, stopped by somebody, or failed with result, status and restarts; nothing is known of no answer."""
    unit = shows(unit_etcd=state).etcd
    assert (unit.active, unit.stopped, unit.told) == (active, stopped, told)


def test_flags_are_the_running_command_lines() -> None:
    """With one dash and with two; drop-ins count, since it is what systemd runs."""
    line = "ExecStart={ path=/opt/k8s/bin/etcd ; argv[]=/bin/etcd --name=node1 -iface=eth0 ; ignore_errors=no ; }"
    assert shows(unit_etcd=f"LoadState=loaded\n{line}").etcd.flags == {"name": "node1", "iface": "eth0"}


JOURNAL = """\
10.1 systemd[1]: Starting etcd.service - etcd 3.6.16...
10.2 etcd[7]: first
10.3 systemd[1]: Starting etcd.service - etcd 3.6.16...
10.4 etcd[8]: second
10.5 systemd[1]: Starting etcd.service - etcd 3.6.16...
10.6 etcd[9]: third"""


@pytest.mark.parametrize(("state", "words"), [("active", ["third"]), ("activating", ["second", "third"])])
def test_only_lines_since_the_last_start_count(state: str, words: list[str]) -> None:
    """Of a unit that runs the last start's; of one that does not the last but one's too."""
    unit = shows(unit_etcd=f"ActiveState={state}", journal_etcd=JOURNAL).etcd
    assert [line for line in unit.journal if not line.startswith("Starting")] == words


def test_a_start_that_scrolled_off_leaves_all_lines() -> None:
    """Without a line of a start every line counts."""
    assert shows(journal_etcd="10.1 etcd[7]: a b\n10.2 etcd[7]: c").etcd.journal == ("a b", "c")


def test_links_tell_mtu_and_vxlan() -> None:
    """A vxlan device's id, port and address; of any other device the MTU; a name without its peer's index."""
    text = (
        "2: eth0@if5: <UP> mtu 1500 qdisc noqueue\\    link/ether 02:52:42:4b:04:02 brd ff:ff:ff:ff:ff:ff\n"
        "3: flannel.1: <UP> mtu 1450 qdisc noqueue\\    vxlan id 7 local 198.18.0.11 dev eth0 srcport 0 0 dstport 8472"
    )
    links = shows(links=text).links
    assert (links["eth0"].mtu, links["eth0"].vni) == (1500, None)
    one = links["flannel.1"]
    assert (one.mtu, one.vni, one.port, one.local) == (1450, 7, 8472, "198.18.0.11")


def test_pings_that_are_answered_once_are_answered() -> None:
    """Losing one of two is no cut; losing all is, and so is an error."""
    said = (
        "10.0.0.1 2 packets transmitted, 1 received, 50% packet loss, time 200ms\n"
        "10.0.0.2 2 packets transmitted, 0 received, 100% packet loss, time 200ms\n"
        "10.0.0.3 ping: connect: Network is unreachable"
    )
    assert shows(pings=said).pings == {"10.0.0.1": True, "10.0.0.2": False, "10.0.0.3": False}


@pytest.mark.parametrize(
    ("node_s", "begun", "heard", "offset_ms"),
    [(100.5, 100.0, 101.0, 0), (700.0, 100.0, 101.0, 599_000), (40.0, 100.0, 101.0, -60_000), (103.0, 100.0, 104.0, 0)],
)
def test_a_slow_node_is_no_wrong_clock(node_s: float, begun: float, heard: float, offset_ms: float) -> None:
    """Somewhere between begin and first line the node told its time: only what is outside of both is an offset."""
    assert parsed((begun, heard), clock=f"{node_s}").offset_ms == pytest.approx(offset_ms)


def test_json_is_found_beside_the_log() -> None:
    """Etcdctl's own log lines are no answer; the answers of several calls are one list."""
    log = '{"level":"warn","msg":"retrying of unary invoker failed"}\nFailed to get the status of endpoint'
    assert shows(status=f'{log}\n[{{"a":1}}]\n{log}\n[{{"b":2}}]').json("status") == [{"a": 1}, {"b": 2}]
    assert shows(members='{"header":{},"members":[]}').json("members") == {"header": {}, "members": []}
    assert shows(status=log).json("status") is None
    assert shows().json("status") is None


def test_what_a_node_says_is_cleaned() -> None:
    """Escape characters in a journal reach no table."""
    journal = "10.1 etcd[7]: \x1b[31mred\x07"
    assert parsed((0, 1), clock="0.5", journal_etcd=journal).etcd.journal == ("[31mred",)


@pytest.mark.parametrize("cluster", [CLUSTER, OLD], ids=["v3", "v2"])
def test_the_script_is_sh(cluster: Cluster) -> None:
    """It parses as POSIX sh, for each kind of node."""
    for node in cluster.nodes:
        text = symptom_script.script(cluster, node)
        assert subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False).stderr == ""


def test_a_node_without_etcd_is_not_asked_for_it() -> None:
    """Etcdctl is called only where there is one."""
    cluster = cluster_of(nodes=[{"name": "a", "host": "198.18.0.11", "roles": ["etcd"]},
                                {"name": "b", "host": "198.18.0.12", "roles": ["flannel"]}])  # fmt: skip
    assert "etcdctl" in symptom_script.script(cluster, cluster.nodes[0])
    assert "etcdctl" not in symptom_script.script(cluster, cluster.nodes[1])


def test_the_script_answers_on_a_machine_that_has_nothing(tmp_path: Path) -> None:
    """Without systemd, etcd and flannel it still ends with 0 and prints every key; it leaves nothing in /run."""
    fleet = fleet_of(CLUSTER, tmp_path)
    connection = local(fleet)["node1"]
    done = connection.run(symptom_script.script(CLUSTER, CLUSTER.nodes[0]), what="look", timeout_s=30).check()
    keys = answers.parse(done.text).keys()
    assert {"clock", "links", "unit_etcd", "journal_flanneld", "status", "v3", "pings", "iptables", "env"} <= keys
    one = symptoms.parse(CLUSTER.nodes[0], done.text, (0.0, 1e12))
    assert not one.etcd.active
    assert one.file("etcd_pem") is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"level":"fatal","msg":"discovery failed","error":"member 1 has been","stacktrace":"go.etcd',
         "discovery failed: member 1 has been"),
        ('{"msg":"it said \\"no\\"","x":1}', 'it said "no"'),
        ('{"level":"info"}', '{"level":"info"}'),
        ("I1123 main.go:234] Installing", "I1123 main.go:234] Installing"),
    ],
)  # fmt: skip
def test_a_journal_line_is_told_in_words(line: str, told: str) -> None:
    """Of etcd's JSON what it says and its error, also of a line that was cut before its end."""
    assert symptoms.message(line) == told
