"""Read columns from the path of a file, such as `day=2020-09-13/part-0.parquet` (Hive, Spark)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import pyarrow as pa

from workflows.raw import dictionaries

#: The text that Hive writes in a path for a missing value.
_NULL = "__HIVE_DEFAULT_PARTITION__"


class RowFile(Protocol):
    """The interface of raw files of any format, such as csv or parquet; rows are read in blocks."""

    path: Path
    names: list[str]
    lists: frozenset[str]
    approximate_rows: int
    is_empty: bool
    notes: list[str]

    def batches(
        self, columns: Sequence[str], as_dictionary: Sequence[str] = ()
    ) -> Iterator[pa.Table]:
        """Yield the requested columns of the raw file in blocks of rows."""
        ...


def path_columns(path: Path, folder: Path) -> dict[str, str | None]:
    """Return the columns in a raw file's path, such as `day=2020-09-13`: name → value of the rows.

    Args:
        path: path of the raw file.
        folder: folder of the raw files; only the path below it is searched for columns.
    """
    inside = path.relative_to(folder) if path.is_relative_to(folder) else path
    pairs = [part.partition("=") for part in inside.parts[:-1]]
    return {
        unquote(name): None if value == _NULL else unquote(value)
        for name, equals, value in pairs
        if name and equals
    }


class PartitionedFile:
    """A raw file with further columns in its path, such as `day=2020-09-13/part-0.parquet`.

    Args:
        file: the raw file, whose path has further columns.
        values: column in the path → its value.

    Attributes:
        file: the file without the columns of the path.
        path, lists, approximate_rows, is_empty, notes: the attributes of `file`.
        names: names of the columns in the file and in its path.
    """

    def __init__(self, file: RowFile, values: Mapping[str, str | None]) -> None:
        self.file = file
        self._values = values
        self.path, self.lists, self.approximate_rows = file.path, file.lists, file.approximate_rows
        self.is_empty, self.notes = file.is_empty, file.notes
        self.names = [*file.names, *values]

    def batches(
        self, columns: Sequence[str], as_dictionary: Sequence[str] = ()
    ) -> Iterator[pa.Table]:
        """Yield the requested columns of the file and of its path, in blocks of rows.

        Args:
            columns: names of the columns of the file to read.
            as_dictionary: names of the columns whose text is returned as Arrow dictionaries.

        Raises:
            DataError: the file cannot be read.
        """
        inside = [name for name in columns if name not in self._values] or self.file.names[:1]
        for batch in self.file.batches(inside, [name for name in as_dictionary if name in inside]):
            for name, value in self._values.items():
                numbers = pa.nulls(len(batch), pa.int32())
                if value is not None:
                    numbers = numbers.fill_null(0)
                texts = pa.array([value or ""], pa.string())
                column = pa.DictionaryArray.from_arrays(numbers, texts)
                batch = batch.append_column(pa.field(name, dictionaries.TEXT), column)
            yield batch.select(list(columns))
