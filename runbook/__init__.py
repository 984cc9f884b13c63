"""Build a TLS etcd cluster and a flannel vxlan network over SSH, notebook by notebook.

`fleet = connect(cluster)` opens the connections; the functions of `preflight`, `binaries`, `etcd`, `flannel` and `mesh`
return a table (they looked) or a plan (it would change); `expect` holds a table against what it should say.
`overview(cluster)` shows the phases, and what each did last time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from runbook.late import late

if TYPE_CHECKING:
    from runbook import binaries, etcd, flannel, mesh, preflight
    from runbook.checks import expect
    from runbook.fleet import connect
    from runbook.phase_list import overview

__all__ = ["binaries", "connect", "etcd", "expect", "flannel", "mesh", "overview", "preflight"]
late("invoke")  # paramiko needs it for `Match exec` in an SSH configuration alone
_FROM = {"connect": "runbook.fleet", "expect": "runbook.checks", "overview": "runbook.phase_list"}


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for: the practice cluster's commands need no pandas."""
    if name not in __all__:
        raise AttributeError(f"module 'runbook' has no attribute {name!r}")
    module = importlib.import_module(_FROM.get(name, f"runbook.{name}"))
    return getattr(module, name) if name in _FROM else module


def __dir__() -> list[str]:
    return __all__
