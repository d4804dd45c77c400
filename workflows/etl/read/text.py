"""Delimited text in blocks of whole rows, every cell as text; a row that does not fit is shown."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from workflows.etl.read import files
from workflows.etl.read.dialect import Dialect
from workflows.etl.read.encodings import doubts, name_of, undecodable
from workflows.etl.read.streams import UNIT, Unpacked, Watched, opened
from workflows.ground.errors import DataError
from workflows.raw import dictionaries

#: So much is read to see what a file is, and how its columns are called.
_HEAD = 1 << 20
#: Stands for the character between two cells where that is part of a name; no text has it.
_STAND_IN = "\ufffe"
#: What columns of logs are called.
_NAMELIKE = re.compile(
    r"(?i:([\w.:-]*[ _.:-])?(user|item|rating|timestamp|datetime|date|time|name|title|id))"
    r"|(?i:(user|item|movie|product|visitor|session|customer|article|track|book|event)id)"
    r"|[a-z]+I[dD]"
)
#: In so many rows a name of a column is looked for among its values.
_LOOKED = 10_000


class TextFile:
    """A csv or tsv file, perhaps packed.

    Args:
        path: the path of the file.
        dialect: how it is written.
        block: bytes that are read at a time; no row may be longer.

    Attributes:
        path: the path of the file.
        names: the names of its columns.
        lists: names of columns that hold lists already: none.
        about: how many rows there may be, by the lines that the file begins with; of a packed file
            at least so many.
        is_bare: whether the file has no row.
        notes: sentences on what looks wrong, as far as the file was read.

    Raises:
        DataError: the file is missing, no text, or in another encoding; its first row is not what
            it should be.
    """

    def __init__(self, path: Path, dialect: Dialect, *, block: int) -> None:
        self.path = path
        self.dialect = dialect
        self.block = block
        self.lists: frozenset[str] = frozenset()
        self.names: list[str] = list(dialect.columns)
        self.about = 0
        self.notes: list[str] = []
        head = self._head()
        self._doubts = doubts(path, dialect.encoding, head)
        self.is_bare = not head
        if head:
            lines = max(head.count(b"\n"), head.count(b"\r"))
            self.about = lines * path.stat().st_size // len(head)
            self._read_names(head)

    @property
    def has_header(self) -> bool:
        """Whether the first row is the names."""
        return not self.dialect.columns

    def _head(self) -> bytes:
        """Return how the file begins, blank lines left out, after a look at what it is."""
        with files.reading(self.path, self.dialect.kind), opened(self.path) as stream:
            head = stream.read(_HEAD)
            while head and not head.strip():
                head = stream.read(_HEAD)
        files.refuse_other(self.path, self.dialect.kind, head, self.dialect.encoding)
        return bytes(head)

    def _read_names(self, head: bytes) -> None:
        """Take the names from the first row that is not blank, or compare it with them."""
        try:
            text = codecs.getincrementaldecoder(self.dialect.encoding)("replace").decode(head)
        except UnicodeError:
            raise self._undecodable() from None
        text = text.removeprefix("\ufeff")
        if self.dialect.between != self.dialect.delimiter:
            text = text.replace(self.dialect.between, _STAND_IN)
            text = text.replace(self.dialect.delimiter, self.dialect.between)
        try:
            lines = re.split("[\r\n]+", text.strip("\r\n"), maxsplit=1)
            rows = self.dialect.rows(io.StringIO(text, newline=""))
            names = [] if "\0" in lines[0] else next(rows)
            names = [name.replace(_STAND_IN, self.dialect.between) for name in names]
            is_alone = len(head) < _HEAD and not "".join(lines[1:]).strip("\r\n")
            self.is_bare = self.has_header and is_alone
        except csv.Error as error:
            raise DataError(
                f"{self.path}: the first row cannot be read as the names of columns ({error}). "
                f"Mend the file, or set the source's `format:` if it is not {self.dialect.kind}."
            ) from None
        if not names or any("\ufffd" in name for name in names):
            raise DataError(
                f"{self.path}: the first row is no {name_of(self.dialect.encoding)}: "
                f"{text[:80]!r}. Set the source's `encoding:`, such as latin-1, cp1252 or utf-16, "
                "or convert the file."
            )
        if self.has_header:
            self.names = names
        elif self.dialect.kind != "aliccp":  # its lines are looked at by their reader
            self._refuse_other_names(names)

    def _refuse_other_names(self, first: list[str]) -> None:
        """Refuse a first row that is the names, or has another number of cells."""
        if [cell.strip().lower() for cell in first] == [name.lower() for name in self.names]:
            raise DataError(
                f"{self.path} begins with a row of names, and the source names them in `columns:`, "
                "which is for files without one. Leave `columns:` out."
            )
        if len(first) > 1 and all(_NAMELIKE.fullmatch(cell.strip()) for cell in first):
            raise DataError(
                f"{self.path}: the first row looks like the names of the columns, "
                f"{', '.join(map(repr, first))[:80]}, and would be read as data, because the "
                "source names them in `columns:`, which is for files without such a row. Use "
                "`rename:` in its place."
            )
        if len(first) != len(self.names):
            raise DataError(
                f"{self.path}: the first row has {len(first)} cells, and the source's `columns:` "
                f"names {len(self.names)}: {', '.join(map(repr, first))[:80]}. Name each column, "
                "also those that are not needed, or set the source's `delimiter:`."
            )

    def echoes(self, names: Sequence[str]) -> set[str]:
        """Return those names of columns that are a value of their column, too, near the beginning.

        Args:
            names: which to look for.
        """
        if not names:
            return set()
        places = {name: self.names.index(name) for name in names}
        found = set()
        with contextlib.suppress(csv.Error), self._until(_HEAD) as stream:
            lines = io.TextIOWrapper(stream, "utf-8-sig", "replace", newline="")
            for row in itertools.islice(self.dialect.rows(lines), 1, _LOOKED):
                found |= {n for n, at in places.items() if at < len(row) and row[at] == n}
        return found

    def batches(self, columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Yield some columns, as text, in blocks of whole rows.

        Args:
            columns: which.
            coded: those columns whose text comes as codes.

        Raises:
            DataError: a row with too few or too many cells, or longer than a block; bytes that are
                no text; a quote that is never closed, or that text follows.
        """
        self.notes[:] = self._doubts
        with files.reading(self.path, self.dialect.kind):
            watched, ragged = self.dialect.watched(self.path), _Ragged()
            rows, reader = 0, None
            try:
                reader = self._reader(watched, ragged, columns, coded)
                for batch in reader or ():
                    self._refuse(watched, ragged, reader)
                    rows += batch.num_rows
                    table = pa.Table.from_batches([batch]).select(list(columns))
                    self._refuse_names_again(table, rows - batch.num_rows)
                    yield _with_units(table) if watched.has_units else table
            except UnicodeError:
                raise self._undecodable() from None
            except pa.ArrowInvalid as error:
                self._refuse(watched, ragged, None)
                raise self._explained(error, rows) from None
            self._refuse(watched, ragged, reader)
            if watched.quotes and watched.quotes.is_open:
                raise self._unclosed()
            if watched.quotes and watched.quotes.is_met and watched.lines > rows + self.has_header:
                self._look_for_rows_in_cells()

    def _refuse_names_again(self, table: pa.Table, before: int) -> None:
        """Refuse a row that has the names of the columns: files were written behind one another.

        Args:
            table: some columns of the next rows.
            before: rows of the file that stand before them.
        """
        same: pa.ChunkedArray | None = None
        is_looked_at = self.has_header and len(table.column_names) > 1
        for name in table.column_names if is_looked_at else ():
            column = table[name]
            if pa.types.is_dictionary(column.type):
                codes_of = [pc.index(chunk.dictionary, name).as_py() for chunk in column.chunks]
                if all(code < 0 for code in codes_of):
                    return
                column = column.cast(pa.string())
            found = pc.equal(column, name)
            same = found if same is None else pc.and_(same, found)
            if not pc.any(same).as_py():
                return
        if same is not None:
            row = before + pc.index(same, True).as_py() + 1
            raise DataError(
                f"{self.path}, row {row} has the names of the columns again: files seem to have "
                "been written behind one another. Remove such rows."
            )

    def _look_for_rows_in_cells(self) -> None:
        """Note cells that hold whole rows, where all cells of several lines look like that.

        Two quotes that are missing, one to close a cell and one to open another, make one cell of
        all rows between, and no parser can tell it from a text of several lines. A text has lines
        that look otherwise.
        """
        watched, before, found = self.dialect.watched(self.path), 0, list[tuple[int, str]]()
        for batch in self._reader(watched, _Ragged(), self.names, ()) or ():
            for at in range(batch.num_columns):
                cells = batch.column(at)
                rows = np.flatnonzero(pc.match_substring_regex(cells, "[\r\n]").fill_null(False))
                for row, text in zip(rows, cells.take(pa.array(rows)).to_pylist(), strict=True):
                    if not self._holds_rows(text, at):
                        return
                    found.append((before + int(row) + 1, self.names[at]))
            before += batch.num_rows
        if found:
            row, name = min(found)
            self.notes.append(
                f"{self.path}: {len(found)} quoted cells go over several lines that look like rows "
                f"of the file; the first is column {name!r}, row {row}. If a quote is missing "
                "there, these rows are lost: close it, or set the source's `quote: ''` if quotes "
                "mean nothing in the file."
            )

    def _holds_rows(self, text: str, column: int) -> bool:
        """Say whether each line of a cell but the first has as many cells as a row there has."""
        lines = re.split("\r\n|[\r\n]", text)
        cells = [line.count(self.dialect.between) for line in lines[1:]]
        whole = [len(self.names) - 1] * (len(cells) - 1)
        return cells == [*whole, column] and len(self.names) > 1 and (column > 0 or bool(whole))

    def _reader(
        self, watched: Watched, ragged: _Ragged, columns: Sequence[str], coded: Sequence[str]
    ) -> pyarrow.csv.CSVStreamingReader | None:
        """Return a reader of the rows, or nothing where there are none."""
        types = dict.fromkeys(columns, pa.string()) | dict.fromkeys(coded, dictionaries.TEXT)
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
                    delimiter=self.dialect.between,
                    quote_char=self.dialect.quote or False,
                    escape_char=self.dialect.escape or False,
                    newlines_in_values=bool(self.dialect.quote),
                    invalid_row_handler=ragged,
                ),
                pa.csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    null_values=list(self.dialect.nulls),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV file" not in str(error):
                raise
            return None  # a header that no line end follows, or nothing at all

    def _refuse(
        self, watched: Watched, ragged: _Ragged, reader: pyarrow.csv.CSVStreamingReader | None
    ) -> None:
        if watched.nul is not None:
            line = _lines(self._until(watched.nul)) + 1
            raise DataError(
                f"{self.path}, line {line} has a NUL byte (byte {watched.nul:,} of the text), so "
                "it is damaged, or in another encoding than the source's `encoding:` says. Fetch "
                "the file again, or convert it."
            )
        if watched.quotes and watched.quotes.fault is not None:
            raise self._behind_quote(watched.quotes.fault)
        if ragged.first is None:
            return
        for _ in reader or ():
            """Meet the other ragged rows, to count them."""
        first, row = ragged.first, ragged.first.number - self.has_header
        text = first.text.replace(self.dialect.between, self.dialect.delimiter)
        raise DataError(
            f"{self.path} has {ragged.count} unparsable row{'s' * (ragged.count > 1)}; the first, "
            f"row {row}, has {first.actual_columns} fields where {first.expected_columns} are "
            f"expected: {text[:80]!r}. Mend the file, or set the source's `format:` or "
            f"`delimiter:` if it is not {self.dialect.kind}.{self._escape_hint(text)}"
        )

    def _escape_hint(self, text: str) -> str:
        if self.dialect.escape or '\\"' not in text:
            return ""
        return " Where a backslash makes a quote part of the text, set the source's `escape: '\\'`."

    def _behind_quote(self, place: int) -> DataError:
        """Return the error that names a cell that goes on behind its closing quote.

        Args:
            place: the place of the closing quote in the bytes that are parsed.
        """
        row, cells = self._row_of(place)
        behind = self._from(place).decode("utf-8", "replace")
        begin = cells[-1] if cells else ""
        shown = begin if len(begin) < 60 else begin[:30] + " … " + begin[-30:]
        hint = self._escape_hint(begin[-1:] + behind)
        return DataError(
            f"{self.path}, {self._named(cells)}row {row}: text stands behind the closing quote of "
            f"a cell: {self.dialect.quote + shown + behind!r}. Either a quote before it is not "
            "closed, so that rows would be lost, or a quote within the text is not doubled. Mend "
            f"the file, or set the source's `quote: ''` if quotes mean nothing in it.{hint}"
        )

    def _unclosed(self) -> DataError:
        row, cells = self._row_of(None)
        text = cells[-1] if cells else ""
        return DataError(
            f"{self.path}, {self._named(cells)}row {row}: a quote is opened and never closed: "
            f"{text[:80]!r}. Close it, double it where it is part of the text, or set the source's "
            "`quote: ''` if quotes mean nothing in the file."
        )

    def _named(self, cells: Sequence[str]) -> str:
        """Name the column of the last of some cells, for messages."""
        known = 0 < len(cells) <= len(self.names)
        return f"column {self.names[len(cells) - 1]!r}, " if known else ""

    def _row_of(self, place: int | None) -> tuple[int, list[str]]:
        """Return the number of the row with a byte inside a quoted cell, and its cells so far."""
        row, cells = -int(self.has_header), []
        lines = io.TextIOWrapper(self._until(place), "utf-8", "replace", newline="")
        try:
            for found in self.dialect.rows(lines):
                row, cells = row + 1, found
        except csv.Error:  # a cell longer than this module takes
            row, cells = row + 1, []
        return row, cells

    def _from(self, place: int) -> bytes:
        """Return some bytes of the file, from a place on, up to the end of the line."""
        with self._until(place + 40) as stream:
            left = place
            while left:
                left -= len(stream.read(min(left, _HEAD)))
            return re.split(rb"[\r\n]", stream.read(), maxsplit=1)[0]

    def _until(self, place: int | None) -> io.BufferedReader:
        """Open the file as it is parsed, up to a byte."""
        plain = Watched(self.path, self.dialect.encoding, self.dialect.delimiter)
        return io.BufferedReader(_Beginning(plain, place))

    def _explained(self, error: pa.ArrowInvalid, rows: int) -> DataError | pa.ArrowInvalid:
        """Return what is wrong after so many rows, if it is known."""
        # a row that is no text cannot be shown to `_Ragged`, so Arrow ends
        if "invalid UTF8" in str(error) or "CSV parse error" in str(error):
            return self._undecodable()
        if "straddling" in str(error):
            return DataError(
                f"{self.path}: row {rows + 1}, or one soon after it, is longer than "
                f"{self.block:,} bytes. Look for a quote that is never closed, or for lines that "
                "do not end."
            )
        return error

    def _undecodable(self) -> DataError:
        """Return the error that names the first line that is no text in the encoding."""
        return undecodable(self.path, self.dialect.encoding)


def _with_units(table: pa.Table) -> pa.Table:
    """Put the character back that stands for the delimiter while a text is parsed."""
    for at, name in enumerate(table.column_names):
        made = dictionaries.map_distinct(
            table[name], lambda text: pc.replace_substring(text, "\0", UNIT.decode())
        )
        table = table.set_column(at, name, made)
    return table


def _lines(stream: io.BufferedReader) -> int:
    """Count the line ends of a text."""
    with stream:
        return sum(data.count(b"\n") for data in iter(lambda: stream.read(_HEAD), b""))


class _Beginning(io.RawIOBase):
    """The first bytes of a text."""

    def __init__(self, stream: Unpacked, size: int | None) -> None:
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


class _Ragged:
    """Counts the rows with another number of cells than the header, and keeps the first."""

    def __init__(self) -> None:
        self.first: pyarrow.csv.InvalidRow | None = None
        self.count = 0

    def __call__(self, row: pyarrow.csv.InvalidRow) -> str:
        self.first = self.first or row
        self.count += 1
        return "skip"


def _unheard(told: sys.UnraisableHookArgs, *, otherwise: Any = sys.unraisablehook) -> None:
    """Say nothing of a row that Arrow could not show to `_Ragged`: `_explained` tells of it."""
    if not isinstance(told.object, _Ragged):
        otherwise(told)


sys.unraisablehook = _unheard
