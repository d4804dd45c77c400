"""`kind: categories`: a cell is a list of values, and each value gets a code."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from models.core.column_names import WEIGHTS_OF
from workflows.ground.errors import DataError
from workflows.ground.statistics import NumberFact
from workflows.raw import dictionaries, list_cells
from workflows.raw.values import Place, plain, plain_with_nulls
from workflows.recipe.kinds.base import Encoded, Fields, Kind, PassOn, Reading, role_tags
from workflows.recipe.kinds.category import encode_codes
from workflows.recipe.kinds.form import TEXTS, Form
from workflows.recipe.text import nearest


class Categories(Kind):
    """The feature kind whose cells are lists of values, such as the genres of a film."""

    name = "categories"
    takes = frozenset({"vocabulary", "separator", "weights"})
    cells = "lists"
    is_list = True
    has_codes = True

    def check(self, feature: Fields) -> None:
        """Refuse weights for a feature that is not an input of a tower."""
        if feature.weights is not None and not feature.input:
            raise ValueError("weights is for inputs of kind categories")

    def check_among(self, name: str, features: Mapping[str, Fields]) -> None:
        """Refuse `weights` unless it names a feature of kind weights with the same role."""
        named = features[name].weights
        if named is None:
            return
        known = [other for other, feature in features.items() if feature.kind == "weights"]
        if named not in known:
            raise ValueError(
                f"features.{name}.weights names {named!r}, which is no feature of kind weights; "
                f"{nearest(named, known)}known: {', '.join(known) or 'none'}"
            )
        if features[named].role != features[name].role:
            raise ValueError(f"features {name} and {named} must have the same role")

    def read(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Return a raw column as lists of text; equal cells are split only once."""
        column, place = plain_with_nulls(column, how.place, how.nulls), how.place

        def lists(cells: pa.ChunkedArray) -> pa.ChunkedArray:
            return list_cells.read_lists(cells, feature.separator, place, all_parts=how.all_parts)

        if not dictionaries.is_text(column.type) or _is_varied(column):
            return lists(plain(column, place))
        try:
            return dictionaries.map_distinct(column, lists)
        except DataError:  # again for all cells: the error then names the row
            return lists(plain(column, place))

    def read_given(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Return raw values for a trained model as lists of text."""
        return self.read(plain(column, how.place), feature, how)

    def to_stored(self, column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        """Return the column's lists; the values in the lists become an Arrow dictionary array."""
        array = dictionaries.combine(column)
        values = array.flatten().dictionary_encode()
        return pa.chunked_array([list_cells.replace_values(array, values)])

    def form(self, feature: Fields) -> Form:
        """Return the form of the feature's raw values: a list of text."""
        return TEXTS

    def encode(self, name: str, feature: Fields, facts: Mapping[str, NumberFact]) -> list[Encoded]:
        """Describe the encoded column with lists of codes, and the column with their weights."""
        found = [encode_codes(name, feature)]
        if feature.weights is not None:
            weights = feature.weights
            properties = {WEIGHTS_OF: name}
            found.append(Encoded(weights, weights, PassOn(), role_tags(feature), properties))
        return found


def _is_varied(column: pa.ChunkedArray) -> bool:
    """Say whether more than half of the cells of an Arrow dictionary column are distinct texts."""
    if not pa.types.is_dictionary(column.type):
        return False
    return 2 * sum(len(chunk.dictionary) for chunk in column.chunks) > len(column)
