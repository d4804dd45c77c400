"""Read the columns of raw files as what the recipe says they are.

Nothing is guessed from the values, so '0108775015' stays text. How the cells of a feature are read
is said by its kind (workflows/recipe/kinds/).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from workflows.etl.read.times import Times
from workflows.raw.values import Place, plain, present
from workflows.recipe import Recipe
from workflows.recipe.kinds.base import Reading
from workflows.recipe.kinds.weights import match

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
        self._nulls = tuple(nulls)
        self._rows = 0
        self._times: dict[str, Times] = {}

    def canonical(self, batch: pa.Table) -> pa.Table:
        """Return the next batch of the file with canonical columns.

        Raises:
            DataError: a cell that is not what the recipe says.
        """
        weighed = dict(self._weighed(batch.column_names))
        columns = {
            name: self._read(batch[name], self._place(name), all_parts=name in weighed)
            for name in batch.column_names
        }
        for name, weights in weighed.items():
            pair = (columns[name], columns[weights])
            columns[name], columns[weights] = match(*pair, self._place(weights))
        for name in batch.column_names:
            if name in self._recipe.features:
                meaning = self._recipe.features[name].meaning
                columns[name] = meaning.settle(columns[name], self._place(name))
        self._rows += batch.num_rows
        return pa.table(columns)

    def _place(self, name: str) -> Place:
        return Place(self._path, name, self._rows)

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

    def _read(self, column: pa.ChunkedArray, place: Place, *, all_parts: bool) -> pa.ChunkedArray:
        feature = self._recipe.features.get(place.column)
        if feature is None:
            return plain(column, place)  # weights; no other column is read that is no feature
        if feature.role == "time":
            times = self._times.setdefault(place.column, Times(feature))
            return times.seconds(present(column, place, self._nulls), place)
        exact = place.column in self._recipe.compared
        how = Reading(place, self._nulls, exact=exact, all_parts=all_parts)
        return feature.meaning.read(column, feature, how)


def is_list(kind: pa.DataType) -> bool:
    """Say whether a column of this type holds lists of any width."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
