"""Find the place of a fault in a delimited text file, and explain it in an error message.

Arrow's csv parser reports little about a fault, so the beginning of the file is parsed again by
Python's slow csv module to find the row and the column.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from workflows.ground.errors import DataError
from workflows.read.dialect import Dialect
from workflows.read.encodings import decoding_error
from workflows.read.streams import CheckedStream, UnpackedStream

#: Number of bytes of a csv file that are read at a time to find a fault.
_STEP = 1 << 20


class RaggedRows:
    """A function that Arrow calls for csv rows with a wrong number of cells: it counts the rows."""

    def __init__(self) -> None:
        self.first: pyarrow.csv.InvalidRow | None = None
        self.count = 0

    def __call__(self, row: pyarrow.csv.InvalidRow) -> str:
        """Count a csv row with a wrong number of cells, and make Arrow skip it."""
        self.first = self.first or row
        self.count += 1
        return "skip"


@dataclass(frozen=True)
class TextFaults:
    """Makes the error messages for the faults of one delimited text file.

    Attributes:
        path: path of the raw file.
        dialect: syntax of the file.
        names: names of the file's columns.
        has_header: whether the first row of the file holds the names of the columns.
    """

    path: Path
    dialect: Dialect
    names: Sequence[str]
    has_header: bool

    def nul(self, place: int) -> DataError:
        """Return the error for a NUL byte in a csv or tsv file, which names its line and position.

        Args:
            place: position of the NUL byte in the text that is parsed.
        """
        with open_until(self.path, self.dialect, place) as stream:
            line = 1 + sum(data.count(b"\n") for data in iter(lambda: stream.read(_STEP), b""))
        return DataError(
            f"{self.path}, line {line} has a NUL byte (byte {place:,} of the text), so it is "
            "damaged, or in another encoding than the source's `encoding:` says. Fetch the file "
            "again, or convert it."
        )

    def ragged(self, rows: RaggedRows) -> DataError:
        """Return the error for csv rows with too few or too many cells."""
        first = rows.first
        assert first is not None
        text = first.text.replace(self.dialect.parsed_delimiter, self.dialect.delimiter)
        return DataError(
            f"{self.path} has {rows.count} unparsable row{'s' * (rows.count > 1)}; the first, row "
            f"{first.number - self.has_header}, has {first.actual_columns} fields where "
            f"{first.expected_columns} are expected: {text[:80]!r}. Correct the file, or set the "
            f"source's `format:` or `delimiter:` if it is not {self.dialect.kind}."
            f"{self._escape_hint(text)}"
        )

    def text_after_quote(self, place: int) -> DataError:
        """Return the error for a csv cell that continues after its closing quote.

        Args:
            place: position of the closing quote in the text that is parsed.
        """
        row, cells = self._row_at(place)
        after = self._rest_of_line(place).decode("utf-8", "replace")
        begin = cells[-1] if cells else ""
        shown = begin if len(begin) < 60 else begin[:30] + " … " + begin[-30:]
        hint = self._escape_hint(begin[-1:] + after)
        return DataError(
            f"{self.path}, {self._column_of(cells)}row {row}: text follows the closing quote of a "
            f"cell: {self.dialect.quote + shown + after!r}. Either an earlier quote is not closed, "
            "so that rows would be lost, or a quote within the text is not doubled. Correct the "
            f"file, or set the source's `quote: ''` if quotes have no meaning in it.{hint}"
        )

    def unclosed_quote(self) -> DataError:
        """Return the error for a quote that is still open at the end of the csv file."""
        row, cells = self._row_at(None)
        text = cells[-1] if cells else ""
        return DataError(
            f"{self.path}, {self._column_of(cells)}row {row}: a quote is opened and never closed: "
            f"{text[:80]!r}. Close it, double it where it is part of the text, or set the source's "
            "`quote: ''` if quotes have no meaning in the file."
        )

    def of_arrow(
        self, error: pa.ArrowInvalid, rows: int, block: int
    ) -> DataError | pa.ArrowInvalid:
        """Return an error that explains why Arrow cannot parse the csv file, or Arrow's error.

        Args:
            error: error of Arrow's csv parser.
            rows: number of rows that were read before the fault.
            block: bytes that are read at a time.
        """
        # Arrow stops at a row that is not UTF-8, because it cannot pass it to RaggedRows
        if "invalid UTF8" in str(error) or "CSV parse error" in str(error):
            return decoding_error(self.path, self.dialect.encoding)
        if "straddling" in str(error):
            return self.long_row(rows, block)
        return error

    def long_row(self, rows: int, block: int) -> DataError:
        """Return the error for a csv row that is longer than a block of bytes.

        Args:
            rows: number of rows that were read before the fault.
            block: bytes that are read at a time.
        """
        return DataError(
            f"{self.path}: row {rows + 1}, or one soon after it, is longer than {block:,} "
            "bytes. Look for a quote that is never closed, or for lines that do not end."
        )

    def _escape_hint(self, text: str) -> str:
        if self.dialect.escape or '\\"' not in text:
            return ""
        return " Where a backslash makes a quote part of the text, set the source's `escape: '\\'`."

    def _column_of(self, cells: Sequence[str]) -> str:
        """Return a text that names the column of the last cell, given the first cells of a row."""
        known = 0 < len(cells) <= len(self.names)
        return f"column {self.names[len(cells) - 1]!r}, " if known else ""

    def _row_at(self, place: int | None) -> tuple[int, list[str]]:
        """Return the number of the csv row at a byte position, and the row's cells up to it."""
        row, cells = -int(self.has_header), []
        stream = open_until(self.path, self.dialect, place)
        lines = io.TextIOWrapper(stream, "utf-8", "replace", newline="")
        try:
            for found in self.dialect.rows(lines):
                row, cells = row + 1, found
        except csv.Error:  # the cell is longer than Python's csv module accepts
            row, cells = row + 1, []
        return row, cells

    def _rest_of_line(self, place: int) -> bytes:
        """Return at most 40 bytes of the csv text, from a byte position to the line's end."""
        with open_until(self.path, self.dialect, place + 40) as stream:
            left = place
            while left:
                left -= len(stream.read(min(left, _STEP)))
            return re.split(rb"[\r\n]", stream.read(), maxsplit=1)[0]


def open_until(path: Path, dialect: Dialect, place: int | None) -> io.BufferedReader:
    """Open a csv or tsv file as a stream that ends after a number of bytes.

    Args:
        path: path of the raw file.
        dialect: syntax of the file.
        place: number of bytes of the decompressed UTF-8 text; None for all.
    """
    plain = CheckedStream(path, dialect.encoding, dialect.delimiter)
    return io.BufferedReader(_FirstBytes(plain, place))


class _FirstBytes(io.RawIOBase):
    """A stream of the first bytes of another stream, which ends after a given number of bytes."""

    def __init__(self, stream: UnpackedStream, size: int | None) -> None:
        self._stream = stream
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = len(buffer) if self._left is None else min(len(buffer), self._left)
        data = self._stream.read(size)
        buffer[: len(data)] = data
        if self._left is not None:
            self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _ignore_ragged_rows(
    problem: sys.UnraisableHookArgs, *, otherwise: Any = sys.unraisablehook
) -> None:
    """Keep Python from printing an error of RaggedRows; `TextFaults.of_arrow` reports it."""
    if not isinstance(problem.object, RaggedRows):
        otherwise(problem)


sys.unraisablehook = _ignore_ragged_rows
