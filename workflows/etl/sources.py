"""Raw files → canonical tables: every id and category as text, numbers float32, times in seconds.

Nothing is guessed from the values: the recipe says what a column is, so '0108775015' stays text.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from workflows.errors import DataError
from workflows.recipe import Feature, Recipe, Source

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True)
class Raw:
    """What was read.

    Attributes:
        tables: source name → its columns that the recipe names, canonical types.
        files: source name → the files it came from.
    """

    tables: dict[str, pa.Table]
    files: dict[str, list[Path]]

    def where(self, source: str) -> str:
        """Name a source and its files, for messages."""
        return f"source {source!r} ({', '.join(p.name for p in self.files[source])})"


def read(recipe: Recipe, folder: Path) -> Raw:
    """Read every source of a recipe.

    Args:
        recipe: which columns to keep and what they are.
        folder: where the raw files lie.

    Raises:
        DataError: a missing file or column, a row or cell that cannot be parsed.
    """
    wanted = dict.fromkeys(recipe.features)
    if recipe.positive:
        wanted.setdefault(recipe.positive.column)
    tables, files = {}, {}
    for name, source in recipe.sources.items():
        files[name] = _files(name, source, folder)
        parts = [_canonical(_read_file(path, source), recipe, wanted, path) for path in files[name]]
        tables[name] = pa.concat_tables(parts)
        if tables[name].num_rows == 0:
            raise DataError(f"{files[name][0]} has no rows.")
    return Raw(tables, files)


def _files(name: str, source: Source, folder: Path) -> list[Path]:
    patterns = (source.files,) if isinstance(source.files, str) else source.files
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(folder.glob(pattern))
        if not matches:
            raise DataError(
                f"source {name!r}: no file matches {pattern!r} in {folder}. Put the raw files there, "
                "set `data:` in the recipe, or run `two-tower fetch` if the recipe can fetch them."
            )
        found += matches
    return found


def _format(path: Path, source: Source) -> str:
    if source.format:
        return source.format
    ending = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if ending in ("csv", "tsv", "parquet"):
        return ending
    raise DataError(
        f"{path}: the ending .{ending} names no format; set `format: csv`, `tsv` or `parquet`."
    )


def _read_file(path: Path, source: Source) -> pa.Table:
    kind = _format(path, source)
    try:
        table = pq.read_table(path) if kind == "parquet" else _read_text(path, source, kind)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read as {kind}: {error}") from None
    names = [source.rename.get(name, name) for name in table.column_names]
    unknown = sorted(set(source.rename) - set(table.column_names))
    if unknown:
        raise DataError(
            f"{path} has no column {unknown[0]!r}, which the recipe renames; "
            f"columns: {', '.join(table.column_names)}."
        )
    return table.rename_columns(names)


def _read_text(path: Path, source: Source, kind: str) -> pa.Table:
    delimiter = "," if kind == "csv" else "\t"
    bad_rows: list[str] = []

    def refuse(row: pyarrow.csv.InvalidRow) -> str:
        bad_rows.append(
            f"{row.actual_columns} fields where {row.expected_columns} are expected: "
            f"{row.text[:80]!r}"
        )
        return "skip"

    parse = pa.csv.ParseOptions(
        delimiter=delimiter,
        quote_char='"' if kind == "csv" else False,
        newlines_in_values=kind == "csv",
        invalid_row_handler=refuse,
    )
    with pa.csv.open_csv(path, parse_options=parse) as head:
        names = head.schema.names
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=list(source.nulls),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    bad_rows.clear()
    table = pa.csv.read_csv(path, parse_options=parse, convert_options=convert)
    if bad_rows:
        raise DataError(
            f"{path} has {len(bad_rows)} unparsable row{'s' * (len(bad_rows) > 1)}; the first has "
            f"{bad_rows[0]}. Mend the file, or set `format:` if it is not {kind}."
        )
    return table


def _canonical(table: pa.Table, recipe: Recipe, wanted: dict[str, None], path: Path) -> pa.Table:
    columns = {}
    for name in wanted:
        if name in table.column_names:
            feature = recipe.features.get(name)
            columns[name] = _convert(table[name], name, feature, path)
    return pa.table(columns)


def _convert(
    column: pa.ChunkedArray, name: str, feature: Feature | None, path: Path
) -> pa.ChunkedArray:
    if feature is None:  # the positive rule's own column: number where it can be, else text
        try:
            return pc.cast(column, pa.float64())
        except pa.ArrowInvalid:
            return _to_text(column)
    if feature.role == "time":
        return _to_seconds(column, name, feature, path)
    if feature.kind == "number":
        return _parsed(column, pa.float32(), name, path)
    if feature.kind == "categories":
        return _to_lists(column, feature.separator, name, path)
    return _to_text(column)


def _to_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    return pc.cast(column, pa.string())


def _parsed(column: pa.ChunkedArray, kind: pa.DataType, name: str, path: Path) -> pa.ChunkedArray:
    if pa.types.is_string(column.type):
        column = pc.utf8_trim_whitespace(column)
    try:
        return pc.cast(column, kind, safe=not pa.types.is_floating(kind))
    except pa.ArrowInvalid as error:
        row, value = _first_bad(column, kind)
        raise DataError(
            f"{path}, column {name!r}, row {row}: {value!r} is not a {kind} ({error}). Mend it, or "
            "list the text under the source's `nulls` if it stands for no value."
        ) from None


def _first_bad(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[int, object]:
    """Return number (from 1, header not counted) and text of the first cell that does not parse."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            pc.cast(column.slice(low, middle - low), kind, safe=not pa.types.is_floating(kind))
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low + 1, column[low].as_py()


def _to_seconds(
    column: pa.ChunkedArray, name: str, feature: Feature, path: Path
) -> pa.ChunkedArray:
    """Return int64 seconds since the epoch, UTC, from numbers, dates or ISO 8601 text."""
    if pa.types.is_string(column.type):
        numeric = pc.match_substring_regex(column.drop_null().slice(0, 1), r"^-?\d+(\.\d+)?$")
        if not pc.all(numeric).as_py():
            column = _parsed(column, pa.timestamp("us"), name, path)
    if pa.types.is_temporal(column.type):
        return pc.cast(pc.cast(column, pa.timestamp("s"), safe=False), pa.int64())
    number = _parsed(column, pa.float64(), name, path)
    return pc.cast(pc.floor(pc.divide(number, _PER_SECOND[feature.unit])), pa.int64())


def _to_lists(
    column: pa.ChunkedArray, separator: str | None, name: str, path: Path
) -> pa.ChunkedArray:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return pc.cast(column, pa.list_(pa.string()))
    if separator is None:
        raise DataError(
            f"{path}, column {name!r} holds {column.type}, not lists; set its `separator` "
            "(such as '|') to split text."
        )
    text = pc.cast(column, pa.string())
    parts = pc.split_pattern(text, pattern=separator).combine_chunks()
    # 'a||b' and '' have empty parts; they are no categories
    flat, rows = pc.list_flatten(parts), pc.list_parent_indices(parts)
    keep = pc.not_equal(flat, "")
    lengths = np.bincount(pc.filter(rows, keep).to_numpy(), minlength=len(column))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    null = np.append(column.is_null().to_numpy(), False)
    lists = pa.ListArray.from_arrays(pa.array(offsets, mask=null), pc.filter(flat, keep))
    return pa.chunked_array([lists])


def require(table: pa.Table, column: str, where: str) -> None:
    """Check that a table has a column.

    Raises:
        DataError: names the columns that are there and the nearest one.
    """
    if column not in table.column_names:
        close = difflib.get_close_matches(column, table.column_names, n=1)
        hint = f"; did you mean {close[0]!r}" if close else ""
        raise DataError(
            f"{where} has no column {column!r}{hint}. Rename a raw column with `rename:` in the "
            f"recipe. Columns that the recipe names and that are there: "
            f"{', '.join(table.column_names) or 'none'}."
        )
