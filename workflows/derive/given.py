"""Check the raw values of a request or file for a trained model; derive columns as etl does."""

from __future__ import annotations

import contextlib

import msgspec
import pyarrow as pa

from workflows.derive.cells import derive_column, seconds
from workflows.derive.fitted import States
from workflows.derive.times import Times, iso_text
from workflows.ground.errors import DataError
from workflows.raw import dictionaries
from workflows.raw.values import Place
from workflows.recipe import Feature, Recipe
from workflows.recipe.raw_inputs import times_read


def settle_times(table: pa.Table, recipe: Recipe, place: str) -> pa.Table:
    """Return a table of raw values for a trained model, with times as ISO 8601 text.

    The times of interactions may have the format of the raw files, or be ISO 8601. Times in other
    columns must be ISO 8601.

    Args:
        table: raw values; columns that are not times stay as they are.
        recipe: recipe with the features and steps.
        place: text that names the origin of the values, for messages.

    Raises:
        DataError: a cell is not a time in one of these formats.
    """
    times = times_read(recipe)
    for number, name in enumerate(table.column_names):
        if name in times:
            column = table[name]
            if name == recipe.time:
                found = _seconds(column, recipe.features[name], Place(place, name))
            else:
                found = seconds(column, f"{place}, column {name!r}")
            text = dictionaries.decode(iso_text(found))
            table = table.set_column(number, name, text)
    return table


def _seconds(column: pa.ChunkedArray, feature: Feature, place: Place) -> pa.ChunkedArray:
    try:
        return Times(feature).seconds(column, place)
    except DataError as error:
        problem = error
    if feature.format is not None:
        with contextlib.suppress(DataError):
            return Times(msgspec.structs.replace(feature, format=None)).seconds(column, place)
    raise problem


def add_derived(table: pa.Table, recipe: Recipe, states: States, place: str) -> pa.Table:
    """Return a table of raw values for a trained model, with the columns derived from them.

    A derived column that is in the table already stays as it is.

    Args:
        table: raw values, one row per user or item.
        recipe: recipe with the steps.
        states: derived column → what its step learnt from training rows. A step that learns, but is
            not in `states`, is skipped.
        place: text that names the origin of the values, for messages.

    Raises:
        DataError: a step cannot be applied to a cell.
    """
    for step in recipe.derive:
        is_ready = not step.fitted or step.to in states
        if is_ready and step.of in table.column_names and step.to not in table.column_names:
            column = derive_column(recipe, step, table[step.of], states=states, where=place)
            table = table.append_column(step.to, dictionaries.decode(column))
    return table
