"""docs/performance.md from the raw figures: tables between its markers, and pictures beside them."""

from __future__ import annotations

import json
import re
from statistics import median
from typing import TYPE_CHECKING, Any

import bars
import rivals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PAGE = rivals.ROOT / "docs/performance.md"
PICTURES = rivals.ROOT / "docs/pictures"
_LABELS = {one.key: one.label for one in rivals.ALL}
_SIZE_COLUMNS = (
    "nodes", "etcd members", "first build, s", "a node more, s", "second run, s", "peak memory, MiB", "processes",
    "mesh pairs", "mesh, s", "rounds",
)  # fmt: skip
Figures = dict[str, dict[str, float]]


def write(results: Path) -> None:
    """Write what there are raw figures for; the rest of the page stays as it is."""
    if (results / "rivals.json").is_file():
        told = json.loads((results / "rivals.json").read_text(encoding="utf-8"))
        figures = of_rounds(told["runs"])
        _put("rivals", "\n".join([*_setting(told), "", *_table(figures), "", *_goals(figures)]))
        rows = [(_LABELS[key].replace("`", ""), one["first_s"], one["second_s"]) for key, one in figures.items()]
        picture = bars.svg("The whole job on three nodes, seconds", ("first build", "second run"), rows)
        (PICTURES / "performance.svg").write_text(picture, encoding="utf-8")
    if (results / "sizes.json").is_file():
        told = json.loads((results / "sizes.json").read_text(encoding="utf-8"))
        _put("sizes", "\n".join([*_setting(told), "", *_sizes(told["sizes"])]))
        rows = [(f"{one['nodes']} nodes", one["first"]["took_s"], one["second"]["took_s"]) for one in told["sizes"]]
        picture = bars.svg("runbook run by number of nodes, seconds", ("first build", "second run"), rows)
        (PICTURES / "performance-sizes.svg").write_text(picture, encoding="utf-8")


def of_rounds(runs: Sequence[Mapping[str, Any]]) -> Figures:
    """Medians by contender: the times, and their ratios to bash's first build of the same round.

    A ratio is taken within a round, where both had the same machine, and then the median of the rounds' ratios.
    """
    bash = {run["round"]: run["first_s"] for run in runs if run["contender"] == "bash"}
    figures: Figures = {}
    for key in dict.fromkeys(one.key for one in rivals.ALL):
        mine = [run for run in runs if run["contender"] == key and run["round"] in bash]
        if not mine:
            continue
        figures[key] = {"rounds": len(mine), "restarted": max(run["restarted"] for run in mine)}
        for which in ("first", "second"):
            times = [run[f"{which}_s"] for run in mine]
            figures[key] |= {
                f"{which}_s": median(times),
                f"{which}_least_s": min(times),
                f"{which}_most_s": max(times),
                f"{which}_ratio": median(run[f"{which}_s"] / bash[run["round"]] for run in mine),
                f"{which}_cpu_s": median(run[f"{which}_cpu_s"] for run in mine),
            }
    return figures


def _setting(told: Mapping[str, Any]) -> list[str]:
    at, runs = told["machine"], told.get("runs", told.get("sizes", []))
    loads = [run[key] for run in runs for key in ("first_load", "load") if key in run]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    hardware = f"{at['processor']}, {at['cores']} cores, {at['memory_gib']} GiB, {at['system']}, Linux {at['kernel']}"
    return [
        f"Measured {told['date']}: {hardware}, nodes and this side on the same machine.",
        f"Load average before the runs: {min(loads):.1f} to {max(loads):.1f}. {versions}.",
    ]


def _table(figures: Figures) -> list[str]:
    rounds = int(max(one["rounds"] for one in figures.values()))
    lines = [
        f"Medians of {rounds} interleaved rounds; in brackets the least and the most. Bash's first build is 1.",
        "",
        "| | first build, s | of bash | second run, s | of bash | its CPU here, s | second run restarts services |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, one in figures.items():
        cells = [_LABELS[key]]
        for which in ("first", "second"):
            spread = f"({one[f'{which}_least_s']:.1f} to {one[f'{which}_most_s']:.1f})"
            cells += [f"{one[f'{which}_s']:.1f} {spread}", f"{one[f'{which}_ratio']:.2f}"]
        cells += [f"{one['first_cpu_s']:.1f}", "yes" if one["restarted"] else "no"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _goals(figures: Figures) -> list[str]:
    """What was aimed at, and whether it was reached; left out for contenders that did not run."""
    ours = figures.get("runbook")
    if not ours:
        return []

    def against(key: str, which: str) -> float | None:
        return ours[f"{which}_s"] / figures[key][f"{which}_s"] if key in figures else None

    rows = [
        ("first build against bash", ours["first_ratio"], 0.45),
        ("first build against pyinfra", against("pyinfra", "first"), 1.0),
        ("first build against Ansible", against("ansible", "first"), 0.25),
        ("first build against the sketch", against("sketch", "first"), 2.0),
        ("second run against bash's first build", ours["second_ratio"], 0.2),
        ("second run against pyinfra's second", against("pyinfra", "second"), 1.0),
    ]
    lines = ["| `runbook run` | aimed at | measured | |", "|---|---|---|---|"]
    lines += [
        f"| {what} | {'below' if most in (1.0, 2.0) else 'at most'} {most:g} | {found:.2f} | {_met(found, most)} |"
        for what, found, most in rows
        if found is not None
    ]
    return lines


def _met(found: float, most: float) -> str:
    return "met" if (found < most if most in (1.0, 2.0) else round(found, 2) <= most) else "**missed**"


def _sizes(sizes: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        f"| {' | '.join(_SIZE_COLUMNS)} |",
        f"|{'---|' * len(_SIZE_COLUMNS)}",
    ]
    before: Mapping[str, Any] | None = None
    for one in sizes:
        first, mesh = one["first"], one["mesh"]
        more = (first["took_s"] - before["first"]["took_s"]) / (one["nodes"] - before["nodes"]) if before else None
        cells = [
            one["nodes"], one["members"], f"{first['took_s']:.1f}", "" if more is None else f"{more:.2f}",
            f"{one['second']['took_s']:.1f}", first["peak_mib"], first["processes"], mesh["pairs"],
            f"{mesh['took_s']:.1f}", mesh["rounds"],
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
        before = one
    titles = sizes[0]["first"]["phases_s"]
    lines += ["", f"| phase, first build, s | {' | '.join(str(one['nodes']) + ' nodes' for one in sizes)} |"]
    lines += [f"|---|{'---|' * len(sizes)}"]
    for name in titles:
        times = [f"{one['first']['phases_s'][name]:.1f}" for one in sizes]
        lines.append(f"| {name} | {' | '.join(times)} |")
    return lines


def _put(name: str, text: str) -> None:
    """Replace what stands between a pair of markers."""
    page = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: made by make bench -->", f"<!-- {name}: end -->"
    made, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text}\n{end}", page, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{PAGE.name} has {count} places for {name}, expected one")
    PAGE.write_text(made, encoding="utf-8")
