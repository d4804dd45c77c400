"""`kind: category`: a cell is one value, such as an id, and gets a code."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from workflows.ground.errors import DataError
from workflows.ground.statistics import NumberFact
from workflows.raw import dictionaries
from workflows.raw.values import Place, as_text, plain, plain_with_nulls
from workflows.recipe.kinds.base import Encoded, Fields, Kind, LookUp, Reading, role_tags
from workflows.recipe.kinds.form import TEXT, Form


class Text(Kind):
    """A feature kind whose cells are single texts, whatever their types in the raw files."""

    cells = "text"

    def read(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Return a raw column as an Arrow dictionary array of text.

        A column of integers is returned as it is; etl turns it into text when the file is read.
        """
        if pa.types.is_float32(column.type) or pa.types.is_float64(column.type):
            # a log repeats its ids many times
            column = plain(column, how.place).dictionary_encode()
        if not pa.types.is_dictionary(column.type):
            column = as_text(column, how.place)
            if pa.types.is_integer(column.type):
                return column
            column = column.dictionary_encode()
        elif not pa.types.is_string(column.type.value_type):
            column = _map_distinct(column, how.place, lambda cells, at: _text(as_text(cells, at)))
        return plain_with_nulls(column, how.place, how.nulls)

    def read_given(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Return raw values for a trained model as plain text, texts that mean null included."""
        return _text(as_text(column, how.place))


class Category(Text):
    """The feature kind whose cells are single values, which get codes from a vocabulary."""

    name = "category"
    takes = frozenset({"vocabulary"})
    has_codes = True

    def form(self, feature: Fields) -> Form:
        """Return the form of the feature's raw values: a text."""
        return TEXT

    def encode(self, name: str, feature: Fields, facts: Mapping[str, NumberFact]) -> list[Encoded]:
        """Describe the encoded column with the code of each value."""
        return [encode_codes(name, feature)]


def encode_codes(name: str, feature: Fields) -> Encoded:
    """Describe an encoded column with a code, or a list of codes, in each cell."""
    tags = role_tags(feature)
    return Encoded(name, name, LookUp(name), (*tags, "categorical") if feature.input else tags)


def _map_distinct(
    column: pa.ChunkedArray,
    place: Place,
    function: Callable[[pa.ChunkedArray, Place], pa.ChunkedArray],
) -> pa.ChunkedArray:
    """Apply a function that returns text to the distinct values of a dictionary array.

    If the function refuses a value, it is called for all cells, so that its error names the row.
    """
    try:
        return dictionaries.map_dictionary(column, lambda cells: function(cells, place))
    except DataError:
        return function(plain(column, place), place).dictionary_encode()


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(column, pa.string())
