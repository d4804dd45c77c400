"""Raw columns → canonical ones: ids and categories as codes of text, numbers float32, seconds.

Nothing is guessed from the values: the recipe says what a column is, so '0108775015' stays text.
The rules of one value stand in values.py, which serving uses, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.read.times import Times
from workflows.ground.errors import DataError
from workflows.raw import dictionaries, list_cells
from workflows.raw.values import Place, as_numbers, as_text, missing, parsed, plain
from workflows.recipe import Feature, Recipe

#: What the name of a column of lists is followed by in the name of the weights of their values.
WEIGHT = "_weight"


class Cells:
    """Makes the batches of one file canonical, and knows how far it got.

    Args:
        recipe: what each column is.
        path: the file, for messages.
        nulls: texts that stand for no value, beside the empty one.
    """

    def __init__(self, recipe: Recipe, path: Path, nulls: Sequence[str] = ()) -> None:
        self._recipe = recipe
        self._path = path
        self._nulls = nulls
        self._rows = 0
        self._times: dict[str, Times] = {}

    def canonical(self, batch: pa.Table) -> pa.Table:
        """Return the next batch of the file with canonical columns.

        Raises:
            DataError: a cell that is not what the recipe says.
        """
        weighed = dict(self._weighed(batch.column_names))
        columns = {}
        for name in batch.column_names:
            place = Place(self._path, name, self._rows)
            columns[name] = self._convert(batch[name], place, weighed)
        for name, weights in weighed.items():
            place = Place(self._path, weights, self._rows)
            columns[name], columns[weights] = _together(columns[name], columns[weights], place)
        for name in batch.column_names:
            place = Place(self._path, name, self._rows)
            if self._is_of(name, "categories"):
                columns[name] = _coded_lists(columns[name])
            elif self._is_of(name, "weights"):
                columns[name] = _not_negative(_weights(columns[name], place), place)
        self._rows += batch.num_rows
        return pa.table(columns)

    def finish(self) -> None:
        """Look at the file as a whole, once its last batch has been read.

        Raises:
            DataError: times without a unit that are no dates as seconds.
        """
        for name, times in self._times.items():
            times.refuse_implausible(Place(self._path, name))

    def _weighed(self, columns: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield the lists of a file that have weights, and those."""
        features = self._recipe.features
        for name in columns:
            weights = features[name].weights if name in features else None
            if weights is None and name + WEIGHT not in features:
                weights = name + WEIGHT
            if weights is not None and weights in columns:
                yield name, weights

    def _is_of(self, name: str, kind: str) -> bool:
        feature = self._recipe.features.get(name)
        return feature is not None and feature.role != "time" and feature.kind == kind

    def _convert(
        self, column: pa.ChunkedArray, place: Place, weighed: dict[str, str]
    ) -> pa.ChunkedArray:
        feature = self._recipe.features.get(place.column)
        if feature is None:
            return plain(column, place)  # weights; no other column is read that is no feature
        if feature.role == "time":
            times = self._times.setdefault(place.column, Times(feature))
            return times.seconds(self._present(column, place), place)
        if feature.kind == "number":
            exact = place.column in self._recipe.compared
            return as_numbers(column, pa.float64() if exact else pa.float32(), place, self._nulls)
        if feature.kind == "weights":
            return _weights_of(column, feature, place)
        if feature.kind == "categories":
            texts = self._present(column, place)
            return _lists(texts, feature, place, all_parts=place.column in weighed)
        return self._coded(column, place)

    def _coded(self, column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        """Return a column as codes of text; integers as such, which are text at the end."""
        if pa.types.is_float32(column.type) or pa.types.is_float64(column.type):
            column = plain(column, place).dictionary_encode()  # a log repeats its ids many times
        if not pa.types.is_dictionary(column.type):
            column = as_text(column, place)
            if pa.types.is_integer(column.type):
                return column
            column = column.dictionary_encode()
        elif not pa.types.is_string(column.type.value_type):
            column = _by_distinct(column, place, lambda cells, at: _texts(as_text(cells, at)))
        return self._present(column, place)

    def _present(self, column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        """Return text without the texts that stand for no value; others as they are."""
        kind = column.type
        if pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type):
            chunks = [dictionaries.nullify(chunk, ("", *self._nulls)) for chunk in column.chunks]
            return pa.chunked_array(chunks, kind)
        column = plain(column, place)
        return missing(column, self._nulls) if pa.types.is_string(column.type) else column


def _by_distinct(
    column: pa.ChunkedArray,
    place: Place,
    function: Callable[[pa.ChunkedArray, Place], pa.ChunkedArray],
) -> pa.ChunkedArray:
    """Return text as codes, asked for once for each distinct value.

    Where a value is refused, all cells are asked for, so that the error names its row.
    """
    try:
        return dictionaries.map_dictionary(column, lambda cells: function(cells, place))
    except DataError:
        return function(plain(column, place), place).dictionary_encode()


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(column, pa.string())


# ── lists ───────────────────────────────────────────────────────────────────────────────


def is_list(kind: pa.DataType) -> bool:
    """Say whether a column of this type holds lists of any width."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _lists(
    column: pa.ChunkedArray, feature: Feature, place: Place, *, all_parts: bool
) -> pa.ChunkedArray:
    """Return lists of text; text is split once for each distinct one."""
    if not dictionaries.is_text(column.type) or _is_varied(column):
        column = plain(column, place)
        return list_cells.lists(column, feature.separator, place, all_parts=all_parts)
    try:
        return dictionaries.map_distinct(
            column,
            lambda texts: list_cells.lists(texts, feature.separator, place, all_parts=all_parts),
        )
    except DataError:  # name the row
        return list_cells.lists(plain(column, place), feature.separator, place, all_parts=all_parts)


def _is_varied(column: pa.ChunkedArray) -> bool:
    """Say whether text as codes has so many distinct texts that it is no longer than its cells."""
    if not pa.types.is_dictionary(column.type):
        return False
    return 2 * sum(len(chunk.dictionary) for chunk in column.chunks) > len(column)


def _coded_lists(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return lists of text as lists of codes."""
    array = dictionaries.combine(column)
    values = array.flatten().dictionary_encode()
    return pa.chunked_array([dictionaries.make_lists(pc.list_value_length(array), values)])


def _weights_of(column: pa.ChunkedArray, feature: Feature, place: Place) -> pa.ChunkedArray:
    """Return weights as lists of numbers or of their texts, gaps among them."""
    column = plain(column, place)
    if feature.separator is None or not pa.types.is_string(column.type):
        return column
    return list_cells.lists(column, feature.separator, place, all_parts=True)


def _together(
    values: pa.ChunkedArray, weights: pa.ChunkedArray, place: Place
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return values and weights, those of parts without text left out.

    Args:
        values: lists of text.
        weights: lists of numbers or of their texts.
        place: the place of the weights.
    """
    kind = weights.type
    of_text = pa.types.is_list(kind) and pa.types.is_string(kind.value_type)
    lists = weights if of_text else parsed(weights, pa.list_(pa.float32()), place)
    one, other = list_cells.aligned(values.combine_chunks(), lists.combine_chunks())
    made = pa.chunked_array([one])
    numbers = _weights(pa.chunked_array([other]), place)
    _refuse_unlike(made, numbers, place)
    return made, numbers


def _refuse_unlike(values: pa.ChunkedArray, weights: pa.ChunkedArray, place: Place) -> None:
    """Refuse a row that has another number of weights than of values."""
    n, m = (pc.fill_null(pc.list_value_length(column), 0) for column in (values, weights))
    row = pc.index(pc.not_equal(n, m), True).as_py()
    if row >= 0:
        raise DataError(
            f"{place.row(row)}: {m[row].as_py()} weights for {n[row].as_py()} values. Expected one "
            "each; correct it, or leave the column out."
        )


def _not_negative(weights: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    """Refuse weights below 0: their sum could be 0, and a mean would be anything."""
    array = weights.combine_chunks()
    flat = pc.list_flatten(array)
    at = pc.index(pc.less(flat, 0), True).as_py()
    if at >= 0:
        row = pc.list_parent_indices(array)[at].as_py()
        raise DataError(f"{place.row(row)}: the weight {flat[at].as_py()} is below 0. Correct it.")
    return weights


def _weights(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    weights = parsed(column, pa.list_(pa.float32()), place).combine_chunks()
    flat = pc.list_flatten(weights)
    bad = pc.invert(pc.fill_null(pc.is_finite(flat), False))
    at = pc.index(bad, True).as_py()
    if at >= 0:
        row = pc.list_parent_indices(weights)[at].as_py()
        raise DataError(
            f"{place.row(row)}: {flat[at].as_py()} is no weight. Expected a finite number for each "
            "value of the list; correct it."
        )
    return pa.chunked_array([weights])
