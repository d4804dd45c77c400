"""Print a table in a terminal; columns that do not fit beside each other are printed below.

An ordinary terminal table shortens or wraps cells that do not fit, and a shortened figure is wrong.
This module never shortens a column of figures. Columns that do not fit beside the row names are
printed in a further table below, which repeats the row names. Only row names may be wrapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

#: Smallest width of the column of row names, unless a column of figures needs more room.
_NAMES = 20
#: Number of blanks between two columns of a terminal table.
_GAP = 2
#: Number of blanks at both ends of a line of a terminal table, and after its last column.
_EDGES = 3


@dataclass(frozen=True)
class Column:
    """One column of figures in a terminal table.

    A cell of the column may have several lines of text, separated by line feeds.

    Attributes:
        head: text in the heading of the column.
        cells: text of the column's cell in each row.
    """

    head: str
    cells: Sequence[str]

    @property
    def width(self) -> int:
        """Return the number of characters of the longest line in the column."""
        return _width([self.head, *self.cells])


@dataclass(frozen=True)
class TerminalTable:
    """A table with a column of row names and columns of figures, for a terminal.

    Attributes:
        head: heading of the column of row names.
        names: names of the table's rows.
        columns: the columns of figures, in the order in which they are shown.
        title: title above the first part of the table.
    """

    head: str
    names: Sequence[str]
    columns: Sequence[Column]
    title: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        """Yield the table in as many parts as the width of the terminal requires."""
        if self.title:
            yield Text(self.title, style="italic")
        space = options.max_width - _EDGES
        names = self._names(space)
        for some in self._parts(space - names):
            yield self._table(names, some)

    def _names(self, space: int) -> int:
        """Return the width of the column of row names, reduced if the figures need the room."""
        names = _width([self.head, *self.names])
        beside = space - sum(column.width + _GAP for column in self.columns)
        if names <= beside:
            return names
        if beside >= _NAMES:
            return beside
        widest = max(column.width for column in self.columns)
        return min(names, max(_NAMES, space // 3), max(space - widest - _GAP, 1))

    def _parts(self, room: int) -> list[list[Column]]:
        """Divide the columns of figures into groups; each group fits beside the row names."""
        parts: list[list[Column]] = []
        left = 0
        for column in self.columns:
            if not parts or column.width + _GAP > left:
                parts.append([])
                left = room
            parts[-1].append(column)
            left -= column.width + _GAP
        return parts

    def _table(self, names: int, columns: Sequence[Column]) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column(self.head, width=names, overflow="fold")
        for column in columns:
            table.add_column(column.head, justify="right", no_wrap=True, min_width=column.width)
        for i, name in enumerate(self.names):
            table.add_row(name, *(column.cells[i] for column in columns))
        return table


def _width(texts: Sequence[str]) -> int:
    """Return the number of characters of the longest line in a list of texts."""
    return max((cell_len(line) for text in texts for line in text.split("\n")), default=0)
