"""The dialect of delimited text: delimiter, quotes, escape, encoding, and texts for no value."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from workflows.etl.read.streams import UNIT, Watched
from workflows.raw.quotes import Quotes
from workflows.recipe import Source


@dataclass(frozen=True)
class Dialect:
    """How text is written.

    Attributes:
        kind: `csv`, `tsv`, or what else to call it in messages.
        delimiter: what stands between two cells.
        quote: what stands around cells; empty where quotes are ordinary characters.
        escape: what makes an ordinary character of the one behind it; empty for none.
        encoding: the encoding of the text.
        nulls: texts that stand for no value.
        columns: the names of the columns where the first row is not those.
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
        """Return the dialect of a source's files of one kind."""
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
    def between(self) -> str:
        """The one character that stands between two cells when they are parsed."""
        return self.delimiter if len(self.delimiter.encode()) == 1 else UNIT.decode()

    def watched(self, path: Path) -> Watched:
        """Open a file as it is parsed."""
        quotes = None
        if self.quote:
            marks = (self.between, self.quote, self.escape)
            quotes = Quotes(*(mark.encode() for mark in marks))
        return Watched(path, self.encoding, self.delimiter, quotes)

    def rows(self, lines: io.TextIOBase) -> Iterator[list[str]]:
        """Yield the rows of a text that are not blank, parsed slowly."""
        rows = csv.reader(
            lines,
            delimiter=self.between,
            quotechar=self.quote or None,
            escapechar=self.escape or None,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
        )
        return (row for row in rows if row)
