"""runbook.records.summary: what a run says for programs, held against docs/summary.schema.json."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import past_run
import pytest
from jsonschema import Draft202012Validator, ValidationError

from runbook import errors
from runbook.records import summary

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = json.loads((past_run.ROOT / "docs/summary.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
PLAN = past_run.PLAN | {"changes": [{"node": "node1"}]}


def passed() -> dict[str, Any]:
    """A run with all that a summary can hold."""
    done = [
        past_run.phase_run(0),
        past_run.phase_run(1, past_run.binaries(), plan=past_run.PLAN),
        past_run.phase_run(3, plan=PLAN),
        past_run.phase_run(5, past_run.endpoints()),
        past_run.phase_run(11, past_run.overlay(0.05, None)),
    ]
    return past_run.told(done=done, approve=PLAN["id"], continues="20261123T021314Z-2")


#: Keys that older records lack.
LATER = {"overlay_loss", "underlay_loss"}


def test_the_schema_is_one() -> None:
    """The schema itself is valid, and every object in it but the table of packages forbids unknown keys.

    What came later is optional: the summaries of older records fit too.
    """
    Draft202012Validator.check_schema(SCHEMA)
    closed = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if "required" in node:
                assert node.get("additionalProperties") is False
                assert set(node["required"]) == set(node["properties"]) - LATER
                closed.append(node)
            for inner in node.values():
                walk(inner)
        elif isinstance(node, list):
            for inner in node:
                walk(inner)

    walk(SCHEMA)
    assert len(closed) == 9


@pytest.mark.parametrize("kind", ["run", "status", "stepped"])
@pytest.mark.parametrize("approve", [False, True, "p0123456789ab"])
def test_a_summary_fits_its_schema_at_every_moment(kind: str, approve: bool | str) -> None:  # noqa: FBT001 - a value under test
    """From its beginning to its end a summary fits: running, and ended."""
    VALIDATOR.validate(past_run.told(kind, ended=False, approve=approve))
    VALIDATOR.validate(past_run.told(kind, [past_run.phase_run(0)], ended=False, approve=approve))
    VALIDATOR.validate(past_run.told(kind, [past_run.phase_run(0)], approve=approve))


def test_a_full_summary_fits() -> None:
    """Tables, binaries and plans are in it, as JSON values; a node that did not answer has nulls."""
    read = passed()
    VALIDATOR.validate(json.loads(json.dumps(read, allow_nan=False)))
    assert read["tables"]["endpoints"]["columns"][0] == "endpoint"
    assert read["tables"]["overlay"]["data"] == [["node1", 0.05], ["node2", None]]
    assert read["tables"]["leases"] is None
    silent, there = read["binaries"]
    assert set(silent.values()) == {"node2", None}
    assert list(there.values()) == [
        "node1",
        "/opt/k8s/bin/etcd",
        "etcd Version: 3.6.16",
        "0" * 64,
        "cache",
        "go.sum",
    ]
    assert (read["outcome"], read["approve"], read["continues"]) == ("passed", PLAN["id"], "20261123T021314Z-2")
    by_number = {one["number"]: one for one in read["phases"]}
    assert (by_number[3]["outcome"], by_number[3]["changes"], by_number[3]["plan"]) == ("passed", 1, PLAN["id"])
    assert by_number[4]["outcome"] == "not begun"


def test_a_failed_run_fits() -> None:
    """A failed phase has its error, and the run's outcome is failed."""
    read = past_run.told(done=[past_run.phase_run(0, ename="CheckFailed")])
    VALIDATOR.validate(read)
    assert read["outcome"] == read["phases"][0]["outcome"] == "failed"
    assert read["phases"][0]["error"] == {"name": "CheckFailed", "text": "node1: it went wrong"}


def test_a_phase_stepped_through_has_no_times() -> None:
    """Nobody noted when a phase by hand began: its times are null, and that fits."""
    read = past_run.told("stepped", ended=False)
    summary.add(read, past_run.phase_run(0), timed=False)
    summary.end(read, 0)
    VALIDATOR.validate(read)
    assert [read["phases"][0][name] for name in ("started", "ended", "took_s")] == [None, None, None]


def test_a_phase_begins_with_its_first_cell() -> None:
    """Its first cells may have run while the notebook before was saved; its time has milliseconds, as a journal."""
    read, done = past_run.told(ended=False), past_run.phase_run(0)
    done.executed.began = datetime.now(UTC) - timedelta(seconds=2)
    summary.add(read, done, timed=True)
    told = read["phases"][0]
    begun, ended = (datetime.fromisoformat(told[name]) for name in ("started", "ended"))
    assert abs(begun - done.executed.began) <= timedelta(milliseconds=1)
    assert told["took_s"] == pytest.approx((ended - begun).total_seconds(), abs=0.01)
    done.executed.began = None
    summary.add(read, done, timed=True)
    assert told["took_s"] == pytest.approx(done.took_s, abs=0.01)


def test_an_older_summary_fits() -> None:
    """A record from before the mesh's losses and a phase's milliseconds were kept is still one."""
    read = passed()
    for name in LATER:
        assert read["tables"].pop(name) is None
    read["phases"][0] |= {"started": "2026-11-23T02:13:14Z", "ended": "2026-11-23T02:13:15Z"}
    VALIDATOR.validate(read)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("kind",), "build"),
        (("outcome",), "completed"),
        (("outcome",), "running"),
        (("ended",), None),
        (("started",), "2026-11-23T02:13:14+00:00"),
        (("approve",), "yes"),
        (("continues",), "yesterday"),
        (("params_sha256",), "0" * 63),
        (("secrets_removed",), -1),
        (("cluster",), ""),
        (("more",), 1),
        (("tool", "more"), 1),
        (("tool", "packages"), {}),
        (("operator", "password"), "x"),
        (("versions", "docker"), "1"),
        (("tables", "pods"), None),
        (("tables", "overlay", "html"), ""),
        (("tables", "overlay", "data"), [1]),
        (("binaries", 1, "sha256"), "abc"),
        (("binaries", 1, "ok"), True),
        (("phases", 0, "outcome"), "completed"),
        (("phases", 0, "error"), {"name": "CheckFailed", "text": "passed with an error"}),
        (("phases", 0, "took_s"), "1 s"),
        (("phases", 0, "notebook"), "../00_preflight.ipynb"),
        (("phases", 0, "more"), 1),
        (("phases", 3, "plan"), "0123456789ab"),
    ],
)
def test_what_is_wrong_is_refused(path: tuple[str | int, ...], value: object) -> None:
    """A wrong value, a state that can't be, or an unknown key at any depth does not fit."""
    read: Any = passed()
    inner = read
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(ValidationError):
        VALIDATOR.validate(read)


@pytest.mark.parametrize("key", sorted(passed()))
def test_no_key_may_be_missing(key: str) -> None:
    """Every key is always there: a program need not ask."""
    read = passed()
    del read[key]
    with pytest.raises(ValidationError):
        VALIDATOR.validate(read)


def test_saved_and_loaded(tmp_path: Path) -> None:
    """What is saved is what is loaded; where there is none, the error names the file."""
    with pytest.raises(errors.RunbookError, match=r"summary\.json: is no record"):
        summary.load(tmp_path)
    read = passed()
    before = copy.deepcopy(read)
    summary.save(tmp_path, read)
    assert summary.load(tmp_path) == before == read
