from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbook.errors import SandboxError
from runbook.sandbox import Sandbox, params_file
from runbook.sandbox.addressing import Block

KEY, KNOWN = Path("/state/id_ed25519"), Path("/state/known_hosts")


def test_params_of_three_nodes() -> None:
    """The form is the runbook's own; three nodes have their default roles."""
    assert params_file.build(Block("sandbox", 0), 3, KEY, KNOWN) == {
        "cluster": {
            "name": "sandbox",
            "nodes": [{"name": f"node{i}", "host": f"198.18.0.{10 + i}"} for i in (1, 2, 3)],
            "ssh": {"user": "root", "key_file": "/state/id_ed25519", "known_hosts": "/state/known_hosts"},
        },
        "approve": False,
    }


@pytest.mark.parametrize(("nodes", "members"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (16, 5)])
def test_etcd_has_an_odd_number_of_members(nodes: int, members: int) -> None:
    """An even member adds no safety; the nodes past the members run flannel only."""
    rows = params_file.build(Block("sandbox", 0), nodes, KEY, KNOWN)["cluster"]["nodes"]
    assert [row.get("roles") for row in rows] == [None] * members + [["flannel"]] * (nodes - members)


def test_overrides_are_merged_into_mappings_and_replace_values() -> None:
    """An override of one ssh key leaves the others."""
    params = params_file.build(
        Block("sandbox", 1), 1, KEY, KNOWN, {"ssh": {"user": "ops", "sudo": True}, "bin_dir": "/opt/bin"}
    )
    assert params["cluster"]["ssh"] == {"user": "ops", "key_file": str(KEY), "known_hosts": str(KNOWN), "sudo": True}
    assert params["cluster"]["bin_dir"] == "/opt/bin"


@given(nodes=st.integers(1, 52), slot=st.integers(0, 3))
def test_the_text_is_the_params(nodes: int, slot: int) -> None:
    """What is written as YAML is read back as the same values, for every size and slot."""
    params = params_file.build(Block("sandbox", slot), nodes, KEY, KNOWN)
    assert yaml.safe_load(params_file.text(params)) == params


def test_more_nodes_than_addresses_are_refused() -> None:
    """Params for nodes that `up` would refuse are refused too."""
    with pytest.raises(SandboxError, match="1 to 52"):
        params_file.build(Block("sandbox", 0), 53, KEY, KNOWN)


def test_a_sandbox_names_its_own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state folder follows XDG_STATE_HOME, and the params follow the state folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    ssh = Sandbox("other", 2).params(2)["cluster"]["ssh"]
    assert ssh["key_file"] == f"{tmp_path}/runbook/practice/other/id_ed25519"
    assert ssh["known_hosts"] == f"{tmp_path}/runbook/practice/other/known_hosts"
