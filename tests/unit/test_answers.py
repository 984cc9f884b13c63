"""runbook.transport.answers: several commands' output told apart, printed by real sh."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from local_node import LocalConnection, cluster_of

from runbook.transport import answers

if TYPE_CHECKING:
    from pathlib import Path


def said(folder: Path, script: str) -> dict[str, str]:
    done = LocalConnection(cluster_of().nodes[0], folder).run(f"{answers.SAY}\n{script}", what="say").check()
    assert done.stderr == b""
    return answers.parse(done.text)


def test_lines_come_back_as_they_are(tmp_path: Path) -> None:
    """Spaces, signs and patterns of sh stay; a text that is empty is an empty answer; blank lines go."""
    script = """
text='  * %s \\n a=b|c
-n

 last '
rb_say one "$text"
rb_say none ""
rb_say two "$(printf 'x\n')"
"""
    assert said(tmp_path, script) == {"one": "  * %s \\n a=b|c\n-n\n last ", "none": "", "two": "x"}


def test_a_files_lines_are_told_without_a_program(tmp_path: Path) -> None:
    """As those of a text, the last one too where it does not end; of a file that is not there, an empty answer."""
    (tmp_path / "file").write_text("  A=\\n * %s\n\nlast=1")
    script = f"PATH=/nonexistent; rb_file one {tmp_path}/file; rb_file two {tmp_path}/none; rb_file three {tmp_path}"
    assert said(tmp_path, script) == {"one": "  A=\\n * %s\nlast=1", "two": "", "three": ""}


def test_an_answer_is_never_anothers(tmp_path: Path) -> None:
    """A command that prints what looks like another key's line prints only its own."""
    assert said(tmp_path, 'rb_say one "two|forged"; rb_say two true') == {"one": "two|forged", "two": "true"}


def test_what_is_no_answer_is_left_out() -> None:
    """Noise and broken base64 are no answers; good base64 is."""
    assert answers.parse(f"noise\na=!!\nb={base64.b64encode(b'x').decode()}\n c|d\n") == {"b": "x"}


@given(st.text())
def test_any_text_is_parsed(text: str) -> None:
    """Nothing that a node prints breaks it."""
    assert isinstance(answers.parse(text), dict)
