"""Read files of users or items for a trained model, with one row of raw values per id.

The columns of the files are raw inputs of the query or item tower (workflows/recipe/raw_inputs.py).
Values are converted as in etl, by the rules of the feature kinds (workflows/recipe/kinds/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.core.column_names import HISTORY_AGES
from workflows.derive.given import add_derived, settle_times
from workflows.feature_files.columns import choose_columns, raw_names
from workflows.feature_files.given_file import explained, open_given, read_lines, recognise
from workflows.ground.errors import DataError
from workflows.raw import list_cells, spelling
from workflows.raw.values import NUMBERS, TEXTS, Place, as_text, nullify, parse, plain_with_nulls
from workflows.recipe import Recipe
from workflows.recipe.kinds.base import Reading
from workflows.recipe.kinds.weights import match_given
from workflows.recipe.raw_inputs import raw_inputs

#: Column → the distinct texts of the column in training.
Known = Callable[[str], pa.StringArray]
#: The separator of the ids of a history that is one text.
BETWEEN = "|"


def read(
    path: Path, recipe: Recipe, key: str, columns: Sequence[str], known: Known | None = None
) -> pa.Table:
    """Read a file for a trained model, with one row of raw features per user or item id.

    Args:
        path: a file like those of a source of the recipe, or csv, tsv, JSON lines or parquet.
        recipe: recipe that describes the features.
        key: the id column, which the file must have.
        columns: feature columns that the file may have. Further columns of the file are ignored
            with a warning.
        known: the texts of each column in training; texts of the table are respelt like them.

    Raises:
        DataError: the file or its id column is missing, a cell does not have the type that the
            recipe states, or an id is missing or occurs twice.
    """
    given = open_given(path, recipe, [key, *columns])
    with explained(given.how):
        chosen = choose_columns(given.file.names, recipe, key, columns, str(path))
    table = given.read(chosen)
    if table.num_rows == 0:
        raise DataError(f"{path} has no rows. Expected one for each {key!r}.")
    table = with_types(table, recipe, str(path), known)
    _refuse_bad_ids(table[key], key, path)
    return table


def with_types(table: pa.Table, recipe: Recipe, place: str, known: Known | None = None) -> pa.Table:
    """Convert raw feature values to the types that the query and item towers take.

    Args:
        table: features and raw inputs of the recipe.
        recipe: recipe that describes the features.
        place: text that names the origin of the values (file or request), for messages.
        known: the texts of each column in training; texts of the table are respelt like them.

    Raises:
        DataError: a cell does not have the type that the recipe states.
    """
    inputs = raw_inputs(recipe, [*recipe.features, *recipe.history_columns])
    nulls = nulls_of(recipe)
    columns = {}
    for name in table.column_names:
        at, feature = Place(place, name), inputs[name].feature
        if inputs[name].in_history:
            columns[name] = list_cells.read_lists(
                plain_with_nulls(table[name], at, ()),
                BETWEEN,
                at,
                all_parts=HISTORY_AGES in table.column_names,
            )
            if not inputs[name].form.is_text:
                columns[name] = parse(columns[name], NUMBERS, at)
        elif feature.meaning.cells == "time":
            columns[name] = plain_with_nulls(table[name], at, nulls)
        else:
            how = Reading(at, nulls, all_parts=feature.weights in table.column_names)
            columns[name] = feature.meaning.read_given(table[name], feature, how)
    if HISTORY_AGES in columns:
        columns |= _match_ages(columns, recipe, Place(place, HISTORY_AGES))
    for name in columns:
        weights = inputs[name].feature.weights
        if weights is not None and weights in columns and not inputs[name].in_history:
            pair = (columns[name], columns[weights])
            columns[name], columns[weights] = match_given(*pair, Place(place, weights))
    return as_trained(pa.table(columns), recipe, known, place)


def _match_ages(
    columns: Mapping[str, pa.ChunkedArray], recipe: Recipe, place: Place
) -> dict[str, pa.ChunkedArray]:
    """Return the column of histories and the column of their items' ages, checked and matched.

    Raises:
        DataError: an age is not a finite number of seconds, ages rise from the oldest item to the
            latest, or there is not one age for each item.
    """
    history = recipe.history_with_ages
    if history is None or history not in columns:
        raise DataError(
            f"{place}: these are the ages of the items of {history}, which is not given. Give both."
        )
    items, ages = match_given(columns[history], columns[HISTORY_AGES], place, what="ages")
    lists = ages.combine_chunks()
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    owner = pc.list_parent_indices(lists).to_numpy()
    bad = ~np.isfinite(flat)
    bad[1:] |= (flat[1:] > flat[:-1]) & (owner[1:] == owner[:-1])
    if bad.any():
        at = int(np.argmax(bad))
        raise DataError(
            f"{place.row(int(owner[at]))}: {flat[at]:g} is no age here. Expected the seconds since "
            "each item of the history, oldest item first, so that no age is greater than the one "
            "before it. Correct it, or leave the column out."
        )
    return {history: items, HISTORY_AGES: ages}


def as_trained(table: pa.Table, recipe: Recipe, known: Known | None, place: str) -> pa.Table:
    """Replace texts for null, respell texts and convert times, as etl did for training.

    Args:
        table: features and raw inputs of the recipe, in the types that towers take.
        recipe: the recipe; its `nulls` mean a missing value, unless the training data has them as
            values.
        known: the texts of each column in training.
        place: text that names the origin of the values, for messages.

    Raises:
        DataError: a derive step of the recipe cannot be applied to a value.
    """
    steps = {step.of for step in recipe.derive}
    histories = raw_inputs(recipe, recipe.history_inputs)
    for number, name in enumerate(table.column_names):
        column, kind = table[name], table[name].type
        is_label = name in recipe.features and recipe.features[name].meaning.is_label
        texts = None if name == recipe.time or (is_label and name not in steps) else known
        if pa.types.is_string(kind):
            column = _without_nulls(column, name, recipe, texts)
            if texts:
                column = pa.chunked_array([_spelt(column.combine_chunks(), name, texts)])
        elif kind == TEXTS and texts:
            lists = column.combine_chunks()
            listed = histories[name].column if name in histories else name
            values = _spelt(lists.flatten(), listed, texts)
            column = pa.chunked_array([list_cells.replace_values(lists, values)])
        table = table.set_column(number, name, column)
    table = settle_times(table, recipe, place)
    add_derived(table, recipe, {}, place)  # it refuses what etl would refuse
    return table


def _spelt(texts: pa.StringArray, name: str, known: Known) -> pa.StringArray:
    if pc.all(pc.is_null(spelling.canonical(texts))).as_py():
        return texts
    return spelling.respell(texts, known(name))


def _without_nulls(
    column: pa.ChunkedArray, name: str, recipe: Recipe, known: Known | None
) -> pa.ChunkedArray:
    found = nullify(column, nulls_of(recipe))
    if known is None or found.null_count == nullify(column, ()).null_count:
        return found
    # sources may have different `nulls`: a text that is a value in training is a value here
    is_value = pc.is_in(column, value_set=known(name), skip_nulls=True)
    return pc.if_else(is_value, column, found)


def nulls_of(recipe: Recipe) -> tuple[str, ...]:
    """Return the texts that mean a missing value in any source of the recipe."""
    return tuple(sorted({text for source in recipe.sources.values() for text in source.nulls}))


def read_ids(path: Path, recipe: Recipe, key: str) -> list[str]:
    """Return the user or item ids of a file: one per line, or the id column of a table.

    Raises:
        DataError: the file or the id column does not exist.
    """
    given = None if path.is_fifo() else recognise(path, recipe, [key])
    if given is None or given.may_be_lines:
        return read_lines(path, recipe)
    names = given.file.names
    known = (key, *raw_names(recipe, [key]).get(key, ()))
    name = next((name for name in known if name in names), None)
    if name is None:
        raise DataError(
            f"{path}: there is no column {key!r}. It has {', '.join(names)}. {given.how}".rstrip()
        )
    table = given.read({key: name})
    if not table.num_rows:
        return []
    ids = pc.cast(as_text(table[key], Place(path, name)), pa.string())
    return nullify(ids, ()).drop_null().to_pylist()


def _refuse_bad_ids(ids: pa.ChunkedArray, key: str, path: Path) -> None:
    if ids.null_count:
        row = pc.index(pc.is_null(ids), True).as_py()
        raise DataError(f"{path}, row {row + 1}: there is no {key!r}. Give it one, or remove it.")
    cut = pc.index(spelling.is_scientific(ids.combine_chunks()), True).as_py()
    if cut >= 0:
        raise DataError(
            f"{path}, row {cut + 1}: {ids[cut].as_py()!r} is an id in scientific notation, of "
            "which a spreadsheet has cut off digits. Export the column again, as text."
        )
    counts = pc.value_counts(ids)
    again = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(again):
        raise DataError(
            f"{path}: {key} {again[0]['values'].as_py()!r} occurs "
            f"{again[0]['counts'].as_py()} times. Keep one row of it."
        )
