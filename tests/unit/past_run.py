"""Records of runs that never were, small but of the real shape."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import nbformat
import yaml
from nbformat import v4

from runbook import params, phases, show
from runbook.records import summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = Path(__file__).parents[2]
PLAN = {"id": "p0123456789ab", "title": "etcd units", "changes": [], "notes": [], "unchanged": 3}
ENDPOINTS = ("endpoint", "node", "ok", "took_ms", "raft_index", "leader")
BINARY = ("node", "path", "ok", "version", "sha256", "source", "compared_with")


def endpoints(*, leader: str = "node1", took_ms: float | None = 1.5, nodes: int = 3) -> show.Table:
    rows = [
        {
            "endpoint": f"https://198.18.0.1{number}:2379",
            "node": f"node{number}",
            "ok": True,
            "took_ms": took_ms,
            "raft_index": round((took_ms or 0) * 100),
            "leader": leader == f"node{number}",
        }
        for number in range(1, nodes + 1)
    ]
    return show.table(rows, ENDPOINTS, "etcd endpoints")


def overlay(*rtts: float | None) -> show.Table:
    return show.table(
        [{"from": "node1", "node2": rtts[0]}, {"from": "node2", "node2": rtts[1]}], ("from", "node2"), "overlay: rtt_ms"
    )


def binaries(sha256: str = "0" * 64) -> show.Table:
    row = {"node": "node1", "path": "/opt/k8s/bin/etcd", "ok": True, "version": "etcd Version: 3.6.16"}
    row |= {"sha256": sha256, "source": "cache", "compared_with": "go.sum"}
    silent = {"node": "node2", "ok": False}
    return show.table([row, silent], BINARY, "Binaries in /opt/k8s/bin")


def phase_run(
    number: int, *tables: show.Table, ename: str = "", plan: Mapping[str, Any] | None = None
) -> SimpleNamespace:
    changes = len(plan["changes"]) if plan else None
    executed = SimpleNamespace(kept=tuple(map(show.kept, tables)), plan=plan, changes=changes, began=None)
    return SimpleNamespace(
        phase=phases.PHASES[number],
        executed=executed,
        ename=ename,
        evalue="node1: it went wrong" if ename else "",
        exit_status=1 if ename else 0,
        took_s=1.234,
    )


def told(
    kind: str = "run",
    done: Iterable[Any] = (),
    *,
    ended: bool = True,
    approve: bool | str = False,
    continues: str | None = None,
) -> dict[str, Any]:
    """A summary, made as a run makes it."""
    made = summary.begin(
        params.load(ROOT / "params/sandbox.yaml"), kind, phases.PHASES, approve=approve, continues=continues
    )
    status = 0
    for one in done:
        summary.add(made, one, timed=True)
        status = one.exit_status
    if ended:
        summary.end(made, status)
    return made


def executed_notebook(*outputs: object, source: str = "plan", ran: bool = True) -> nbformat.NotebookNode:
    """A notebook of one cell; each output is a table, a plan, text, or an exception."""
    made = []
    for one in outputs:
        if isinstance(one, show.Table):
            made.append(v4.new_output("execute_result", one._repr_mimebundle_(), execution_count=7))
        elif isinstance(one, dict):
            made.append(v4.new_output("execute_result", {show.PLAN_MIME: one}, execution_count=7))
        elif isinstance(one, Exception):
            trace = [f"at {id(one):#x}"]
            made.append(v4.new_output("error", ename=type(one).__name__, evalue=str(one), traceback=trace))
        else:
            made.append(v4.new_output("stream", name="stdout", text=str(one)))
    cell = v4.new_code_cell(source, outputs=made, execution_count=7 if ran else None)
    cell.metadata.papermill = {"start_time": str(id(cell)), "status": "completed"}
    return v4.new_notebook(
        cells=[v4.new_markdown_cell("# Title"), cell], metadata={"papermill": {"duration": id(cell)}}
    )


def past_run(root: Path, name: str, read: Mapping[str, Any], notebooks: Mapping[str, Any] | None = None) -> Path:
    """A closed record's folder."""
    folder = root / "sandbox" / name
    folder.mkdir(parents=True)
    cluster = params.load(ROOT / "params/sandbox.yaml")
    (folder / "params.yaml").write_text(yaml.safe_dump({"cluster": cluster.model_dump(mode="json")}, sort_keys=False))
    (folder / summary.NAME).write_text(json.dumps(read))
    for file, notebook in (notebooks or {}).items():
        nbformat.write(notebook, folder / file)
    close(folder)
    return folder


def close(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    sums = [(hashlib.sha256(one.read_bytes()).hexdigest(), one.name) for one in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("".join(f"{sum_}  {name}\n" for sum_, name in sums))
