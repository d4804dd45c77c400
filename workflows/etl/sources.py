"""Raw files → canonical tables: every id and category as text, numbers float32, times in seconds.

Nothing is guessed from the values: the recipe says what a column is, so '0108775015' stays text.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from workflows.errors import DataError
from workflows.recipe import Feature, Recipe, Source

#: A number as text; ISO 8601 text that ends in a zone.
_NUMBER = r"^-?\d+(\.\d*)?([eE][-+]?\d+)?$"
_ZONE = r"\d:\d\d.*(Z|[-+]\d\d(:?\d\d)?)$"
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True)
class Raw:
    """What was read.

    Attributes:
        tables: source name → its columns that the recipe names, canonical types.
        files: source name → the files it came from.
        rows: source name → rows of each of these files.
        columns: source name → all columns of these files, `rename:` applied.
        folder: the data folder.
    """

    tables: dict[str, pa.Table]
    files: dict[str, list[Path]]
    rows: dict[str, list[int]]
    columns: dict[str, list[str]]
    folder: Path

    def where(self, source: str) -> str:
        """Name a source and its files, for messages."""
        return f"source {source!r} ({', '.join(p.name for p in self.files[source])})"

    def require(self, source: str, column: str, *joined: str) -> None:
        """Check that a source, or one of those joined to it, has a column.

        Raises:
            DataError: names the columns that are there and the nearest one.
        """
        there = [name for s in (source, *joined) for name in self.columns[s]]
        if column not in there:
            also = f", nor {', '.join(map(self.where, joined))}" if joined else ""
            raise DataError(
                f"{self.where(source)} has no column {column!r}{also}{_nearest(column, there)}. "
                "Correct the name in the recipe, or give a raw column this name with `rename:`. "
                f"Columns: {', '.join(dict.fromkeys(there))}."
            )

    def place(self, source: str, row: int) -> str:
        """Name the file of a table's row (from 0) and its number there (from 1, without header)."""
        for path, n in zip(self.files[source], self.rows[source], strict=True):
            if row < n:
                return f"{path}, row {row + 1}"
            row -= n
        raise IndexError(f"{source} has no such row")

    def name(self, path: Path) -> str:
        """Name a file within the data folder, so that no path of this machine is told."""
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if inside else path.name


def read(recipe: Recipe, folder: Path) -> Raw:
    """Read every source of a recipe.

    Args:
        recipe: which columns to keep and what they are.
        folder: where the raw files lie.

    Raises:
        DataError: a missing file or column, a row or cell that cannot be parsed.
    """
    tables, files, rows, columns = {}, {}, {}, {}
    for name, source in recipe.sources.items():
        files[name] = _files(name, source, folder)
        parts, names = [], {}
        for path in files[name]:
            table = _read_file(path, source)
            names.update(dict.fromkeys(table.column_names))
            parts.append(_canonical(table, recipe, path))
        columns[name] = list(names)
        _refuse_unlike(parts, files[name])
        tables[name] = pa.concat_tables(parts)
        rows[name] = [part.num_rows for part in parts]
        if tables[name].num_rows == 0:
            raise DataError(f"{files[name][0]} has no rows. Put data there, or another file.")
    return Raw(tables, files, rows, columns, folder)


def _refuse_unlike(parts: Sequence[pa.Table], paths: Sequence[Path]) -> None:
    """Refuse files of one source of which one has a column that another has not."""
    every = dict.fromkeys(column for part in parts for column in part.column_names)
    for part, path in zip(parts, paths, strict=True):
        for column in every:
            if column not in part.column_names:
                raise DataError(
                    f"{path} has no column {column!r}, which another file of the same source has. "
                    "Make their headers alike, or list fewer `files:`."
                )


def _files(name: str, source: Source, folder: Path) -> list[Path]:
    patterns = (source.files,) if isinstance(source.files, str) else source.files
    found: list[Path] = []
    for pattern in patterns:
        root = Path(Path(pattern).anchor or folder)
        exact = root / pattern
        matches = [exact] if exact.exists() else sorted(root.glob(pattern.lstrip("/")))
        if not matches:
            raise DataError(
                f"source {name!r}: no file matches {pattern!r} in {root}. Put the raw files there, "
                "set `data:` in the recipe, or run `two-tower fetch` if the recipe can fetch them."
            )
        found += matches
    for path in found:
        if path.is_dir():
            raise DataError(
                f"source {name!r}: {path} is a folder. Name the files in it, such as "
                f"{path.name + '/*.parquet'!r}."
            )
    return list(dict.fromkeys(found))


def _format(path: Path, source: Source) -> str:
    if source.format:
        return source.format
    ending = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if ending in ("csv", "tsv", "parquet"):
        return ending
    raise DataError(
        f"{path}: the ending .{ending} names no format. Set the source's `format:` to csv, tsv or "
        "parquet."
    )


def _read_file(path: Path, source: Source) -> pa.Table:
    kind = _format(path, source)
    try:
        table = pq.read_table(path) if kind == "parquet" else _read_text(path, source, kind)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read as {kind}: {str(error).rstrip('.')}. Mend the file (text must "
            f"be UTF-8), or set the source's `format:` if it is not {kind}."
        ) from None
    for name in source.rename:
        if name not in table.column_names:
            raise DataError(
                f"{path} has no column {name!r}, which the source's `rename:` names"
                f"{_nearest(name, table.column_names)}. It has: {', '.join(table.column_names)}."
            )
    return table.rename_columns([source.rename.get(name, name) for name in table.column_names])


def _read_text(path: Path, source: Source, kind: str) -> pa.Table:
    delimiter = "," if kind == "csv" else "\t"
    bad_rows: list[pyarrow.csv.InvalidRow] = []

    def refuse(row: pyarrow.csv.InvalidRow) -> str:
        bad_rows.append(row)
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
        quoted_strings_can_be_null=True,
    )
    bad_rows.clear()
    table = pa.csv.read_csv(path, parse_options=parse, convert_options=convert)
    if bad_rows:
        bad_rows.clear()  # only a single thread meets them in order and knows their numbers
        one_thread = pa.csv.ReadOptions(use_threads=False)
        pa.csv.read_csv(path, one_thread, parse, convert)
        first = bad_rows[0]
        raise DataError(
            f"{path} has {len(bad_rows)} unparsable row{'s' * (len(bad_rows) > 1)}; the first, row "
            f"{first.number - 1}, has {first.actual_columns} fields where {first.expected_columns} "
            f"are expected: {first.text[:80]!r}. Mend the file, or set the source's `format:` if "
            f"it is not {kind}."
        )
    return table


def _canonical(table: pa.Table, recipe: Recipe, path: Path) -> pa.Table:
    """Keep the columns that the recipe names, as what it says they are."""
    names = [*recipe.features, *([recipe.positive.column] if recipe.positive else [])]
    columns = {}
    for name in dict.fromkeys(names):
        if table.column_names.count(name) > 1:
            raise DataError(
                f"{path} has more than one column {name!r}, `rename:` applied. Rename one of them."
            )
        if name in table.column_names:
            columns[name] = _convert(_plain(table[name]), name, recipe, path)
    if not columns:
        raise DataError(
            f"{path} has none of the columns that the recipe names; it has: "
            f"{', '.join(table.column_names)}. Set the source's `rename:`, or its `format:`."
        )
    return pa.table(columns)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Undo how a writer of parquet stored text, and make NaN null where it cannot be a number."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if pa.types.is_large_string(column.type):
        column = pc.cast(column, pa.string())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column


def _convert(column: pa.ChunkedArray, name: str, recipe: Recipe, path: Path) -> pa.ChunkedArray:
    feature = recipe.features.get(name)
    if feature is None:  # the positive rule's own column is what it is compared with
        is_number = recipe.positive is not None and isinstance(recipe.positive.value, float)
        return _parsed(column, pa.float64() if is_number else pa.string(), name, path)
    if feature.role == "time":
        return _to_seconds(column, name, feature, path)
    if feature.kind == "number":
        return _finite(_plain(_parsed(column, pa.float32(), name, path)), name, path)
    if feature.kind == "categories":
        return _to_lists(column, feature.separator, name, path)
    return _parsed(column, pa.string(), name, path)


def _parsed(column: pa.ChunkedArray, kind: pa.DataType, name: str, path: Path) -> pa.ChunkedArray:
    if pa.types.is_string(column.type) and not pa.types.is_string(kind):
        column = pc.utf8_trim_whitespace(column)
    try:
        return _cast(column, kind)
    except pa.ArrowNotImplementedError:
        raise DataError(
            f"{path}, column {name!r} holds {column.type}, which cannot be read as {kind}. Correct "
            f"the role or kind of features.{name}, or the file."
        ) from None
    except pa.ArrowInvalid:
        row, value = _first_bad(column, kind)
        raise DataError(
            f"{path}, column {name!r}, row {row}: {value!r} is no {kind}. Mend it, or list the "
            "text under the source's `nulls` if it stands for no value."
        ) from None


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Cast; a number or time may lose digits, text may not be anything but UTF-8."""
    loses = pa.types.is_floating(kind) or pa.types.is_timestamp(kind)
    return pc.cast(column, kind, safe=not loses)


def _finite(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    row = pc.index(pc.is_inf(column), True).as_py()
    if row >= 0:
        raise DataError(
            f"{path}, column {name!r}, row {row + 1}: the number is infinite, or too large for a "
            "float32. Mend it, or leave it out and set a `null` policy."
        )
    return column


def _first_bad(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[int, object]:
    """Return number (from 1, header not counted) and text of the first cell that does not parse."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _cast(column.slice(low, middle - low), kind)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low + 1, column[low].as_py()


def _to_seconds(
    column: pa.ChunkedArray, name: str, feature: Feature, path: Path
) -> pa.ChunkedArray:
    """Return int64 seconds since the epoch, UTC, from numbers, dates or ISO 8601 text."""
    if pa.types.is_string(column.type):
        first = pc.utf8_trim_whitespace(column.drop_null().slice(0, 1))
        if not pc.all(pc.match_substring_regex(first, _NUMBER)).as_py():
            zoned = pc.any(pc.match_substring_regex(first, _ZONE)).as_py()
            column = _parsed(column, pa.timestamp("us", "UTC" if zoned else None), name, path)
    if pa.types.is_temporal(column.type):
        return pc.cast(_parsed(column, pa.timestamp("s"), name, path), pa.int64())
    number = _plain(_parsed(column, pa.float64(), name, path))
    seconds = pc.floor(pc.divide(number, _PER_SECOND[feature.unit]))
    return _parsed(seconds, pa.int64(), name, path)


def _to_lists(
    column: pa.ChunkedArray, separator: str | None, name: str, path: Path
) -> pa.ChunkedArray:
    if pa.types.is_nested(column.type) or pa.types.is_fixed_size_list(column.type):
        return _parsed(column, pa.list_(pa.string()), name, path)
    if separator is None:
        raise DataError(
            f"{path}, column {name!r} holds {column.type}, not lists; set its `separator` "
            "(such as '|') to split text."
        )
    text = _parsed(column, pa.string(), name, path)
    parts = pc.split_pattern(text, pattern=separator).combine_chunks()
    # 'a||b' and '' have empty parts; they are no categories
    flat, rows = pc.list_flatten(parts), pc.list_parent_indices(parts)
    keep = pc.not_equal(flat, "")
    lengths = np.bincount(pc.filter(rows, keep).to_numpy(), minlength=len(column))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    null = np.append(column.is_null().to_numpy(), False)
    lists = pa.ListArray.from_arrays(pa.array(offsets, mask=null), pc.filter(flat, keep))
    return pa.chunked_array([lists])


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
