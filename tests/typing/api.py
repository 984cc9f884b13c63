"""The public API as the notebooks use it: type-checked by mypy, never run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from runbook import binaries, connect, etcd, expect, flannel, mesh, preflight

if TYPE_CHECKING:
    import pandas as pd

    from runbook.fleet import Fleet
    from runbook.plan import Plan
    from runbook.show import Table

fleet: Fleet = connect("../params/sandbox.yaml")
connect(Path("params/sandbox.yaml"), partial=True)
connect({"name": "c", "nodes": [{"name": "node1", "host": "198.18.0.11"}]})

facts: Table = preflight.facts(fleet)
held: pd.DataFrame = expect(preflight.checks(facts, fleet), "every check holds on every node")
expect(binaries.versions(fleet), "every binary has the bytes that were checked")

plans: list[Plan] = [
    binaries.install(fleet),
    etcd.certs(fleet),
    etcd.units(fleet),
    etcd.start(fleet),
    flannel.certs(fleet),
    flannel.config(fleet),
    flannel.units(fleet),
    flannel.start(fleet),
]
tables: list[Table] = [
    etcd.cert_files(fleet),
    etcd.unit_files(fleet),
    etcd.states(fleet),
    etcd.endpoints(fleet),
    etcd.members(fleet),
    etcd.alarms(fleet),
    flannel.cert_files(fleet),
    flannel.unit_files(fleet),
    flannel.states(fleet),
    flannel.config_there(fleet),
    flannel.rights(fleet),
    flannel.leases(fleet),
    flannel.subnets(fleet),
    flannel.subnets(fleet, within_s=5.0),
    mesh.ping(fleet),
    mesh.matrix(mesh.ping(fleet, within_s=20), "overlay"),
    mesh.matrix(mesh.ping(fleet), "underlay", "loss_pct"),
    flannel.topology(fleet),
    *mesh.beside(mesh.ping(fleet)).tables.values(),
]


async def a_notebook(approve: bool | str) -> Table:  # noqa: FBT001 - the notebooks' parameter
    """A cell may await."""
    plan = etcd.units(fleet)
    identity: str = plan.id
    await plan.apply(identity)
    await plan.apply()
    latency: Table = await etcd.watch(fleet)
    await etcd.watch(fleet, seconds=max(latency["samples"]))
    return await plan.apply(approve)


result: Table = asyncio.run(a_notebook(approve=False))
caption: str = result.caption
fleet.close()
