"""Convert the columns of raw files to the types that the recipe states.

Types of columns are never guessed from values, so the id '0108775015' stays text. The kind of a
feature decides how its cells are read (workflows/recipe/kinds/).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from workflows.derive.times import Times
from workflows.raw.values import Place, plain, plain_with_nulls
from workflows.recipe import Recipe
from workflows.recipe.kinds.base import Reading
from workflows.recipe.kinds.weights import match

#: Suffix of the column with the weights of a column of lists.
WEIGHT = "_weight"


class BatchConverter:
    """Converts batches of rows of one raw file to the types that the recipe states.

    Args:
        recipe: recipe that describes the raw columns and the features.
        path: path of the raw file, for messages.
        nulls: texts in cells that mean a missing value, in addition to the empty text.
    """

    def __init__(self, recipe: Recipe, path: Path, nulls: Sequence[str] = ()) -> None:
        self._recipe = recipe
        self._path = path
        self._nulls = tuple(nulls)
        self._rows = 0
        self._times: dict[str, Times] = {}

    def convert(self, batch: pa.Table) -> pa.Table:
        """Convert the columns of a raw file's next batch of rows to the types in the recipe.

        Raises:
            DataError: a cell does not have the type that the recipe states.
        """
        weighted = dict(self._weighted_lists(batch.column_names))
        columns = {
            name: self._read(batch[name], self._place(name), all_parts=name in weighted)
            for name in batch.column_names
        }
        for name, weights in weighted.items():
            pair = (columns[name], columns[weights])
            columns[name], columns[weights] = match(*pair, self._place(weights))
        for name in batch.column_names:
            if name in self._recipe.features:
                meaning = self._recipe.features[name].meaning
                columns[name] = meaning.to_stored(columns[name], self._place(name))
        self._rows += batch.num_rows
        return pa.table(columns)

    def _place(self, name: str) -> Place:
        return Place(self._path, name, self._rows)

    @property
    def time_types(self) -> dict[str, str]:
        """The type, number or timestamp, of the first time of each time column so far."""
        return {name: str(times.written) for name, times in self._times.items()}

    def finish(self) -> None:
        """Check the times of the whole file after its last batch of rows.

        Raises:
            DataError: times without a unit would be implausible dates if their unit were seconds.
        """
        for name, times in self._times.items():
            times.refuse_implausible(Place(self._path, name))

    def _weighted_lists(self, columns: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield the names of each list column that has weights and of its weight column."""
        features = self._recipe.features
        for name in columns:
            weights = features[name].weights if name in features else None
            if weights is None and name + WEIGHT not in features:
                weights = name + WEIGHT
            if weights is not None and weights in columns:
                yield name, weights

    def _read(self, column: pa.ChunkedArray, place: Place, *, all_parts: bool) -> pa.ChunkedArray:
        feature = self._recipe.features.get(place.column)
        if feature is None:
            return plain(column, place)  # the column holds weights: all other columns are features
        if feature.role == "time":
            times = self._times.setdefault(place.column, Times(feature))
            return times.seconds(plain_with_nulls(column, place, self._nulls), place)
        exact = place.column in self._recipe.compared
        how = Reading(place, self._nulls, exact=exact, all_parts=all_parts)
        return feature.meaning.read(column, feature, how)
