"""Derive feature columns from raw columns cell by cell, such as the weekday from a time.

workflows/towers/derived.py does the same in the graph of an exported tower.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflows.derive import fitted
from workflows.derive.times import iso
from workflows.ground.errors import DataError
from workflows.raw import dictionaries
from workflows.recipe import (
    Bins,
    Clip,
    CyclicMonth,
    DatePart,
    Derive,
    Feature,
    Log1p,
    PathLevel,
    Recipe,
)
from workflows.recipe.kinds.base import Cells

_DAY = 86_400
#: The numbers of the months, and null for a missing one.
_MONTHS = pa.array([None, *map(float, range(1, 13))])


def derive_column(
    recipe: Recipe,
    step: Derive,
    column: pa.ChunkedArray,
    *,
    states: fitted.States,
    where: str = "",
) -> pa.ChunkedArray:
    """Return the column that a derive step makes, in the type of the feature with its name.

    Args:
        recipe: recipe with the step.
        step: a derive step of the recipe.
        column: the column that the step reads.
        states: derived column → what its step learnt from the training rows, for steps that learn.
        where: name of the table, for messages.

    Raises:
        DataError: the step cannot be applied to a cell.
    """
    column = narrow(recipe, step, column)
    if step.fitted:
        derived = fitted.apply(column, states[step.to])
    else:
        derived = apply(column, step, cells=recipe.cells_read(step), where=where)
    return cast_to_feature(derived, recipe.features.get(step.to))


def narrow(recipe: Recipe, step: Derive, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column that a step reads; raw numbers become float32, the type in towers."""
    return column if step.of in (other.to for other in recipe.derive) else as_float32(column)


def as_float32(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cast a float64 column to float32; filters, which compare exact numbers, come before."""
    is_wide = pa.types.is_float64(column.type)
    return pc.cast(column, pa.float32(), safe=False) if is_wide else column


def cast_to_feature(column: pa.ChunkedArray, feature: Feature | None) -> pa.ChunkedArray:
    """Cast a derived column to the type of the feature with its name: float32 or text."""
    if feature is None:
        return column
    if feature.meaning.cells == "number":
        return pc.cast(column, pa.float32())
    if dictionaries.is_text(column.type):
        return column
    return dictionaries.map_distinct(
        column.dictionary_encode(), lambda cells: pc.cast(cells, pa.string())
    )


def apply(
    column: pa.ChunkedArray, step: Derive, *, cells: Cells | None = None, where: str = ""
) -> pa.ChunkedArray:
    """Apply a `derive` step of the recipe to a raw column, and return the derived column.

    A derived part of a date, such as the hour, is int32; other derived columns are float64 or text.

    Args:
        column: times (seconds since the epoch, or ISO 8601 text), numbers, or text.
        step: a derive step that needs no fit on the training rows.
        cells: the type of the column's cells; by default the type that the step reads.
        where: name of the table, for messages.

    Raises:
        DataError: the step cannot be applied to a cell.
    """
    place = f"{where}, column {step.of!r}"
    if isinstance(step, Bins):
        return _bin(column, step)
    if isinstance(step, Log1p):
        return _log1p(column, place)
    if isinstance(step, Clip):
        return _clip(column, step)
    if isinstance(step, PathLevel):
        return dictionaries.map_dictionary(
            dictionaries.combine(column), lambda paths: _level(paths, step, place)
        )
    # many times repeat, so the step is applied to distinct times
    times = column if dictionaries.is_text(column.type) else column.dictionary_encode()
    is_month = (cells or step.reads) == "number"
    return dictionaries.map_distinct(
        times, lambda distinct: _derive_from_times(distinct, step, place, is_month=is_month)
    )


def _derive_from_times(
    column: pa.ChunkedArray, step: Derive, place: str, *, is_month: bool
) -> pa.ChunkedArray:
    if isinstance(step, DatePart):
        return _date_part(seconds(column, place), step.part)
    if isinstance(step, CyclicMonth):
        month = column if is_month else _date_part(seconds(column, place), "month")
        month = pc.cast(month, pa.float64())
        if is_month:
            _refuse_no_month(month, place)
        angle = pc.multiply(pc.add(month, float(step.offset)), 2 * math.pi / 12)
        return pc.sin(angle) if step.part == "sin" else pc.cos(angle)
    raise TypeError(f"{type(step).__name__} is fitted on the training rows")


def _refuse_no_month(months: pa.ChunkedArray, place: str) -> None:
    row = pc.index(pc.is_in(months, value_set=_MONTHS, skip_nulls=False), False).as_py()
    if row >= 0:
        raise DataError(
            f"{place} holds {months[row].as_py():g}. Expected a month, a whole number from 1 to "
            "12. Correct it."
        )


def seconds(column: pa.ChunkedArray, place: str) -> pa.ChunkedArray:
    """Convert times to seconds since the epoch, UTC; text without a zone means UTC.

    Raises:
        DataError: a text is not ISO 8601.
    """
    if not pa.types.is_string(column.type):
        return pc.cast(column, pa.int64())
    text = iso(pc.utf8_trim_whitespace(column))
    for zone in (None, "UTC"):
        try:
            moments = pc.cast(text, pa.timestamp("us", zone))
        except pa.ArrowInvalid as error:
            problem = str(error).partition("\n")[0]
        else:
            return pc.cast(pc.cast(moments, pa.timestamp("s"), safe=False), pa.int64())
    raise DataError(
        f"{place} holds a date that is not ISO 8601, such as 2020-09-22 or 2020-09-22T13:45:00Z: "
        f"{problem}. Correct it, or declare the column as the feature of role time."
    )


def _date_part(seconds: pa.ChunkedArray, part: str) -> pa.ChunkedArray:
    if part == "epoch_day":
        days = pc.floor(pc.divide(pc.cast(seconds, pa.float64()), _DAY))
        return pc.cast(days, pa.int32())
    moments = pc.cast(seconds, pa.timestamp("s"))
    functions = {
        "year": pc.year,
        "month": pc.month,
        "day": pc.day,
        "weekday": pc.day_of_week,
        "hour": pc.hour,
    }
    return pc.cast(functions[part](moments), pa.int32())


def _bin(column: pa.ChunkedArray, step: Bins) -> pa.ChunkedArray:
    """Return the label of the interval in which each number lies."""
    if pa.types.is_integer(column.type):
        column = pc.cast(column, pa.float64())
    edges = pa.array(step.edges, pa.float64()).cast(column.type, safe=False).to_numpy()
    cells = dictionaries.combine(column)
    places = np.searchsorted(edges, cells.to_numpy(zero_copy_only=False), side="left")
    places = pa.array(places.astype(np.int32), mask=np.asarray(cells.is_null()))
    return pa.chunked_array([dictionaries.take(pa.array(step.labels, pa.string()), places)])


def _log1p(column: pa.ChunkedArray, place: str) -> pa.ChunkedArray:
    numbers = pc.cast(column, pa.float64())
    negative = pc.fill_null(pc.less(numbers, 0), False)
    n = pc.sum(negative).as_py()
    if n:
        row = pc.index(negative, True).as_py()
        raise DataError(
            f"{place}: log1p takes numbers from 0 on; {n:,} cells are negative, the first in row "
            f"{row + 1} with {numbers[row].as_py():g}. Correct them, or raise them to 0 with a "
            "step of kind clip first."
        )
    return pc.log1p(numbers)


def _clip(column: pa.ChunkedArray, step: Clip) -> pa.ChunkedArray:
    numbers = pc.cast(column, pa.float64())
    for bound, choose in ((step.low, pc.max_element_wise), (step.high, pc.min_element_wise)):
        if bound is not None:
            numbers = choose(numbers, pa.scalar(bound), skip_nulls=False)
    return numbers


def _level(paths: pa.ChunkedArray, step: PathLevel, place: str) -> pa.ChunkedArray:
    """Return one level of each category path such as a/b/c; null if the path lacks the level."""
    levels = pc.split_pattern(pc.fill_null(paths, ""), pattern=step.separator)
    deeper = paths.filter(pc.greater(pc.list_value_length(levels), step.levels))
    if len(deeper):
        n = len(deeper)
        raise DataError(
            f"{place}: {min(deeper.to_pylist())!r} has more levels than {step.levels}"
            + (f", and so have {n - 1} more values" if n > 1 else "")
            + f". Raise `levels` in the recipe's derive step of {step.to!r}, or correct the values."
        )
    found = dictionaries.combine(levels)
    places = found.offsets.to_numpy()[:-1] + step.level - 1
    too_short = pc.list_value_length(found).to_numpy() < step.level
    level = found.values.take(pa.array(places, mask=too_short))
    level = pc.if_else(pc.equal(level, ""), pa.scalar(None, pa.string()), level)
    return pa.chunked_array([level])
