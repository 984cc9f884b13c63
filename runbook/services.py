"""Units that run: started all at once the first time, restarted one node at a time when what they run from changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from runbook import errors, plan, show
from runbook.plans import beside, reading, starting
from runbook.plans.apply import Result, not_done
from runbook.plans.rollout import Stop
from runbook.plans.starting import PLAIN, Manner
from runbook.resources import Change, Found, Look

if TYPE_CHECKING:
    from runbook.fleet import Fleet
    from runbook.params import Node
    from runbook.plans.reading import Guard
    from runbook.plans.selection import Quorum

#: Waits until a member answers after its restart, or raises; called with the fleet and the node.
Healthy = Callable[["Fleet", "Node"], None]
#: Gives a plan's changes with a refusal where they must not be made; called with the fleet and the changes.
Judged = Callable[["Fleet", "Sequence[Change]"], "list[Change]"]
#: Raises when a node may not be stopped now; called with the fleet and the node.
MayStop = Callable[["Fleet", "Node"], None]

_PROPERTIES = (
    "LoadState ActiveState SubState UnitFileState NeedDaemonReload MainPID NRestarts FragmentPath ActiveEnterTimestamp"
)
_COLUMNS = ["node", "unit", "ok", "state", "since", "restarts", "main_pid", "why", "remedy"]
#: Start times are known to 10 ms (proc(5), clock ticks: 100 a second on x86_64 and aarch64).
_TICKS_A_S = 100
_TICK_S = 0.05


def _show(unit: str) -> str:
    names = " ".join(f"-p {name}" for name in _PROPERTIES.split())
    return f"systemctl show --no-pager {names} {quote(unit)}"


@dataclass(frozen=True)
class Service:
    """A unit that is enabled and runs from the files as they are now.

    Attributes:
        unit: Its name.
        inputs: The files it reads when it starts: unit, binary, certificates. One that is newer than the running
            process calls for a restart.
    """

    unit: str
    inputs: tuple[str, ...]

    @property
    def label(self) -> str:
        """The unit's name."""
        return self.unit

    def looks(self) -> tuple[Look, ...]:
        """When its files changed."""
        return tuple(Look(path, prefix=f"{number}_") for number, path in enumerate(self.inputs))

    def probe(self) -> str:
        """Read the unit's state, and when its process started."""
        return f"""rb_shown=$({_show(self.unit)})
printf '%s\\n' "$rb_shown"
rb_pid=${{rb_shown#*MainPID=}}
rb_pid=${{rb_pid%%[!0-9]*}}
if {{ read -r rb_stat <"/proc/${{rb_pid:-0}}/stat" && read -r rb_uptime rb_idle </proc/uptime; }} 2>/dev/null; then
  # The fields after the program's name, which may hold spaces, begin with the third.
  set -- ${{rb_stat##*) }}
  echo "start_ticks=${{20}}"
  echo "uptime=$rb_uptime"
  echo "now=$(date +%s.%N)"
fi"""

    def compare(self, found: Found) -> Change | None:
        """Start what does not run, restart what runs from files that are gone, enable what would not survive a boot."""
        state = f"{found.get('ActiveState', '')}/{found.get('SubState', '')}"
        desired = "active, enabled"
        if found.get("LoadState") != "loaded":
            why = "its unit file is not there yet: the units phase comes first"
            if found.get("LoadState") == "masked":
                why = f"it is masked on this node: `systemctl unmask {self.unit}` if that is not meant"
            return Change(self.unit, "start", why, found.get("LoadState", ""), desired, digest="start", refusal=why)
        if found.get("ActiveState") != "active":
            return Change(self.unit, "start", state, state, desired, digest="start")
        if reason := self._outdated(found):
            return Change(self.unit, "restart", reason, state, desired, digest=f"restart {reason}")
        if found.get("UnitFileState") != "enabled":
            return Change(
                self.unit, "enable", f"unit file is {found.get('UnitFileState')}", state, desired, digest="enable"
            )
        return None

    def _outdated(self, found: Found) -> str:
        names = []
        if "now" in found:
            running_s = float(found["uptime"]) - int(found["start_ticks"]) / _TICKS_A_S
            started = float(found["now"]) - running_s
            times = {path: found.get(f"{n}_ctime") for n, path in enumerate(self.inputs)}
            names = [path for path, at in times.items() if at and float(at) > started + _TICK_S]
        if names:
            return f"changed since it started: {', '.join(names)}"
        return "the unit changed since systemd read it" if found.get("NeedDaemonReload") == "yes" else ""


def roll(
    fleet: Fleet, changes: Sequence[Change], may_stop: MayStop, healthy: Healthy, stop: Stop | None = None,
    manner: Manner = PLAIN,
) -> list[Result]:  # fmt: skip
    """Start what does not run, all at once; then restart what runs, one node at a time, healthy in between.

    The roll ends at the first node that fails, or where it is asked to stop: the rest keeps running as it is.
    """
    stop = stop or Stop()
    starts = [change for change in changes if change.action != "restart"]
    restarts = [change for change in changes if change.action == "restart"]
    results = stop.rest(starts) if stop.asked else starting.at_once(fleet, starts, manner, stop)
    for number, change in enumerate(restarts):
        if stop.asked:
            return results + stop.rest(restarts[number:])
        if any(result.result != "done" for result in results):
            return results + not_done(restarts[number:], "not begun: another node failed")
        results.append(_restart(fleet, change, may_stop, healthy, manner, stop))
    return results


def _restart(fleet: Fleet, change: Change, may_stop: MayStop, healthy: Healthy, manner: Manner, stop: Stop) -> Result:
    """Restart one node's unit and wait until it is healthy."""
    node = next(node for node in fleet.cluster.nodes if node.name == change.node)
    try:
        may_stop(fleet, node)
        (result,) = starting.at_once(fleet, [change], manner, stop)
        if result.result == "done":
            healthy(fleet, node)
    except errors.RunbookError as error:
        return Result(change, "failed", error.message, remedy=error.remedy)
    return result


def start_plan(
    title: str, fleet: Fleet, nodes: Iterable[Node], service: Service, *, may_stop: MayStop, healthy: Healthy,
    quorum: Quorum | None = None, guard: Callable[[Node], Guard] | None = None, judged: Judged | None = None,
    manner: Manner = PLAIN, meanwhile: Sequence[beside.Part] = (),
) -> plan.Plan:  # fmt: skip
    """A plan that starts or restarts a unit on these nodes; `quorum` where they vote.

    `guard` gives what says whether a node may be changed; `judged` refuses what must not be made; what is to be done
    `meanwhile` is in the same plan.
    """
    chosen = list(nodes)
    wanted = {node.name: [service] for node in chosen}
    guards = {node.name: guard(node) for node in chosen} if guard else {}

    def judge(found: Mapping[str, Sequence[Found]]) -> beside.Made:
        changes, _ = reading.judged(fleet, wanted, found, what=f"read for {title}", guards=guards)
        changes = judged(fleet, changes) if judged else changes
        restarts = sum(change.action == "restart" for change in changes)
        notes = [f"{restarts} restart one at a time, each healthy before the next"] if restarts > 1 else []
        return changes, notes, len(chosen) - len({change.node for change in changes})

    def rollout(fleet: Fleet, changes: Sequence[Change], stop: Stop) -> list[Result]:
        from runbook.diagnosis import explain  # noqa: PLC0415 - it needs what this module is part of

        return explain.failed_starts(fleet, roll(fleet, changes, may_stop, healthy, stop, manner))

    own = beside.Part(title, reading.guarded(wanted, guards), judge, rollout)
    together = beside.Together(fleet, own, *meanwhile)
    return plan.Plan(title, fleet, together.make, rollout=together.rollout, quorum=quorum)


def states(fleet: Fleet, nodes: Iterable[Node], unit: str) -> show.Table:
    """The units' states.

    Returns:
        One row a node: node, unit, ok, state, since, restarts, main_pid, why (with the last journal lines where it
        does not run), remedy.
    """
    name = quote(unit)
    script = f"""
rb_shown=$({_show(unit)})
printf '%s\\n' "$rb_shown"
case "$rb_shown" in *ActiveState=active*) ;; *)
  echo; journalctl -u {name} -n 8 --no-pager -o cat | sed 's/^/journal: /' ;;
esac
"""
    rows = []
    for outcome in fleet.run(script, what=f"systemctl show {unit}", nodes=nodes).values():
        text = outcome.value.text if outcome.value else ""
        found = dict(
            line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("journal:")
        )
        active = found.get("ActiveState") == "active"
        journal = [line.removeprefix("journal: ") for line in text.splitlines() if line.startswith("journal: ")]
        why = outcome.error.message if outcome.error else "" if active else "\n".join(["not running", *journal])
        rows.append(
            {
                "node": outcome.node.name,
                "unit": unit,
                "ok": active,
                "state": f"{found.get('ActiveState', 'unknown')} ({found.get('SubState', '')})",
                "since": found.get("ActiveEnterTimestamp", ""),
                "restarts": int(found.get("NRestarts") or 0),
                "main_pid": int(found.get("MainPID") or 0),
                "why": why,
                "remedy": "" if active else f"`journalctl -u {unit}` on the node; then run the start phase again",
            }
        )
    return show.table(rows, _COLUMNS, f"{unit} on the nodes")
