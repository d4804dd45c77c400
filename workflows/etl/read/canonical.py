"""Give booleans and whole floats in ids and categories the same spelling for all file formats.

The rules of spelling (workflows/raw/spelling.py) need all values of a column of a file, so they are
applied after the last batch of the file's rows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from workflows.ground.errors import DataError
from workflows.raw import dictionaries, list_cells, spelling
from workflows.recipe import Recipe

log = logging.getLogger(__name__)


def canonicalize(recipe: Recipe, path: Path, table: pa.Table) -> pa.Table:
    """Return the rows of a raw file with ids and categories in canonical spelling.

    Args:
        recipe: recipe that describes the raw columns and the features.
        path: path of the raw file, for messages.
        table: all rows of the file, with text as dictionaries.

    Raises:
        DataError: a whole number is written as a float and is too long to be exact.
    """
    for number, name in enumerate(table.column_names):
        feature = recipe.features.get(name)
        if feature is None or not feature.meaning.has_codes:
            continue
        column = _respell(table[name], is_id=feature.id, where=f"{path}, column {name!r}")
        if column is not None:
            table = table.set_column(number, name, pa.chunked_array([column]))
    return table


def respell_texts(
    texts: Sequence[pa.StringArray], *, is_id: bool, where: str
) -> list[pa.StringArray] | None:
    """Return the texts of a column of one file in canonical spelling; None if nothing changes.

    Args:
        texts: arrays that together hold the distinct texts of the column in the file.
        is_id: whether the column is an id; an id has no fractions.
        where: name of the file and the column, for messages.

    Raises:
        DataError: a whole number is written as a float and is too long to be exact.
    """
    canonical = spelling.unify(texts, fractions=not is_id)
    if canonical is None:
        return None
    for array in texts:
        inexact = spelling.find_inexact(array)
        if inexact is not None:
            raise DataError(
                f"{where}: {inexact!r} is a float, and floats are not exact from "
                f"{spelling.EXACT:,} on, so it may be another id now. Write the column as integers "
                "or as text."
            )
    for old, new in zip(texts, canonical, strict=True):
        changed = pc.index(pc.not_equal(old, new), True).as_py()
        if changed >= 0:
            pair = (of[changed].as_py() for of in (old, new))
            log.info("%s: %r is read as %r, and the other values likewise", where, *pair)
            break
    return canonical


def _respell(column: pa.ChunkedArray, *, is_id: bool, where: str) -> pa.Array | None:
    """Return a column of ids or categories in canonical spelling; None if nothing changes."""
    if not dictionaries.holds_text(column.type):
        return None
    texts = dictionaries.flatten(column).dictionary
    found = respell_texts([texts], is_id=is_id, where=where)
    if found is None:
        return None
    [canonical] = found
    array = dictionaries.combine(column)
    if pa.types.is_list(array.type):
        values = dictionaries.map_dictionary(
            array.flatten(), lambda _: pa.chunked_array([canonical])
        )
        return list_cells.replace_values(array, dictionaries.combine(values))
    return dictionaries.combine(
        dictionaries.map_dictionary(array, lambda _: pa.chunked_array([canonical]))
    )
