"""runbook.plans.starting: a unit's start by real sh, a stand-in for systemctl; one node ahead of the others."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from local_node import cluster_of, fleet_of, local

from runbook import etcd_quorum
from runbook.journal import Pulse, Step
from runbook.plans import starting
from runbook.plans.rollout import Stop
from runbook.plans.starting import Ahead, Manner
from runbook.resources import Change

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.fleet import Fleet
    from runbook.params import Node

CHANGES = [Change("etcd.service", "start", "inactive/dead", node=f"node{n}") for n in (1, 2, 3)]
ACTIVE = "ActiveState=active SubState=running Job="
CRASH = "ActiveState=activating SubState=auto-restart Job="
UP = "ActiveState=activating SubState=start Job="

#: How a unit is before its start: as it was at some boot, and as it is when it never ran.
ENABLED = "ActiveState=inactive UnitFileState=enabled NeedDaemonReload=no"
NEW = "ActiveState=inactive UnitFileState=disabled NeedDaemonReload=no"

SYSTEMCTL = """
# Stands in for systemctl: notes what it was asked, shows what was before the start from the file `before` beside it,
# later the states of the file there, one a call, and ends a restart as the file `restart` there says.
here=$(dirname "$0")
case $* in *NeedDaemonReload*) cat "$here/before"; exit 0;; esac
echo "$*" >>"$here/asked"
case $1 in
show) head -n 1 "$here/states"; [ "$(wc -l <"$here/states")" -gt 1 ] && sed -i 1d "$here/states";;
restart) . "$here/restart";;
esac
exit 0
"""


def stand_in(
    fleet: Fleet, node: str, *states: str, restart: str = "exit 0", journal: str = "etcd: bad flag",
    before: str = ENABLED,
) -> Path:  # fmt: skip
    """Put a systemctl with these states, and a restart of this sh, in the place of a node's; where it notes."""
    connection = local(fleet)[node]
    connection.shim("systemctl", SYSTEMCTL)
    connection.shim("journalctl", f"echo '{journal}'")
    shims = connection.folder / "shims"
    (shims / "states").write_text("".join(f"{state}\n" for state in states))
    (shims / "restart").write_text(restart)
    (shims / "asked").write_text("")
    (shims / "before").write_text(before)
    return shims / "asked"


def started(
    folder: Path, verb: str, *states: str, restart: str = "exit 0", timeout_s: int = 60, feed: tuple[bytes, ...] = (),
    before: str = ENABLED,
) -> tuple[int, str, str]:  # fmt: skip
    """Run a start script on a stand-in: status, stderr, and what systemctl was asked."""
    fleet = fleet_of(cluster_of(), folder)
    asked = stand_in(fleet, "node1", *states, restart=restart, before=before)
    local(fleet)["node1"].shim("sleep", ":")
    script = starting.script("etcd.service", verb, timeout_s, follows=bool(feed))
    done = local(fleet)["node1"].run(script, what="start", feed=[one for one in feed if one])
    return done.status, done.stderr.decode(), asked.read_text()


@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("again", ["", 'it\'s \\ "taken"'])
@pytest.mark.parametrize("begun", ["", "[ -e /x ]"])
@pytest.mark.parametrize("verb", ["start", "restart", "enable"])
@pytest.mark.parametrize("unit", ["etcd.service", "a b'c.service"])
def test_scripts_are_valid_sh(verb: str, unit: str, begun: str, again: str, follows: bool) -> None:  # noqa: FBT001
    """What is sent to a node parses."""
    script = starting.script(unit, verb, 120, begun=begun, follows=follows, again=again)
    done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_start_waits_for_its_job(tmp_path: Path) -> None:
    """The unit is enabled, systemd reads its units once, and the start is over when systemd says so."""
    status, _, asked = started(tmp_path, "start", "never looked at")
    assert status == 0
    assert asked.splitlines() == ["enable --quiet etcd.service", "reset-failed etcd.service", "restart etcd.service"]


def test_a_unit_that_is_new_is_enabled_while_it_starts(tmp_path: Path) -> None:
    """Nothing of it is in systemd's memory: it is read as it starts. The start is over when it is enabled, too."""
    last = 'until [ -s "$here/enabled" ]; do :; done'
    fleet = fleet_of(cluster_of(), tmp_path)
    asked = stand_in(fleet, "node1", "never looked at", restart=last, before=NEW)
    enable = 'if [ "$1" = enable ]; then echo yes >"$(dirname "$0")/enabled"; fi'
    local(fleet)["node1"].shim("systemctl", f"{enable}\n{SYSTEMCTL}")
    (result,) = starting.at_once(fleet, CHANGES[:1])
    assert (result.result, result.error) == ("done", "")
    assert sorted(asked.read_text().splitlines()) == ["enable --quiet etcd.service", "restart etcd.service"]


def test_a_unit_that_can_not_be_enabled_is_no_done_start(tmp_path: Path) -> None:
    """Neither one that is new, whose start went well, nor one that systemd knows, which is then not started."""
    for before, restarted in ((NEW, True), (ENABLED, False)):
        fleet = fleet_of(cluster_of(), tmp_path)
        asked = stand_in(fleet, "node1", ACTIVE, before=before)
        refuses = 'if [ "$1" = enable ]; then echo "Read-only file system" >&2; exit 1; fi'
        local(fleet)["node1"].shim("systemctl", f"{refuses}\n{SYSTEMCTL}")
        (result,) = starting.at_once(fleet, CHANGES[:1])
        assert (result.result, result.error) == ("failed", "Read-only file system")
        assert ("restart etcd.service" in asked.read_text()) is restarted


@pytest.mark.parametrize(
    "before",
    [ENABLED, NEW.replace("=no", "=yes"), NEW.replace("inactive", "failed"), NEW.replace("inactive", "activating")],
)
def test_a_unit_that_systemd_may_know_is_read_anew_before_it_starts(tmp_path: Path, before: str) -> None:
    """Else it would be started from the file that was there before."""
    status, _, asked = started(tmp_path, "start", "never looked at", before=before)
    assert status == 0
    assert asked.splitlines()[0] == "enable --quiet etcd.service"


def test_a_start_that_failed_once_may_come_up(tmp_path: Path) -> None:
    """What systemd starts again by itself is waited for until it is active; a job that waits is not yet a start."""
    states = CRASH, "ActiveState=active SubState=running Job=17", UP, ACTIVE
    status, _, asked = started(tmp_path, "start", *states, restart="exit 1")
    assert status == 0
    assert asked.count("show") == len(states)


def test_bad_luck_is_tried_again_at_once(tmp_path: Path) -> None:
    """A start whose journal has the words for it is tried again, which is noted; one that fails otherwise is not."""
    fleet = fleet_of(cluster_of(), tmp_path)
    count = tmp_path / "count"
    lucky = f'echo >>{count}; [ "$(wc -l <{count})" -ge 3 ] && exit 0; exit 1'
    asked = stand_in(fleet, "node1", "ActiveState=failed SubState=failed Job=", restart=lucky, journal="taken: 7")
    (result,) = starting.at_once(fleet, CHANGES[:1], Manner(again="taken"))
    assert (result.result, result.error) == ("done", "")
    assert asked.read_text().count("restart etcd.service") == 3
    assert [(one.step, one.detail) for one in fleet.journal.steps if one.state == "done"] == [
        ("tried again", "taken"), ("tried again", "taken"), ("start etcd.service", ""),
    ]  # fmt: skip
    count.unlink()
    (result,) = starting.at_once(fleet, CHANGES[:1], Manner(again="other words"))
    assert (result.result, result.error) == ("failed", "taken: 7")


def test_bad_luck_has_an_end(tmp_path: Path) -> None:
    """What goes on failing in the same way is no bad luck: it fails with its journal."""
    fleet = fleet_of(cluster_of(), tmp_path)
    state = "ActiveState=failed SubState=failed Job="
    asked = stand_in(fleet, "node1", state, restart="exit 1", journal="taken: 7")
    (result,) = starting.at_once(fleet, CHANGES[:1], Manner(again="taken"))
    assert (result.result, result.error) == ("failed", "taken: 7")
    assert asked.read_text().count("restart etcd.service") == 8


def test_enabling_restarts_nothing(tmp_path: Path) -> None:
    """A unit that is only enabled goes on running."""
    status, _, asked = started(tmp_path, "enable", ACTIVE)
    assert status == 0
    assert "restart" not in asked


def test_a_start_that_fails_shows_the_journal(tmp_path: Path) -> None:
    """A unit that fails ends the wait at once, with its journal."""
    status, said, _ = started(tmp_path, "start", "ActiveState=failed SubState=failed Job=", restart="exit 1")
    assert status == 1
    assert "etcd: bad flag" in said
    assert "not ready" not in said


def test_the_end_of_the_journal_is_shown(tmp_path: Path) -> None:
    """Of a long journal it is the last lines that tell why; journalctl gives the first ones of those since a time."""
    fleet = fleet_of(cluster_of(), tmp_path)
    stand_in(fleet, "node1", "ActiveState=failed SubState=failed Job=", restart="exit 1")
    local(fleet)["node1"].shim("journalctl", 'case "$*" in *" -n "*) seq 1 12 ;; *) seq 1 50 ;; esac')
    (result,) = starting.at_once(fleet, CHANGES[:1])
    assert result.error.split() == [str(number) for number in range(39, 51)]


def test_a_start_that_systemd_refuses_says_why(tmp_path: Path) -> None:
    """A job that never began leaves the unit inactive: that is not waited for, and told in systemd's words."""
    refused = "echo 'A dependency job failed.' >&2; exit 1"
    status, said, asked = started(tmp_path, "start", "ActiveState=inactive SubState=dead Job=", restart=refused)
    assert (status, asked.count("show")) == (1, 1)
    assert "A dependency job failed." in said


def test_a_unit_that_crashes_twice_is_not_waited_for(tmp_path: Path) -> None:
    """Restart=always hides a crash loop behind `activating`: two crashes end the wait."""
    status, said, _ = started(tmp_path, "start", CRASH, CRASH, UP, CRASH, ACTIVE, restart="exit 1")
    assert (status, "etcd: bad flag" in said) == (1, True)
    assert started(tmp_path, "start", CRASH, CRASH, UP, ACTIVE, restart="exit 1")[0] == 0


def test_a_start_that_never_ends_passes_its_deadline(tmp_path: Path) -> None:
    """Past the deadline the error says the last state."""
    status, said, _ = started(tmp_path, "start", UP, restart="exit 1", timeout_s=0)
    assert status == 1
    assert "not ready within 0 s: ActiveState=activating SubState=start" in said


def test_a_follower_starts_only_when_it_is_told(tmp_path: Path) -> None:
    """It is made ready, and started by a line; when who asked for it is gone before, nothing is started."""
    status, _, asked = started(tmp_path, "start", ACTIVE, feed=(b"",))
    assert (status, asked.splitlines()[-1]) == (1, "reset-failed etcd.service")
    status, _, asked = started(tmp_path, "start", ACTIVE, feed=(b"go\n",))
    assert (status, asked.splitlines()[-1]) == (0, "restart etcd.service")


def test_the_newest_journal_line_is_told_while_it_waits(tmp_path: Path) -> None:
    """A start that takes long tells what the unit says, each line once, as a pulse of the journal and never a step."""
    fleet = fleet_of(cluster_of(), tmp_path)
    # The restart lasts until the newest line was read several times.
    asked = tmp_path / "node1" / "shims" / "read"
    wait = f'until [ "$(wc -l <{asked})" -ge 5 ]; do :; done'
    stand_in(fleet, "node1", ACTIVE, restart=wait)
    asked.touch()
    local(fleet)["node1"].shim("journalctl", f"echo 'waiting\033 for peers'; echo >>{asked}")
    local(fleet)["node1"].shim("sleep", ":")
    heard: list[Step | Pulse] = []
    fleet.journal.listen(heard.append)
    (result,) = starting.at_once(fleet, CHANGES[:1])
    assert (result.result, result.error) == ("done", "")
    pulses = [one for one in heard if isinstance(one, Pulse)]
    assert [one.limit_s for one in pulses] == [starting.START_TIMEOUT_S, None]
    assert [one.line for one in pulses] == ["", "waiting for peers"]
    assert [(step.step, step.state) for step in fleet.journal.steps] == [
        ("start etcd.service", "started"), ("start etcd.service", "done"),
    ]  # fmt: skip


def test_what_is_stopped_before_it_begins_is_not_started(tmp_path: Path) -> None:
    """An interrupt between two looks: nothing is sent, the row says so, and the journal does not say that it began."""
    fleet, stop = fleet_of(cluster_of(), tmp_path), Stop()
    stop.ask("an interrupt")
    for ahead in (None, Ahead(by_reverse_name, "true")):
        results = starting.at_once(fleet, CHANGES, Manner(ahead), stop)
        assert {(one.result, one.error) for one in results} == {("not done", "not begun: stopped by an interrupt")}
    assert [one.scripts for one in local(fleet).values()] == [[], [], []]
    assert fleet.journal.steps == []


# ---- one ahead


def by_reverse_name(node: Node) -> str:
    """The last node is the first of them."""
    return str(9 - int(node.name.removeprefix("node")))


def test_the_others_follow_when_the_first_has_begun(tmp_path: Path) -> None:
    """Only once the sh of `begun` succeeds on the first node are the others started; the rows keep the nodes' order."""
    fleet, order = fleet_of(cluster_of(), tmp_path), tmp_path / "order"
    for node in ("node1", "node2"):
        stand_in(fleet, node, restart=f"echo {node} >>{order}")
    # The first one's own start ends only when the others have started, as etcd's does.
    wait = f'until [ "$(wc -l <{order})" -ge 3 ]; do :; done'
    stand_in(fleet, "node3", restart=f"echo node3 >>{order}; touch {tmp_path}/begun; {wait}")
    ahead = Ahead(by_reverse_name, f"[ -e {tmp_path}/begun ]")
    results = starting.at_once(fleet, CHANGES, Manner(ahead))
    assert [(one.change.node, one.result, one.error) for one in results] == [
        (f"node{n}", "done", "") for n in (1, 2, 3)
    ]  # fmt: skip
    assert order.read_text().splitlines()[0] == "node3"


def test_a_first_that_fails_keeps_nobody_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first node's start fails the others start while it is tried again, and each row tells its own."""
    monkeypatch.setattr(starting, "AHEAD_S", 60.0)  # waited out it would be the test's time limit
    fleet, others = fleet_of(cluster_of(), tmp_path), tmp_path / "others"
    others.touch()
    stand_in(fleet, "node1", "ActiveState=failed SubState=failed Job=", restart="exit 1")
    wait = f'until [ "$(wc -l <{others})" -ge 2 ]; do :; done'
    local(fleet)["node1"].shim("systemctl", SYSTEMCTL.replace("show) ", f"show) {wait}; "))
    for node in ("node2", "node3"):
        stand_in(fleet, node, restart=f"echo >>{others}")
    results = starting.at_once(fleet, CHANGES, Manner(Ahead(lambda node: node.name, "false")))
    assert [one.result for one in results] == ["failed", "done", "done"]
    assert "etcd: bad flag" in results[0].error


def test_a_first_that_hangs_is_waited_for_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the time that is given to it the others start all the same: its start may need them."""
    monkeypatch.setattr(starting, "AHEAD_S", 0.1)
    fleet, others = fleet_of(cluster_of(), tmp_path), tmp_path / "others"
    others.touch()
    stand_in(fleet, "node1", restart=f'until [ "$(wc -l <{others})" -ge 2 ]; do :; done')
    for node in ("node2", "node3"):
        stand_in(fleet, node, restart=f"echo >>{others}")
    results = starting.at_once(fleet, CHANGES, Manner(Ahead(lambda node: node.name, "false")))
    assert [one.result for one in results] == ["done"] * 3


def test_where_none_is_to_be_started_none_is_ahead(tmp_path: Path) -> None:
    """A plan of restarts alone has nothing to start at once: no results, and no error."""
    assert starting.at_once(fleet_of(cluster_of(), tmp_path), [], Manner(Ahead(lambda node: node.name, "true"))) == []


def test_the_first_member_is_the_one_that_etcd_asks_first(tmp_path: Path) -> None:
    """Etcd sorts peer URLs as text: 198.18.0.10 before 198.18.0.9; and its WAL says that it has asked already."""
    nodes = [{"name": f"node{n}", "host": f"198.18.0.{n}"} for n in (9, 10, 100)]
    wal = tmp_path / "a wal"
    cluster = cluster_of(nodes=nodes, etcd={"data_dir": "/data/etcd", "wal_dir": "/data/wal"})
    ahead = etcd_quorum.first_member(cluster)
    assert [node.name for node in sorted(cluster.nodes, key=ahead.rank)] == ["node100", "node10", "node9"]
    begun = ahead.begun.replace("/data/wal", f"'{wal}'")
    wal.mkdir()
    assert subprocess.run(["sh", "-uc", begun], check=False).returncode == 1
    (wal / "0000000000000000-0000000000000000.wal").touch()
    assert subprocess.run(["sh", "-uc", begun], check=False).returncode == 0
