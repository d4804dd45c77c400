"""The distinct texts of a column, with the number of cells that have each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.read.sources import Raw
from workflows.raw import dictionaries
from workflows.recipe import Recipe


@dataclass(frozen=True)
class ColumnTexts:
    """The distinct texts of a column of one source, and how many cells have each of them.

    Attributes:
        dictionary: the distinct texts.
        count: function that counts the cells of each text, int64 [n_texts].
        n_cells: number of cells that are not missing; in a column of lists, of values.
        first: function from a mask of the texts to the first row with one of them, from 0, and its
            text.
        longest: greatest length of a list; None for a column of single values.
    """

    dictionary: pa.StringArray
    count: Callable[[], npt.NDArray[np.int64]]
    n_cells: int
    first: Callable[[pa.BooleanArray], tuple[int, str]]
    longest: int | None = None

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> ColumnTexts:
        """Return the texts of a column that is in memory."""
        array = dictionaries.combine(column)
        flat = dictionaries.flatten(array)

        def first(wrong: pa.BooleanArray) -> tuple[int, str]:
            places = pc.is_in(flat.indices, value_set=pc.indices_nonzero(wrong))
            row = pc.index(places, True).as_py()
            return row, flat[row].as_py()

        longest = None
        if pa.types.is_list(array.type):
            longest = pc.max(pc.list_value_length(array)).as_py() or 0
        return cls(
            flat.dictionary,
            lambda: dictionaries.count_texts(flat)[:-1],
            len(flat) - flat.null_count,
            first,
            longest,
        )


#: Source → the texts of one column of its table.
Columns = Mapping[str, ColumnTexts]


def find_columns(recipe: Recipe, raw: Raw) -> dict[str, dict[str, ColumnTexts]]:
    """Return column of codes → source → the texts of the column in the source's table."""
    found: dict[str, dict[str, ColumnTexts]] = {}
    for name, feature in recipe.features.items():
        for source, table in raw.tables.items() if feature.meaning.has_codes else ():
            if name in table.column_names and dictionaries.holds_text(table[name].type):
                found.setdefault(name, {})[source] = ColumnTexts.of(table[name])
    return found


def find_empty_columns(raw: Raw) -> dict[str, list[str]]:
    """Return source → the columns in which every cell is missing."""
    return {
        source: [c for c in table.column_names if table[c].null_count == len(table) > 0]
        for source, table in raw.tables.items()
    }
