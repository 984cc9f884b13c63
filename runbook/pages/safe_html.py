"""HTML of a notebook that can neither run nor load anything: what nodes and cells wrote, made fit for a record's page.

A page's content security policy forbids scripts and loading already. What a policy of a page can't forbid (a refresh,
a preconnect, a link that leads out, an element laid over others) goes here; a tag that is not let through stays
readable as text, so that nothing vanishes from a record.
"""

from __future__ import annotations

import functools
import html
import re
from typing import TYPE_CHECKING

from runbook.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    import nh3

    ToHtml = Callable[[str], str]

_TAGS = frozenset(
    """
    a b blockquote br caption code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre progress s
    samp small span strong sub summary sup table tbody td tfoot th thead tr u ul
    """.split()  # noqa: SIM905 - a list of them is a page long
)
_ATTRIBUTES = {
    "a": {"href"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "img": {"alt", "height", "src", "width"},
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
#: A property's value without escapes, comments and addresses: nothing that could be read in two ways.
_VALUE = re.compile(r"(?:[\w #%.,+!-]|(?:rgb|hsl)a?\([\d .,%/]*\)|\"[\w -]*\"|'[\w -]*')+", re.ASCII)
#: A "<" that begins none of the tags, in either case of letters.
_NO_TAG = re.compile(rf"<(?!/?(?:{'|'.join(sorted(_TAGS))})[\s/>])", re.IGNORECASE)
_LOCAL = re.compile(r"(?!.*//)(?:[\w.%~-][\w.%~/-]*)?(?:#[\w.%~-]*)?", re.ASCII)
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+")
_MAY_BREAK = "\u200b"
_NOTEBOOK = re.compile(r"\.ipynb(?=#|$)")
#: Title and link sequences of a terminal: `ESC ] … BEL`; what they hold is not text.
_TERMINAL_COMMAND = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


def is_local(address: str) -> bool:
    """Whether a link stays among the files beside the page."""
    return _LOCAL.fullmatch(address) is not None


def page_of(address: str) -> str:
    """The address of a notebook's page; any other address as it is."""
    return _NOTEBOOK.sub(".html", address)


@functools.lru_cache(maxsize=1024)  # the cells of a table have the same style
def _style(style: str) -> str:
    """The declarations of a style attribute that only dress their own element; what is not plain goes."""
    declarations = (one.partition(":")[::2] for one in style.split(";"))
    kept = ((name.strip().lower(), value.strip()) for name, value in declarations)
    return ";".join(f"{name}:{value}" for name, value in kept if name in _STYLES and _VALUE.fullmatch(value))


def _attribute(tag: str, name: str, value: str) -> str | None:
    """What is kept of an attribute that is let through at all; links between notebooks lead to their pages."""
    if name == "style":
        return _style(value) or None
    if name == "href":
        return page_of(value) if is_local(value) else None
    if (tag, name) == ("img", "src"):
        return value if _IMAGE.fullmatch(value) else None
    return value


@functools.cache
def _cleaner() -> nh3.Cleaner:
    import nh3  # noqa: PLC0415 - only pages need it

    return nh3.Cleaner(
        tags=set(_TAGS),
        clean_content_tags=set(),
        attributes={"*": {"style", "title"}, **_ATTRIBUTES},
        attribute_filter=_attribute,
        url_schemes={"data"},
        link_rel=None,
    )


def sanitised(text: str) -> str:
    """HTML that can neither run nor load anything."""
    # nh3 drops the tags that it does not let through: they are made text before. And it resolves character references:
    # of those that are not seen only the one at which our own lines may break stays.
    made = _cleaner().clean(_NO_TAG.sub("&lt;", clean(text)))
    return _MAY_BREAK.join(map(clean, made.split(_MAY_BREAK)))


def markdown() -> ToHtml:
    """Make what turns Markdown into sanitised HTML."""
    import mistune  # noqa: PLC0415 - as above

    plugins = ["strikethrough", "table", "url", "task_lists", "def_list"]
    made = mistune.create_markdown(escape=False, plugins=plugins)
    return lambda text: sanitised(str(made(text)))


def code() -> ToHtml:
    """Make what turns Python into highlighted HTML."""
    from pygments import highlight  # noqa: PLC0415 - as above
    from pygments.formatters.html import HtmlFormatter  # noqa: PLC0415
    from pygments.lexers.python import PythonLexer  # noqa: PLC0415

    lexer, formatter = PythonLexer(), HtmlFormatter()
    return lambda text: highlight(clean(text), lexer, formatter)


def terminal(text: str) -> str:
    """Text for a terminal as escaped HTML: its colours are kept, every other control character goes."""
    if "\x1b" not in text:
        return clean(html.escape(text))
    from nbconvert.filters.ansi import ansi2html  # noqa: PLC0415 - half a second, for what failed

    coloured = ansi2html(_TERMINAL_COMMAND.sub("", text))  # type: ignore[no-untyped-call]
    return clean(str(coloured))


def image(media_type: str, data: str) -> str:
    """A picture's data address, or "" where it is not one."""
    address = f"data:{media_type};base64,{''.join(data.split())}"
    return address if _IMAGE.fullmatch(address) else ""
