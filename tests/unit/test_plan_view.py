"""runbook.plans.plan_view: how a plan looks."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from local_node import cluster_of

from runbook.fleet import Fleet
from runbook.plan import Plan
from runbook.plans import plan_view
from runbook.plans.selection import Quorum
from runbook.resources import Change

FLEET = Fleet(cluster_of(), {})
RESTARTS = [Change("etcd.service", "restart", "changed", node=f"node{n}") for n in (1, 2, 3)]


def plan_of(*changes: Change, quorum: Quorum | None = None) -> Plan:
    return Plan("etcd start", FLEET, lambda: (list(changes), [], 4), quorum=quorum)


def test_a_headline_tells_restarts_and_quorum() -> None:
    """The headline names the unit that restarts and what that means for the quorum; a risk is called one."""
    one = plan_of(*RESTARTS, quorum=Quorum(("node1", "node2", "node3")))
    assert one.headline == (
        "etcd start: 3 to restart on 3 nodes; restarts etcd.service;"
        f" 3 members, restarts one at a time: 2 stay up, a quorum needs 2; 4 right already. Plan {one.id}."
    )
    two = plan_of(*RESTARTS[:2], quorum=Quorum(("node1", "node2")))
    assert "; quorum at risk: 2 members, restarts one at a time: 1 stays up, a quorum needs 2;" in two.headline


def test_a_headline_counts_only_what_is_chosen() -> None:
    """Nodes that are left out are neither counted nor restarted; the plan's id stays its own."""
    one = plan_of(*RESTARTS)
    told = plan_view.headline(one, ["node1", "node2"])
    assert told == f"etcd start: 1 to restart on 1 node; restarts etcd.service; 4 right already. Plan {one.id}."


class Rows(HTMLParser):
    """The rows of a table with the tags in each, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, dict[str, str | None]]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif self.rows:
            self.rows[-1].append((tag, dict(attrs)))


def test_a_diff_is_folded_under_its_row() -> None:
    """The row below a changed file holds its diff, folded, over the table's whole width; others have none."""
    text = Change("/etc/unit", "change", "other content", diff="--- a\n+++ b\n-old\n+new", node="node1")
    made = plan_of(text, Change("/etc/dir/", "create", "missing", node="node1"))._repr_html_()
    head, first, diff, second = Rows(made).rows
    assert ("details", {}) in diff
    assert ("summary", {}) in diff
    (cell,) = [attributes for tag, attributes in diff if tag == "td"]
    assert cell["colspan"] == str(sum(tag == "th" for tag, _ in head))
    assert not any(tag == "details" for row in (first, second) for tag, _ in row)
    assert re.search("diff of node1 /etc/unit</summary>", made)


def test_the_short_form_has_alike_rows_once() -> None:
    """What is the same on several nodes is one row that names them all; one node can be looked at alone."""
    changes = [
        Change("ca.pem", "create", "none yet"),
        *(Change("/x", "create", "missing", node=f"node{n}") for n in (1, 2)),
        Change("/x", "create", "other content", node="node3"),
    ]
    table = plan_view.short(changes, "plan")
    assert list(table["node"]) == ["(here)", "node1, node2", "node3"]
    assert list(plan_view.short(changes, "plan", "node2")["node"]) == ["node2"]
