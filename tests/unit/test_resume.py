"""runbook.records.resume: where a run goes on, and when it does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from local_node import cluster_of

from runbook import errors, phases, record, show
from runbook.records import resume, summary

if TYPE_CHECKING:
    from pathlib import Path

    from runbook.fleet import Fleet
    from runbook.params import Cluster

GOOD = show.table([{"node": "node1", "ok": True}], ["node", "ok"], "Good")
BAD = show.table([{"node": "node1", "ok": True}, {"node": "node2", "ok": False}], ["node", "ok"], "Bad")
PLAIN = show.table([{"node": "node1"}], ["node"], "Plain")


def past(root: Path, *outcomes: str, chosen: str = "0-3", cluster: Cluster | None = None, **changed: Any) -> Path:  # noqa: ANN401
    """A record of a run whose phases ended so."""
    cluster = cluster or cluster_of()
    folder = record.new_folder(root, cluster)
    told = summary.begin(cluster, "run", phases.select(chosen)) | changed
    for row, outcome in zip(told["phases"], outcomes, strict=False):
        row["outcome"] = outcome
    summary.save(folder, told)
    return folder


def numbers(chosen: tuple[phases.Phase, ...]) -> list[int]:
    return [phase.number for phase in chosen]


@pytest.mark.parametrize(
    ("outcomes", "chosen", "left"),
    [
        ((), "0-3", [0, 1, 2, 3]),
        (("passed", "failed"), "0-3", [1, 2, 3]),
        (("passed", "passed", "approval needed"), "0-3", [2, 3]),
        (("passed", "passed", "passed"), "0-3", [3]),
        (("passed", "failed", "passed", "passed"), "0-3", [1, 2, 3]),
        (("passed", "failed"), "3,5,7", [5, 7]),
    ],
)
def test_a_run_goes_on_at_the_first_phase_that_did_not_pass(
    tmp_path: Path, outcomes: tuple[str, ...], chosen: str, left: list[int]
) -> None:
    """What was chosen then is run from there; all phases before it are looked at."""
    folder = past(tmp_path, *outcomes, chosen=chosen)
    going_on = resume.resumption(folder, cluster_of())
    assert numbers(going_on.chosen) == left
    assert numbers(going_on.earlier) == list(range(left[0]))
    assert going_on.record == folder


def test_without_a_record_there_is_nothing_to_resume() -> None:
    """It is bad usage, and names the cluster."""
    with pytest.raises(errors.UsageError, match="no record of a run of c to resume") as caught:
        resume.resumption(None, cluster_of())
    assert caught.value.exit_status == 2


def test_a_run_that_passed_is_not_resumed(tmp_path: Path) -> None:
    """With every phase passed it is bad usage, whatever has changed since."""
    folder = past(tmp_path, *["passed"] * 4, params_sha256="other")
    for accept in (False, True):
        with pytest.raises(errors.UsageError, match=f"nothing to resume: every phase of {folder.name} passed"):
            resume.resumption(folder, cluster_of(), accept_changes=accept)


def test_changed_params_are_named_and_may_be_accepted(tmp_path: Path) -> None:
    """Another subnet since then: refused with both values; --accept-changes goes on."""
    folder = past(tmp_path, "passed", "failed")
    now = cluster_of(flannel={"network": "10.77.0.0/16"})
    with pytest.raises(errors.PlanRefused) as caught:
        resume.resumption(folder, now)
    text = str(caught.value)
    assert "nothing was done" in text
    assert f"-    network: {cluster_of().flannel.network}" in text
    assert "+    network: 10.77.0.0/16" in text
    assert "the tool's version" not in text
    assert "--accept-changes" in text
    assert numbers(resume.resumption(folder, now, accept_changes=True).chosen) == [1, 2, 3]


def test_another_version_of_the_tool_is_named_and_may_be_accepted(tmp_path: Path) -> None:
    """A run by another version is refused with both versions; --accept-changes goes on."""
    tool = summary.tool()
    folder = past(tmp_path, "passed", "failed", tool=tool | {"version": "0.0.7"})
    with pytest.raises(errors.PlanRefused, match=f"the tool's version: then 0.0.7, now {tool['version']}") as caught:
        resume.resumption(folder, cluster_of())
    assert "the params" not in str(caught.value)
    assert numbers(resume.resumption(folder, cluster_of(), accept_changes=True).chosen) == [1, 2, 3]


def test_a_default_that_changed_is_told_though_the_params_read_the_same(tmp_path: Path) -> None:
    """Where only the hash differs, the message still says that it is in the params."""
    folder = past(tmp_path, "failed", params_sha256="other")
    with pytest.raises(errors.PlanRefused, match="the params:\nin what they left open"):
        resume.resumption(folder, cluster_of())


def test_a_record_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A summary that is garbage ends in an error that names it."""
    folder = past(tmp_path, "failed")
    (folder / "summary.json").write_text("{")
    with pytest.raises(errors.RunbookError, match=r"summary\.json"):
        resume.resumption(folder, cluster_of())


def phase(number: int, *tables: show.Table, error: errors.RunbookError | None = None) -> phases.Phase:
    def verify(_fleet: Fleet) -> list[show.Table]:
        if error:
            raise error
        return list(tables)

    return phases.Phase(number, "x", "x", verify)


def test_what_no_longer_holds_is_told() -> None:
    """Rows that are not ok, and errors, by phase; a phase that holds, or has no ok, is silent."""
    earlier = [
        phase(0, GOOD, PLAIN),
        phase(1, GOOD, BAD),
        phase(2, error=errors.Unreachable("no answer", node="node2")),
    ]
    fleet: Any = SimpleNamespace()
    first, second = resume.no_longer_hold(fleet, earlier)
    assert (first[0].number, first[1]) == (1, "Bad")
    assert first[2] is not None
    assert list(first[2]["node"]) == ["node2"]
    assert (second[0].number, second[2]) == (2, None)
    assert "no answer" in second[1]
