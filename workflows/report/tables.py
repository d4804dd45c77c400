"""A table of report.html and of the model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of the report; the first cell of each row names the row.

    Attributes:
        caption: what the table shows.
        head: names of the table's columns.
        rows: the cells of each row, one per column. Cells of type Markup are HTML already; other
            cells are escaped.
        numeric: whether all cells except the first of each row are numbers.
        marked: the first cell of the table row that is highlighted.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: bool = False
    marked: str = ""
