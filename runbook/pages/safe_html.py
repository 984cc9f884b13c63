"""HTML of a notebook that can neither run nor load anything: what nodes and cells wrote, made fit for a record's page.

A page's content security policy forbids scripts and loading already. What a policy of a page can't forbid (a refresh,
a preconnect, a link that leads out, an element laid over others) goes here; a tag that is not let through stays
readable as text, so that nothing vanishes from a record.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from runbook.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    ToHtml = Callable[[str], str]

_TAGS = frozenset(
    """
    a b blockquote br caption code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre progress s
    samp small span strong sub summary sup table tbody td tfoot th thead tr u ul
    """.split()  # noqa: SIM905 - a list of them is a page long
)
_ATTRIBUTES = {
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "img": {"alt", "height", "width"},
    "details": {"open"},
    "ol": {"start"},
    "progress": {"max", "value"},
}
#: None of these lays something over the page, or can load an image.
_STYLES = frozenset(
    """
    background-color border border-bottom border-collapse border-color border-left border-radius border-right
    border-spacing border-style border-top border-width color font-family font-size font-style font-weight height
    line-height margin min-width overflow-x padding text-align text-decoration vertical-align white-space width
    """.split()  # noqa: SIM905 - a list of them is a page long
)
_LOCAL = re.compile(r"(?!.*//)(?:[\w.%~-][\w.%~/-]*)?(?:#[\w.%~-]*)?", re.ASCII)
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+")
_NOTEBOOK = re.compile(r"\.ipynb(?=#|$)")
#: Title and link sequences of a terminal: `ESC ] … BEL`; what they hold is not text.
_TERMINAL_COMMAND = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


def is_local(address: str) -> bool:
    """Whether a link stays among the files beside the page."""
    return _LOCAL.fullmatch(address) is not None


def page_of(address: str) -> str:
    """The address of a notebook's page; any other address as it is."""
    return _NOTEBOOK.sub(".html", address)


def _allowed(tag: str, name: str, value: str) -> bool:
    if (tag, name) == ("a", "href"):
        return is_local(value)
    if (tag, name) == ("img", "src"):
        return _IMAGE.fullmatch(value) is not None
    return name in ("style", "title") or name in _ATTRIBUTES.get(tag, ())


class _Styles:
    """Keeps the properties of a style attribute that only dress their own element."""

    def __init__(self) -> None:
        from bleach.css_sanitizer import CSSSanitizer  # type: ignore[import-untyped]  # noqa: PLC0415

        self._sanitizer = CSSSanitizer(allowed_css_properties=_STYLES, allowed_svg_properties=())
        # The cells of a table have the same style: once is enough.
        self.sanitize_css = functools.lru_cache(maxsize=1024)(self._sanitize)

    def _sanitize(self, style: str) -> str:
        kept: str = self._sanitizer.sanitize_css(style)
        return "" if "url(" in kept.lower() else kept


def _links(source: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Lead links between notebooks to their pages."""
    for token in source:
        if token.get("name") == "a" and (None, "href") in token.get("data", {}):
            token["data"][None, "href"] = page_of(token["data"][None, "href"])
        yield token


def sanitiser() -> ToHtml:
    """Make what sanitises HTML; not for several threads at once."""
    import bleach  # type: ignore[import-untyped]  # noqa: PLC0415

    cleaner = bleach.Cleaner(
        tags=_TAGS, attributes=_allowed, protocols={"data", "http"}, css_sanitizer=_Styles(), filters=[_links]
    )

    def sanitised(text: str) -> str:
        made: str = cleaner.clean(clean(text))
        return made

    return sanitised


def markdown() -> ToHtml:
    """Make what turns Markdown into sanitised HTML."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath  # noqa: PLC0415

    renderer = MarkdownWithMath(renderer=IPythonRenderer(escape=False, exclude_anchor_links=True))
    sanitised = sanitiser()
    return lambda text: sanitised(renderer.render(text))


def code() -> ToHtml:
    """Make what turns Python into highlighted HTML."""
    from nbconvert.filters.highlight import Highlight2HTML  # noqa: PLC0415

    highlighted = Highlight2HTML(pygments_lexer="ipython3")  # type: ignore[no-untyped-call]
    return lambda text: str(highlighted(clean(text)))


def terminal(text: str) -> str:
    """Text for a terminal as escaped HTML: its colours are kept, every other control character goes."""
    from nbconvert.filters.ansi import ansi2html  # noqa: PLC0415

    coloured = ansi2html(_TERMINAL_COMMAND.sub("", text))  # type: ignore[no-untyped-call]
    return clean(str(coloured))


def image(media_type: str, data: str) -> str:
    """A picture's data address, or "" where it is not one."""
    address = f"data:{media_type};base64,{''.join(data.split())}"
    return address if _IMAGE.fullmatch(address) else ""
