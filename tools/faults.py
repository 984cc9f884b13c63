"""Hit a run at each point by a fault, and write what came of it into docs/reliability.md (`make faults`)."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import platformdirs

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "sandbox"))

from faultpoints import POINTS, Point  # noqa: E402 - tests' own modules
from marked import put  # noqa: E402
from practice import Practice  # noqa: E402
from sweep import Outcome, Sweep  # noqa: E402

from runbook.sandbox import Sandbox  # noqa: E402

NAME, SLOT = "faults", 1


def main() -> int:
    """Run the points that are asked for; 1 where one of them broke something."""
    options = _options()
    # A shell's background jobs have it ignored, and so would those that are hit by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "XDG_STATE_HOME" not in os.environ:
        os.environ["XDG_STATE_HOME"] = str(platformdirs.user_state_path("runbook-faults"))
    points = [point for point in POINTS if options.only in point.name]
    done = _kept(options.results) if options.go_on else {}
    sandbox = Sandbox(NAME, options.slot, tell=lambda line: print(line, flush=True))
    try:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            sandbox.up(3)
            sweep = Sweep(Practice(sandbox, Path(folder)))
            sweep.begin()
            for number, point in enumerate(points, 1):
                if point.name in done:
                    continue
                start = time.monotonic()
                outcome = sweep.hit(point)
                done[point.name] = _row(outcome)
                options.results.write_text(json.dumps(done, indent=1), encoding="utf-8")
                told = "; ".join(outcome.broken) or "good"
                print(f"{number}/{len(points)} {point.name}: {outcome.ended}, {time.monotonic() - start:.0f} s: {told}",
                      flush=True)  # fmt: skip
    finally:
        if not options.keep:
            sandbox.down()
    if not options.only:
        put("faults", table(done))
    return 1 if any(row["broken"] for row in done.values()) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="Only the points whose name has this in it.")
    parser.add_argument("--slot", type=int, default=SLOT)
    parser.add_argument("--keep", action="store_true", help="Leave the practice cluster up.")
    parser.add_argument("--go-on", action="store_true", help="Keep the results that are there.")
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir()) / "runbook-faults.json")
    return parser.parse_args()


def _kept(path: Path) -> dict[str, dict[str, object]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _row(outcome: Outcome) -> dict[str, object]:
    return {name: value for name, value in asdict(outcome).items() if name != "point"}


def table(done: dict[str, dict[str, object]]) -> str:
    """The rows in Markdown, in the order of the points."""
    points: list[Point] = [point for point in POINTS if point.name in done]
    survived = sum(not done[point.name]["broken"] for point in points)
    lines = [
        f"{survived} of {len(points)} points survived.",
        "",
        "| phase | point | fault | the run ended | left on the node that was hit | what the next run did |",
        "|---|---|---|---|---|---|",
    ]
    for point in points:
        row = done[point.name]
        broken = "; ".join(map(str, row["broken"]))  # type: ignore[call-overload]
        said = f"**{broken}**" if broken else f"{row['following']}; whole"
        run = f"`runbook run`, {point.phase:02d}" if point.whole else f"{point.phase:02d}"
        ended = f"{row['ended']}, {float(str(row['took_s'])):.0f} s"
        lines.append(f"| {run} | {point.where} | {point.fault} | {ended} | {row['left']} | {said} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
