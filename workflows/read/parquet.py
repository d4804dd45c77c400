"""Read parquet files in batches of rows."""

from __future__ import annotations

import copy
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
            self._groups: list[int] = [
                file.metadata.row_group(group).num_rows
                for group in range(file.metadata.num_row_groups)
            ]
        self._chosen: list[int] | None = None
        self.names: list[str] = schema.names
        self.notes: list[str] = []
        self.lists = frozenset(field.name for field in schema if list_cells.is_list(field.type))

    @property
    def is_piece(self) -> bool:
        """Whether the object reads some row groups of the file, and not the whole file."""
        return self._chosen is not None

    def pieces(self, rows: int) -> list[ParquetFile]:
        """Return readers of consecutive pieces of the file, which can be read at the same time.

        Args:
            rows: least number of rows of a piece; it consists of whole row groups.
        """
        found: list[ParquetFile] = []
        chosen: list[int] = []
        for group in range(len(self._groups)):
            chosen.append(group)
            is_last = group == len(self._groups) - 1
            if is_last or sum(self._groups[one] for one in chosen) >= rows:
                piece = copy.copy(self)
                piece._chosen, chosen = chosen, []
                found.append(piece)
        return found if len(found) > 1 else [self]

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
            for batch in file.iter_batches(
                self._rows, row_groups=self._chosen, columns=list(columns)
            ):
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
