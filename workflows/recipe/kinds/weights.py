"""`kind: weights`: a cell is a list of numbers, one for each value of a list of categories."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from workflows.ground.errors import DataError
from workflows.raw import list_cells
from workflows.raw.values import NUMBERS, Place, parse, plain, plain_with_nulls
from workflows.recipe.kinds import form
from workflows.recipe.kinds.base import Fields, Kind, Reading


class Weights(Kind):
    """The feature kind whose cells are lists of weights for the values of a list of categories."""

    name = "weights"
    takes = frozenset({"separator"})
    cells = "lists"
    is_list = True
    reads_dictionary = False
    dtype = "float32"

    def check(self, feature: Fields) -> None:
        """Refuse a feature of kind weights whose role does not allow lists."""
        if feature.role in ("time", "weight"):
            raise ValueError("kind weights is for roles user, item and context")

    def check_among(self, name: str, features: Mapping[str, Fields]) -> None:
        """Refuse a feature of kind weights that is not named by the `weights` of one feature."""
        lists = sum(feature.weights == name for feature in features.values())
        if lists != 1:
            raise ValueError(
                f"features.{name} has kind weights, and {lists} lists name it in their `weights`; "
                "expected one"
            )

    def read(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Return a raw column as lists of numbers or of their texts; missing ones are null."""
        column = plain(column, how.place)
        if not pa.types.is_string(column.type):
            return column
        return list_cells.read_lists(column, feature.separator, how.place, all_parts=True)

    def to_stored(self, column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        """Return the column's lists of weights after checking that all are finite and at least 0.

        Raises:
            DataError: a weight is not a finite number, or is below 0.
        """
        array = _finite(column, place).combine_chunks()
        _refuse_negative(array, place)
        return pa.chunked_array([array])

    def read_given(self, column: pa.ChunkedArray, feature: Fields, how: Reading) -> pa.ChunkedArray:
        """Return raw weights for a trained model as lists of numbers; null for a missing weight.

        Raises:
            DataError: a weight is not a number, is infinite, or is below 0.
        """
        texts = list_cells.read_lists(
            plain_with_nulls(column, how.place, how.nulls),
            feature.separator,
            how.place,
            all_parts=True,
        )
        numbers = parse(texts, NUMBERS, how.place).combine_chunks()
        bad = pc.index(pc.is_inf(numbers.flatten()), True).as_py()
        if bad >= 0:
            row = pc.list_parent_indices(numbers)[bad].as_py()
            raise DataError(
                f"{how.place.row(row)}: a weight is infinite, or too large. Correct it."
            )
        _refuse_negative(numbers, how.place)
        return pa.chunked_array([numbers])

    def form(self, feature: Fields) -> form.Form:
        """Return the form of the feature's raw values: a list of numbers."""
        return form.NUMBERS

    # the lists of categories describe both columns: encode() of this kind has nothing to add


def _refuse_negative(weights: pa.ListArray, place: Place) -> None:
    flat = pc.list_flatten(weights)
    at = pc.index(pc.less(flat, 0), True).as_py()
    if at >= 0:
        row = pc.list_parent_indices(weights)[at].as_py()
        raise DataError(f"{place.row(row)}: the weight {flat[at].as_py()} is below 0. Correct it.")


def match(
    values: pa.ChunkedArray, weights: pa.ChunkedArray, place: Place
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Match category lists with their weights in etl, and leave out values without text.

    Args:
        values: lists of text, the categories.
        weights: lists of numbers, or of numbers as text: the weights of these categories.
        place: the column and file of the weights, for error messages.

    Raises:
        DataError: a weight is not a finite number, or a row does not have as many weights as
            category values.
    """
    kind = weights.type
    of_text = pa.types.is_list(kind) and pa.types.is_string(kind.value_type)
    lists = weights if of_text else parse(weights, NUMBERS, place)
    kept, others = list_cells.align(values.combine_chunks(), lists.combine_chunks())
    numbers = _finite(pa.chunked_array([others]), place)
    _refuse_unlike(kept, numbers.combine_chunks(), place)
    return pa.chunked_array([kept]), numbers


def match_given(
    values: pa.ChunkedArray, weights: pa.ChunkedArray, place: Place, *, what: str = "weights"
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Match category lists with their weights in raw values for a trained model.

    A row without a list of weights is accepted.

    Args:
        values: lists of text, the categories.
        weights: lists of numbers, the weights of these categories.
        place: the column and file of the weights, for error messages.
        what: the plural noun for the numbers in error messages.

    Raises:
        DataError: a row does not have as many weights as category values.
    """
    kept, others = list_cells.align(values.combine_chunks(), weights.combine_chunks())
    _refuse_unlike(kept, others, place, what, may_be_missing=True)
    return pa.chunked_array([kept]), pa.chunked_array([others])


def _refuse_unlike(
    values: pa.ListArray,
    weights: pa.ListArray,
    place: Place,
    what: str = "weights",
    *,
    may_be_missing: bool = False,
) -> None:
    """Refuse a row whose number of weights differs from its number of category values."""
    n, m = (pc.fill_null(pc.list_value_length(lists), 0) for lists in (values, weights))
    unlike = pc.not_equal(n, m)
    if may_be_missing:
        unlike = pc.and_(unlike, pc.is_valid(weights))
    row = pc.index(unlike, True).as_py()
    if row >= 0:
        raise DataError(
            f"{place.row(row)}: {m[row].as_py()} {what} for {n[row].as_py()} values. Expected one "
            "each; correct it, or leave the column out."
        )


def _finite(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    """Return lists of weights after checking that no weight is missing, NaN or infinite."""
    weights = parse(column, NUMBERS, place).combine_chunks()
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
