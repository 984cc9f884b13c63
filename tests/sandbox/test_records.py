"""Records of real runs as evidence, and runs that broke off: checked with this program and without it, and resumed."""

from __future__ import annotations

import base64
import html
import json
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonschema
import pytest
import yaml
from practice import BIN, NODES, Practice, apply, table, until

from runbook import errors, lock, phases
from runbook.certs import authority
from runbook.sandbox.machine import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster-3")]

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/summary.schema.json").read_text(encoding="utf-8"))
CHECKS = ("sums", "files", "chain", "signature", "execution", "order", "summary")
ADA = "ada@example.org"
LOCK = f"{lock.FOLDER}/lock.json"
STALE = """{
"token": "abcd",
"since": 100,
"expires": 200,
"holder": {"user": "ada", "host": "elsewhere", "pid": 7, "record": "r0"}
}"""
LOOK = 2
"""The code cell of phase 05 with its first look: before it are the parameters, and those that papermill puts in."""
_END_S = 60


class Key(NamedTuple):
    """An SSH key that signs, and the file that allows it."""

    private: Path
    allowed: Path


@pytest.fixture(scope="module")
def path(practice: Practice) -> Path:
    """The params of a cluster that is built and complete; whoever breaks it mends it."""
    made = practice.params()
    with practice.fleet(made) as fleet:
        apply(fleet)
    return made


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    folder = tmp_path_factory.mktemp("key")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / "key"))
    public = (folder / "key.pub").read_text(encoding="ascii")
    (folder / "allowed").write_text(f"{ADA} {public}", encoding="ascii")
    return Key(folder / "key", folder / "allowed")


class Broken(NamedTuple):
    """A run that failed since etcd was stopped: how it ended, the folder of the records, its record."""

    done: CompletedProcess[str]
    root: Path
    record: Path


@pytest.fixture(scope="module")
def broken(practice: Practice, path: Path, tmp_path_factory: pytest.TempPathFactory) -> Broken:
    """A run that broke off; the cluster is well again."""
    root = tmp_path_factory.mktemp("broken")
    with stopped_etcd(practice):
        done = practice.cli("run", path, "--phases", "00,05,10", "--records", root)
    (record,) = records(root)
    return Broken(done, root, record)


@contextmanager
def stopped_etcd(practice: Practice) -> Iterator[None]:
    """Meanwhile etcd runs on no node; at the end every member answers again."""
    for node in NODES:
        practice.on(node, "systemctl stop etcd.service")
    try:
        yield
    finally:
        for node in NODES:
            practice.on(node, "systemctl start --no-block etcd.service")
        for node in NODES:
            until(lambda node=node: practice.on(node, "systemctl is-active etcd.service || true") == "active", 60)


def records(root: Path) -> list[Path]:
    """The records in a folder, oldest first."""
    return sorted(root.glob("*/*"))


def the_record(root: Path) -> Path:
    """The only record in a folder."""
    (found,) = records(root)
    return found


def told(record: Path) -> dict[str, Any]:
    """A record's summary, which is valid by its schema."""
    read = json.loads((record / "summary.json").read_text(encoding="utf-8"))
    jsonschema.validate(read, SCHEMA, cls=jsonschema.Draft202012Validator)
    return read  # type: ignore[no-any-return]


def outcomes(record: Path) -> dict[int, str]:
    """The outcome of each phase, from the summary."""
    return {one["number"]: one["outcome"] for one in told(record)["phases"]}


def failing(done: CompletedProcess[str]) -> set[str]:
    """The checks that `runbook verify` shows as failed, from its table."""
    lines = [line for line in done.stdout.splitlines() if "✗" in line]
    return {check for check in CHECKS for line in lines if f" {check} " in line}


def begin(practice: Practice, path: Path, only: str, root: Path) -> subprocess.Popen[str]:
    """Start `runbook run`, in a session of its own, as a terminal or a timer does."""
    argv = [BIN / "runbook", "run", path, "--phases", only, "--records", root]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, cwd=practice.folder, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def kernels(parent: int) -> list[int]:
    """The notebook kernels of a run, the one that works first: what its fork server has forked, and what it forked."""
    servers = [child for child in _children(parent) if b"fork_server" in _command(child)]
    # The other forks, broker and page renderer, are told on standard input what to do.
    inputs = {one: Path(f"/proc/{one}/fd/0") for server in servers for one in _children(server)}
    return [one for one, given in inputs.items() if given.exists() and given.samefile("/dev/null")]


def descendants(parent: int) -> list[int]:
    """Every process that a process has started, and they in turn."""
    return [pid for child in _children(parent) for pid in (child, *descendants(child))]


def _children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for one in tasks for pid in one.read_text(encoding="ascii").split()]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def began(root: Path, notebook: str, cell: int) -> bool:
    """Whether a notebook says that this code cell has begun; whatever is there is a whole notebook."""
    return any(
        bool(code[cell].metadata.papermill.start_time)
        for file in root.glob(f"*/*/{notebook}")
        for code in [[one for one in _notebook(file).cells if one.cell_type == "code"]]
        if "papermill" in code[cell].metadata
    )


def _notebook(file: Path) -> Any:  # noqa: ANN401 - nbformat has no types
    import nbformat  # noqa: PLC0415 - 1 s

    return nbformat.read(file, as_version=4)


@contextmanager
def busy(practice: Practice, path: Path, root: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A `runbook run` that is in the middle of phase 05's first look, and its kernel; all of it is gone at the end."""
    process = begin(practice, path, "05,10", root)
    try:
        until(lambda: process.poll() is not None or began(root, phases.PHASES[5].notebook, LOOK), _END_S)
        assert process.poll() is None, process.communicate()
        until(lambda: kernels(process.pid), _END_S)
        all_of_it = descendants(process.pid)
        yield process, kernels(process.pid)[0]
        process.wait(_END_S)
        until(lambda: all(map(gone, all_of_it)), _END_S)
    finally:
        process.kill()
        process.communicate()


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def unlock(practice: Practice) -> None:
    for node in NODES:
        practice.on(node, f"rm -rf {lock.FOLDER}")


def test_a_signed_record_holds_with_this_program_and_without_it(
    practice: Practice, path: Path, key: Key, tmp_path: Path
) -> None:
    """Pages, summary, sums and signature; a byte changed, or the record before it gone, is found and named."""
    root = tmp_path / "records"
    options = ("--records", root, "--sign", key.private)
    done = practice.cli("run", path, "--phases", "00,05", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    first = the_record(root)
    for name in ("index.html", "00_preflight.html", "05_etcd_verify.html"):
        assert "</html>" in (first / name).read_text(encoding="utf-8")
    summary = told(first)
    assert (summary["kind"], summary["outcome"], outcomes(first)) == ("run", "passed", {0: "passed", 5: "passed"})
    assert len(summary["tables"]["endpoints"]["data"]) == 3
    params = yaml.safe_load((first / "params.yaml").read_text(encoding="utf-8"))
    assert params["cluster"]["name"] == summary["cluster"] == first.parent.name

    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=first, capture_output=True, text=True, check=False)
    assert (sums.returncode, sums.stderr) == (0, "")
    assert sums.stdout.count(": OK\n") == len([one for one in first.rglob("*") if one.is_file()]) - 2
    ours = ["ssh-keygen", "-Y", "verify", "-f", key.allowed, "-I", ADA, "-n", "runbook-record"]
    signed = [*ours, "-s", first / "SHA256SUMS.sig"]
    assert subprocess.run(signed, input=(first / "SHA256SUMS").read_bytes(), capture_output=True).returncode == 0  # noqa: PLW1510 - that it is 0 is the test
    held = practice.cli("verify", first, "--allowed-signers", key.allowed)
    assert held.returncode == 0, held.stdout
    assert ADA in held.stdout

    again = practice.cli("run", path, "--phases", "05", *options)
    assert again.returncode == 0, again.stdout + again.stderr
    _, second = records(root)
    assert (second / "previous.SHA256SUMS").read_bytes() == (first / "SHA256SUMS").read_bytes()
    both = practice.cli("verify", first, second, "--allowed-signers", key.allowed)
    assert both.returncode == 0, both.stdout
    assert f"follows {first.name}" in both.stdout

    page = second / "05_etcd_verify.html"
    whole = page.read_bytes()
    page.chmod(0o644)
    page.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    changed = practice.cli("verify", "--records", root)
    assert changed.returncode == 1
    assert failing(changed) == {"sums"}
    assert "05_etcd_verify.html was changed" in changed.stdout
    page.write_bytes(whole)

    first.rename(tmp_path / "away")
    alone = practice.cli("verify", second)
    assert f"follows {first.name}; no other record is here" in alone.stdout
    third = practice.cli("status", path, "--phases", "05", "--records", root)
    assert third.returncode == 0, third.stdout + third.stderr
    newest = records(root)[-1]
    assert (told(newest)["kind"], outcomes(newest)) == ("status", {5: "passed"})
    assert practice.cli("verify", newest).returncode == 0
    missing = practice.cli("verify", "--records", root)
    assert missing.returncode == 1
    assert failing(missing) == {"chain"}
    assert first.name in missing.stdout


def test_a_failed_run_leaves_a_true_record(practice: Practice, broken: Broken) -> None:
    """Exit 1; phase 05 failed, 10 was not begun; the record is closed and holds."""
    assert broken.done.returncode == 1, broken.done.stdout + broken.done.stderr
    assert "Stopped at phase 05, 1 not begun" in broken.done.stdout
    assert outcomes(broken.record) == {0: "passed", 5: "failed", 10: "not begun"}
    assert told(broken.record)["outcome"] == "failed"
    assert {row["ok"] for row in table(broken.record, 5, "etcd endpoints")} == {False}
    assert "etcd" in (broken.record / "05_etcd_verify.html").read_text(encoding="utf-8")
    assert not list(broken.record.glob("10_*"))
    held = practice.cli("verify", broken.record)
    assert held.returncode == 0, held.stdout


def test_resume_goes_on_at_the_phase_that_failed(
    practice: Practice, path: Path, broken: Broken, tmp_path: Path
) -> None:
    """With the same params; its record names the one it continues; both are listed, and diff says what differs."""
    root = tmp_path / "records"
    shutil.copytree(broken.root, root)
    old = the_record(root)
    resumed = practice.cli("run", path, "--resume", "--records", root)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert f"resuming {old.name} at phase 05" in resumed.stdout
    assert "no longer holds" not in resumed.stdout
    _, new = records(root)
    assert outcomes(new) == {5: "passed", 10: "passed"}
    assert told(new)["continues"] == old.name
    assert practice.cli("verify", "--records", root).returncode == 0
    rows = [line for line in practice.cli("records", path, "--records", root).stdout.splitlines() if old.name in line]
    assert [("failed" in row, "passed" in row) for row in rows] == [(True, False), (False, True)]
    differs = practice.cli("diff", old, new)
    assert differs.returncode == 0, differs.stderr
    phase = [line for line in differs.stdout.splitlines() if "5 etcd_verify" in line and "outcome" in line]
    assert len(phase) == 1
    assert phase[0].index("failed") < phase[0].index("passed")
    nothing = practice.cli("run", path, "--resume", "--records", root)
    assert nothing.returncode == 2
    assert "nothing to resume" in nothing.stderr


def test_resume_with_other_params_is_refused_until_accepted(
    practice: Practice, path: Path, broken: Broken, tmp_path: Path
) -> None:
    """Exit 1 with the difference and no new record; with --accept-changes it goes on."""
    root, other = tmp_path / "records", tmp_path / "params.yaml"
    shutil.copytree(broken.root, root)
    changed = yaml.safe_load(path.read_text(encoding="utf-8"))
    changed["cluster"]["ssh"]["connect_timeout_s"] = 7
    other.write_text(yaml.safe_dump(changed), encoding="utf-8")
    refused = practice.cli("run", other, "--resume", "--records", root)
    assert refused.returncode == 1
    assert "not the same run as" in refused.stderr
    assert "+    connect_timeout_s: 7" in refused.stderr
    assert records(root) == [the_record(root)]
    accepted = practice.cli("run", other, "--resume", "--accept-changes", "--records", root)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    old, new = records(root)
    assert told(new)["continues"] == old.name
    assert "+    connect_timeout_s: 7.0" in practice.cli("diff", old, new).stdout


def test_while_one_run_holds_the_cluster_no_other_changes_it(practice: Practice, path: Path, tmp_path: Path) -> None:
    """`run` ends with 1 and names the holder; a plan applied past the lock is refused by the node itself."""
    unit = "/etc/systemd/system/flanneld.service"
    with practice.fleet(path) as holder, practice.fleet(path) as other:
        practice.on("node3", f"cp -p {unit} /root/unit && echo '# changed' >>{unit}")
        try:
            with lock.held(holder, record="another"):
                done = practice.cli("run", path, "--phases", "05", "--records", tmp_path)
                with pytest.raises(errors.ApplyFailed, match=rf"(?s)node3 .*locked by another run: .*{os.getpid()}"):
                    apply(other, "08")
            assert "# changed" in practice.on("node3", f"cat {unit}")
        finally:
            practice.on("node3", f"mv /root/unit {unit} && systemctl daemon-reload")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "LockHeld" in done.stderr
    assert f"(process {os.getpid()}, record another)" in done.stderr
    record = the_record(tmp_path)
    assert (told(record)["outcome"], outcomes(record)) == ("failed", {5: "not begun"})
    assert practice.cli("verify", record).returncode == 0


def test_a_stale_lock_is_said_and_taken_over_when_told(practice: Practice, path: Path, tmp_path: Path) -> None:
    """Of another machine: exit 1 with its holder and the option; with --take-over the run goes on and releases."""
    practice.on("node2", f"mkdir -p {lock.FOLDER} && cat >{LOCK} <<'END'\n{STALE}\nEND")
    try:
        refused = practice.cli("run", path, "--phases", "05", "--records", tmp_path)
        assert refused.returncode == 1
        assert "node2: a stale lock by ada@elsewhere (process 7, record r0)" in refused.stderr
        assert "--take-over" in refused.stderr
        done = practice.cli("run", path, "--phases", "05", "--take-over", "--records", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "taken over: a stale one of ada@elsewhere" in (records(tmp_path)[-1] / "journal.jsonl").read_text(
            "utf-8"
        )
        assert [practice.on(node, f"ls -d {lock.FOLDER} 2>/dev/null || true") for node in NODES] == ["", "", ""]
    finally:
        unlock(practice)


def test_a_run_that_was_killed_can_be_closed(practice: Practice, path: Path, tmp_path: Path) -> None:
    """SIGKILL leaves whole files only and no kernel; `close` says failed in notebook and summary, and it verifies."""
    try:
        with busy(practice, path, tmp_path) as (process, kernel):
            process.kill()
            process.wait(_END_S)
            until(lambda: gone(kernel))
        record = the_record(tmp_path)
        assert told(record)["outcome"] == "running"
        assert [one.name for one in record.iterdir() if one.name.startswith(".")] == []
        open_still = practice.cli("verify", record)
        assert open_still.returncode == 1
        assert "not closed" in open_still.stdout
        closed = practice.cli("close", record)
        assert closed.returncode == 0, closed.stderr
        _failed_in_the_first_look(practice, record)
        twice = practice.cli("close", record)
        assert twice.returncode == 1
        assert "is closed already" in twice.stderr
    finally:
        unlock(practice)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_closes_its_record_itself(
    practice: Practice, path: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C and kill: the run ends soon and not with 0, its record is closed as failed, its kernel and lock gone."""
    with busy(practice, path, tmp_path) as (process, kernel):
        process.send_signal(number)
        out, err = process.communicate(timeout=_END_S)
        assert process.returncode in (1, 130), out + err
        assert "Traceback" not in out + err
        until(lambda: gone(kernel))
    _failed_in_the_first_look(practice, the_record(tmp_path))
    assert practice.on("node1", f"ls -d {lock.FOLDER} 2>/dev/null || true") == ""


def test_a_kernel_that_is_killed_fails_its_phase(practice: Practice, path: Path, tmp_path: Path) -> None:
    """Exit 1; the run closes its record, the notebook says which cell failed, and 10 is not begun."""
    with busy(practice, path, tmp_path) as (process, kernel):
        os.kill(kernel, signal.SIGKILL)
        out, err = process.communicate(timeout=_END_S)
        assert process.returncode == 1, out + err
    assert "DeadKernelError" in out
    _failed_in_the_first_look(practice, the_record(tmp_path))


def _failed_in_the_first_look(practice: Practice, record: Path) -> None:
    """The record is closed, says failed, and holds; phase 05 broke off in its first look and tells so."""
    assert (told(record)["outcome"], outcomes(record)) == ("failed", {5: "failed", 10: "not begun"})
    code = [one for one in _notebook(record / phases.PHASES[5].notebook).cells if one.cell_type == "code"]
    places = [n for n, cell in enumerate(code) if any(one.output_type == "error" for one in cell.outputs)]
    assert places == [LOOK]
    assert [cell.metadata.papermill.status for cell in code[LOOK : LOOK + 2]] == ["failed", "pending"]
    held = practice.cli("verify", record)
    assert held.returncode == 0, held.stdout
    assert "</html>" in (record / "index.html").read_text(encoding="utf-8")


def test_a_secret_that_a_node_shows_stays_out_of_the_record(
    practice: Practice, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private key and a password in a node's file, which a plan's diff would show, are in no file of the record."""
    password = "Tr0ub4dor&<3>"  # noqa: S105 - the secret of this test
    monkeypatch.setenv("RUNBOOK_SUDO_PASSWORD", password)
    pem = authority.new_authority({}, name="x", valid_days=1, key_type="ecdsa").key.reveal().decode()
    lines = "".join(f"# {line}\n" for line in [*pem.splitlines(), f"password {password}"])
    unit = practice.root("node1") / "etc/systemd/system/flanneld.service"
    whole = unit.read_text(encoding="utf-8")
    try:
        unit.write_text(whole + lines, encoding="utf-8")
        done = practice.cli("run", path, "--phases", "08", "--records", tmp_path / "records")
    finally:
        unit.write_text(whole, encoding="utf-8")
        practice.on("node1", "systemctl daemon-reload; systemctl restart flanneld.service")
    record = the_record(tmp_path / "records")
    assert done.returncode == errors.ApprovalRequired.exit_status, done.stdout + done.stderr
    assert told(record)["secrets_removed"] > 0
    body = pem.splitlines()[1]
    forms = [body, password, html.escape(password), json.dumps(password), base64.b64encode(password.encode()).decode()]
    for file in record.iterdir():
        text = file.read_text(encoding="utf-8")
        assert [form for form in forms if form in text] == [], file.name
    assert body not in done.stdout + done.stderr
    assert practice.cli("verify", record).returncode == 0


def test_a_lost_machine_leaves_a_true_record(practice: Practice, path: Path, tmp_path: Path) -> None:
    """A run that finds a node gone fails, and its record is closed and holds."""
    practice.sandbox.stop("node3")
    try:
        done = practice.cli("run", path, "--phases", "00", "--records", tmp_path / "records")
    finally:
        practice.sandbox.start("node3")
    until(lambda: practice.on("node3", "systemctl is-active flanneld.service || true") == "active", 90)
    record = the_record(tmp_path / "records")
    assert done.returncode == errors.NodeError.exit_status, done.stdout + done.stderr
    assert (told(record)["outcome"], outcomes(record)) == ("failed", {0: "failed"})
    assert "node3" in told(record)["phases"][0]["error"]["text"]
    assert practice.cli("verify", record).returncode == 0
