"""Finding one's way in a real JupyterLab: the index in front, links from notebook to notebook and from an error on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from lab import Lab, opened

from runbook import errors, phases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.xdist_group("browser")

#: The heading that the page on errors shows at the top, with its distance from there in pixels.
_TOP = """() => {
  const page = document.querySelector('.jp-MarkdownViewer:not(.lm-mod-hidden) .jp-RenderedMarkdown');
  if (!page) return undefined;
  const top = page.getBoundingClientRect().top;
  const near = [...page.querySelectorAll('h3')].map((one) => [one.textContent.trim(),
    one.getBoundingClientRect().top - top]).filter(([, distance]) => Math.abs(distance) < 60);
  return near.length ? near[0][0].replace('¶', '') : undefined;
}"""


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The params of a cluster that is nowhere."""
    path = tmp_path_factory.mktemp("params") / "p.yaml"
    path.write_text("cluster: {name: c, nodes: [{name: node1, host: 198.18.0.250}]}\n")
    return path


@pytest.fixture(scope="module")
def lab(chromium: Browser, params: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab, opened with nothing but a params file."""
    home = tmp_path_factory.mktemp("lab")
    (home / "records").mkdir()
    with opened(chromium, params, home / "records", home / "jupyter") as made:
        yield made


def test_lab_opens_on_the_index(lab: Lab) -> None:
    """The index is in front, its contents beside it; no news prompt asks, no git buttons are there."""
    assert lab.front() == phases.INDEX
    lab.page.get_by_role("treeitem", name="The phases").wait_for()
    assert lab.page.locator(".Toastify__toast").count() == 0
    assert lab.page.locator("[title*=nbdiff], [data-command*=nbdime]").count() == 0


def test_the_index_needs_no_typing(lab: Lab) -> None:
    """Run All Cells shows the twelve phases, without a node that answers."""
    book = lab.book(phases.INDEX)
    book.run_all()
    assert not any(cell.failed for cell in book.until_idle())
    rows = book.output("overview(cluster)").locator("tbody tr")
    assert [text[:2] for text in rows.all_inner_texts()] == [f"{number:02d}" for number in range(12)]


@pytest.mark.parametrize("phase", [phases.PHASES[0], phases.PHASES[6], phases.PHASES[11]], ids=lambda one: one.name)
def test_links_open_notebooks_there_and_back(lab: Lab, phase: phases.Phase) -> None:
    """The index opens a phase's notebook in this window, and that one its neighbours and the index."""
    book = lab.book(phases.INDEX).follow(phase.notebook)
    near = phases.PHASES[max(0, phase.number - 1) : phase.number + 2]
    for other in (one for one in near if one is not phase):
        book.follow(other.notebook)
        book = lab.book(phase.notebook)
    book.follow(phases.INDEX)
    assert len(lab.page.context.pages) == 1


def test_an_error_opens_the_section_that_tells_its_remedy(lab: Lab, params: Path) -> None:
    """A click on the one link above an error shows the page on errors, at the section of that error."""
    text = params.read_text()
    book = lab.book(phases.INDEX).follow(phases.PHASES[0].notebook)
    params.unlink()
    try:
        book.run_all()
        failed = [cell for cell in book.until_idle() if cell.failed]
    finally:
        params.write_text(text)
    output = book.output(failed[0].source)
    assert "see docs/troubleshooting.md#params-error" in output.inner_text()
    (link,) = output.locator("a", has_text=re.compile("^What to do")).all()
    link.click()
    assert lab.until(_TOP) == "params error"
    lab.page.get_by_role("tab", name=errors.PAGE).wait_for()


def test_the_token_is_not_in_the_record(lab: Lab) -> None:
    """Whoever reads a record can't get into the JupyterLab that made it."""
    for name in (phases.INDEX, phases.PHASES[0].notebook):
        lab.book(name).save()
    files = [one for one in lab.server.record.rglob("*") if one.is_file()]
    assert len(files) > len(phases.PHASES)
    assert [one for one in files if lab.server.token.encode() in one.read_bytes()] == []
