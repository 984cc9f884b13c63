"""runbook.checks: a table held against what is expected of it."""

from __future__ import annotations

import pytest

from runbook import checks, errors, show

COLUMNS = ["node", "check", "ok", "why", "remedy"]


def table(*rows: dict[str, object]) -> show.Table:
    return show.table(rows, COLUMNS)


def test_a_table_that_holds_is_returned() -> None:
    """What holds is handed on as it is, so that a cell can end with it."""
    good = table({"node": "node1", "ok": True}, {"node": "node2", "ok": True})
    assert checks.expect(good, "all is well") is good


def test_each_failing_row_is_told() -> None:
    """The error has the claim, how many rows fail, and a line for each with its names, cause and remedy."""
    failing = table(
        {"node": "node1", "check": "clock", "ok": True},
        {"node": "node2", "check": "clock", "ok": False, "why": "-3000 ms", "remedy": "run chrony"},
        {"node": "node3", "check": "tools", "ok": False},
    )
    with pytest.raises(errors.CheckFailed) as caught:
        checks.expect(failing, "every check holds")
    assert caught.value.message.splitlines() == [
        "expected that every check holds; 2 of 3 rows don't:",
        "node2 clock: -3000 ms",
        "    -> run chrony",
        "node3 tools: does not hold",
    ]


def test_a_failing_table_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it raises, the notebook gets the table, failing rows first."""
    shown: list[show.Table] = []
    monkeypatch.setattr(show, "display", shown.append)
    with pytest.raises(errors.CheckFailed):
        checks.expect(table({"node": "a", "ok": True}, {"node": "b", "ok": False}), "x")
    assert [list(one["node"]) for one in shown] == [["b", "a"]]


def test_an_empty_table_does_not_hold() -> None:
    """Nothing to look at is no proof that all is well."""
    with pytest.raises(errors.CheckFailed, match="no rows"):
        checks.expect(table(), "every endpoint is healthy")


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_row_that_says_nothing_does_not_hold(missing: object) -> None:
    """A row whose `ok` is empty was not seen to hold."""
    with pytest.raises(errors.CheckFailed, match="node2"):
        checks.expect(table({"node": "node1", "ok": True}, {"node": "node2", "ok": missing}), "x")
    with pytest.raises(errors.CheckFailed, match="node2"):
        checks.expect(table({"node": "node1", "ok": True}, {"node": "node2"}), "x")


def test_another_column_can_be_held() -> None:
    """The column that says whether a row holds can have another name."""
    with pytest.raises(errors.CheckFailed, match="node1"):
        checks.expect(show.table([{"node": "node1", "ok": True, "key_matches": False}], ["node", "ok", "key_matches"]),
                      "keys match", ok="key_matches")  # fmt: skip
