"""Small records of runs that never were: notebooks as papermill leaves them, a summary that fits; and tampering."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import nbformat

from runbook.records import sumfile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NAMES = {3: "etcd_units", 4: "etcd_start", 5: "etcd_verify"}
CODE = ("fleet = connect(cluster)", "plan = etcd.units(fleet)", "await plan.apply(approve)")


def stamp(number: int) -> str:
    """The name of the nth record: one an hour."""
    return f"20261123T{number:02d}0000Z"


def notebook(phase: int, begin: datetime, *, fails_at: int | None = None) -> nbformat.NotebookNode:
    """An executed notebook: a title, and three code cells of a second each; none runs after the one that fails."""
    made: Any = nbformat.v4.new_notebook(metadata={"papermill": {"start_time": begin.isoformat()}})
    made.cells.append(nbformat.v4.new_markdown_cell(f"# {phase:02d} · Something\n\nWhat it changes."))
    for place, source in enumerate(CODE, 1):
        start = begin + timedelta(seconds=place)
        told: dict[str, Any] = {"status": "pending", "start_time": None, "end_time": None, "exception": None}
        cell: Any = nbformat.v4.new_code_cell(source)
        if fails_at is None or place <= fails_at:
            end = start + timedelta(seconds=0.9)
            failed = place == fails_at
            told = {"status": "failed" if failed else "completed", "exception": failed}
            told |= {"start_time": start.isoformat(), "end_time": end.isoformat()}
            cell.execution_count = place
            if failed:
                cell.outputs = [nbformat.v4.new_output("error", ename="CheckFailed", evalue="no", traceback=[])]
        cell.metadata["papermill"] = told
        made.cells.append(cell)
    return made


def make(root: Path, number: int = 1, *, phases: Sequence[int] = (3, 4), failed: int | None = None) -> Path:
    """An open record of a run that has ended: `ROOT/sandbox/<stamp>`; the last phase fails at its cell `failed`."""
    folder = root / "sandbox" / stamp(number)
    folder.mkdir(parents=True)
    begin = datetime.strptime(stamp(number), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    rows = []
    for place, phase in enumerate(phases):
        last = place == len(phases) - 1
        name = f"{phase:02d}_{NAMES[phase]}"
        made = notebook(phase, begin + timedelta(seconds=10 * place), fails_at=failed if last else None)
        nbformat.write(made, folder / f"{name}.ipynb")
        (folder / f"{name}.html").write_text(f"<title>{name}</title>")
        outcome = "failed" if last and failed else "passed"
        rows.append({"number": phase, "name": NAMES[phase], "outcome": outcome} | files(name))
    told = {"schema": 1, "kind": "run", "cluster": "sandbox", "continues": None, "phases": rows}
    told |= {"started": begin.isoformat(), "ended": (begin + timedelta(seconds=60)).isoformat()}
    told["outcome"] = "failed" if failed else "passed"
    (folder / "summary.json").write_text(json.dumps(told))
    (folder / "params.yaml").write_text("cluster: {name: sandbox}\n")
    (folder / "journal.jsonl").write_text('{"node": "node1"}\n')
    return folder


def files(name: str) -> dict[str, str]:
    """The files of a phase as a summary names them."""
    return {"notebook": f"{name}.ipynb", "html": f"{name}.html"}


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file of a record."""
    told = json.loads(path.read_text())
    change(told)
    overwrite(path, json.dumps(told))


def overwrite(path: Path, text: str) -> None:
    """Write a file that may be read-only."""
    path.unlink(missing_ok=True)
    path.write_text(text)


def reseal(folder: Path) -> None:
    """Make the sums anew, as one would who hides a change: the record before and after know nothing of it."""
    names = sorted(set(sumfile.inside(folder)) - {"SHA256SUMS", "SHA256SUMS.sig"})
    overwrite(folder / "SHA256SUMS", "".join(f"{sumfile.sha256(folder / name)}  {name}\n" for name in names))


def new_key(folder: Path, name: str, passphrase: str = "") -> Path:
    """A new SSH key."""
    folder.mkdir(exist_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", str(folder / name)]
    subprocess.run(command, check=True, timeout=60)
    return folder / name


def allow(path: Path, **signers: Path) -> Path:
    """A file of allowed signers: who, by key."""
    lines = [f"{who} {' '.join(key.with_suffix('.pub').read_text().split()[:2])}\n" for who, key in signers.items()]
    path.write_text("".join(lines))
    return path
