"""Tables that stay data in a notebook: pandas DataFrames that show themselves as `show` decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from runbook import show

if TYPE_CHECKING:
    from collections.abc import Callable


class Table(pd.DataFrame):
    """A DataFrame that shows itself our way; filtering and slicing it gives a Table again."""

    _metadata = ["caption"]  # noqa: RUF012 - pandas' own protocol
    caption: str = ""

    @property
    def _constructor(self) -> Callable[..., Table]:
        return Table

    def _repr_html_(self) -> str:
        return show.table_html(self)

    def _repr_mimebundle_(self, **_options: object) -> dict[str, Any]:
        # The data itself goes into the record too: a summary reads numbers, not HTML.
        return {
            show.TABLE_MIME: [show.kept(self)],
            "text/html": show.table_html(self),
            "text/plain": show.table_text(self),
        }

    def __repr__(self) -> str:
        return show.table_text(self)


class Picture(Table):
    """A Table that shows itself as a picture of all its rows; a part of it is a Table again."""

    _metadata = ["caption", "html"]  # noqa: RUF012 - pandas' own protocol
    html: str = ""

    def _repr_html_(self) -> str:
        return self.html

    def _repr_mimebundle_(self, **_options: object) -> Any:  # noqa: ANN401 - IPython takes metadata beside the data
        return {
            show.TABLE_MIME: [show.kept(self)],
            "text/html": self.html,
            "text/plain": show.table_text(self),
        }, show.PICTURE
