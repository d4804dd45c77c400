"""Parquet in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from workflows.etl.read import files
from workflows.etl.read.cells import is_list
from workflows.ground.errors import DataError

#: A row is reckoned as so many bytes, so that a batch has about the size of a block of text.
_ROW = 64
#: Pages are read through a buffer of so many bytes, not a whole column of a row group at once.
_BUFFER = 1 << 20


class ParquetFile:
    """A parquet file.

    Args:
        path: the path of the file.
        block: bytes, about, of a batch.

    Attributes:
        path: the path of the file.
        names: the names of its columns.
        lists: names of the columns of lists.
        about: how many rows there are.
        is_bare: whether that is none.
        notes: sentences on what looks wrong: none.

    Raises:
        DataError: the file is missing, damaged, or no parquet.
    """

    def __init__(self, path: Path, *, block: int) -> None:
        self.path = path
        self._rows = max(1, block // _ROW)
        with files.reading(path, "parquet"), pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            self.about: int = file.metadata.num_rows
            self.is_bare = self.about == 0
            self._texts = {field.name for field in schema if pa.types.is_string(field.type)}
        self.names: list[str] = schema.names
        self.notes: list[str] = []
        self.lists = frozenset(field.name for field in schema if is_list(field.type))

    def batches(self, columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Yield some columns, as the file has them.

        Args:
            columns: which.
            coded: those columns whose text comes as codes.

        Raises:
            DataError: the file is damaged, or holds text that is no UTF-8.
        """
        texts = [name for name in coded if name in self._texts]
        with (
            files.reading(self.path, "parquet"),
            pq.ParquetFile(self.path, buffer_size=_BUFFER, read_dictionary=texts) as file,
        ):
            for batch in file.iter_batches(self._rows, columns=list(columns)):
                table = pa.Table.from_batches([batch]).select(list(columns))
                self._refuse_damaged(table)
                yield table

    def _refuse_damaged(self, table: pa.Table) -> None:
        """Refuse values that Arrow reads without a look at them: text that is no UTF-8."""
        for name, column in zip(table.column_names, table.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                raise DataError(
                    f"{self.path}, column {name!r} holds what is no value of its type "
                    f"{column.type} ({error}). The file is damaged, or was written by a program "
                    "that took another encoding for UTF-8; write it again."
                ) from None
