"""What etcdctl says of users and roles: a small model of them, and its answers by the probe's keys."""

from __future__ import annotations

import base64
import json
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OURS = ("root", "node1", "node2", "node3", "flanneld")
NETWORK = (("/kubernetes/network/", "/kubernetes/network0", 0),)
LEASES = (("/kubernetes/network/subnets/", "/kubernetes/network/subnets0", 2),)


def limited(*, others: Sequence[str] = (), keys: int = 4, enabled: bool = True) -> dict[str, Any]:
    """All as it should be: what `answers` makes answers of."""
    users = {name: ["flannel" if name == "flanneld" else "root"] for name in OURS} | {name: [] for name in others}
    return {"enabled": enabled, "users": users, "perm": [*NETWORK, *LEASES], "keys": keys}


def answers(model: Mapping[str, Any]) -> dict[str, str]:
    """What etcdctl 3.5.21 and 3.6.16 print as JSON, zero values left out; errors as they say them."""

    def said(**values: Any) -> str:  # noqa: ANN401 - JSON
        shown = {"header": {"cluster_id": 1}, **{name: value for name, value in values.items() if value}}
        return json.dumps(shown, separators=(",", ":")) + "\n"

    users = model.get("users", {})
    perm = [
        {name: value for name, value in (("permType", kind), ("key", _b64(key)), ("range_end", _b64(end))) if value}
        for key, end, kind in model.get("perm", ())
    ]
    missing = "Error: etcdserver: user name not found\n"
    return {
        "auth": said(enabled=model.get("enabled", False), authRevision=1),
        "users": said(users=sorted(users)),
        "role": said(perm=perm) if "perm" in model else "Error: etcdserver: role name not found\n",
        "keys": f'"Revision" : 3\n"More" : false\n"Count" : {model.get("keys", 0)}\n',
        **{f"user.{name}": said(roles=users[name]) if name in users else missing for name in OURS},
    }


def encoded(said: Mapping[str, str]) -> dict[str, str]:
    """The same as a probe prints it."""
    return {key: base64.b64encode(text.encode()).decode() for key, text in said.items()}


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def done(model: Mapping[str, Any], script: str) -> dict[str, Any]:
    """The model after a change's script, its etcdctl calls taken as etcd does; one that it would refuse is an error."""
    after = {**model, "users": {name: list(roles) for name, roles in model.get("users", {}).items()}}
    for line in script.splitlines():
        words = shlex.split(line.split(" >/dev/null")[0].split(" | ")[0])
        what, *call = words[next(n for n, word in enumerate(words) if word.startswith("--command-timeout=")) + 1 :]
        {"user": _user, "role": _role, "auth": _auth}[what](after, call)
    return after


def _user(after: dict[str, Any], call: Sequence[str]) -> None:
    users = after["users"]
    match call:
        case ["add", name, "--no-password"]:
            assert name not in users, "user name already exists"
            users[name] = []
        case ["grant-role", name, role]:
            assert role == "root" or "perm" in after, "role name not found"
            users[name] = sorted({*users[name], role})
        case ["revoke-role", name, role]:
            users[name].remove(role)
        case _:
            assert call[0] in ("get", "list"), call


def _role(after: dict[str, Any], call: Sequence[str]) -> None:
    if list(call) == ["add", "flannel"]:
        assert "perm" not in after, "role name already exists"
        after["perm"] = []
        return
    verb, role, *words = call
    assert role == "flannel"
    kind = words.pop(0) if verb == "grant-permission" else ""
    left = [one for one in after["perm"] if one[:2] != _range(words)]
    if kind:
        left.append((*_range(words), ["read", "write", "readwrite"].index(kind)))
    else:
        assert len(left) < len(after["perm"]), "permission is not granted to the role"
    after["perm"] = left


def _auth(after: dict[str, Any], call: Sequence[str]) -> None:
    assert list(call) == ["disable"] or "root" in after["users"].get("root", ()), "root user does not have root role"
    after["enabled"] = {"enable": True, "disable": False}[call[0]]


def _range(words: Sequence[str]) -> tuple[str, str]:
    match words:
        case ["", "--prefix"]:
            return "\0", "\0"
        case [key, "--from-key"]:
            return key, "\0"
        case [key, end]:
            return key, end
        case [key]:
            return key, ""
    raise AssertionError(words)
