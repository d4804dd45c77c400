"""A table of the page and of the model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names the row.

    Attributes:
        caption: what it shows.
        head: names of the columns.
        rows: cells of each row, as many as `head`; markup is not changed, other text is escaped.
        numeric: whether all cells of a row but the first are numbers.
        marked: the first cell of the row that is highlighted.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: bool = False
    marked: str = ""
