"""runbook.mesh: pings parsed, captured from iputils 20221126; causes named; tables N x N."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_node import cluster_of, fleet_of, local

from runbook import flannel_state, mesh, show

HERE = Path(__file__).parent / "test_mesh"
COLUMNS = ["node", "to", "network", "ok", "rtt_ms", "loss_pct"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("ok", {"ok": True, "rtt_ms": 0.079, "loss_pct": 0.0, "why": ""}),
        ("part", {"ok": False, "rtt_ms": 0.091, "loss_pct": 33.3333, "why": "33.3 % of 3 lost"}),
        ("lost", {"ok": False, "rtt_ms": None, "loss_pct": 100.0, "why": "100 % of 3 lost"}),
        ("bad", {"ok": False, "rtt_ms": None, "loss_pct": 100.0,
                 "why": "ping: nosuch.invalid: Temporary failure in name resolution\n"}),
    ],
)  # fmt: skip
def test_pings_are_read(name: str, wanted: dict[str, object]) -> None:
    """Loss and average come from the summary; what is no summary is the reason."""
    assert mesh.parse_ping((HERE / f"{name}.txt").read_text()) == wanted


@pytest.mark.parametrize(
    "summary",
    [
        "3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2003ms\npipe 3",
        "3 packets transmitted, 0 received, 100% packet loss, time 400ms",
    ],
)
def test_errors_are_loss(summary: str) -> None:
    """`Destination Host Unreachable` and silence both are loss."""
    assert mesh.parse_ping(summary)["loss_pct"] == 100


@given(st.text(max_size=80))
def test_garbage_is_never_ok(text: str) -> None:
    """Whatever ping prints, a pair is good only by a summary that says 0% loss."""
    row = mesh.parse_ping(text)
    assert not row["ok"]
    assert row["why"]


def leased(*names: str) -> show.Table:
    rows = [
        {"node": name, "lease": f"172.30.{8 * int(name[-1])}.0/21", "ok": True, "public_ip": f"198.18.0.1{name[-1]}"}
        for name in names
    ]
    return show.table(rows, ["lease", "node", "ok", "public_ip"])


#: Stands in for ping: addresses in the file `down` beside it don't answer; each call is noted.
PING = """here=$(dirname "$0"); for address; do :; done
echo "$address" >>"$here/asked"
if grep -qx "$address" "$here/down" 2>/dev/null; then cat LOST; else cat OK; fi
"""


def pinged(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *down: str,
    leases: tuple[str, ...] = ("node1", "node2", "node3"),
    ping: str = PING,
    more: str = "",
    within_s: float = 0,
) -> show.Table:
    """Ping a mesh of stand-ins in which nobody reaches the addresses that are down."""
    monkeypatch.setattr(flannel_state, "leases", lambda _fleet, **_: leased(*leases))
    fleet = fleet_of(cluster_of(), folder)
    for connection in local(fleet).values():
        connection.shim("ping", ping.replace("LOST", str(HERE / "lost.txt")).replace("OK", str(HERE / "ok.txt")))
        (connection.folder / "shims" / "down").write_text("".join(f"{one}\n" for one in down))
        (connection.folder / "shims" / "more").write_text(more)
    return mesh.ping(fleet, within_s=within_s)


def test_every_pair_is_pinged_on_both_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node pings each node's overlay and plain address, its own included."""
    table = pinged(tmp_path, monkeypatch)
    assert len(table) == 3 * 3 * 2
    assert table["ok"].all()
    asked = (tmp_path / "node2" / "shims" / "asked").read_text().split()
    assert len(asked) == 6
    assert set(asked) == {address for n in (1, 2, 3) for address in (f"172.30.{8 * n}.0", f"198.18.0.1{n}")}


def test_only_pairs_that_fail_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that learns a lease a moment late answers in the next round; what has answered is not asked again."""
    late = """sed -i "/^$address$/d" "$here/down"; cat LOST"""
    table = pinged(tmp_path, monkeypatch, "172.30.16.0", ping=PING.replace("cat LOST", late), within_s=9)
    assert table["ok"].all()
    asked = (tmp_path / "node1" / "shims" / "asked").read_text().split()
    assert {address: asked.count(address) for address in asked if asked.count(address) > 1} == {"172.30.16.0": 2}


#: As above, but the addresses in `down` lose one of three; of more pings, what `more` says.
LOSSY = """here=$(dirname "$0"); before=
for address; do [ "$before" = -c ] && count=$address; before=$address; done
echo "$address $count" >>"$here/asked"
if ! grep -qx "$address" "$here/down" 2>/dev/null; then cat OK
elif [ "$count" -gt 3 ]; then cat "$here/more"
else cat PART; fi
"""


@pytest.mark.parametrize(("more", "told"), [("20 packets transmitted, 19 received, 5%", "5 % of 20 lost"),
                                            ("20 packets transmitted, 20 received, 0%", "")])  # fmt: skip
def test_a_lost_ping_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, told: str) -> None:
    """All pairs that answer are pinged more often: loss that stays fails and is told as it is, a first one does not."""
    lossy = LOSSY.replace("PART", str(HERE / "part.txt"))
    table = pinged(
        tmp_path,
        monkeypatch,
        "198.18.0.12",
        "172.30.16.0",
        ping=lossy,
        more=f"{more} packet loss\n= 0.1/0.2/0.3/0.0 ms\n",
    )
    asked = (tmp_path / "node1" / "shims" / "asked").read_text().split("\n")
    assert [line.endswith(" 20") for line in asked if line].count(True) == 6
    found = {(row["to"], row["why"], row["loss_pct"]) for row in show.rows(table) if not row["ok"]}
    assert found == ({("node2", told, 5.0)} if told else set())
    assert all("plain addresses lose packets too" in row["remedy"] for row in show.rows(table) if not row["ok"])


def test_loss_in_the_tunnel_alone_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where plain addresses lose nothing, what limits or filters the tunnel's port is the cause."""
    more = "20 packets transmitted, 19 received, 5% packet loss\n= 0.1/0.2/0.3/0.0 ms\n"
    table = pinged(tmp_path, monkeypatch, "172.30.16.0", ping=LOSSY.replace("PART", str(HERE / "part.txt")), more=more)
    remedies = {row["remedy"] for row in show.rows(table) if not row["ok"]}
    assert [one.split(":")[0] for one in remedies] == ["no plain address loses any"]


@pytest.mark.parametrize(
    ("down", "cause"),
    [
        (("172.30.16.0",), "UDP 8472 is dropped"),
        (("172.30.16.0", "198.18.0.12"), "the plain address fails too"),
    ],
)
def test_the_likely_cause_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, down: tuple[str, ...], cause: str
) -> None:
    """What the other network says tells which side of the tunnel fails."""
    table = pinged(tmp_path, monkeypatch, *down)
    failing = [row for row in show.rows(table) if not row["ok"]]
    assert {row["address"] for row in failing} == set(down)
    overlay = [row for row in failing if row["network"] == "overlay"]
    assert {row["node"] for row in overlay} == {"node1", "node2", "node3"}
    assert all(cause in row["remedy"] for row in overlay)


def test_a_node_without_a_lease_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flannel node that has no overlay address has a row that does not hold."""
    table = pinged(tmp_path, monkeypatch, leases=("node1", "node2"))
    assert [(row["to"], row["why"]) for row in show.rows(table) if not row["ok"]] == [("node3", "node3 has no lease")]


def test_a_matrix_has_a_row_and_a_column_a_node() -> None:
    """N x N, of one network and one value; a pair that is missing is an empty cell."""
    rows = [
        {"node": a, "to": b, "network": network, "ok": True, "rtt_ms": number, "loss_pct": 0.0}
        for number, (a, b) in enumerate([("node1", "node1"), ("node1", "node2"), ("node2", "node1")])
        for network in ("overlay", "underlay")
    ]
    made = mesh.matrix(show.table(rows, COLUMNS), "overlay")
    assert made.caption == "overlay: rtt_ms"
    assert list(made.columns) == ["from", "node1", "node2"]
    assert [[show._text(cell) for cell in row] for row in made.itertuples(index=False)][1][2] == ""
    assert list(mesh.matrix(show.table(rows, COLUMNS), "underlay", "loss_pct")["node1"]) == [0.0, 0.0]


def test_nodes_stand_in_the_order_of_their_numbers() -> None:
    """node2 comes before node10."""
    rows = [{"node": f"node{n}", "to": "node1", "network": "overlay", "rtt_ms": 0.1} for n in (10, 2, 1)]
    assert list(mesh.matrix(show.table(rows, COLUMNS), "overlay")["from"]) == ["node1", "node2", "node10"]


def test_both_networks_are_shown_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heatmaps keep round-trip times and losses of both networks, under the captions that a summary looks for."""
    pings = pinged(tmp_path, monkeypatch, "172.30.16.0")
    bundle, _ = mesh.beside(pings)._repr_mimebundle_()
    captions = ["overlay: rtt_ms", "underlay: rtt_ms", "overlay: loss_pct", "underlay: loss_pct"]
    assert [one["caption"] for one in bundle[show.TABLE_MIME]] == captions
    assert all(row[2] == 100 for row in bundle[show.TABLE_MIME][2]["data"])
    assert bundle["text/html"].count("✗ 100%") == 3
    assert bundle["text/plain"].count("✗ 100%") == 3
    assert "node1 → node2" in bundle["text/plain"]
