"""Read delimited text (csv, tsv) in blocks of whole rows, with every cell as text.

Python's csv module reads the header of a file; Arrow's csv parser reads the rows.
"""

from __future__ import annotations

import codecs
import contextlib
import copy
import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from workflows.ground.errors import DataError
from workflows.raw import dictionaries
from workflows.read import files
from workflows.read.dialect import Dialect
from workflows.read.encodings import decoding_error, encoding_name, encoding_warnings
from workflows.read.streams import UNIT, CheckedStream, is_packed, is_utf8, open_unpacked
from workflows.read.text_faults import RaggedRows, TextFaults, open_until

#: Number of bytes of a csv or tsv file that are read to recognise it and to find its column names.
_HEAD = 1 << 20
#: A character that texts do not have; it replaces the parsed delimiter within a column name.
_STAND_IN = "\ufffe"
#: Usual column names of logs: a first row with only such cells looks like a header.
_NAMELIKE = re.compile(
    r"(?i:([\w.:-]*[ _.:-])?(user|item|rating|timestamp|datetime|date|time|name|title|id))"
    r"|(?i:(user|item|movie|product|visitor|session|customer|article|track|book|event)id)"
    r"|[a-z]+I[dD]"
)
#: Number of rows of a csv file in which a column's name is searched for among the column's values.
_LOOKED = 10_000


class UnsafePiece(Exception):
    """A piece of a file has quotes, so that its lines may not be rows: read the file as a whole."""


class TextFile:
    """A raw csv or tsv file, compressed or not.

    Args:
        path: path of the raw file.
        dialect: syntax of the file.
        block: number of bytes of the file that are read at a time; no row may be longer.

    Attributes:
        path: path of the raw file.
        names: names of the file's columns.
        lists: names of the file's columns whose cells are lists; always empty for csv and tsv.
        approximate_rows: estimated number of rows, from the lines at the beginning of the file; for
            a packed file it is a lower bound.
        is_empty: whether the file has no rows.
        notes: warnings about the part of the file that was read so far.

    Raises:
        DataError: the file is missing, is not text, or is in another encoding; or its first row
            does not fit the recipe.
    """

    def __init__(self, path: Path, dialect: Dialect, *, block: int) -> None:
        self.path = path
        self.dialect = dialect
        self.block = block
        self.lists: frozenset[str] = frozenset()
        self.names: list[str] = list(dialect.columns)
        self.approximate_rows = 0
        self.notes: list[str] = []
        self._span: tuple[int, int] | None = None
        head = self._head()
        self._encoding_warnings = encoding_warnings(path, dialect.encoding, head)
        self.is_empty = not head
        if head:
            lines = max(head.count(b"\n"), head.count(b"\r"))
            self.approximate_rows = lines * path.stat().st_size // len(head)
            self._read_names(head)

    @property
    def has_header(self) -> bool:
        """Whether the first row of the csv or tsv file holds the names of the columns."""
        return not self.dialect.columns

    @property
    def is_piece(self) -> bool:
        """Whether the object reads a piece of the file, and not the whole file."""
        return self._span is not None

    def pieces(self, size: int) -> list[TextFile]:
        """Return readers of consecutive pieces of the file, which can be read at the same time.

        A piece ends where a line ends. Whether each line is a row is not known before the text is
        read, because a quoted cell may span several lines: a piece with a quote character raises
        `UnsafePiece`, and the file has to be read as a whole. The names of rows in messages of a
        piece are counted from the beginning of the piece.

        Args:
            size: least number of bytes of a piece.
        """
        simple = is_utf8(self.dialect.encoding) and len(self.dialect.delimiter.encode()) == 1
        if not simple or self.dialect.escape or is_packed(self.path):
            return [self]
        if self.dialect.quote and self.dialect.quote.encode() in self._head():
            return [self]
        cuts = _line_starts(self.path, size)
        if len(cuts) < 3:
            return [self]
        found = []
        for span in itertools.pairwise(cuts):
            piece = copy.copy(self)
            piece._span, piece.notes = span, []
            if span[0]:
                piece._encoding_warnings = []
            found.append(piece)
        return found

    @property
    def _faults(self) -> TextFaults:
        return TextFaults(self.path, self.dialect, self.names, self.has_header)

    def _head(self) -> bytes:
        """Return the first bytes of the csv or tsv file; refuse a file of another format."""
        with files.reading(self.path, self.dialect.kind), open_unpacked(self.path) as stream:
            head = stream.read(_HEAD)
            while head and not head.strip():
                head = stream.read(_HEAD)
        files.refuse_other(self.path, self.dialect.kind, head, self.dialect.encoding)
        return bytes(head)

    def _read_names(self, head: bytes) -> None:
        """Read the column names from the csv header, or compare the first row with `columns:`."""
        text = self._decode(head)
        try:
            lines = re.split("[\r\n]+", text.strip("\r\n"), maxsplit=1)
            rows = self.dialect.rows(io.StringIO(text, newline=""))
            names = [] if "\0" in lines[0] else next(rows)
            names = [name.replace(_STAND_IN, self.dialect.parsed_delimiter) for name in names]
            is_alone = len(head) < _HEAD and not "".join(lines[1:]).strip("\r\n")
            self.is_empty = self.has_header and is_alone
        except csv.Error as error:
            raise DataError(
                f"{self.path}: the first row cannot be read as the names of columns ({error}). "
                f"Correct the file, or set the source's `format:` if it is not {self.dialect.kind}."
            ) from None
        if not names or any("\ufffd" in name for name in names):
            raise DataError(
                f"{self.path}: the first row is not {encoding_name(self.dialect.encoding)}: "
                f"{text[:80]!r}. Set the source's `encoding:`, such as latin-1, cp1252 or utf-16, "
                "or convert the file."
            )
        if self.has_header:
            self.names = names
        elif self.dialect.kind != "aliccp":  # aliccp.py checks its own lines
            self._refuse_other_names(names)

    def _decode(self, head: bytes) -> str:
        """Decode the file's first bytes, and replace a delimiter of several bytes by `UNIT`."""
        try:
            text = codecs.getincrementaldecoder(self.dialect.encoding)("replace").decode(head)
        except UnicodeError:
            raise decoding_error(self.path, self.dialect.encoding) from None
        text = text.removeprefix("\ufeff")
        if self.dialect.parsed_delimiter != self.dialect.delimiter:
            text = text.replace(self.dialect.parsed_delimiter, _STAND_IN)
            text = text.replace(self.dialect.delimiter, self.dialect.parsed_delimiter)
        return text

    def _refuse_other_names(self, first: list[str]) -> None:
        """Raise an error if the first csv row looks like a header or does not fit `columns:`."""
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
                "`rename:` instead."
            )
        if len(first) != len(self.names):
            raise DataError(
                f"{self.path}: the first row has {len(first)} cells, and the source's `columns:` "
                f"names {len(self.names)}: {', '.join(map(repr, first))[:80]}. Name each column, "
                "also those that are not needed, or set the source's `delimiter:`."
            )

    def names_among_values(self, names: Sequence[str]) -> set[str]:
        """Return the column names that also occur as values in the first rows of the csv file.

        Args:
            names: the column names; each is looked for among the values of its own column.
        """
        if not names:
            return set()
        places = {name: self.names.index(name) for name in names}
        found = set()
        beginning = open_until(self.path, self.dialect, _HEAD)
        with contextlib.suppress(csv.Error), beginning as stream:
            lines = io.TextIOWrapper(stream, "utf-8-sig", "replace", newline="")
            for row in itertools.islice(self.dialect.rows(lines), 1, _LOOKED):
                found |= {n for n, at in places.items() if at < len(row) and row[at] == n}
        return found

    def batches(
        self, columns: Sequence[str], as_dictionary: Sequence[str] = ()
    ) -> Iterator[pa.Table]:
        """Yield the requested columns of the csv or tsv file, as text, in blocks of rows.

        Args:
            columns: names of the columns of the file to read.
            as_dictionary: names of the columns whose text is returned as Arrow dictionaries.

        Raises:
            DataError: a row has too few or too many cells, or is longer than a block; or bytes
                cannot be decoded; or a quote is not closed, or text follows the closing quote.
        """
        self.notes[:] = self._encoding_warnings
        with files.reading(self.path, self.dialect.kind):
            stream, ragged = self.dialect.open(self.path, self._span), RaggedRows()
            rows, reader = 0, None
            try:
                reader = self._reader(stream, ragged, columns, as_dictionary)
                for batch in reader or ():
                    self._refuse_faults(stream, ragged, reader)
                    rows += batch.num_rows
                    table = pa.Table.from_batches([batch]).select(list(columns))
                    self._refuse_repeated_header(table, rows - batch.num_rows)
                    yield _with_units(table) if stream.has_units else table
            except UnicodeError:
                raise decoding_error(self.path, self.dialect.encoding) from None
            except pa.ArrowInvalid as error:
                self._refuse_faults(stream, ragged, None)
                raise self._faults.of_arrow(error, rows, self.block) from None
            self._refuse_faults(stream, ragged, reader)
            if stream.quotes and stream.quotes.is_open:
                raise self._faults.unclosed_quote()
            if stream.quotes and stream.quotes.has_quotes and stream.lines > rows + self.has_header:
                self._note_rows_in_cells()

    def _reader(
        self,
        stream: CheckedStream,
        ragged: RaggedRows,
        columns: Sequence[str],
        as_dictionary: Sequence[str],
    ) -> pyarrow.csv.CSVStreamingReader | None:
        """Return Arrow's csv reader of the rows of the file; None if it has no rows."""
        types = dict.fromkeys(columns, pa.string())
        types |= dict.fromkeys(as_dictionary, dictionaries.TEXT)
        is_later = self._span is not None and self._span[0] > 0
        try:
            return pa.csv.open_csv(
                stream,
                # with a single thread Arrow reads the rows in order and knows their numbers
                pa.csv.ReadOptions(
                    block_size=self.block,
                    use_threads=False,
                    column_names=None if self.has_header and not is_later else self.names,
                ),
                pa.csv.ParseOptions(
                    delimiter=self.dialect.parsed_delimiter,
                    quote_char=self.dialect.quote or False,
                    escape_char=self.dialect.escape or False,
                    newlines_in_values=bool(self.dialect.quote) and not self.is_piece,
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
            if not self.is_empty:
                raise self._faults.long_row(0, self.block) from None
            return None  # the file is empty, or has only a header without a line end

    def _refuse_faults(
        self,
        stream: CheckedStream,
        ragged: RaggedRows,
        reader: pyarrow.csv.CSVStreamingReader | None,
    ) -> None:
        """Raise an error if the csv text that was read so far has a fault, such as a NUL byte."""
        if self.is_piece and stream.quotes and stream.quotes.has_quotes:
            raise UnsafePiece(f"{self.path} has quotes")
        if stream.nul is not None:
            raise self._faults.nul(stream.nul)
        if stream.quotes and stream.quotes.fault is not None:
            raise self._faults.text_after_quote(stream.quotes.fault)
        if ragged.first is not None:
            for _ in reader or ():
                """Read the rest, so that all ragged rows are counted."""
            raise self._faults.ragged(ragged)

    def _refuse_repeated_header(self, table: pa.Table, before: int) -> None:
        """Raise an error if a later csv row repeats the header, as in concatenated files.

        Args:
            table: some columns of the next rows.
            before: number of rows of the file before these.
        """
        same: pa.ChunkedArray | None = None
        is_checked = self.has_header and len(table.column_names) > 1
        for name in table.column_names if is_checked else ():
            column = table[name]
            if pa.types.is_dictionary(column.type):
                places = [pc.index(chunk.dictionary, name).as_py() for chunk in column.chunks]
                if all(place < 0 for place in places):
                    return
                column = column.cast(pa.string())
            found = pc.equal(column, name)
            same = found if same is None else pc.and_(same, found)
            if not pc.any(same).as_py():
                return
        if same is not None:
            row = before + pc.index(same, True).as_py() + 1
            raise DataError(
                f"{self.path}, row {row} has the names of the columns again: several files seem to "
                "have been concatenated. Remove such rows."
            )

    def _note_rows_in_cells(self) -> None:
        """Add a warning if all cells with line breaks look as if they held whole rows of the file.

        If two quotes are missing in a csv file, one that closes a cell and one that opens another,
        all rows in between become one cell. A parser cannot distinguish such a cell from a text of
        several lines, but the lines of a text do not look like rows.
        """
        stream, before, found = self.dialect.open(self.path), 0, list[tuple[int, str]]()
        for batch in self._reader(stream, RaggedRows(), self.names, ()) or ():
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
                f"{self.path}: {len(found)} quoted cells span several lines that look like rows of "
                f"the file; the first is column {name!r}, row {row}. If a quote is missing there, "
                "these rows are lost: close it, or set the source's `quote: ''` if quotes have no "
                "meaning in the file."
            )

    def _holds_rows(self, text: str, column: int) -> bool:
        """Say whether the lines in a csv cell have as many delimiters as rows of the file."""
        lines = re.split("\r\n|[\r\n]", text)
        cells = [line.count(self.dialect.parsed_delimiter) for line in lines[1:]]
        whole = [len(self.names) - 1] * (len(cells) - 1)
        return cells == [*whole, column] and len(self.names) > 1 and (column > 0 or bool(whole))


def _with_units(table: pa.Table) -> pa.Table:
    """Put back the characters `UNIT` (0x1f) that CheckedStream replaced by NUL."""
    for at, name in enumerate(table.column_names):
        column = dictionaries.map_distinct(
            table[name], lambda text: pc.replace_substring(text, "\0", UNIT.decode())
        )
        table = table.set_column(at, name, column)
    return table


def _line_starts(path: Path, size: int) -> list[int]:
    """Return places in a file, at least `size` bytes apart, at which lines start; also the ends.

    A file with a very long line, as one without line ends has it, gets no places but its ends.
    """
    total = path.stat().st_size
    found = [0]
    with files.reading(path, "text"), path.open("rb") as file:
        while found[-1] + size < total:
            file.seek(found[-1] + size)
            head = file.read(_HEAD)
            at = head.find(b"\n")
            if at < 0:
                return [0, total]
            found.append(found[-1] + size + at + 1)
    return found if found[-1] == total else [*found, total]
