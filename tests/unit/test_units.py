"""runbook.units: templates rendered, and read as systemd reads them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import pytest
from local_node import cluster_of, fleet_of, local

from runbook import etcd, flannel, units

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from runbook.plan import Plan

TEMPLATES = sorted((Path(units.__file__).parent / "templates").glob("*.service.j2"))
CLUSTER = cluster_of()


def rendered(plan: Plan, unit: str) -> str:
    change = next(c for c in plan.changes if c.node == "node1" and c.resource.endswith(unit))
    (payload,) = change.payloads()
    assert isinstance(payload.source, bytes)
    return payload.source.decode()


@pytest.fixture(params=[("etcd.service", etcd.units), ("flanneld.service", flannel.units)], ids=["etcd", "flanneld"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Name and text of each unit as node1 would get it."""
    name, units_of = request.param
    return name, rendered(units_of(fleet_of(CLUSTER, tmp_path)), name)


def test_all_unit_templates_are_rendered_here() -> None:
    """A unit that is added needs a test."""
    assert [path.name for path in TEMPLATES] == ["etcd.service.j2", "flanneld.service.j2"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_missing_setting_is_an_error(path: Path) -> None:
    """A setting that a template asks for and nobody gives is an error, never an empty flag."""
    with pytest.raises(jinja2.UndefinedError):
        units.render(path.name)


def test_a_unit_has_its_sections_once(unit: tuple[str, str]) -> None:
    """[Unit], [Service], [Install] in this order, and what systemd reads is what is written."""
    _, text = unit
    assert re.findall(r"^\[(\w+)\]$", text, re.MULTILINE) == ["Unit", "Service", "Install"]
    joined = re.sub(r" \\\n\s+", " ", text)
    parsed = configparser.ConfigParser(interpolation=None, strict=False, delimiters="=")
    parsed.read_string(joined)
    assert parsed["Install"]["WantedBy"] == "multi-user.target"
    assert parsed["Service"]["Type"] == "notify"
    assert "\t" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_systemd_reads_it_without_complaint(
    unit: tuple[str, str], tmp_path: Path, prerequisite: Callable[[str], NoReturn]
) -> None:
    """systemd-analyze verify finds no unknown setting, wrong section or bad value."""
    if shutil.which("systemd-analyze") is None:
        prerequisite("systemd-analyze")
    name, text = unit
    (tmp_path / name).write_text(re.sub(r"/opt/k8s/bin/[a-z.-]+", "/bin/true", text))
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = [line for line in (done.stdout + done.stderr).splitlines() if str(tmp_path) in line or line.startswith(name)]
    # Whether its user is there is the node's matter.
    assert [line for line in said if "User" not in line] == []


@pytest.mark.parametrize(
    ("verify", "ok", "why"),
    [
        ("exit 0", True, ""),
        (
            "echo '/x/etcd.service:7: Unknown key name Foo' >&2; exit 0",
            False,
            "/x/etcd.service:7: Unknown key name Foo",
        ),
        ("echo '/lib/systemd/system/other.service:3: obsolete' >&2; exit 0", True, ""),
        ("echo 'Failed to load: Bad message' >&2; exit 1", False, "Failed to load: Bad message"),
    ],
)
def test_only_the_units_own_faults_count(verify: str, ok: bool, why: str, tmp_path: Path) -> None:  # noqa: FBT001
    """What systemd says of this unit is told; its words on the distribution's own units are not."""
    path = tmp_path / "etcd.service"
    path.touch()
    fleet = fleet_of(CLUSTER, tmp_path)
    exposure = "echo '→ Overall exposure level for etcd.service: 1.3 OK :-)'"
    for connection in local(fleet).values():
        connection.shim("systemd-analyze", f"case $1 in security) {exposure};; verify) {verify};; esac")
    (row, *_) = units.files(fleet, CLUSTER.nodes, str(path)).to_dict("records")
    assert (row["ok"], row["why"], row["exposure"], row["unit"]) == (ok, why, 1.3, "etcd.service")


def test_a_missing_unit_is_told(tmp_path: Path) -> None:
    """No file is a row that says so, with the phase that makes it."""
    table = units.files(fleet_of(CLUSTER, tmp_path), CLUSTER.nodes, str(tmp_path / "etcd.service"))
    assert list(table["ok"]) == [False] * 3
    assert set(table["why"]) == {"there is no such file"}


@pytest.mark.parametrize(
    ("refuse", "verified"),
    [
        (":", ["--recursive-errors=no"]),
        (
            "case $2 in --rec*) echo \"systemd-analyze: unrecognized option '$2'\" >&2; exit 1;; esac",
            ["--recursive-errors=no", ""],
        ),
    ],
    ids=["systemd 250", "older"],
)
def test_the_unit_alone_is_verified_where_systemd_can_do_that(refuse: str, verified: list[str], tmp_path: Path) -> None:
    """An older one verifies what the unit depends on too; that it does not know the option is no fault of the unit."""
    path = tmp_path / "etcd.service"
    path.touch()
    fleet = fleet_of(CLUSTER, tmp_path)
    for connection in local(fleet).values():
        connection.shim("systemd-analyze", f'echo "$*" >>asked; {refuse}')
    (row, *_) = units.files(fleet, CLUSTER.nodes, str(path)).to_dict("records")
    assert (row["ok"], row["why"]) == (True, "")
    asked = [line for line in (tmp_path / "node1/asked").read_text().splitlines() if line.startswith("verify")]
    assert asked == [" ".join(filter(None, ("verify", option, str(path)))) for option in verified]
