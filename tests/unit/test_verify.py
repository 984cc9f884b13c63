"""runbook.records.verify: each way to tamper with a record is found, and named in the row it belongs to."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
import small_records
from hypothesis import given, settings
from hypothesis import strategies as st
from small_records import edit, overwrite, reseal

from runbook import errors, show
from runbook.records import evidence, sumfile
from runbook.records.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable

UNITS, START = "03_etcd_units.ipynb", "04_etcd_start.ipynb"
CHECKS = ["sums", "files", "chain", "signature", "execution", "order", "summary"]


def closed(
    root: Path,
    number: int = 1,
    *,
    sign_key: Path | None = None,
    phases: tuple[int, ...] = (3, 4),
    failed: int | None = None,
) -> Path:
    """A closed record."""
    folder = small_records.make(root, number, phases=phases, failed=failed)
    evidence.close(folder, sign_key=sign_key)
    return folder


def failing(folder: Path, *, allowed: Path | None = None) -> dict[str, str]:
    """The checks of a record that don't hold, and why."""
    return {row["check"]: row["why"] for row in show.rows(verify([folder], allowed_signers=allowed)) if not row["ok"]}


def row(folder: Path, check: str, *, allowed: Path | None = None) -> dict[str, Any]:
    """One row."""
    return next(one for one in show.rows(verify([folder], allowed_signers=allowed)) if one["check"] == check)


def cell(told: dict[str, Any], place: int) -> dict[str, Any]:
    """The nth code cell of a notebook, from 1."""
    code: dict[str, Any] = [one for one in told["cells"] if one["cell_type"] == "code"][place - 1]
    return code


def sha256sum_passes(folder: Path) -> bool:
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, check=False, timeout=60)
    return done.returncode == 0


# ---- what holds


def test_a_record_that_nobody_touched_holds(tmp_path: Path) -> None:
    """A signed chain of a passed, a failed and a passed run holds in every check, a row each."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    folders = [
        closed(tmp_path, 1, sign_key=key),
        closed(tmp_path, 2, sign_key=key, failed=2),
        closed(tmp_path, 3, sign_key=key, phases=(5,)),
    ]
    allowed = small_records.allow(tmp_path / "allowed", anna=key)
    table = verify(folders, allowed_signers=allowed)
    rows = show.rows(table)
    assert list(table.columns) == ["record", "check", "ok", "state", "why", "remedy"]
    assert [(one["record"], one["check"]) for one in rows] == [
        (f"sandbox/{folder.name}", check) for folder in folders for check in CHECKS
    ]
    assert [one for one in rows if not one["ok"] or one["state"] or one["remedy"]] == []
    assert all("good, by anna, ED25519 SHA256:" in one["why"] for one in rows if one["check"] == "signature")


def test_a_record_that_closed_after_a_later_one_holds(tmp_path: Path) -> None:
    """The chain is in the order of closing; a longer run that began first is no fault."""
    folders = [small_records.make(tmp_path, number) for number in (1, 2, 3)]
    for number in (1, 0, 2):
        evidence.close(folders[number])
    assert [failing(folder) for folder in folders] == [{}, {}, {}]


def test_a_record_on_its_own_holds_with_a_reservation(tmp_path: Path) -> None:
    """One that was copied away alone holds; that its predecessor isn't here to compare is said."""
    closed(tmp_path / "a", 1)
    folder = closed(tmp_path / "a", 2)
    alone = shutil.copytree(folder, tmp_path / "b" / "sandbox" / folder.name)
    assert failing(alone) == {}
    assert row(alone, "chain")["state"] == "warning"
    assert small_records.stamp(1) in row(alone, "chain")["why"]


def test_without_allowed_signers_the_key_is_shown(tmp_path: Path) -> None:
    """The signature is checked for what it signs, its key's fingerprint shown, and that nobody checked whose it is."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    folder = closed(tmp_path, sign_key=key)
    command = ["ssh-keygen", "-l", "-f", str(key)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()[1]
    found = row(folder, "signature")
    assert found["ok"]
    assert shown in found["why"]
    assert "signer not checked" in found["why"]


@pytest.mark.parametrize("outcome", ["running", "failed"])
def test_a_record_that_is_not_closed_has_one_row(tmp_path: Path, outcome: str) -> None:
    """A running or open record is no evidence yet: one row, which says so."""
    folder = small_records.make(tmp_path)
    edit(folder / "summary.json", lambda told: told.update(outcome=outcome))
    found = show.rows(verify([folder]))
    assert [(one["check"], one["ok"]) for one in found] == [("sums", False)]
    assert found[0]["why"].startswith("not closed")
    assert ("goes on" in found[0]["why"]) is (outcome == "running")


# ---- sums and files


@pytest.mark.parametrize("name", sorted({UNITS, "README.md", "summary.json", "params.yaml", "03_etcd_units.html"}))
def test_a_changed_byte_is_named(tmp_path: Path, name: str) -> None:
    """One bit of one file: sha256sum and we find it, and we name the file alone."""
    folder = closed(tmp_path)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).unlink()
    (folder / name).write_bytes(data)
    assert not sha256sum_passes(folder)
    assert failing(folder)["sums"] == f"{name} was changed"


def test_a_removed_notebook_is_named(tmp_path: Path) -> None:
    """A missing file is named; with the sums made anew for the rest, the summary misses it still."""
    folder = closed(tmp_path)
    (folder / UNITS).unlink()
    assert not sha256sum_passes(folder)
    assert failing(folder)["sums"] == f"{UNITS} is missing"
    reseal(folder)
    assert sha256sum_passes(folder)
    assert failing(folder) == {"summary": f"{UNITS} is listed as passed, but missing"}


@pytest.mark.parametrize("name", ["note.txt", ".hidden", "sub/deep.txt"])
def test_an_added_file_is_named(tmp_path: Path, name: str) -> None:
    """What SHA256SUMS doesn't list was added later: sha256sum does not see it, we do."""
    folder = closed(tmp_path)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    assert sha256sum_passes(folder)
    assert failing(folder) == {"files": f"{name} was added: SHA256SUMS does not list it"}


@pytest.mark.parametrize("put", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo, lambda path: path.mkdir()])
def test_a_file_replaced_by_a_link_or_fifo_is_refused(tmp_path: Path, put: Callable[[Path], None]) -> None:
    """A link is not followed, though what it leads to may have the right sum; a FIFO is not waited on."""
    folder = closed(tmp_path)
    (folder / "params.yaml").unlink()
    put(folder / "params.yaml")
    found = failing(folder)
    assert "params.yaml" in found.get("files", "") + found.get("sums", "")


def test_a_link_to_the_same_bytes_is_refused(tmp_path: Path) -> None:
    """A link passes sha256sum where its target has the same bytes; it is refused, for that target may change."""
    folder = closed(tmp_path)
    shutil.move(folder / "params.yaml", tmp_path / "elsewhere")
    (folder / "params.yaml").symlink_to(tmp_path / "elsewhere")
    assert sha256sum_passes(folder)
    assert failing(folder) == {
        "files": "params.yaml is a link or a special file, refused",
        "sums": "params.yaml is no regular file",
    }


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "./params.yaml", "-", "a\\b"])
def test_a_sum_of_something_outside_is_refused(tmp_path: Path, name: str) -> None:
    """A line of SHA256SUMS leads to nothing but the record's own files, and is not opened where it would."""
    folder = closed(tmp_path)
    (tmp_path / "sandbox" / "outside").write_text("x")
    sums = (folder / "SHA256SUMS").read_text()
    overwrite(folder / "SHA256SUMS", f"{sums}{'0' * 64}  {name}\n")
    found = failing(folder)["sums"]
    assert "outside the record" in found
    assert repr(name) in found


@pytest.mark.parametrize(
    ("line", "expected"),
    [("# a comment\n", "is no sum and name"), ("zz  x\n", "is no sum and name"), ("00", "cut off")],
)
def test_a_line_that_sha256sum_passes_over_is_found(tmp_path: Path, line: str, expected: str) -> None:
    """SHA256SUMS has sums and nothing else; sha256sum itself skips what it can't read."""
    folder = closed(tmp_path)
    overwrite(folder / "SHA256SUMS", (folder / "SHA256SUMS").read_text() + line)
    assert expected in failing(folder)["sums"]


def test_a_file_listed_twice_is_found(tmp_path: Path) -> None:
    """Of two sums for one name only one can be true."""
    folder = closed(tmp_path)
    sums = (folder / "SHA256SUMS").read_text()
    overwrite(folder / "SHA256SUMS", sums + sums.splitlines()[0] + "\n")
    assert failing(folder)["sums"].endswith("again")


# ---- chain


def chain_of(root: Path, length: int = 4) -> list[Path]:
    return [closed(root, number) for number in range(1, length + 1)]


def test_a_record_left_out_is_named(tmp_path: Path) -> None:
    """With one of four gone, the row of the next one names it, and that of the one before says that nothing follows."""
    folders = chain_of(tmp_path)
    shutil.rmtree(folders[1])
    assert f"the record that it follows, {folders[1].name}, is not here" in failing(folders[2])["chain"]
    assert f"{folders[2].name} does not follow it" in failing(folders[0])["chain"]
    assert failing(folders[3]) == {}


def test_a_truncated_chain_is_found(tmp_path: Path) -> None:
    """With its beginning gone, the first one left says what it follows."""
    folders = chain_of(tmp_path)
    shutil.rmtree(folders[0])
    assert set(failing(folders[1])) == {"chain"}
    assert folders[0].name in failing(folders[1])["chain"]


def test_a_record_made_anew_is_found_by_the_next(tmp_path: Path) -> None:
    """A change with the sums made anew passes sha256sum; the next record has the sums as they were."""
    folders = chain_of(tmp_path)
    overwrite(folders[1] / "params.yaml", "cluster: {name: other}\n")
    reseal(folders[1])
    assert sha256sum_passes(folders[1])
    assert set(failing(folders[1])) == {"chain"}
    assert set(failing(folders[2])) == {"chain"}
    assert failing(folders[0]) == {}


def test_a_link_taken_out_is_found(tmp_path: Path) -> None:
    """A record that claims to be the first, though there are earlier ones, is named with one of these."""
    folders = chain_of(tmp_path)
    (folders[2] / "previous.SHA256SUMS").unlink()
    reseal(folders[2])
    assert f"a chain of its own, though there is {folders[1].name}" in failing(folders[2])["chain"]


def test_a_record_put_in_is_found(tmp_path: Path) -> None:
    """Two that follow the same record: both are named."""
    folders = chain_of(tmp_path)
    forged = folders[1].with_name(f"{folders[1].name}-2")
    shutil.copytree(folders[1], forged)
    overwrite(forged / "params.yaml", "cluster: {name: other}\n")
    reseal(forged)
    assert f"{forged.name} follows the same record" in failing(folders[1])["chain"]
    assert f"{folders[1].name} follows the same record" in failing(forged)["chain"]


def test_a_record_that_is_continued_must_be_here(tmp_path: Path) -> None:
    """A resumed run names the record that it continues; where that is gone, the row says so."""
    folders = chain_of(tmp_path, 2)
    folder = small_records.make(tmp_path, 3)
    edit(folder / "summary.json", lambda told: told.update(continues="20261123T003000Z"))
    evidence.close(folder)
    assert failing(folder) == {"chain": "the record that it continues, 20261123T003000Z, is not here"}
    assert failing(folders[1]) == {}


@settings(max_examples=15)
@given(removed=st.sets(st.integers(0, 4), min_size=1, max_size=3))
def test_whatever_is_removed_before_the_newest_is_found(
    tmp_path_factory: pytest.TempPathFactory, removed: set[int]
) -> None:
    """Any records gone but the newest: some row of those left fails, and only in its chain."""
    root = tmp_path_factory.mktemp("chain")
    folders = []
    for number in range(6):
        folder = root / "sandbox" / small_records.stamp(number)
        folder.mkdir(parents=True)
        (folder / "file").write_text(str(number))
        evidence.close(folder)
        folders.append(folder)
    for number in removed:
        shutil.rmtree(folders[number])
    left = [folder for folder in folders if folder.exists()]
    rows = [one for one in show.rows(verify(left)) if one["check"] in ("sums", "files", "chain") and not one["ok"]]
    assert {one["check"] for one in rows} == {"chain"}


# ---- signature


def test_a_signature_by_another_key_is_named(tmp_path: Path) -> None:
    """Another's good signature is none by an allowed signer; its key's fingerprint is told."""
    anna, bert = (small_records.new_key(tmp_path / "keys", name) for name in ("anna", "bert"))
    folder = closed(tmp_path, sign_key=bert)
    found = failing(folder, allowed=small_records.allow(tmp_path / "allowed", anna=anna))
    assert list(found) == ["signature"]
    assert found["signature"].startswith("by another key, ED25519 SHA256:")


def test_a_signer_allowed_for_something_else_is_refused(tmp_path: Path) -> None:
    """A key allowed for the namespace of git alone may not sign records."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    folder = closed(tmp_path, sign_key=key)
    allowed = small_records.allow(tmp_path / "allowed", anna=key)
    allowed.write_text(allowed.read_text().replace("anna ", 'anna namespaces="git" '))
    assert list(failing(folder, allowed=allowed)) == ["signature"]


def test_a_signature_for_something_else_is_refused(tmp_path: Path) -> None:
    """A signature made for another purpose than a record (another namespace) is none of it."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    folder = closed(tmp_path)
    command = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", "file", "SHA256SUMS"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    assert "namespace" in failing(folder)["signature"]


def test_a_signature_of_other_sums_is_refused(tmp_path: Path) -> None:
    """Sums made anew under the old signature, and the next record's signature: both are found without any signers."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    folder, after = closed(tmp_path, 1, sign_key=key), closed(tmp_path, 2, sign_key=key)
    overwrite(folder / "params.yaml", "cluster: {name: other}\n")
    reseal(folder)
    assert "none of this SHA256SUMS" in failing(folder)["signature"]
    overwrite(after / "SHA256SUMS.sig", (folder / "SHA256SUMS.sig").read_text())
    assert "none of this SHA256SUMS" in failing(after)["signature"]


def test_a_signature_that_is_gone_is_said(tmp_path: Path) -> None:
    """Unsigned after a signed record: a warning; with allowed signers asked for, it fails."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    first, folder = closed(tmp_path, 1, sign_key=key), closed(tmp_path, 2, sign_key=key)
    (folder / "SHA256SUMS.sig").unlink()
    found = row(folder, "signature")
    assert (found["ok"], found["state"]) == (True, "warning")
    assert first.name in found["why"]
    allowed = small_records.allow(tmp_path / "allowed", anna=key)
    assert list(failing(folder, allowed=allowed)) == ["signature"]
    assert failing(first, allowed=allowed) == {}


def test_sums_removed_from_a_signed_record_are_said(tmp_path: Path) -> None:
    """A signature without its SHA256SUMS is no open record, but one that was taken apart."""
    key = small_records.new_key(tmp_path / "keys", "anna")
    folder = closed(tmp_path, sign_key=key)
    (folder / "SHA256SUMS").unlink()
    assert "SHA256SUMS was removed" in failing(folder)["sums"]


def test_signers_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    """A missing file of allowed signers is the caller's mistake, not a record's fault."""
    with pytest.raises(errors.UsageError, match="no such file"):
        verify([closed(tmp_path)], allowed_signers=tmp_path / "none")


# ---- execution, order, summary: with the sums made anew, so that only what the record tells can show it


def never_run(told: dict[str, Any]) -> None:
    cell(told, 2).update(execution_count=None)


def never_run_pending(told: dict[str, Any]) -> None:
    cell(told, 3).update(execution_count=None)
    cell(told, 3)["metadata"]["papermill"].update(status="pending", start_time=None, end_time=None)


def swapped_cells(told: dict[str, Any]) -> None:
    told["cells"][1], told["cells"][2] = told["cells"][2], told["cells"][1]


def renumbered_cells(told: dict[str, Any]) -> None:
    cell(told, 1).update(execution_count=2)
    cell(told, 2).update(execution_count=1)


def later_day(told: dict[str, Any]) -> None:
    for one in told["cells"][1:]:
        for key in ("start_time", "end_time"):
            one["metadata"]["papermill"][key] = one["metadata"]["papermill"][key].replace("-23T", "-24T")


def error_output(told: dict[str, Any]) -> None:
    cell(told, 3)["outputs"] = [dict(nbformat.v4.new_output("error", ename="X", evalue="", traceback=[]))]


@pytest.mark.parametrize(
    ("change", "check", "expected"),
    [
        (never_run, "execution", "code cell 2 says completed, but never ran"),
        (never_run, "execution", "code cell 3 ran after cell 2, which never ran"),
        (never_run_pending, "execution", "code cell 3 never ran"),
        (swapped_cells, "order", "ran in the order [2, 1, 3], not from top to bottom"),
        (swapped_cells, "order", "the times of its cells go backwards"),
        (renumbered_cells, "order", "ran in the order [2, 1, 3]"),
        (lambda told: told["cells"].pop(2), "order", "cells are gone: those here ran as [1, 3]"),
        (later_day, "order", "ran after this run had ended"),
        (error_output, "summary", "is listed as passed, but its code cell 3 failed"),
        (error_output, "execution", "code cell 3 says completed, but failed"),
        (lambda told: cell(told, 1)["metadata"].clear(), "order", "tell no time"),
        (lambda told: cell(told, 1)["metadata"]["papermill"].update(status="failed"), "execution", "ran after cell 1"),
        (lambda told: told["cells"].pop(0), "order", "has no title with its number"),
        (lambda told: told.update(cells=[]), "execution", "no code cell ran at all"),
    ],
)
def test_a_notebook_that_did_not_run_so_is_found(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], check: str, expected: str
) -> None:
    """What a notebook tells of cells that never ran, failed, or stand in another order is named with its cell."""
    folder = closed(tmp_path)
    edit(folder / START, change)
    reseal(folder)
    found = failing(folder)
    assert "sums" not in found
    assert f"{START}" in found[check]
    assert expected in found[check]


def test_swapped_notebooks_are_found(tmp_path: Path) -> None:
    """Two notebooks under each other's names: by their own titles, and by their times."""
    folder = closed(tmp_path)
    units, start = ((folder / name).read_text() for name in (UNITS, START))
    overwrite(folder / UNITS, start)
    overwrite(folder / START, units)
    reseal(folder)
    found = failing(folder)["order"]
    assert f"{UNITS} is notebook 04 by its own title: swapped or renamed" in found
    assert f"{START} is notebook 03 by its own title: swapped or renamed" in found
    assert f"{START} ran before {UNITS} had ended" in found


def test_a_renamed_notebook_is_found(tmp_path: Path) -> None:
    """Under another number its title doesn't fit, nor does the summary."""
    folder = closed(tmp_path)
    (folder / UNITS).rename(folder / "05_etcd_verify.ipynb")
    reseal(folder)
    found = failing(folder)
    assert "05_etcd_verify.ipynb is notebook 03 by its own title" in found["order"]
    assert f"{UNITS} is listed as passed, but missing" in found["summary"]
    assert "05_etcd_verify.ipynb is of no phase" in found["summary"]


def test_a_notebook_of_another_run_is_found(tmp_path: Path) -> None:
    """A notebook that passed an hour before, put in the place of one that failed, does not lie within this run."""
    earlier = closed(tmp_path, 1)
    folder = small_records.make(tmp_path, 2, failed=2)
    overwrite(folder / START, (earlier / START).read_text())
    edit(
        folder / "summary.json",
        lambda told: (told.update(outcome="passed"), told["phases"][1].update(outcome="passed")),
    )
    evidence.close(folder)
    found = failing(folder)
    assert f"{START} ran before this run began" in found["order"]


def claim(**told: object) -> Callable[[dict[str, Any]], object]:
    return lambda summary: summary.update(told)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (claim(outcome="passed"), f"it says that the run passed, and lists {START} as 'failed'"),
        (claim(outcome="running"), "outcome is 'running', in a record that is closed"),
        (claim(schema=2), "its schema is 2"),
        (claim(phases=[], outcome="passed"), "lists no phase"),
        (claim(phases="x"), "lists no phases"),
        (claim(started="2026-11-23T09:00:00Z"), "the folder was renamed"),
        (lambda told: told["phases"][1].update(outcome="passed"), f"{START} is listed as passed, but its code cell 2"),
        (
            lambda told: told["phases"][0].update(outcome="failed"),
            f"{UNITS} is listed as failed, but each of its cells",
        ),
        (lambda told: told["phases"][0].update(outcome="not begun"), "not begun, but cells of it ran"),
        (lambda told: told["phases"][0].update(outcome="fine"), "has the outcome 'fine'"),
        (lambda told: told["phases"][0].update(number=7), f"phase 7 etcd_units has the notebook {UNITS}"),
        (lambda told: told["phases"][0].update(html="x.html"), "x.html is listed, but missing"),
        (lambda told: told["phases"].pop(0), f"{UNITS} is of no phase that it lists"),
        (lambda told: told["phases"].reverse(), "its phases stand in the order 04, 03"),
    ],
)
def test_a_summary_that_contradicts_the_notebooks_is_found(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], expected: str
) -> None:
    """The summary of a failed run claims something else, under sums that fit: named."""
    folder = small_records.make(tmp_path, failed=2)
    edit(folder / "summary.json", change)
    evidence.close(folder)
    assert expected in failing(folder)["summary"]


def test_a_stepped_record_may_have_run_cells_again(tmp_path: Path) -> None:
    """In JupyterLab a person runs cells again and keeps no times: gaps are no fault, a way back up is."""
    folder = small_records.make(tmp_path)
    edit(folder / "summary.json", claim(kind="stepped"))

    def stepped(*counts: int) -> Callable[[dict[str, Any]], None]:
        def change(told: dict[str, Any]) -> None:
            for place, count in enumerate(counts, 1):
                cell(told, place).update(execution_count=count, metadata={})

        return change

    edit(folder / UNITS, stepped(2, 5, 9))
    evidence.close(folder)
    assert failing(folder) == {}
    edit(folder / UNITS, stepped(2, 9, 5))
    reseal(folder)
    assert list(failing(folder)) == ["order"]


def began_beside(told: dict[str, Any]) -> None:
    """The first cell runs while the notebook before still works: it ends ten seconds later."""
    one = cell(told, 1)["metadata"]["papermill"]
    for key in ("start_time", "end_time"):
        one[key] = (datetime.fromisoformat(one[key]) - timedelta(seconds=9.5)).isoformat()


def test_parameters_may_be_set_while_the_notebook_before_works(tmp_path: Path) -> None:
    """They change nothing; any other cell that did so is named."""
    folder = small_records.make(tmp_path)
    edit(folder / START, began_beside)
    evidence.close(folder)
    assert f"{START} ran before {UNITS} had ended" in failing(folder)["order"]
    for tag in ("parameters", "injected-parameters"):
        edit(folder / START, lambda told, tag=tag: cell(told, 1)["metadata"].update(tags=[tag]))  # type: ignore[misc]
        reseal(folder)
        assert failing(folder) == {}


def test_a_cell_tagged_as_parameters_below_others_is_no_exception(tmp_path: Path) -> None:
    """Only the parameters that a notebook begins with are set ahead; tags that are no list are none."""
    folder = small_records.make(tmp_path)
    edit(folder / START, began_beside)
    edit(folder / START, lambda told: cell(told, 2)["metadata"].update(tags=["parameters"]))
    edit(folder / START, lambda told: cell(told, 1)["metadata"].update(tags="parameters"))
    evidence.close(folder)
    assert f"{START} ran before {UNITS} had ended" in failing(folder)["order"]


# ---- hostile records

GARBAGE = [
    b"", b"\x00\xff", b"[]", b"null", b"{", b'{"cells": 1}', b'{"cells": [1]}', b"[" * 100_000,
    b'{"cells": [{"cell_type": "code", "source": "x", "execution_count": "1"}]}',
    b'{"cells": [{"cell_type": "code", "source": "x", "metadata": {"papermill": {"start_time": 5}}}]}',
    b'{"cells": [{"cell_type": "code", "source": ' + b"[" * 900 + b"]" * 900 + b"}]}",
    b'{"phases": [{"notebook": ["x"], "number": {}, "html": {}}], "outcome": [], "started": 1, "continues": {}}',
    b'{"phases": [{"notebook": "\\ud800\\u001b[31m"}], "outcome": "\\ud800", "schema": 1e999}',
]  # fmt: skip


@pytest.mark.parametrize("name", ["summary.json", UNITS, "previous.SHA256SUMS", "SHA256SUMS.sig", "README.md"])
@pytest.mark.parametrize("garbage", GARBAGE, ids=itertools.count())
def test_garbage_is_rows(tmp_path: Path, name: str, garbage: bytes) -> None:
    """Whatever bytes a file holds, the answer is a table that can be shown and serialised, and some row fails."""
    closed(tmp_path, 1)
    folder = closed(tmp_path, 2)
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(garbage)
    reseal(folder)
    table = verify([folder])
    assert len(table) == len(CHECKS)
    assert "\x1b" not in show.table_text(table) + show.table_html(table)
    json.dumps(show.json_rows(table)).encode()
    assert name == "README.md" or failing(folder)


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.sig", "previous.SHA256SUMS", "summary.json", UNITS, "new"])
def test_fifos_are_rows(tmp_path: Path, name: str) -> None:
    """A FIFO in any place is never waited on."""
    folder = closed(tmp_path)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert failing(folder)


def test_odd_folders_are_rows(tmp_path: Path) -> None:
    """No folder, a file, a loop of links, sums that are no text: a row each."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    (tmp_path / "file").touch()
    binary = small_records.make(tmp_path)
    (binary / "SHA256SUMS").write_bytes(b"\xff\xfe")
    odd = [tmp_path / "none", tmp_path / "file", loop, binary, Path("/dev/null")]
    found = show.rows(verify(odd))
    assert [one["ok"] for one in found] == [False] * len(odd)


def test_huge_files_are_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bigger than any record's files is refused by its size, not read."""
    folder = closed(tmp_path)
    for name, size in ((UNITS, sumfile.MOST_READ + 1), ("params.yaml", sumfile.MOST_HASHED + 1)):
        (folder / name).chmod(0o644)
        os.truncate(folder / name, size)
    found = failing(folder)
    assert f"{UNITS} can't be read" in found["execution"]
    assert "params.yaml can't be read: has" in found["sums"]
    monkeypatch.setattr(sumfile, "MOST_FILES", 5)
    assert "more than 5 files" in failing(folder)["files"]
