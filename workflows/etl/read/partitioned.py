"""Columns in the path of a file: `day=2020-09-13/part-0.parquet`, as Hive and Spark write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import pyarrow as pa

from workflows.raw import dictionaries

#: What stands for no value.
_NULL = "__HIVE_DEFAULT_PARTITION__"


class RowFile(Protocol):
    """A file of rows: see TextFile."""

    path: Path
    names: list[str]
    lists: frozenset[str]
    about: int
    is_bare: bool
    notes: list[str]

    def batches(self, columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Yield some columns in blocks of rows."""
        ...


def told(path: Path, folder: Path) -> dict[str, str | None]:
    """Return the columns in the path of a file: name → value, the same for all rows.

    Args:
        path: the path of the file.
        folder: the data folder. Its own path gives no columns.
    """
    inside = path.relative_to(folder) if path.is_relative_to(folder) else path
    pairs = [part.partition("=") for part in inside.parts[:-1]]
    return {
        unquote(name): None if value == _NULL else unquote(value)
        for name, equals, value in pairs
        if name and equals
    }


class Partitioned:
    """A file whose path gives columns, too.

    Args:
        file: the file itself.
        values: column → value.

    Attributes:
        file: the file itself.
        path, lists, about, is_bare, notes: as for the file.
        names: the names of the file's columns, and of those in its path.
    """

    def __init__(self, file: RowFile, values: Mapping[str, str | None]) -> None:
        self.file = file
        self._values = values
        self.path, self.lists, self.about = file.path, file.lists, file.about
        self.is_bare, self.notes = file.is_bare, file.notes
        self.names = [*file.names, *values]

    def batches(self, columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Yield some columns in blocks of rows; those of the path as codes.

        Args:
            columns: which.
            coded: those columns whose text comes as codes.

        Raises:
            DataError: of the file.
        """
        inside = [name for name in columns if name not in self._values] or self.file.names[:1]
        for batch in self.file.batches(inside, [name for name in coded if name in inside]):
            for name, value in self._values.items():
                numbers = pa.nulls(len(batch), pa.int32())
                if value is not None:
                    numbers = numbers.fill_null(0)
                texts = pa.array([value or ""], pa.string())
                column = pa.DictionaryArray.from_arrays(numbers, texts)
                batch = batch.append_column(pa.field(name, dictionaries.TEXT), column)
            yield batch.select(list(columns))
