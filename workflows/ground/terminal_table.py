"""A table whose figures stay whole on a narrow terminal: it goes on below, in further tables.

A terminal's table shortens or wraps what does not fit, and half a figure is a wrong figure. Here
every column of figures has the width that it needs. Columns that do not fit beside the names any
more start another table, in which the names stand again. Only names may wrap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

#: Names wrap, but not at less than this width unless a column of figures would not fit beside.
_NAMES = 20
#: Blanks between two columns.
_GAP = 2
#: Blanks at both ends of a line, and behind the last column.
_EDGES = 3


@dataclass(frozen=True)
class Column:
    """Figures, one of each row, a row's lines separated by a line feed.

    Attributes:
        head: above them.
        cells: as many as there are rows.
    """

    head: str
    cells: Sequence[str]

    @property
    def width(self) -> int:
        """Return the width that shows every line whole."""
        return _width([self.head, *self.cells])


@dataclass(frozen=True)
class TerminalTable:
    """Rows by name, columns of figures.

    Attributes:
        head: above the names.
        names: the names of the rows.
        columns: the columns of figures, in the order in which they are shown.
        title: above the first table.
    """

    head: str
    names: Sequence[str]
    columns: Sequence[Column]
    title: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        """Yield as many tables as the width asks for."""
        if self.title:
            yield Text(self.title, style="italic")
        space = options.max_width - _EDGES
        names = self._names(space)
        for some in self._parts(space - names):
            yield self._table(names, some)

    def _names(self, space: int) -> int:
        """Return the width of the names: their own, or one that leaves room for the columns."""
        names = _width([self.head, *self.names])
        beside = space - sum(column.width + _GAP for column in self.columns)
        if names <= beside:
            return names
        if beside >= _NAMES:
            return beside
        widest = max(column.width for column in self.columns)
        return min(names, max(_NAMES, space // 3), max(space - widest - _GAP, 1))

    def _parts(self, room: int) -> list[list[Column]]:
        """Cut the columns into runs that fit into the room beside the names."""
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
    """Return the width of the widest line among texts."""
    return max((cell_len(line) for text in texts for line in text.split("\n")), default=0)
