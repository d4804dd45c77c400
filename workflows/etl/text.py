"""Delimited text in blocks of whole rows, every cell as text; a row that does not fit is shown."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from workflows.errors import DataError
from workflows.etl import codes, files

#: So much is read to see what a file is, and how its columns are called.
_HEAD = 1 << 20
#: How a file ends is seen in so many bytes; there may be blank lines.
_TAIL = 1 << 10


class TextFile:
    """A csv or tsv file, perhaps in gzip.

    Args:
        path: of the file.
        kind: `csv`, `tsv`, or what else to call it in messages.
        nulls: texts that stand for no value.
        block: bytes that are read at a time; no row may be longer.
        header: the names of the columns of a file that does not begin with them.

    Attributes:
        path: of the file.
        names: of its columns.
        lists: those that are lists already: none.
        about: how many rows there may be, by the lines that the file begins with; of a gzip at
            least so many.

    Raises:
        DataError: the file is missing, empty, not UTF-8, or no text.
    """

    def __init__(
        self,
        path: Path,
        *,
        kind: str,
        nulls: Sequence[str],
        block: int,
        header: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.kind = kind
        self.nulls = list(nulls)
        self.block = block
        self.has_header = not header
        self.lists: frozenset[str] = frozenset()
        head = self._head()
        self.about = head.count(b"\n") * path.stat().st_size // len(head)
        self.names = self._first_row(head) if self.has_header else list(header)

    @property
    def _delimiter(self) -> str:
        return "\t" if self.kind == "tsv" else ","

    @property
    def _is_quoted(self) -> bool:
        return self.kind == "csv"

    def _head(self) -> bytes:
        """Return how the file begins, blank lines left out, after a look at what it is."""
        with files.reading(self.path, self.kind), _open(self.path) as stream:
            head = stream.read(_HEAD)
            while head and not head.strip():
                head = stream.read(_HEAD)
        files.refuse_other(self.path, self.kind, head)
        return bytes(head)

    def _first_row(self, head: bytes) -> list[str]:
        """Return the names in the first row that is not blank."""
        text = head.decode("utf-8-sig", "replace")
        try:
            rows = csv.reader(
                io.StringIO(text, newline=""),
                delimiter=self._delimiter,
                quoting=csv.QUOTE_MINIMAL if self._is_quoted else csv.QUOTE_NONE,
            )
            names = [] if "\0" in text.splitlines()[0] else next(row for row in rows if row)
        except csv.Error as error:
            raise DataError(
                f"{self.path}: the first row cannot be read as the names of columns ({error}). "
                f"Mend the file, or set the source's `format:` if it is not {self.kind}."
            ) from None
        if not names or any("\ufffd" in name for name in names):
            raise DataError(
                f"{self.path}: the names of the columns are not UTF-8: {text[:80]!r}. Convert the "
                "file, such as with `iconv -f LATIN1 -t UTF-8`."
            )
        return names

    def batches(self, columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Yield some columns, as text, in blocks of whole rows.

        Args:
            columns: which.
            coded: those of them whose text is to come as codes.

        Raises:
            DataError: a row with too few or too many cells, or longer than a block; bytes that are
                no text; a quote that is never closed.
        """
        with files.reading(self.path, self.kind):
            watched, ragged = _Watched(self.path), _Ragged()
            rows, last, reader = 0, None, None
            try:
                reader = self._reader(watched, ragged, columns, coded)
                for batch in reader or ():
                    self._refuse(watched, ragged, reader)
                    rows += batch.num_rows
                    last = batch if batch.num_rows else last
                    yield pa.Table.from_batches([batch]).select(list(columns))
            except pa.ArrowInvalid as error:
                raise self._explained(error, rows) from None
            self._refuse(watched, ragged, reader)
            self._refuse_unclosed(watched, last, rows)

    def _reader(
        self, watched: _Watched, ragged: _Ragged, columns: Sequence[str], coded: Sequence[str]
    ) -> pyarrow.csv.CSVStreamingReader | None:
        """Return a reader of the rows, or nothing where there are none.

        The last column is always read: a quote that is never closed shows there.
        """
        types = {self.names[-1]: pa.binary()} | dict.fromkeys(columns, pa.string())
        types |= dict.fromkeys(coded, codes.TEXT)
        try:
            return pa.csv.open_csv(
                watched,
                # a single thread meets the rows in order and knows their numbers
                pa.csv.ReadOptions(
                    block_size=self.block,
                    use_threads=False,
                    column_names=None if self.has_header else self.names,
                ),
                pa.csv.ParseOptions(
                    delimiter=self._delimiter,
                    quote_char='"' if self._is_quoted else False,
                    newlines_in_values=self._is_quoted,
                    invalid_row_handler=ragged,
                ),
                pa.csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    null_values=self.nulls,
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV file" not in str(error):
                raise
            return None  # a header that no line end follows, or nothing at all

    def _refuse(
        self, watched: _Watched, ragged: _Ragged, reader: pyarrow.csv.CSVStreamingReader | None
    ) -> None:
        if watched.nul is not None:
            raise DataError(
                f"{self.path}, line {watched.line(watched.nul)} has a NUL byte (byte "
                f"{watched.nul:,} of the text), so it is damaged, or not UTF-8. Fetch the file "
                "again, or convert it."
            )
        if ragged.first is None:
            return
        for _ in reader or ():
            """Meet the other ragged rows, to count them."""
        first, row = ragged.first, ragged.first.number - self.has_header
        raise DataError(
            f"{self.path} has {ragged.count} unparsable row{'s' * (ragged.count > 1)}; the first, "
            f"row {row}, has {first.actual_columns} fields where {first.expected_columns} are "
            f"expected: {first.text[:80]!r}. Mend the file, or set the source's `format:` if it is "
            f"not {self.kind}."
        )

    def _explained(self, error: pa.ArrowInvalid, rows: int) -> DataError | pa.ArrowInvalid:
        """Return what is wrong after so many rows, if it is known."""
        if "invalid UTF8" in str(error):
            return self._undecodable()
        if "straddling" in str(error):
            return DataError(
                f"{self.path}: row {rows + 1}, or one soon after it, is longer than "
                f"{self.block:,} bytes. Look for a quote that is never closed, or for lines that "
                "do not end."
            )
        return error

    def _undecodable(self) -> DataError:
        """Return the error that names the first line that is not UTF-8."""
        decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
        with _open(self.path) as stream:
            while data := stream.read(_HEAD):
                waiting = decoder.getstate()[0]
                try:
                    decoder.decode(data)
                except UnicodeDecodeError as error:
                    line += (waiting + data)[: error.start].count(b"\n")
                    bad = (waiting + data)[error.start : error.start + 1]
                    break
                line += data.count(b"\n")
            else:
                bad = b""
        return DataError(
            f"{self.path}, line {line}: the byte {bad!r} is no UTF-8. Text must be UTF-8; convert "
            "the file, such as with `iconv -f LATIN1 -t UTF-8`."
        )

    def _refuse_unclosed(self, watched: _Watched, last: pa.RecordBatch | None, rows: int) -> None:
        """Refuse a last cell that goes on over the end of its line and ends without a quote."""
        if last is None or not self._is_quoted or watched.end == b'"':
            return
        cell = last.column(self.names[-1])[-1].as_py() or ""
        text = cell if isinstance(cell, str) else cell.decode("utf-8", "replace")
        if len(text.splitlines()) > 1:
            raise DataError(
                f"{self.path}, column {self.names[-1]!r}, row {rows}: a quote is opened and never "
                f"closed: {text[:80]!r}. Close it, or double it where it is part of the text."
            )


class _Ragged:
    """Counts the rows with another number of cells than the header, and keeps the first."""

    def __init__(self) -> None:
        self.first: pyarrow.csv.InvalidRow | None = None
        self.count = 0

    def __call__(self, row: pyarrow.csv.InvalidRow) -> str:
        self.first = self.first or row
        self.count += 1
        return "skip"


class _Watched(io.RawIOBase):
    """The bytes of a text file as they go by: where the first NUL is, and how they end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = _open(path)
        self._read = 0
        self.nul: int | None = None
        self.end = b""

    def readable(self) -> bool:
        """Say that this is for reading, as Arrow asks."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, and look at them."""
        data: bytes = self._stream.read(size)
        if self.nul is None and (at := data.find(b"\0")) >= 0:
            self.nul = self._read + at
        self._read += len(data)
        self.end = data[-_TAIL:].rstrip()[-1:] or self.end
        return data

    def line(self, byte: int) -> int:
        """Return the number, from 1, of the line that has a byte of the text."""
        with _open(self._path) as stream:
            return int(stream.read(byte).count(b"\n")) + 1

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()


def _open(path: Path) -> pa.NativeFile:
    """Open a file, decompressed if its name ends in .gz."""
    if path.suffix == ".gz":
        with path.open("rb") as file:
            start = file.read(2)
        if start not in (b"", b"\x1f\x8b"):
            raise DataError(
                f"{path} is no gzip file, though its name ends in .gz. Fetch it again, or give it "
                "the name of what it is."
            )
    return pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None)
