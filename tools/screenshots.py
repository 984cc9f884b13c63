"""Make docs/pictures/ anew: a practice cluster built by pressing Apply in JupyterLab, in light and in dark."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from chromium import launched
from clusters import cluster
from lab import DARK, LIGHT, Book, Lab, opened
from practice import BIN

from runbook import phases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

SLOT = 6
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SCHEMES = {"light": LIGHT, "dark": DARK}
_SHARPNESS = 1.25
_WIDTH, _HEIGHT = 1280, 900
#: JupyterLab's own paper around what is taken, in pixels.
_EDGE = 6
#: Each node has a part of what it is sent.
_HALF_WAY = """() => {
  const bars = [...document.querySelectorAll('.jp-OutputArea progress')];
  return bars.length && bars.every((one) => one.value > one.max / 4);
}"""
#: Where the texts, tables and buttons under a cell are, without the empty space beside them.
_EXTENT = """(area) => {
  const outer = area.getBoundingClientRect();
  const inner = [...area.querySelectorAll('table, p, button')].filter((one) => one.checkVisibility()).map((one) => {
    const range = document.createRange();
    range.selectNodeContents(one);
    return [one, range].map((what) => what.getBoundingClientRect())[one.tagName === 'P' ? 1 : 0];
  });
  return {
    top: outer.top, bottom: outer.bottom, end: outer.right,
    left: Math.min(...inner.map((one) => one.left)), right: Math.max(...inner.map((one) => one.right)),
  };
}"""


def main() -> None:
    """Bring the cluster up, go through the phases, write the pictures, take everything down."""
    with (
        cluster("practice", SLOT) as sandbox,
        tempfile.TemporaryDirectory(prefix="runbook-") as folder,
        launched() as chromium,
    ):
        params = Path(folder) / "practice.yaml"
        params.write_text(yaml.safe_dump(sandbox.params(3)), encoding="utf-8")
        records = Path(folder) / "records"
        with opened(chromium, params, records, Path(folder) / "jupyter", sharpness=_SHARPNESS) as lab:
            notebooks(lab)
            record = lab.server.record
        subprocess.run([BIN / "runbook", "close", record], check=True)
        index(chromium, record)


def notebooks(lab: Lab) -> None:
    """Go through the phases; pictures of a gate, of progress, results, topology, mesh and the index."""
    lab.page.set_viewport_size({"width": _WIDTH, "height": _HEIGHT})
    book = Book(lab, lab.front())
    for phase in phases.PHASES:
        book = book.follow(phase.notebook)
        book.run_all()
        if phase.plan:
            book.until_asked()
            if phase.name == "etcd_units":
                window(book, "gate", "plan.apply(")
            pressed(book, slow=phase.name == "binaries")
        assert not any(cell.failed for cell in book.until_idle()), book.panel.inner_text()
        book.save()
        if phase.name == "etcd_start":
            cells(book, "results", "plan.apply(", "etcd.states(")
        if phase.name == "flannel_verify":
            cells(book, "topology", "flannel.topology(")
        if phase.name == "ping_mesh":
            cells(book, "mesh", "mesh.beside(")
    book = lab.book(phases.INDEX)
    book.run_all()
    book.until_idle()
    window(book, "index", "overview(cluster)")


def pressed(book: Book, *, slow: bool) -> None:
    """Press Apply; where the link to the nodes is slow, there is time for a picture of the progress."""
    if not slow:
        book.press("Apply")
        return
    with slow_link():
        book.press("Apply")
        book.page.wait_for_function(_HALF_WAY, timeout=60_000)
        cells(book, "progress", "plan.apply(")


@contextmanager
def slow_link() -> Iterator[None]:
    """Meanwhile this machine sends to the nodes as over a slow line."""
    device = f"rbk{SLOT}"
    subprocess.run(
        ["tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", "30mbit", "burst", "64kb", "latency", "200ms"],
        check=True,
    )
    try:
        yield
    finally:
        subprocess.run(["tc", "qdisc", "del", "dev", device, "root"], check=True)


def index(chromium: Browser, record: Path) -> None:
    """The record's index page, down to its timeline."""
    for scheme in SCHEMES:
        size = {"width": 1100, "height": 2000}
        page = chromium.new_page(viewport=size, device_scale_factor=_SHARPNESS, color_scheme=scheme)
        page.goto((record / "index.html").as_uri())
        end = page.locator("section", has=page.get_by_role("heading", name="Timeline")).bounding_box()
        assert end
        take(page, f"record-{scheme}", {"x": 0, "y": 0, "width": size["width"], "height": end["y"] + end["height"]})
        page.close()


def window(book: Book, name: str, source: str) -> None:
    """The whole of JupyterLab's window, with what stands under a cell at its lower end."""
    for scheme, theme in SCHEMES.items():
        book.lab.theme(theme)
        book.output(source).evaluate("one => one.scrollIntoView({block: 'end'})")
        take(book.page, f"{name}-{scheme}")


def cells(book: Book, name: str, *sources: str) -> None:
    """What stands under these code cells and between them, as wide as what is in it."""
    book.page.set_viewport_size({"width": _WIDTH, "height": 3 * _HEIGHT})
    for scheme, theme in SCHEMES.items():
        book.lab.theme(theme)
        outputs = [book.output(source).locator(".jp-OutputArea") for source in sources]
        outputs[0].scroll_into_view_if_needed()
        boxes = [one.evaluate(_EXTENT) for one in outputs]
        left, top = min(box["left"] for box in boxes) - _EDGE, boxes[0]["top"]
        right = max(box["right" if len(boxes) == 1 else "end"] for box in boxes)
        clip = {"x": left, "y": top, "width": right + _EDGE - left, "height": boxes[-1]["bottom"] + _EDGE - top}
        take(book.page, f"{name}-{scheme}", clip)
    book.page.set_viewport_size({"width": _WIDTH, "height": _HEIGHT})


def take(page: Page, name: str, clip: dict[str, float] | None = None) -> None:
    """Write a picture; the pointer is where nothing lights up under it."""
    page.mouse.move(1, 1)
    path = PICTURES / f"{name}.png"
    page.screenshot(path=path, clip=clip, animations="disabled")  # type: ignore[arg-type]
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
