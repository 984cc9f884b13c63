"""Whether texts on a page can be read: each visible text with its colours, measured in the browser itself."""

from __future__ import annotations

#: Every visible text in an element (the whole page without one) with its colour and the background that it stands on,
#: both as they look: what one can see through is mixed with what lies under it.
TEXTS = """(within) => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const mixed = (colours) => {
    for (const colour of ['white', ...colours]) {
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
    }
    return `rgb(${canvas.getImageData(0, 0, 1, 1).data.slice(0, 3).join(', ')})`;
  };
  const found = [];
  const walker = document.createTreeWalker(within || document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility()) continue;
    const under = [];
    for (let one = element; one; one = one.parentElement) under.unshift(getComputedStyle(one).backgroundColor);
    const colour = mixed([...under, getComputedStyle(element).color]);
    found.push([node.textContent.trim().slice(0, 40), colour, mixed(under)]);
  }
  return found;
}"""


def parts(colour: str) -> tuple[float, float, float]:
    """`rgb(1, 2, 3)` as numbers."""
    numbers = [float(one) for one in colour[colour.index("(") + 1 : -1].split(",")]
    assert len(numbers) == 3, colour
    return numbers[0], numbers[1], numbers[2]


def luminance(colour: str) -> float:
    """A colour's relative luminance (WCAG 2.2), 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (n / 255 for n in parts(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour: str, background: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2), 1 to 21."""
    low, high = sorted((luminance(colour), luminance(background)))
    return (high + 0.05) / (low + 0.05)
