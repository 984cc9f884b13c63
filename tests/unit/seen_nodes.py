"""What real nodes showed, kept as files beside this one: `seen/NAME.json`, taken while a fault was on them.

RUNBOOK_CAPTURE=tests/unit/seen makes the cluster tests of diagnoses write them anew (tests/sandbox/faults.py).
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook import diagnose, params
from runbook.diagnosis import symptoms
from runbook.diagnosis.case import Case

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parent / "seen"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
HEALTHY = "nothing_is_wrong"


@dataclass
class Seen:
    """One file: what each node's script printed by key (None where it could not be asked), and the causes."""

    cluster: params.Cluster
    now: float
    nodes: dict[str, dict[str, str] | None]
    causes: list[tuple[str, str]]

    def case(self) -> Case:
        """The case as a diagnosis would have it."""
        found = {}
        for node in self.cluster.nodes:
            said = self.nodes[node.name]
            if said is None:
                found[node.name] = symptoms.Symptoms(node, "no answer within 2 s")
                continue
            lines = [f"{key}={base64.b64encode(text.encode()).decode()}" for key, text in said.items()]
            # The file was written within half a minute after the nodes told their time.
            found[node.name] = symptoms.parse(node, "\n".join(lines), (self.now - 30, self.now))
        return Case(self.cluster, found, self.now)

    def told(self) -> dict[tuple[str, str], str]:
        """Why, by node and cause; that flannel is not built yet is left out."""
        causes = diagnose.causes(self.case())
        return {(one.node, one.cause): one.why for one in causes if one.cause != "flanneld is not installed"}

    def change(self, node: str, key: str, old: str, new: str) -> None:
        """Put other words into what a node showed; the old ones must be there."""
        said = self.nodes[node]
        assert said is not None
        assert old in said[key], said[key]
        said[key] = said[key].replace(old, new)


def seen(name: str) -> Seen:
    """Read one file."""
    found: Mapping[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    cluster = params.load({"name": "seen", **found["cluster"]})
    return Seen(cluster, found["now"], dict(found["nodes"]), [(node, cause) for node, cause in found["causes"]])
