"""Read files of users or items that are given at serving: one row each, with raw values.

The columns are the features of the towers, after all joins and derived columns. Values become what
etl would have made of them, by the rules of the feature kinds (workflows/recipe/kinds/).
"""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from workflows.feature_files import columns as raw_columns
from workflows.ground.errors import DataError
from workflows.raw import list_cells, spelling
from workflows.raw.quotes import Quotes
from workflows.raw.values import TEXTS, Place, as_text, nullify, plain_with_nulls
from workflows.recipe import Recipe
from workflows.recipe.kinds.base import Reading
from workflows.recipe.kinds.weights import match_given

#: Column → the texts that it has in training.
Known = Callable[[str], pa.StringArray]
#: The separator of the ids of a history that is one text.
BETWEEN = "|"
_ENDINGS = {".csv": ",", ".tsv": "\t"}
#: The first bytes of a file that is compressed with gzip, whatever its name.
_GZIP = b"\x1f\x8b"


def read(
    path: Path, recipe: Recipe, key: str, columns: Sequence[str], known: Known | None = None
) -> pa.Table:
    """Read a file with one row per id.

    Args:
        path: a csv or tsv file, perhaps gzipped, or a parquet file.
        recipe: the features.
        key: the id column, which the file must have.
        columns: other columns that the file may have. Columns beside these are ignored with a
            warning.
        known: the texts of training, whose spelling the given texts get.

    Raises:
        DataError: the file or its id column is missing, a cell is not what the recipe says, or an
            id is missing or occurs twice.
    """
    table = _read(path)
    if table.num_rows == 0:
        raise DataError(f"{path} has no rows. Expected one for each {key!r}.")
    table = raw_columns.chosen(table, recipe, key, columns, str(path))
    table = with_types(table, recipe, str(path), known)
    _refuse_bad_ids(table[key], key, path)
    return table


def with_types(table: pa.Table, recipe: Recipe, place: str, known: Known | None = None) -> pa.Table:
    """Return raw values with the types that the towers take.

    Args:
        table: features of the recipe, and inputs of its history.
        recipe: the features.
        place: the origin of the values, for messages.
        known: the texts of training, whose spelling the given texts get.

    Raises:
        DataError: a cell is not what the recipe says.
    """
    history = recipe.history.inputs if recipe.history else {}
    nulls = nulls_of(recipe)
    columns = {}
    for name in table.column_names:
        at = Place(place, name)
        if name in history:
            columns[name] = list_cells.read_lists(
                plain_with_nulls(table[name], at, ()), BETWEEN, at
            )
            continue
        feature = recipe.features[name]
        how = Reading(at, nulls, all_parts=feature.weights in table.column_names)
        columns[name] = feature.meaning.read_given(table[name], feature, how)
    for name in [name for name in columns if name not in history]:
        weights = recipe.features[name].weights
        if weights is not None and weights in columns:
            pair = (columns[name], columns[weights])
            columns[name], columns[weights] = match_given(*pair, Place(place, weights))
    return as_trained(pa.table(columns), recipe, known)


def as_trained(table: pa.Table, recipe: Recipe, known: Known | None) -> pa.Table:
    """Return given texts as training reads them: some become null, others get another spelling.

    Args:
        table: columns of text and of lists of text; others are returned as they are.
        recipe: its `nulls` mean a missing value, unless they are values in training.
        known: the texts of training.
    """
    history = recipe.history.inputs if recipe.history else {}
    for number, name in enumerate(table.column_names):
        column, kind = table[name], table[name].type
        is_label = name in recipe.features and recipe.features[name].meaning.is_label
        if pa.types.is_string(kind):
            column = _without_nulls(column, name, recipe, None if is_label else known)
            if known and not is_label:
                column = pa.chunked_array([_spelt(column.combine_chunks(), name, known)])
        elif kind == TEXTS and known:
            lists = column.combine_chunks()
            values = _spelt(lists.flatten(), history.get(name, name), known)
            column = pa.chunked_array([list_cells.replace_values(lists, values)])
        table = table.set_column(number, name, column)
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
    """Return the texts that mean a missing value in some source."""
    return tuple(sorted({text for source in recipe.sources.values() for text in source.nulls}))


def read_ids(path: Path, key: str, *, raw: Sequence[str] = ()) -> list[str]:
    """Return the ids of a file: one per line, or the id column of a csv, tsv or parquet file.

    Raises:
        DataError: there is no such file or column.
    """
    if _ending(path) in (*_ENDINGS, ".parquet"):
        table = _read(path)
        name = next((name for name in (key, *raw) if name in table.column_names), None)
        if name is None:
            raise DataError(
                f"{path}: there is no column {key!r}. It has {', '.join(table.column_names)}."
            )
        ids = pc.cast(as_text(table[name], Place(path, name)), pa.string())
        return nullify(ids, ()).drop_null().to_pylist()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    return [line.strip() for line in lines if line.strip()]


def _ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _read(path: Path) -> pa.Table:
    """Read a file; all cells of a text file are text, whatever they look like."""
    ending = _ending(path)
    if ending not in (*_ENDINGS, ".parquet"):
        raise DataError(
            f"{path}: expected a file that ends in .csv, .tsv (or these and .gz) or .parquet."
        )
    try:
        if ending == ".parquet":
            return _without_twins(pq.read_table(path), path)
        data = path.read_bytes()
        if data.startswith(_GZIP):
            with pa.input_stream(pa.BufferReader(data), compression="gzip") as stream:
                data = stream.read()
        _refuse_other_text(data, path)
        return _without_twins(_of_text(data, _ENDINGS[ending], path), path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None


def _refuse_other_text(data: bytes, path: Path) -> None:
    """Refuse an empty file, and one that is not UTF-8."""
    if not data.strip():
        raise DataError(f"{path} is empty. Expected a first row with the names of the columns.")
    try:
        codecs.utf_8_decode(data, "strict", True)
    except UnicodeDecodeError as error:
        line, byte = 1 + data[: error.start].count(b"\n"), data[error.start : error.start + 1]
        raise DataError(
            f"{path}, line {line}: the byte {byte!r} is not valid in UTF-8, in which files at "
            "serving are written. Convert the file, or write it as parquet."
        ) from None


def _of_text(data: bytes, delimiter: str, path: Path) -> pa.Table:
    if delimiter == ",":
        _refuse_open_quotes(data, path)
    parsing = pa.csv.ParseOptions(
        delimiter=delimiter,
        quote_char='"' if delimiter == "," else False,
        newlines_in_values=delimiter == ",",
    )
    head = pa.csv.open_csv(pa.BufferReader(data), parse_options=parsing).schema.names
    converting = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(head, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    return pa.csv.read_csv(pa.BufferReader(data), parse_options=parsing, convert_options=converting)


def _refuse_open_quotes(data: bytes, path: Path) -> None:
    """Refuse quotes that would make rows a part of a cell, as etl does."""
    quotes = Quotes(b",", b'"')
    quotes.see(data)
    quotes.see(b"")
    if quotes.fault is None and not quotes.is_open:
        return
    where = str(path)
    if quotes.fault is not None:
        line = data[: quotes.fault].count(b"\n") + 1
        where += f", line {line}"
    raise DataError(
        f"{where}: a quote is not closed, or text follows the closing quote of a cell, so "
        "that rows would be lost. Close the quote, or double it where it is a part of the text."
    )


def _without_twins(table: pa.Table, path: Path) -> pa.Table:
    """Return a table after a check that its columns have different names."""
    again = [name for name, n in Counter(table.column_names).items() if n > 1]
    if again:
        raise DataError(f"{path}: {again[0]!r} is the name of several columns. Keep one of them.")
    return table


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
