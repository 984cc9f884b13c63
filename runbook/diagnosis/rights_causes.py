"""What is wrong with users, roles and auth in etcd, as flannel and the members need them; functions of the case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runbook import etcd_access, etcdctl
from runbook.diagnosis.case import CLUSTER, RIGHTS, STORE, Cause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbook.diagnosis.case import Case

_SECTION = "etcd-refuses-a-certificate"


def members_out(case: Case) -> Iterator[Cause]:
    """Auth that somebody else turned on, and that knows no member: nobody here can read what is in etcd."""
    for one in case.members:
        said = one.said.get("auth", "")
        if etcdctl.refused(said.partition(_MARK)[0]):
            why = etcd_access.kept_out(f"{one.node.name}'s: {said.strip().splitlines()[-1].removeprefix('Error: ')}")
            remedy = etcd_access.let_in(case.cluster)
            yield Cause(CLUSTER, "etcd's auth keeps the members out", why, remedy, _SECTION, STORE)
            return


def flannel_lacks(case: Case) -> Iterator[Cause]:
    """Auth is on, and flannel's user lacks its role, or the role a right: flanneld runs on until it is restarted."""
    said = next((one.said["auth"] for one in case.members if '"enabled":true' in one.said.get("auth", "")), "")
    refused = any(etcdctl.refused("\n".join(one.flanneld.journal)) for one in case.hosts if not one.flanneld.active)
    if not said or not (case.cluster.flannel.rbac or refused):
        return
    user, role = ((etcd_access.answer(part) or {}) for part in said.split(_MARK)[1:])
    lacks = etcd_access.permissions(case.cluster) - etcd_access.granted(role)
    wants = [f"user {etcd_access.USER} lacks the role {etcd_access.ROLE}"] * (
        etcd_access.ROLE not in (user.get("roles") or ())
    )
    wants += [f"role {etcd_access.ROLE} lacks: {etcd_access.told(lacks)}"] * bool(lacks)
    if wants:
        why = f"etcd's auth is on, and {'; '.join(wants)}"
        remedy = "run phase 07 with `flannel.rbac: true`: it grants what is missing; flanneld goes on by itself"
        yield Cause(CLUSTER, "flannel's certificate lacks a right in etcd", why, remedy, _SECTION, STORE)


def auth_is_off(case: Case) -> Iterator[Cause]:
    """The params ask for limits, and nothing is limited; before flannel is there, phase 07 is still to come."""
    statuses = [one.said.get("auth", "") for one in case.members]
    known = any("authRevision" in said for said in statuses) and not any('"enabled":true' in said for said in statuses)
    if case.cluster.flannel.rbac and known and any(one.flanneld.loaded for one in case.hosts):
        why = "flannel.rbac is true, and etcd's auth is off: flannel's certificate may read and write every key"
        yield Cause(CLUSTER, "etcd's auth is off", why, "run phase 07: it turns it on", _SECTION, RIGHTS)


#: What stands between the three answers that the script's `auth` has.
_MARK = "@\n"
RULES = (members_out, flannel_lacks, auth_is_off)
