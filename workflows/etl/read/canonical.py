"""Give booleans and whole floats in ids and categories the same spelling for all file formats.

The rules of spelling (workflows/raw/spelling.py) need all values of a column of a file, so they are
applied after the last batch of the file's rows.
"""

from __future__ import annotations

import logging
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


def _respell(column: pa.ChunkedArray, *, is_id: bool, where: str) -> pa.Array | None:
    """Return a column of ids or categories in canonical spelling; None if nothing changes."""
    if not dictionaries.holds_text(column.type):
        return None
    texts = dictionaries.flatten(column).dictionary
    canonical = spelling.unify(texts, fractions=not is_id)
    if canonical is None:
        return None
    inexact = spelling.find_inexact(texts)
    if inexact is not None:
        raise DataError(
            f"{where}: {inexact!r} is a float, and floats are not exact from {spelling.EXACT:,} "
            "on, so it may be another id now. Write the column as integers or as text."
        )
    changed = pc.index(pc.not_equal(texts, canonical), True).as_py()
    pair = (of[changed].as_py() for of in (texts, canonical))
    log.info("%s: %r is read as %r, and the other values likewise", where, *pair)
    array = dictionaries.combine(column)
    if pa.types.is_list(array.type):
        values = dictionaries.map_dictionary(
            array.flatten(), lambda _: pa.chunked_array([canonical])
        )
        return list_cells.replace_values(array, dictionaries.combine(values))
    return dictionaries.combine(
        dictionaries.map_dictionary(array, lambda _: pa.chunked_array([canonical]))
    )
