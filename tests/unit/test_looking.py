"""runbook.plans.looking: many paths read by one script of real sh, and told apart."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from local_node import OWNER, LocalConnection, cluster_of

from runbook.plans import looking
from runbook.resources import Look

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NODE = cluster_of().nodes[0]
MARK = "@mark\n"


def looked(
    folder: Path, looks: Sequence[Look], known: Mapping[str, looking.Known] | None = None, before: str = ""
) -> dict[Look, dict[str, str]]:
    """What is found on this machine."""
    pieces = [f"echo {MARK}{piece}" for piece in looking.script(looks, known or {})]
    done = LocalConnection(NODE, folder).run("\n".join([before, *pieces, "exit 0"]), what="look").check()
    assert done.stderr == b""
    return looking.found(looks, known or {}, done.stdout.split(MARK.encode())[1:])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_nothing_to_look_at_is_no_work(tmp_path: Path) -> None:
    """Without paths no program is started."""
    assert looking.script((), {}) == [""] * looking.PARTS
    assert looked(tmp_path, ()) == {}


def test_each_path_has_its_own_answer(tmp_path: Path) -> None:
    """Present, missing, empty, binary and of another kind, in any order: none gets another's mode or bytes."""
    contents = {"a": b"A\n", "empty": b"", "binary": bytes(range(256)), "no newline": b"x"}
    for number, (name, data) in enumerate(contents.items()):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600 + number)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("a")
    names = ["missing", *contents, "fifo", "link", "gone"]
    found = looked(tmp_path, [Look(str(tmp_path / name), "content") for name in names])
    told = {look.path.rsplit("/", 1)[-1]: answer for look, answer in found.items()}
    assert {name: one["type"] for name, one in told.items()} == {
        "missing": "none", **dict.fromkeys(contents, "file"), "fifo": "other", "link": "link", "gone": "none",
    }  # fmt: skip
    for number, (name, data) in enumerate(contents.items()):
        assert base64.b64decode(told[name]["content"]) == data
        assert (told[name]["sha256"], told[name]["mode"]) == (sha256(data), f"{0o600 + number:o}")
    assert base64.b64decode(told["link"]["content"]) == b"a"
    assert "content" not in told["fifo"]


def test_one_path_may_be_looked_at_twice(tmp_path: Path) -> None:
    """Each look has its answer under its own prefix."""
    (tmp_path / "a").write_bytes(b"A")
    first, second = Look(str(tmp_path / "a"), "content", "x_"), Look(str(tmp_path / "a"))
    found = looked(tmp_path, [first, second])
    assert found[first]["x_owner"] == found[second]["owner"] == OWNER
    assert "sha256" not in found[second]


def test_a_path_cannot_pass_for_another(tmp_path: Path) -> None:
    """A name with line ends and field marks in it, made to look like stat's answer for the next one, is only a name."""
    victim = tmp_path / "victim"
    forged = Path(f"{tmp_path}/x\n81a4|777|evil:evil|1|1.0|{victim}")
    forged.parent.mkdir(parents=True)
    forged.touch()
    found = looked(tmp_path, [Look(str(forged)), Look(str(victim))])
    assert [one["type"] for one in found.values()] == ["file", "none"]


def test_a_folder_tells_its_names(tmp_path: Path) -> None:
    """Hidden ones too, and links that lead nowhere; no more than enough to know whose it is."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".hidden").touch()
    (folder / "..x").symlink_to("/nowhere")
    (folder / "name with  spaces").touch()
    empty = tmp_path / "empty"
    empty.mkdir()
    full = tmp_path / "full"
    full.mkdir()
    for number in range(150):
        (full / f"{number}").touch()
    found = looked(tmp_path, [Look(str(one), "names") for one in (folder, empty, full)])
    names = [base64.b64decode(one.get("content", "")).decode().splitlines() for one in found.values()]
    assert (set(names[0]), names[1]) == ({".hidden", "..x", "name with  spaces"}, [])
    assert len(names[2]) == 100


# ---- sums

OPENSSL = ["", "openssl() { return 1; }", "openssl() { echo error; return 1; }"]


@pytest.mark.parametrize("openssl", OPENSSL)
def test_sums_are_the_same_with_and_without_openssl(openssl: str, tmp_path: Path) -> None:
    """A node's openssl is quicker; without it, or where it fails, sha256sum gives the same; links are not followed."""
    data = {"one": os.urandom(1 << 20), "two": b"", "three": b"3"}
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").symlink_to("one")
    looks = [Look(str(tmp_path / name), "sum") for name in ("missing", *data, "link")]
    found = looked(tmp_path, looks, before=openssl)
    told = {look.path.rsplit("/", 1)[-1]: answer.get("sha256") for look, answer in found.items()}
    assert told == {"missing": None, "link": None, **{name: sha256(content) for name, content in data.items()}}


def test_a_known_sum_counts_as_long_as_the_change_time(tmp_path: Path) -> None:
    """A file that was not changed is not read again; one that was is, also beside one with the very same time."""
    for name in ("kept", "changed", "other"):
        (tmp_path / name).write_bytes(name.encode())
    looks = [Look(str(tmp_path / name), "sum") for name in ("kept", "changed", "other")]
    ctimes = [answer["ctime"] for answer in looked(tmp_path, looks).values()]
    known = {
        looks[0].path: (ctimes[0], "k" * 64),
        looks[1].path: (ctimes[0] + "1", "c" * 64),
        looks[2].path: (ctimes[1][:-1], "o" * 64),
    }
    sums = [answer["sha256"] for answer in looked(tmp_path, looks, known).values()]
    assert sums == ["k" * 64, sha256(b"changed"), sha256(b"other")]
    (tmp_path / "kept").write_bytes(b"KEPT")
    assert looked(tmp_path, looks, known)[looks[0]]["sha256"] == sha256(b"KEPT")


def test_what_is_changed_is_asked(tmp_path: Path) -> None:
    """A command for a file runs where the file is not as it was known."""
    path = tmp_path / "a"
    path.write_bytes(b"A")
    look = Look(str(path), "sum")
    known = looked(tmp_path, [look])[look]["ctime"], sha256(b"A")
    for ctime, told in ((known[0], ""), ("1.0", "asked")):
        pieces = looking.script([look], {look.path: (ctime, known[1])})
        script = "\n".join([*pieces, "echo; " + looking.unless_known(look.path, (ctime, known[1]), "echo asked")])
        assert LocalConnection(NODE, tmp_path).run(script, what="x").text.splitlines()[-1] == told


def test_a_file_too_large_to_be_shown_has_no_content(tmp_path: Path) -> None:
    """It is cut off on the node, and its neighbours' bytes stay theirs."""
    sizes = {"big": looking.MOST + 1, "just": looking.MOST, "small": looking.MOST - 1}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(name[:1].encode() * size)
    found = looked(tmp_path, [Look(str(tmp_path / name), "content") for name in sizes])
    told = {look.path.rsplit("/", 1)[-1]: answer for look, answer in found.items()}
    assert {name: one["size"] for name, one in told.items()} == {name: str(size) for name, size in sizes.items()}
    assert [name for name, one in told.items() if "content" in one] == ["small"]
    assert set(base64.b64decode(told["small"]["content"])) == {ord("s")}


def test_a_torn_answer_is_told() -> None:
    """Contents that are not as long as stat said were changed in between."""
    look = Look("/etc/unit", "content")
    sections = [b"81a4|644|root:root|5|1.000000000|/etc/unit\n", b"", b"", b"four"]
    with pytest.raises(looking.TornError, match="4 bytes of /etc/unit, expected 5"):
        looking.found([look], {}, sections)


def test_any_path_makes_valid_sh() -> None:
    """Paths with quotes and commands are words."""
    odd = "/srv/$(touch /x)'\"`id`;\n* --"
    looks = [Look(odd, want) for want in ("stat", "content", "sum", "names")]
    script = "\n".join(looking.script(looks, {odd: ("1.0", "0" * 64)}))
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
