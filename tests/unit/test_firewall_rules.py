"""runbook.diagnosis.firewall_rules: rulesets as nft 1.0.6 lists them, and what they do with the overlay's packets."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbook.diagnosis import firewall_rules

HERE = Path(__file__).parent / "test_firewall_rules"
NETWORK = "172.30.0.0/16"


def listed(name: str) -> str:
    return (HERE / f"{name}.nft").read_text(encoding="ascii")


@pytest.mark.parametrize(
    ("name", "port", "told"),
    [
        ("workstation", 8472, ["the policy of inet filter input is drop, and no rule accepts UDP 8472"]),
        ("accepted", 8472, []),
        ("accepted", 4789, ["the policy of inet filter input is drop, and no rule accepts UDP 4789"]),
        ("reject", 8472, ["inet filter input: reject with icmpx admin-prohibited"]),
        ("jumped", 8472, ["ip mine drops: th dport 8472 drop"]),
        ("jumped", 53, []),
        ("jumped", 4789, []),
    ],
)
def test_what_is_dropped_is_named(name: str, port: int, told: list[str]) -> None:
    """A policy, a last rule for all, a rule in a chain that is jumped to; what an earlier rule accepts passes."""
    assert firewall_rules.drops_port("", listed(name), port) == told


@pytest.mark.parametrize(
    ("rule", "dropped"),
    [
        ("udp dport 8472 drop", True),
        ("udp dport 8000-9000 counter packets 5 bytes 600 drop", True),
        ("udp dport { 53, 8472 } reject", True),
        ("udp dport != 8472 drop", False),
        ("tcp dport 8472 drop", False),
        ("udp dport 18472 drop", False),
        ("udp sport 8472 drop", False),
        ("meta l4proto udp drop", True),
        ("meta l4proto { tcp, udp } accept", False),
        ("ip saddr 198.18.0.0/24 accept", False),
        ('iifname "lo" drop', False),
        ("drop", True),
        ("udp dport 8472 accept", False),
    ],
)
def test_a_rule_is_about_the_port_or_not(rule: str, dropped: bool) -> None:  # noqa: FBT001 - a table of cases
    """By itself in a chain that accepts: single ports, ranges, sets; other protocols and ports are not meant."""
    ruleset = f"table inet t {{\n chain c {{\n type filter hook input priority 0; policy accept;\n {rule}\n }}\n}}"
    assert bool(firewall_rules.drops_port("", ruleset, 8472)) == dropped


def test_order_decides() -> None:
    """What is accepted before a rule that drops passes, and not what comes after it."""
    rules = ["udp dport 8472 accept", "drop"]
    for chosen, told in ((rules, 0), (rules[::-1], 1)):
        lines = ["table ip t {", "chain c {", "type filter hook input priority 0; policy drop;", *chosen, "}", "}"]
        assert len(firewall_rules.drops_port("", "\n".join(lines), 8472)) == told


def test_iptables_own_chains_are_read_once() -> None:
    """Its nft variant keeps them in nft's tables: what iptables-save showed is not judged again by other rules."""
    ruleset = "table ip filter {\n chain INPUT {\n type filter hook input priority 0; policy drop;\n }\n}"
    saved = ":INPUT DROP [0:0]\n-A INPUT -p udp -m udp --dport 8472 -j ACCEPT"
    assert firewall_rules.drops_port(saved, ruleset, 8472) == []
    assert firewall_rules.drops_port(":INPUT DROP [0:0]", ruleset, 8472) == [
        "the policy of INPUT is DROP, and no rule accepts UDP 8472"
    ]


def test_forwarded_packets_need_a_rule_in_every_table() -> None:
    """What iptables accepts by flannel's rules, a table of nft's own with a policy of drop still drops."""
    saved = ":FORWARD DROP [0:0]\n-A FORWARD -j FLANNEL-FWD"
    assert firewall_rules.drops_forwarded(saved, "", NETWORK) == []
    told = ["the policy of inet filter forward is drop, and no rule accepts 172.30.0.0/16"]
    assert firewall_rules.drops_forwarded(saved, listed("reject"), NETWORK) == told
    opened = listed("reject").replace(
        "forward priority filter; policy drop;", f"forward priority filter; policy drop;\nip saddr {NETWORK} accept"
    )
    assert firewall_rules.drops_forwarded(saved, opened, NETWORK) == []
    assert firewall_rules.drops_forwarded(":FORWARD DROP [0:0]", "", NETWORK) == [
        "the policy of FORWARD is DROP, and no rule accepts 172.30.0.0/16"
    ]
