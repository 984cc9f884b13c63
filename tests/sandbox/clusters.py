"""Practice clusters for tests, one a module, and what they are to be before a test."""

from __future__ import annotations

import platform
import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import platformdirs
import pytest
from practice import Practice, apply

from runbook import artifacts
from runbook.downloads import releases
from runbook.errors import SandboxError
from runbook.sandbox import Sandbox, requirements
from runbook.sandbox.machine import lock, mounts_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runbook.fleet import Fleet

_OTHER_RUN_S = 1800.0


@pytest.fixture(scope="session")
def binaries() -> None:
    """Both lines' binaries in the cache: where they have to be built first, no test's deadline is for that."""
    arch = releases.arch(platform.machine())
    for product, version in (("etcd", "3.6.16"), ("flannel", "0.26.7"), ("etcd", "3.5.21"), ("flannel", "0.17.0")):
        artifacts.fetch(product, version, arch)


@contextmanager
def cluster(name: str, slot: int) -> Iterator[Sandbox]:
    """Three nodes in a slot, with a state folder of their own; all of it is gone at the end.

    The state folder's place depends on the name alone, so that a run that was killed is cleaned up by the next one; two
    runs at once on one machine take turns.
    """
    home = platformdirs.user_state_path("runbook-tests") / name
    with lock(home.with_suffix(".lock"), wait_s=_OTHER_RUN_S), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home))
        for variable in ("SSH_AUTH_SOCK", "RUNBOOK_SSH_PASSWORD", "RUNBOOK_SUDO_PASSWORD", "RUNBOOK_JOURNAL"):
            patch.delenv(variable, raising=False)
        sandbox = Sandbox(name, slot)
        _remove(sandbox, home)
        try:
            sandbox.up(3)
            yield sandbox
        finally:
            _remove(sandbox, home)


@pytest.fixture(scope="module")
def practice(
    binaries: None,  # noqa: ARG001 - only that they are there
    request: pytest.FixtureRequest,
    prerequisite: Callable[[str], NoReturn],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Practice]:
    """Three nodes in the slot that the module's xdist group names (`cluster-1` to `cluster-7`), as long as it runs."""
    try:
        requirements.check_tools()
    except SandboxError as error:
        prerequisite(str(error))
    group = request.node.get_closest_marker("xdist_group").args[0]
    found = re.fullmatch(r"cluster-([1-7])", group)
    assert found, f"xdist group {group!r} has no slot"
    with cluster(f"test-{group}", int(found[1])) as sandbox:
        yield Practice(sandbox, tmp_path_factory.mktemp(group))


@pytest.fixture(scope="module")
def fleet(practice: Practice, params: Path) -> Iterator[Fleet]:
    """The connections to the nodes of a module's `params`, for all of its tests."""
    with practice.fleet(params) as made:
        yield made


def _remove(sandbox: Sandbox, home: Path) -> None:
    sandbox.down()
    assert mounts_below(home) == []
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def virgin(practice: Practice) -> Practice:
    """Three running nodes that no phase has touched."""
    practice.make_virgin()
    return practice


@pytest.fixture
def built(practice: Practice) -> Path:
    """The params of a cluster that is built and complete."""
    practice.sandbox.up(3)
    path = practice.params()
    with practice.fleet(path) as fleet:
        apply(fleet)
    return path
