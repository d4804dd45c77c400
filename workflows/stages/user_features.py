"""Raw features of users: the values of a request, and otherwise the exported values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.core.column_names import HISTORY_AGES
from models.core.retriever import Bools, Floats, Ints, Ragged
from workflows.ground.errors import DataError
from workflows.recipe import Recipe
from workflows.recipe.raw_inputs import raw_inputs
from workflows.stages.export import Export

Users = npt.NDArray[np.generic]

#: An id that no user has; an empty text would be a missing id.
_NO_USER = "\0"


def refuse_unknown(export: Export, given: pa.Table) -> None:
    """Raise an error if a request gives columns that are not inputs of the query tower.

    Raises:
        DataError: a given column is not an input of the query tower.
    """
    inputs = export.query_tower.inputs
    for name in given.column_names:
        if name not in inputs:
            raise DataError(f"The query tower takes no {name!r}. It takes {', '.join(inputs)}.")


def inputs_about_users(recipe: Recipe) -> set[str]:
    """Return the raw inputs of user features and histories, without those of context features."""
    return set(raw_inputs(recipe, [*recipe.columns("user"), *recipe.history_columns]))


def has_any(given: pa.Table) -> Bools:
    """Return whether each row of given raw values has at least one value, bool [n_rows]."""
    found = np.zeros(len(given), bool)
    for column in given.columns:
        found |= column.is_valid().to_numpy()
    return found


def overlay_given(
    export: Export, rows: Ints, given: pa.Table | None, columns: Sequence[str]
) -> pa.Table:
    """Return raw feature values of users: given values, or else those of the user table.

    Args:
        export: the export that holds the users.
        rows: row numbers of the users in the user table, int64 [n_users]; -1 for an unknown user.
        given: raw feature values from the request, n_users rows; a null leaves the table's value.
        columns: the columns of the user table to return.
    """
    table = export.raw_users(rows, columns)
    if given is not None:
        table = _without_ages(table, given, export.recipe)
    for number, name in enumerate(columns):
        if given is not None and name in given.column_names:
            column = pc.coalesce(given[name].cast(table[name].type), table[name])
            table = table.set_column(number, name, column)
    return table


def _without_ages(table: pa.Table, given: pa.Table, recipe: Recipe) -> pa.Table:
    """Return features of users; where a request gives a history, the stored ages become null."""
    history = recipe.history_with_ages
    if history not in given.column_names or HISTORY_AGES not in table.column_names:
        return table
    ages = table[HISTORY_AGES]
    ages = pc.if_else(given[history].is_valid(), pa.scalar(None, ages.type), ages)
    return table.set_column(table.column_names.index(HISTORY_AGES), HISTORY_AGES, ages)


def embed_users(export: Export, users: Users, rows: Ints, given: pa.Table) -> Floats:
    """Embed users with the query tower, given their rows and raw values, float32 [n_users, dim].

    Args:
        export: the export that holds the users and the tower.
        users: raw user ids, text [n_users].
        rows: row numbers of the users in the user table, int64 [n_users]; -1 for an unknown user.
        given: raw feature values from the request, n_users rows.
    """
    tower = export.query_tower
    table = overlay_given(export, rows, given, [n for n in tower.inputs if n not in tower.sources])
    for name in [n for n in tower.sources if n in given.column_names]:
        table = table.append_column(name, given[name])
    key = export.recipe.user_id
    if key in table.column_names:  # an unknown user has an id that training has not met
        own = pa.array([user or _NO_USER for user in users], pa.string())
        ids = pc.coalesce(table[key], pa.chunked_array([own]))
        table = table.set_column(table.column_names.index(key), key, ids)
    return tower.embed(cut_histories(table, export.recipe))


def cut_histories(given: pa.Table, recipe: Recipe) -> pa.Table:
    """Shorten the histories of a request to their last items, as many as training had.

    Args:
        given: raw inputs of the query tower; a history that is not given has no column.
        recipe: the recipe, whose block `history` states the greatest length.
    """
    if history := recipe.history:
        inputs = raw_inputs(recipe, recipe.history_columns)
        for name in [n for n in inputs if n in given.column_names]:
            lists = _last(given[name].combine_chunks(), history.max_len)
            given = given.set_column(given.column_names.index(name), name, lists)
    return given


def item_history(given: pa.Table, recipe: Recipe) -> pa.ListArray | None:
    """Return the item-id history that a request gives for each user; None if it gives none."""
    name = next((n for n, c in recipe.history_inputs.items() if c == recipe.item_id), None)
    return given[name].combine_chunks() if name in given.column_names else None


def _last(lists: pa.ListArray, n: int) -> pa.ListArray:
    """Return each list of an Arrow list column cut to its last `n` values."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    kept = Ragged(np.arange(offsets[-1]), offsets).last(n)
    values = lists.flatten().take(pa.array(kept.values))
    return pa.ListArray.from_arrays(kept.offsets.astype(np.int32), values)
