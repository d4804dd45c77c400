"""Rows of raw values that somebody hands in: files of users and items, typed as the recipe says.

They are the features as the towers take them, after all joins and derived columns; a file of them
is csv (text, with a feature's separator in its lists) or parquet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from workflows import handed_columns, separated
from workflows.embedding import NUMBERS, TEXTS, typed
from workflows.errors import DataError
from workflows.recipe import Recipe


def read(path: Path, recipe: Recipe, key: str, columns: Sequence[str]) -> pa.Table:
    """Read a file of one row an id.

    Args:
        path: a .csv or .parquet file.
        recipe: what each column is.
        key: the id column, which must be there.
        columns: that may be there, too; others are passed over, and named in a warning.

    Raises:
        DataError: no such file; no id column; a cell that is not what the recipe says; an id that
            is missing or stands there twice.
    """
    raws = handed_columns.raw_names(recipe, [key, *columns]).values()
    table = _read(path, [key, *columns, *(raw for of in raws for raw in of)])
    if table.num_rows == 0:
        raise DataError(f"{path} has no rows. Expected one for each {key!r}.")
    table = handed_columns.chosen(table, recipe, key, columns, str(path))
    table = as_told(table, recipe, str(path))
    _refuse_bad_ids(table[key], key, path)
    return table


def as_told(table: pa.Table, recipe: Recipe, place: str) -> pa.Table:
    """Return raw values with the types that the towers take.

    Args:
        table: features of the recipe, and inputs of its history.
        recipe: what each column is.
        place: where they come from, for messages.

    Raises:
        DataError: a cell that is not what the recipe says.
    """
    history = recipe.history.inputs if recipe.history else {}
    columns = {}
    for name in table.column_names:
        column, where = table[name], f"{place}, column {name!r}"
        if name in history or recipe.features[name].kind == "categories":
            separator = None if name in history else recipe.features[name].separator
            columns[name] = _lists(column, separator, where)
        elif recipe.features[name].kind == "weights":
            lists = _lists(column, recipe.features[name].separator, where, NUMBERS)
            _refuse_infinite(lists.combine_chunks().flatten(), where)
            columns[name] = lists
        elif recipe.features[name].kind == "number":
            numbers = typed(column, pa.float32(), where)
            _refuse_infinite(numbers, where)
            columns[name] = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float32()), numbers)
        else:
            columns[name] = typed(column, pa.string(), where)
    return pa.table(columns)


def read_ids(path: Path, key: str) -> list[str]:
    """Return the ids of a file: one a line, or the id column of a csv or parquet file.

    Raises:
        DataError: no such file or column.
    """
    if path.suffix in (".csv", ".parquet"):
        table = _read(path, [key])
        if key not in table.column_names:
            raise DataError(f"{path}: there is no column {key!r}.")
        return typed(table[key], pa.string(), f"{path}, column {key!r}").drop_null().to_pylist()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    return [line.strip() for line in lines if line.strip()]


def _read(path: Path, texts: Sequence[str]) -> pa.Table:
    """Read a file; of csv, the named columns stay text."""
    if path.suffix not in (".csv", ".parquet"):
        raise DataError(f"{path}: expected a file that ends in .csv or .parquet.")
    try:
        if path.suffix == ".parquet":
            return _without_twins(pq.read_table(path), path)
        options = pa.csv.ConvertOptions(
            column_types={name: pa.string() for name in texts},
            null_values=[""],
            strings_can_be_null=True,
        )
        return _without_twins(pa.csv.read_csv(path, convert_options=options), path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None


def _without_twins(table: pa.Table, path: Path) -> pa.Table:
    """Return a table after checking that no two columns have one name."""
    again = [name for name, n in Counter(table.column_names).items() if n > 1]
    if again:
        raise DataError(f"{path}: {again[0]!r} is the name of several columns. Keep one of them.")
    return table


def _refuse_infinite(numbers: pa.Array | pa.ChunkedArray, place: str) -> None:
    row = pc.index(pc.is_inf(numbers), True).as_py()
    if row >= 0:
        raise DataError(
            f"{place}: the number in place {row + 1} is infinite, or too large for a float32. Mend "
            "it, or leave it empty."
        )


def _lists(
    column: pa.ChunkedArray, separator: str | None, place: str, kind: pa.DataType = TEXTS
) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_large_string(column.type):
        column = column.cast(pa.string())
    if pa.types.is_string(column.type) and separator is not None:
        column = separated.split(column, separator)
    return typed(column, kind, place)


def _refuse_bad_ids(ids: pa.ChunkedArray, key: str, path: Path) -> None:
    if ids.null_count:
        row = pc.index(pc.is_null(ids), True).as_py()
        raise DataError(f"{path}, row {row + 1}: there is no {key!r}. Give it one, or remove it.")
    counts = pc.value_counts(ids)
    again = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(again):
        raise DataError(
            f"{path}: {key} {again[0]['values'].as_py()!r} stands there "
            f"{again[0]['counts'].as_py()} times. Keep one row of it."
        )
