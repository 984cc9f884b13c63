"""runbook.etcd_state: etcd's own answers as tables; captured from etcd 3.6.16, told by a stand-in for etcdctl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_node import cluster_of, fleet_of

from runbook import errors, etcd_state, show

if TYPE_CHECKING:
    from runbook.fleet import Fleet

HERE = Path(__file__).parent / "test_etcd_state"


def fleet_with(folder: Path, answers: dict[str, tuple[str, str, int]], version: str = "3.6.16") -> Fleet:
    """A fleet whose etcdctl is a stand-in: for words of the command line, its stdout, stderr and status."""
    script = ["#!/bin/sh", 'case "$*" in']
    for number, (words, (out, err, status)) in enumerate(answers.items()):
        (folder / f"{number}.out").write_text(out)
        (folder / f"{number}.err").write_text(err)
        script.append(f'*" {words}"*) cat {folder}/{number}.out; cat {folder}/{number}.err >&2; exit {status};;')
    (folder / "etcdctl").write_text("\n".join([*script, "*) echo unexpected: $* >&2; exit 9;;", "esac"]))
    (folder / "etcdctl").chmod(0o755)
    cluster = cluster_of(etcd={"version": version}, flannel={"version": "0.17.0" if version < "3.6" else "0.26.7"})
    return fleet_of(cluster.model_copy(update={"bin_dir": str(folder)}), folder)


def captured(name: str) -> str:
    return (HERE / name).read_text()


# ---- endpoints


def test_healthy_endpoints(tmp_path: Path) -> None:
    """Each endpoint has its health, version, sizes and raft figures; exactly one is the leader."""
    answers = {"endpoint health": (captured("health.json"), "", 0), "endpoint status": (captured("status.json"), "", 0)}
    table = etcd_state.endpoints(fleet_with(tmp_path, answers))
    assert list(table["endpoint"]) == [f"https://198.18.0.1{n}:2379" for n in (1, 2, 3)]
    assert list(table["ok"]) == [True] * 3
    assert list(table["took_ms"]) == pytest.approx([12.7517, 11.447278, 18.4756])
    assert list(table["version"]) == ["3.6.16"] * 3
    assert list(table["leader"]) == [True, False, False]
    assert list(table["db_bytes"]) == [20480, 24576, 20480]
    assert set(table["raft_term"]) == {2}


def test_health_of_an_old_etcd_is_text(tmp_path: Path) -> None:
    """Etcd 3.3 has no JSON for health: its lines are read."""
    lines = captured("health.txt").splitlines(keepends=True)
    sick = "https://198.18.0.13:2379 is unhealthy: failed to connect: context deadline exceeded\n"
    answers = {
        "endpoint health": (lines[0] + lines[1] + sick, "Error: unhealthy cluster\n", 1),
        "endpoint status": (captured("status.json"), "", 0),
    }
    table = etcd_state.endpoints(fleet_with(tmp_path, answers, "3.3.10"))
    assert [(row["node"], row["ok"]) for row in show.rows(table)] == [
        ("node3", False),
        ("node1", True),
        ("node2", True),
    ]
    assert "failed to connect" in table["why"][0]


def test_an_endpoint_that_is_down(tmp_path: Path) -> None:
    """The one that is down says why, the others keep their figures; whole numbers stay whole."""
    health = json.loads(captured("health.json"))
    health[2] |= {"health": False, "took": "10.0023s", "error": "context deadline exceeded"}
    status = json.loads(captured("status.json"))[:2]
    said = '{"level":"warn","msg":"retrying of unary invoker failed","target":"etcd-endpoints://198.18.0.13:2379"}\n'
    answers = {
        "endpoint health": (json.dumps(health) + "\n", said + "Error: unhealthy cluster\n", 1),
        "endpoint status": (json.dumps(status) + "\n", said, 1),
    }
    table = etcd_state.endpoints(fleet_with(tmp_path, answers))
    first = show.rows(table)[0]
    assert (first["node"], first["ok"], first["took_ms"]) == ("node3", False, 10002.3)
    assert first["why"] == "unhealthy: context deadline exceeded"
    assert "phase 04" in first["remedy"]
    assert list(table["ok"]) == [False, True, True]
    assert list(table["leader"][1:]) == [True, False]


@pytest.mark.parametrize("version", ["3.6.16", "3.3.10"])
def test_an_etcdctl_that_cannot_run_tells_why(tmp_path: Path, version: str) -> None:
    """Where etcdctl prints nothing on stdout, its last words stand in every row."""
    error = ("", "Error: open /etc/etcd/cert/etcd.pem: no such file or directory\n", 1)
    table = etcd_state.endpoints(fleet_with(tmp_path, {"endpoint health": error, "endpoint status": error}, version))
    assert list(table["ok"]) == [False] * 3
    assert all(why.endswith("Error: open /etc/etcd/cert/etcd.pem: no such file or directory") for why in table["why"])


@pytest.mark.parametrize("garbage", ["", "{", "null", "[]", "\x00\xff", "<html>"])
def test_garbage_is_no_health(tmp_path: Path, garbage: str) -> None:
    """Whatever else etcdctl prints, no endpoint is healthy by it."""
    answers = {"endpoint health": (garbage, "", 0), "endpoint status": (garbage, "", 0)}
    assert list(etcd_state.endpoints(fleet_with(tmp_path, answers))["ok"]) == [False] * 3


@pytest.mark.parametrize(
    ("took", "milliseconds"),
    [
        ("11.447278ms", 11.447278), ("1.2s", 1200), ("850µs", 0.85), ("850us", 0.85), ("12ns", 0.000012), ("0s", 0),
        ("1m2.5s", 62_500), ("1h0m0.5s", 3_600_500), ("", None), ("ms", None), ("1.2", None), ("5 ms", None),
        ("1.2.3s", None), ("-1s", None),
    ],
)  # fmt: skip
def test_go_durations(took: str, milliseconds: float | None) -> None:
    """A Go duration has one unit or several; what is none is no number."""
    assert etcd_state.milliseconds(took) == (None if milliseconds is None else pytest.approx(milliseconds))


@given(st.text(max_size=12))
def test_no_text_breaks_durations(took: str) -> None:
    """Whatever stands there, it is a number or nothing."""
    found = etcd_state.milliseconds(took)
    assert found is None or found >= 0


# ---- members and alarms


def test_members_are_held_against_the_params(tmp_path: Path) -> None:
    """Each member has its id in hex, as etcd's log prints it."""
    table = etcd_state.members(fleet_with(tmp_path, {"member list": (captured("members.json"), "", 0)}))
    assert sorted(zip(table["node"], table["member_id"], table["ok"], strict=True)) == [
        ("node1", f"{5969158843797592275:x}", True),
        ("node2", f"{7076097080993917866:x}", True),
        ("node3", f"{1692808745671822875:x}", True),
    ]


def test_members_that_differ_are_told(tmp_path: Path) -> None:
    """A member that is not in the params, one that has not started, and a node that is no member: a row each."""
    listed = json.loads(captured("members.json"))
    stranger, fresh, _ = listed["members"]
    stranger |= {"name": "old", "peerURLs": ["https://198.18.0.99:2380"]}
    fresh |= {"name": "", "clientURLs": []}
    table = etcd_state.members(fleet_with(tmp_path, {"member list": (json.dumps(listed), "", 0)}))
    why = {row["node"]: row["why"] for row in show.rows(table)}
    assert why == {
        "old": "a member that the params don't name",
        "node1": "not started yet",
        "node2": "",
        "node3": "not a member: no member has https://198.18.0.13:2380",
    }


def test_a_member_list_that_fails_is_an_error(tmp_path: Path) -> None:
    """No answer is no empty cluster."""
    error = ("", "Error: context deadline exceeded\n", 1)
    with pytest.raises(errors.CommandFailed, match="context deadline exceeded"):
        etcd_state.members(fleet_with(tmp_path, {"member list": error}))


def test_no_alarms_is_the_good_case(tmp_path: Path) -> None:
    """Without alarms the table is empty, and its caption says so."""
    table = etcd_state.alarms(fleet_with(tmp_path, {"alarm list": (captured("alarms.txt"), "", 0)}))
    assert (len(table), table.caption) == (0, "etcd alarms: none")


def test_alarms_name_their_member_as_the_other_table_does(tmp_path: Path) -> None:
    """An alarm has the member's id in hex, its name and what to do."""
    said = "memberID:5969158843797592275 alarm:NOSPACE \nmemberID:1 alarm:CORRUPT\n"
    table = etcd_state.alarms(fleet_with(tmp_path, {"alarm list": (said, "", 0)}))
    assert list(zip(table["member_id"], table["alarm"], strict=True)) == [
        (f"{5969158843797592275:x}", "NOSPACE"), ("1", "CORRUPT"),
    ]  # fmt: skip
