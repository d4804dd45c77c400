"""Define the dialect of a csv or tsv file: delimiter, quotes, escape, encoding, texts for null."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from workflows.raw.quotes import Quotes
from workflows.read.streams import UNIT, CheckedStream
from workflows.recipe import Source


@dataclass(frozen=True)
class Dialect:
    """The syntax of a csv or tsv file: delimiter, quotes, escape, encoding and texts for null.

    Attributes:
        kind: name of the format for messages, such as `csv` or `tsv`.
        delimiter: text between two cells of a row.
        quote: character around quoted cells; empty if quotes are ordinary characters.
        escape: character after which a character has no special meaning; empty for none.
        encoding: text encoding of the file, such as UTF-8.
        nulls: texts in cells that mean a missing value.
        columns: names of the columns, for files without a header row.
    """

    kind: str
    delimiter: str = ","
    quote: str = ""
    escape: str = ""
    encoding: str = "utf-8"
    nulls: tuple[str, ...] = ()
    columns: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, source: Source, kind: str) -> Dialect:
        """Return the dialect of a source's files, which are `csv` or `tsv`."""
        delimiter = source.delimiter or ("\t" if kind == "tsv" else ",")
        quote = source.quote
        if quote is None:
            quote = '"' if kind == "csv" and len(delimiter.encode()) == 1 else ""
        return cls(
            kind,
            delimiter,
            quote,
            source.escape,
            source.encoding,
            ("", *source.nulls),
            source.columns or (),
        )

    @property
    def parsed_delimiter(self) -> str:
        """The delimiter for Arrow's csv parser: one byte, which replaces a longer delimiter."""
        return self.delimiter if len(self.delimiter.encode()) == 1 else UNIT.decode()

    def open(self, path: Path, span: tuple[int, int] | None = None) -> CheckedStream:
        """Open a csv or tsv file as a stream that looks for NUL bytes and unclosed quotes.

        Args:
            path: path of the file.
            span: the first byte to read and the byte after the last; None for the whole file.
        """
        quotes = None
        if self.quote:
            marks = (self.parsed_delimiter, self.quote, self.escape)
            quotes = Quotes(*(mark.encode() for mark in marks))
        return CheckedStream(path, self.encoding, self.delimiter, quotes, span)

    def rows(self, lines: io.TextIOBase) -> Iterator[list[str]]:
        """Yield the rows of a csv or tsv file that are not blank, parsed by Python's csv module."""
        rows = csv.reader(
            lines,
            delimiter=self.parsed_delimiter,
            quotechar=self.quote or None,
            escapechar=self.escape or None,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
        )
        return (row for row in rows if row)
