"""runbook.settings.params_file: YAML, with what it would hide said."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbook.errors import ParamsError
from runbook.settings import params_file
from runbook.settings.params_file import Note


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "p.yaml"


def told(file: Path, content: str | bytes) -> list[str]:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [str(fault) for fault in params_file.read(file).faults]


def refused(file: Path, content: str | bytes) -> str:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ParamsError) as caught:
        params_file.read(file)
    assert len(caught.value.faults) == 1
    return caught.value.faults[0]


def test_a_doubled_key_is_told_with_both_lines(file: Path) -> None:
    """Of equal keys YAML takes the last: both lines are named, at any depth, in block and flow style."""
    text = "cluster:\n  etcd:\n    version: 1\n    user: x\n    version: 2\n  ssh: {port: 1, port: 2}\ncluster: 3\n"
    assert told(file, text) == [
        "line 5: key `cluster.etcd.version` stands twice (line 3); YAML would take the last",
        "line 6: key `cluster.ssh.port` stands twice (line 6); YAML would take the last",
        "line 7: key `cluster` stands twice (line 1); YAML would take the last",
    ]


def test_equal_keys_of_different_groups_are_no_fault(file: Path) -> None:
    """A key may stand in every group, and a merged one may be overridden: that is what merging is for."""
    text = "a: &a {x: 1, y: 2}\nb: {x: 1}\nc:\n  <<: *a\n  x: 3\nd: [{x: 1}, {x: 1}]\n"
    assert told(file, text) == []
    assert params_file.read(file).values["c"] == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    ("written", "value"),
    [("0600", "384 (octal)"), ("-017", "-15 (octal)"), ("12:34:56", "45296 (base-60)"), ("1:30.5", "90.5 (base-60)")],
)
def test_numbers_that_are_read_otherwise_are_told(file: Path, written: str, value: str) -> None:
    """Octal and base-60 numbers are told wherever they stand, since they pass for good numbers."""
    assert told(file, f"a:\n  b: [x, {written}]\n")[0].startswith(
        f"line 2: a.b[1]: YAML reads {written} as the number {value}"
    )
    assert told(file, f"a:\n  b: [x, '{written}']\n") == []


@pytest.mark.parametrize("written", ["0", "10", "0x1F", "3.10", "on", "08", "3.6.16", "198.18.0.11", "2026-01-01", "~"])
def test_other_scalars_pass(file: Path, written: str) -> None:
    """What may be meant as YAML reads it is left to the rule of its key; a version or address of dots is text."""
    assert told(file, f"a: {written}\n") == []


def test_dates_stay_text(file: Path) -> None:
    """A date is text here, as it is when papermill reads the file."""
    assert told(file, "a: 2026-01-01\n") == []
    assert params_file.read(file).values == {"a": "2026-01-01"}


def test_notes_tell_line_and_writing(file: Path) -> None:
    """Each value's line is known, and its writing where it stands without quotes; keys in lower case."""
    told(file, "A:\n- x\n- b: 3.10\n  c: '3.10'\non: 1\n")
    notes = params_file.read(file).notes
    assert notes["a", "0"] == Note(2, "x")
    assert notes["a", "1", "b"] == Note(3, "3.10")
    assert notes["a", "1", "c"] == Note(4, None)
    assert notes["true", "[key]"] == Note(5, "on")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "holds no settings"),
        ("# nothing\n", "holds no settings"),
        ("- a\n", "holds no settings"),
        ("text\n", "holds no settings"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: expected a single document"),
        ("a: 1\n\tb: 2\n", "line 2, column 1: while scanning for the next token, found character"),
        ("a: [1\nb: 2\n", "line 2, column 2: while parsing a flow sequence"),
        ("a: {b: 1, [c]: 2}\n", "line 1, column 11: while constructing a mapping, found unhashable key"),
        ("a: !!python/object:os.system x\n", "line 1, column 4: could not determine a constructor"),
        ("a: !!bool maybe\n", "a value can't be read as what it is tagged"),
        ("a: !!int x\n", "a value can't be read as what it is tagged"),
        ("a: *b\n", "line 1, column 4: found undefined alias 'b'"),
        ("a: \x01\n", "character 1 at 3 is not allowed in YAML"),
        (b"a: \xff\n", "is not UTF-8 text (byte 3)"),
        ("[" * 5000, "is nested too deeply"),
        ("a: " + "9" * 5000, "a value can't be read"),
        ("a: " + "x" * (1 << 20), "is larger than 1048576 bytes"),
    ],
)
def test_what_is_no_params_file_is_told(file: Path, content: str | bytes, fault: str) -> None:
    """A file that YAML can't read gives the line, the column and the reason; nothing in it is run."""
    assert refused(file, content).startswith(fault)


def test_a_syntax_fault_never_shows_the_line_itself(file: Path) -> None:
    """The text around a syntax fault may be a secret, so it is not repeated."""
    assert "hunter2" not in refused(file, "ssh:\n  password: 'hunter2\n  x: [hunter2\n")


def test_aliases_cost_nothing(file: Path) -> None:
    """A file that repeats itself by aliases a billion times, or holds itself, is read at once."""
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
    assert told(file, "l0: &l0 [x]\n" + levels) == []
    assert told(file, "a: &a [*a]\n") == []


def test_a_missing_file_tells_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative name is looked for from the folder we run in, and that folder is named."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match=f"no such file; looked for from {tmp_path}"):
        params_file.read(Path("none.yaml"))
    with pytest.raises(ParamsError, match="can't be read: Is a directory"):
        params_file.read(tmp_path)


def test_a_byte_order_mark_is_skipped(file: Path) -> None:
    """An editor's byte order mark is no part of the first key."""
    told(file, b"\xef\xbb\xbfcluster: 1\n")
    assert params_file.read(file).values == {"cluster": 1}


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=6), plain, min_size=1, max_size=4))
def test_what_yaml_wrote_is_read_back_without_faults(file: Path, values: dict[str, object]) -> None:
    """What a YAML writer wrote has no surprises, and every value has a line."""
    assert told(file, yaml.safe_dump(values)) == []
    document = params_file.read(file)
    assert document.values == values
    assert all((key.casefold(),) in document.notes for key in values)
