"""runbook.errors: messages for operators, and the exit status of each kind."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path

import pytest

from runbook import errors

PAGE = Path(__file__).parents[2] / "docs" / errors.PAGE
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RunbookError)]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """The docstring draws every class below its base, with its exit status."""
    found = {kind.__name__: (kind.__mro__[1].__name__, kind.exit_status) for kind in KINDS}
    drawn: dict[str, tuple[str, int]] = {}
    above: list[tuple[str, int]] = [("Exception", 1)]
    for branch, name, digit in re.findall(r"^([│├└─ ]*)(\w+) *(\d)?.*$", f"{errors.__doc__}", re.MULTILINE):
        if name in found:
            del above[len(branch) // 4 + 1 :]
            base, status = above[-1]
            above.append((name, int(digit or status)))
            drawn[name] = (base, above[-1][1])
    assert drawn == found


def test_a_message_says_where_what_and_what_to_do() -> None:
    """As text an error is node, subject, message, and the remedy on a line of its own."""
    error = errors.CommandFailed("ended with status 1", node="node1", subject="etcdctl", remedy="phase 04")
    assert str(error) == "node1: etcdctl: ended with status 1\n  -> phase 04"
    assert str(errors.PkiError("broken", subject="ca.pem")) == "ca.pem: broken"
    assert str(errors.RunbookError("alone")) == "alone"


def test_all_faults_of_params_are_listed() -> None:
    """A params error carries each fault, and counts them."""
    error = errors.ParamsError("a.yaml", ["one", "two"])
    assert str(error) == "a.yaml: 2 faults:\n  - one\n  - two"
    assert error.faults == ["one", "two"]
    assert "1 fault:" in str(errors.ParamsError("a.yaml", ["one"]))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not errors.ParamsError])
def test_an_error_survives_another_process(kind: type[errors.RunbookError]) -> None:
    """Pickled and read again an error has the same text and parts."""
    error = kind("broke", node="node1", subject="x", remedy="mend it")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(again), str(again), again.node) == (kind, str(error), "node1")


def test_a_notebook_shows_the_message_alone() -> None:
    """IPython asks for this in place of a traceback; it ends with where the remedy is told at length."""
    assert errors.Unreachable("no answer", node="node1")._render_traceback_() == [
        "Unreachable: node1: no answer\n  see docs/troubleshooting.md#unreachable"
    ]


def sections() -> dict[str, str]:
    """The page's sections by their anchors, as JupyterLab and code hosts make them."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.split("^### (.+)$", text, flags=re.MULTILINE)[1:]
    return {heading.replace(" ", "-"): body for heading, body in zip(found[::2], found[1::2], strict=True)}


def test_every_error_has_its_section() -> None:
    """The page on errors has a section for each class, and no section is empty."""
    there = sections()
    assert [kind.__name__ for kind in KINDS if errors.section(kind.__name__, "") not in there] == []
    assert [anchor for anchor, body in there.items() if len(body.strip()) < 80] == []


def test_headings_have_one_anchor_everywhere() -> None:
    """JupyterLab keeps the case of a heading in its anchor, code hosts don't: small letters are the same in both."""
    assert [anchor for anchor in sections() if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", anchor)] == []


@pytest.mark.parametrize(("phrase", "anchor"), errors.SYMPTOMS)
def test_every_symptom_has_its_section(phrase: str, anchor: str) -> None:
    """A phrase in an error's text leads to a section that is there and is on that phrase, whatever the class."""
    assert phrase in sections()[anchor]
    assert errors.CommandFailed(f"said: {phrase} …", node="node1").see == f"see docs/troubleshooting.md#{anchor}"


def test_links_of_the_page_resolve() -> None:
    """The page links to its own sections only: a copy of it lies in every record that is stepped through."""
    targets = re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if target.removeprefix("#") not in sections()] == []


def test_an_error_of_others_has_no_section() -> None:
    """What is not raised on purpose has no remedy that could be told."""
    assert errors.see("KeyError", "No space left on device") == ""


def test_a_link_comes_with_the_error_where_the_page_is_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a record that is stepped through one link opens the section, though IPython asks twice; elsewhere none."""
    shown: list[dict[str, str]] = []
    monkeypatch.setattr("IPython.display.publish_display_data", shown.append)
    monkeypatch.chdir(tmp_path)
    error = errors.HostKeyUnknown("no key of it is known")
    error._render_traceback_()
    assert shown == []
    (tmp_path / errors.PAGE).touch()
    assert error._render_traceback_() == error._render_traceback_()
    (data,) = shown
    assert '<a href="troubleshooting.md#host-key-unknown">' in data["text/html"]


def test_one_error_stays_itself() -> None:
    """Where one node failed, its error is the error."""
    error = errors.LoginRefused("no", node="node1")
    assert errors.together([error]) is error


def test_errors_of_several_nodes_are_one_that_lists_them() -> None:
    """The common class stays; every node's message is in the text."""
    both = errors.together([errors.Unreachable("a", node="node1"), errors.Unreachable("b", node="node2")])
    assert type(both) is errors.Unreachable
    assert str(both) == "2 nodes:\nnode1: a\nnode2: b"


@pytest.mark.parametrize("first", [errors.Unreachable, errors.HostKeyUnknown, errors.CommandFailed, errors.PkiError])
@pytest.mark.parametrize("second", [errors.LoginRefused, errors.HostKeyMismatch])
def test_nodes_that_fail_in_several_ways_are_a_node_error(
    first: type[errors.RunbookError], second: type[errors.RunbookError]
) -> None:
    """Of several kinds none is picked by chance: the error is a NodeError, with exit status 4."""
    both = errors.together([first("a"), second("b")])
    assert type(both) is errors.NodeError
    assert type(errors.together([second("b"), first("a")])) is errors.NodeError


def test_every_class_says_when_it_is_raised() -> None:
    """Each class has a docstring of its own."""
    assert [kind.__name__ for kind in KINDS if not inspect.getdoc(kind) or kind.__doc__ is None] == []
