"""runbook.cli: options, exit status and messages of the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from local_node import cluster_of
from typer.testing import CliRunner

from runbook import cli, errors, fleet, phases, pipeline, record, show
from runbook.phases import Phase
from runbook.plan import Plan
from runbook.records import resume, summary
from runbook.resources import Change

if TYPE_CHECKING:
    from collections.abc import Callable

SHIPPED = Path(__file__).parents[2] / "params" / "sandbox.yaml"
GOOD = show.table([{"node": "node1", "ok": True}], ["node", "ok"], "Good")
BAD = show.table([{"node": "node1", "ok": False, "why": "[red]down"}], ["node", "ok", "why"], "Bad")


def invoke(*words: object) -> tuple[int, str, str]:
    """Run `runbook` in this process, as `main` does: exit status, stdout, stderr."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if isinstance(result.exception, errors.RunbookError):
        return result.exception.exit_status, result.stdout, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def main(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run `main` itself; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["runbook", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text("cluster: {name: c, nodes: [{name: node1, host: 198.18.0.11}]}\n")
    return path


def phases_are(monkeypatch: pytest.MonkeyPatch, *made: Phase) -> None:
    """Stands in for the phases, and for the nodes."""
    monkeypatch.setattr(phases, "PHASES", made)
    monkeypatch.setattr(
        fleet, "connect", lambda *_args, **_options: SimpleNamespace(cluster=cluster_of(), close=lambda: None)
    )


# ---- usage


def test_phases_are_listed() -> None:
    """`runbook phases` has a line a phase, with its notebook and whether it changes nodes."""
    status, out, _ = invoke("phases")
    assert status == 0
    assert re.search(r"04 etcd start .*04_etcd_start\.ipynb .*yes", out)
    assert re.search(r"11 ping mesh .*11_ping_mesh\.ipynb .*no", out)


@pytest.mark.parametrize(
    "words", [("--nonsense",), ("run",), ("nonsense",), ("run", "x.yaml", "--nonsense"), ("plan", "a", "b")]
)
def test_bad_usage_is_2(words: tuple[str, ...]) -> None:
    """A wrong option, command or number of arguments is told on stderr, with exit status 2."""
    status, out, err = invoke(*words)
    assert (status, out) == (2, "")
    assert err


@pytest.mark.parametrize("command", ["run", "plan", "status", "trust"])
def test_all_faults_of_params_are_told(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every fault of a params file stands on stderr, with exit status 2, without a traceback; nothing is written."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.yaml"
    path.write_text("cluster: {name: '!', nodes: [{name: n, host: 300.1.1.1}], nonsense: 1}\n")
    assert main(monkeypatch, command, path) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "3 faults" in err
    for key in ("cluster.name", "host", "nonsense"):
        assert key in err
    assert "Traceback" not in err
    assert [one.name for one in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_missing_params_file_is_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that is not there is named."""
    assert main(monkeypatch, "run", "/nowhere/p.yaml") == 2
    assert "/nowhere/p.yaml" in capsys.readouterr().err


def test_phases_that_are_none_are_2(
    params_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A list of phases that is none is told before anything is done."""
    monkeypatch.chdir(tmp_path)
    assert main(monkeypatch, "run", params_file, "--phases", "3-99") == 2
    assert "--phases: '3-99': there are phases 00 to 11" in capsys.readouterr().err
    assert not (tmp_path / "records").exists()


def test_messages_of_others_are_text(
    params_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Markup and escapes in an error are shown as they are, or dropped."""

    def connect(*_: object, **__: object) -> None:
        raise errors.Unreachable("[bold]x[/] \x1b[31mred fe80:a:b:x:c", node="node1")

    monkeypatch.setattr(fleet, "connect", connect)
    assert main(monkeypatch, "plan", params_file) == 4
    err = capsys.readouterr().err
    assert "node1: [bold]x[/] [31mred fe80:a:b:x:c" in err
    assert "\x1b" not in err


def test_the_installed_command_tells_without_a_traceback(tmp_path: Path) -> None:
    """As a program too: the message on stderr, exit status 2."""
    command = [sys.executable, "-c", "from runbook.cli import main; main()", "plan", str(tmp_path / "none.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "none.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_warnings_of_params_go_to_stderr(params_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What works but is hardly meant is told beside the output."""
    params_file.write_text("cluster: {name: c, nodes: [{name: a, host: 198.18.0.11}, {name: b, host: 198.18.0.12}]}\n")
    phases_are(monkeypatch)
    status, out, err = invoke("plan", params_file, "--json")
    assert (status, json.loads(out)) == (0, {"cluster": "c", "plans": []})
    assert "take an odd number" in err


# ---- plan and status


def planned(*changes: Change) -> Callable[[object], Plan]:
    return lambda one: Plan("etcd units", one, lambda: (list(changes), ["a [note]"], 1))  # type: ignore[arg-type]


CHANGE = Change("/etc/x", "create", "missing", diff="+[red]x\x1b[0m", node="node1")


def test_plan_shows_each_phase(params_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every phase that has one shows its plan, diffs and notes as they are; phases that look have none."""
    phases_are(
        monkeypatch, Phase(0, "look", "look", lambda _: []), Phase(1, "units", "units", lambda _: [], planned(CHANGE))
    )
    status, out, _ = invoke("plan", params_file)
    assert status == 0
    assert "01 units" in out
    assert "00 look" not in out
    assert "+[red]x[0m" in out
    assert "a [note]" in out
    assert out.endswith("1 change in 1 phase; none was made\n")


def test_plan_with_nothing_to_change(params_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster that is right it says so."""
    phases_are(monkeypatch, Phase(1, "units", "units", lambda _: [], planned()))
    assert invoke("plan", params_file)[1].endswith("\nnothing to change\n")


def test_plan_for_scripts_is_json(params_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json standard output is one JSON value."""
    phases_are(monkeypatch, Phase(1, "units", "units", lambda _: [], planned(CHANGE)))
    told = json.loads(invoke("plan", params_file, "--json")[1])
    assert told["cluster"] == "c"
    (one,) = told["plans"]
    assert (one["phase"], one["title"], len(one["changes"])) == ("01 units", "etcd units", 1)


def lost(_fleet: object) -> list[show.Table]:
    raise errors.Unreachable("no answer [x]", node="node1")


def broken(_fleet: object) -> list[show.Table]:
    raise errors.CommandFailed("ended with status 1")


@pytest.mark.parametrize(
    ("verify", "status"), [(lambda _: [GOOD], 0), (lambda _: [GOOD, BAD], 1), (lost, 4), (broken, 1)]
)
def test_status_tells_by_its_exit_status(
    params_file: Path, monkeypatch: pytest.MonkeyPatch, verify: Callable[[object], list[show.Table]], status: int
) -> None:
    """0 when every row holds, 1 when one does not, 4 when a node can't be reached; the other phases are shown."""
    phases_are(monkeypatch, Phase(0, "one", "one", verify), Phase(1, "two", "two", lambda _: [GOOD]))
    got, out, _ = invoke("status", params_file)
    assert got == status
    assert "Good" in out
    if status == 4:
        assert "no answer [x]" in out
    told = json.loads(invoke("status", params_file, "--json")[1])
    assert told["tables"][-1] == {"phase": "01 two", "caption": "Good", "rows": [{"node": "node1", "ok": True}]}


# ---- run


def runs_end_with(monkeypatch: pytest.MonkeyPatch, *endings: tuple[str, str]) -> list[object]:
    """Stands in for the notebooks: each phase ends with this error, '' for none; returns what approve was."""
    approvals: list[object] = []

    def run(
        _path: Path,
        _cluster: object,
        chosen: tuple[Phase, ...],
        folder: Path,
        options: pipeline.Options,
        *,
        report: Callable[[pipeline.PhaseRun], None],
        **_: object,
    ) -> list[pipeline.PhaseRun]:
        approvals.append(options.approve)
        runs = []
        for phase, (ename, evalue) in zip(chosen, endings, strict=False):
            executed = SimpleNamespace(ok=not ename, changes=2, kept=(), plan=None, cells=1, never_ran=0)
            runs.append(
                pipeline.PhaseRun(
                    phase,
                    folder / phase.notebook,
                    executed,
                    ename,
                    evalue,
                    pipeline.exit_status(ename) if ename else 0,
                    1.0,
                )
            )  # type: ignore[arg-type]
            report(runs[-1])
        return runs

    monkeypatch.setattr(pipeline, "run", run)
    return approvals


@pytest.mark.parametrize(
    ("ename", "status"),
    [
        ("", 0),
        ("CheckFailed", 1),
        ("ParamsError", 2),
        ("ApprovalRequired", 3),
        ("PlanChanged", 3),
        ("LoginRefused", 4),
        ("DeadKernelError", 1),
    ],
)
def test_a_run_ends_with_its_errors_status(
    params_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ename: str, status: int
) -> None:
    """The exit status says how a run ended, and its last lines where the record is."""
    runs_end_with(monkeypatch, ("", ""), (ename, "why [it] failed" if ename else ""))
    got, out, _ = invoke("run", params_file, "--phases", "0-1", "--records", tmp_path / "records")
    assert got == status
    assert str(tmp_path / "records" / "c") in out.replace("\n", "")
    assert ("why [it] failed" in out) == bool(ename)


@pytest.mark.parametrize(
    ("option", "in_file", "approve"),
    [((), "", False), (("--approve",), "", True), ((), "approve: true\n", True), ((), "approve: p0123\n", "p0123"),
     (("--approve",), "approve: p0123\n", True)],
)  # fmt: skip
def test_approval_comes_from_the_option_or_the_file(
    params_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    option: tuple[str, ...],
    in_file: str,
    approve: object,
) -> None:
    """--approve approves all; else the params file's word holds, and by default nothing is approved."""
    params_file.write_text(params_file.read_text() + in_file)
    approvals = runs_end_with(monkeypatch, ("", ""))
    invoke("run", params_file, "--phases", "0", "--records", tmp_path / "r", *option)
    assert approvals == [approve]


def options_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], pipeline.Options]]:
    """Stands in for recording a run: the phases' numbers and the options of each."""
    seen: list[tuple[list[int], pipeline.Options]] = []
    monkeypatch.setattr(
        cli,
        "record_run",
        lambda _p, _c, chosen, _r, options, **_: seen.append(([one.number for one in chosen], options)),
    )
    return seen


@pytest.mark.parametrize("command", [("run",), ("status", "--records", "r")])
def test_the_option_or_the_file_names_the_sign_key(
    params_file: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """--sign comes before the params file's records.sign_key."""
    params_file.write_text(params_file.read_text() + "records: {sign_key: /file/key}\n")
    seen = options_of(monkeypatch)
    assert invoke(command[0], params_file, *command[1:])[0] == 0
    assert invoke(command[0], params_file, *command[1:], "--sign", "/option/key")[0] == 0
    assert [one.sign_key for _, one in seen] == [Path("/file/key"), Path("/option/key")]


def test_a_kept_status_only_looks(params_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status --records` runs the notebooks that change nothing, and approves nothing whatever the file says."""
    params_file.write_text(params_file.read_text() + "approve: true\n")
    seen = options_of(monkeypatch)
    invoke("status", params_file, "--records", "r")
    ((numbers, options),) = seen
    assert numbers == [phase.number for phase in phases.PHASES if phase.plan is None]
    assert (options.kind, options.approve) == ("status", False)


def test_from_and_take_over(params_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--from leaves out the phases before; --take-over is handed on, and is never the default."""
    seen = options_of(monkeypatch)
    invoke("run", params_file, "--phases", "0-5", "--from", "4")
    invoke("run", params_file, "--take-over")
    assert [(numbers, one.take_over) for numbers, one in seen] == [([4, 5], False), (list(range(12)), True)]
    assert invoke("run", params_file, "--phases", "0-3", "--from", "4")[0] == 2


def test_resume_goes_on_after_the_newest_record(
    params_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The phases that are left run, the record names the one it continues; changed params need --accept-changes."""
    cluster = cli.params.load(params_file)
    folder = record.new_folder(tmp_path / "r", cluster)
    told = summary.begin(cluster, "run", phases.select("0-3"))
    told["phases"][0]["outcome"] = "passed"
    summary.end(told, 1)
    summary.save(folder, told)
    monkeypatch.setattr(fleet, "connect", lambda *_args, **_options: None)
    monkeypatch.setattr(resume, "no_longer_hold", lambda _fleet, earlier: [(earlier[0], "Bad [x]", BAD)])
    seen = options_of(monkeypatch)
    words = ("run", params_file, "--records", tmp_path / "r", "--resume")
    status, out, _ = invoke(*words)
    assert status == 0
    assert f"resuming {folder.name} at phase 01" in out
    assert "phase 00 passed then and no longer holds: Bad [x]" in out
    params_file.write_text(params_file.read_text().replace("198.18.0.11", "198.18.0.12"))
    assert invoke(*words)[0] == errors.PlanRefused.exit_status
    assert invoke(*words, "--accept-changes")[0] == 0
    assert [(numbers, one.continues) for numbers, one in seen] == [([1, 2, 3], folder.name)] * 2


def test_the_shipped_params_are_good() -> None:
    """params/sandbox.yaml is good as it is: the command line gets past it."""
    assert cli.params.load(SHIPPED).name == "sandbox"
