"""Read parquet files in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from workflows.ground.errors import DataError
from workflows.raw import list_cells
from workflows.read import files

#: Assumed number of bytes of a row of a parquet file, from which the number of rows of a batch is
#: computed.
_ROW = 64
#: Bytes of the buffer for parquet pages; without it Arrow reads a whole column of a row group at
#: once.
_BUFFER = 1 << 20


class ParquetFile:
    """A raw parquet file, which is read in batches of rows.

    Args:
        path: path of the raw file.
        block: approximate number of bytes of a batch of rows.

    Attributes:
        path: path of the raw file.
        names: names of the file's columns.
        lists: names of the file's columns whose cells are lists.
        approximate_rows: number of rows, which is exact for parquet.
        is_empty: whether the file has no rows.
        notes: warnings about the file; always empty for parquet.

    Raises:
        DataError: the file is missing or damaged, or is not a parquet file.
    """

    def __init__(self, path: Path, *, block: int) -> None:
        self.path = path
        self._rows = max(1, block // _ROW)
        with files.reading(path, "parquet"), pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            self.approximate_rows: int = file.metadata.num_rows
            self.is_empty = self.approximate_rows == 0
            self._texts = {field.name for field in schema if pa.types.is_string(field.type)}
        self.names: list[str] = schema.names
        self.notes: list[str] = []
        self.lists = frozenset(field.name for field in schema if list_cells.is_list(field.type))

    def batches(
        self, columns: Sequence[str], as_dictionary: Sequence[str] = ()
    ) -> Iterator[pa.Table]:
        """Yield the requested columns in batches of rows, with the types of the parquet file.

        Args:
            columns: names of the columns of the file to read.
            as_dictionary: names of the columns whose text is returned as Arrow dictionaries.

        Raises:
            DataError: the file is damaged, or holds text that is not UTF-8.
        """
        texts = [name for name in as_dictionary if name in self._texts]
        with (
            files.reading(self.path, "parquet"),
            pq.ParquetFile(self.path, buffer_size=_BUFFER, read_dictionary=texts) as file,
        ):
            for batch in file.iter_batches(self._rows, columns=list(columns)):
                table = pa.Table.from_batches([batch]).select(list(columns))
                self._refuse_damaged(table)
                yield table

    def _refuse_damaged(self, table: pa.Table) -> None:
        """Raise an error if the parquet file has invalid values, such as broken UTF-8."""
        for name, column in zip(table.column_names, table.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                raise DataError(
                    f"{self.path}, column {name!r} holds a value that is not of its type "
                    f"{column.type} ({error}). The file is damaged, or the program that wrote it "
                    "mistook another encoding for UTF-8; write it again."
                ) from None
