"""Parts of a recipe that describe raw tables and the files that hold them."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal

from msgspec import Meta

from models.core.fields import Part

Text = Annotated[str, Meta(min_length=1)]
#: The type of a field with one ASCII character or an empty text.
Character = Annotated[str, Meta(pattern=r"^[ -~]?$")]
Pattern = Annotated[str, Meta(min_length=1)]
Patterns = Pattern | Annotated[tuple[Pattern, ...], Meta(min_length=1)]


class Fetch(Part, frozen=True):
    """Raw data files inside a Python wheel of the package index; the wheel is not installed.

    Attributes:
        package: name and exact version of the wheel's package, such as `recbole==1.2.1`.
        sha256: the SHA-256 of the wheel.
        members: path inside the wheel → file name in the data folder.
    """

    package: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*==[A-Za-z0-9_.]+\Z")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    members: dict[str, Annotated[str, Meta(pattern=r"^(?!\.{1,2}\Z)[^/\0]+\Z")]]


class Latest(Part, frozen=True):
    """The rule to keep only the latest row of each id of a raw table.

    Attributes:
        id: the column of the table with the ids.
        time: the column with the times of the rows: numbers or ISO 8601. If several rows have the
            latest time, the last of them in the file is kept.
    """

    id: Text
    time: Text


class Long(Part, frozen=True):
    """The rule to turn a raw table with a row per property into one with a column per property.

    Attributes:
        id: the column of the table with the ids.
        property: the column with the name of the property.
        value: the column with the value of the property.
        time: the column with the times of the rows, of which the latest is kept; without this
            column, an id may have each property once.
    """

    id: Text
    property: Text
    value: Text
    time: Text | None = None


class Source(Part, frozen=True):
    """A raw table: its files, their format, and the rules by which rows are changed.

    The files of the table may be compressed with gzip, bz2, xz, zstd or lz4. A folder
    `day=2020-09-13` between the data folder and a file (csv, tsv, jsonl, parquet) gives the rows of
    the file a column `day`, unless the file has such a column.

    Attributes:
        files: one file name or glob, or several, in the data folder.
        format: the format of the files; by default, the format that the ending of their names
            states. `jsonl` has one JSON object per line; `aliccp` is the skeleton file of Ali-CCP
            from Tianchi (one row per impression); its columns get the names that NVIDIA's converter
            uses.
        common: the files of common features that the skeleton in the format `aliccp` refers to.
        columns: the names of the columns in their order, for files without a row of names (csv and
            tsv). By default the first row has the names.
        delimiter: the text between two cells, of one character or several (csv and tsv); the
            default is a comma for csv and a tab for tsv.
        quote: the character around cells (csv and tsv); an empty text if quotes are ordinary
            characters. The default is `"` for csv, and none for tsv and for a delimiter of several
            bytes.
        escape: the character, such as a backslash, that makes a following quote or delimiter an
            ordinary character (csv and tsv); a doubled quote always stands for a quote.
        encoding: the encoding of the text (csv, tsv and jsonl) by its name in Python, such as
            latin-1 or cp1252.
        rename: raw column name → name used in the rest of the recipe.
        nulls: texts that mean a missing value, in addition to the empty text.
        explode: names of columns with lists; each value of a list gets a row of its own, in which
            the other columns are repeated. The lists of a row must have equal lengths.
        separator: the text between two values of a list, for columns of `explode` whose cells are
            text.
        latest: the rule to keep only the latest row of each id.
        long: the rule to turn a table with one row per property into one with a column per
            property; only properties that the recipe names become columns.
    """

    files: Patterns
    format: Literal["csv", "tsv", "jsonl", "parquet", "aliccp"] | None = None
    common: Patterns | None = None
    columns: Annotated[tuple[Text, ...], Meta(min_length=1)] | None = None
    delimiter: Text | None = None
    quote: Character | None = None
    escape: Character = ""
    encoding: Text = "utf-8"
    rename: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    nulls: tuple[str, ...] = ()
    explode: Annotated[tuple[Text, ...], Meta(min_length=1)] | None = None
    separator: Text | None = None
    latest: Latest | None = None
    long: Long | None = None

    def __post_init__(self) -> None:
        if (self.format == "aliccp") != (self.common is not None):
            raise ValueError(
                "format: aliccp needs `common`, the files of common features, and no other format "
                "has them"
            )
        _refuse_addresses(self.files)
        self._check_text()
        self._check_rows()

    def _check_text(self) -> None:
        for name in self.text_options:
            if self.format == "parquet" or self.format == "aliccp":
                raise ValueError(
                    f"{name} is for text files, and format {self.format} has its own rules"
                )
            if self.format == "jsonl" and name != "encoding":
                raise ValueError(f"{name} is for csv and tsv, and JSON lines need none")
        _check_encoding(self.encoding)
        if self.columns and len(set(self.columns)) < len(self.columns):
            twice = next(name for name in self.columns if self.columns.count(name) > 1)
            raise ValueError(f"columns names {twice!r} twice; give each column a name of its own")
        if self.delimiter is not None:
            _check_delimiter(self.delimiter)
            if len(self.delimiter.encode()) > 1 and (self.quote or self.escape):
                raise ValueError(
                    f"quote and escape go with a delimiter of one ASCII character, not with "
                    f"{self.delimiter!r}"
                )
        quote = '"' if self.quote is None and self.escape == '"' else self.quote
        marks = [mark for mark in (self.delimiter, quote, self.escape) if mark]
        if len(set(marks)) < len(marks):
            raise ValueError(
                f"delimiter, quote and escape must differ, got {marks}; a doubled quote stands "
                "for a quote without any escape"
            )

    def _check_rows(self) -> None:
        if self.separator and not self.explode:
            raise ValueError("separator goes with `explode`; that of a feature belongs to features")
        chosen = [name for name in ("explode", "latest", "long") if getattr(self, name)]
        if len(chosen) > 1 or (chosen and self.format == "aliccp"):
            what = "format: aliccp" if self.format == "aliccp" else chosen[1]
            raise ValueError(f"{chosen[0]} does not go with {what}")
        if self.long and len({self.long.id, self.long.property, self.long.value}) < 3:
            raise ValueError("long needs three columns: of ids, of properties and of values")

    @property
    def text_options(self) -> list[str]:
        """Names of the fields about text files whose values are not the defaults."""
        plain = {"columns": None, "delimiter": None, "quote": None, "escape": ""}
        every = {**plain, "encoding": "utf-8"}
        return [name for name, value in every.items() if getattr(self, name) != value]


def _refuse_addresses(files: str | tuple[str, ...]) -> None:
    for pattern in (files,) if isinstance(files, str) else files:
        scheme, found, _ = pattern.partition("://")
        if found and scheme.isalnum():
            raise ValueError(
                f"files names {pattern!r}, an address. Raw files are read from a disk: copy them "
                "into the data folder first, and name them there"
            )


def _check_encoding(encoding: str) -> None:
    try:
        found = codecs.lookup(encoding)
        "".encode(found.name)  # codecs such as base64 do not encode text
        known = found.incrementaldecoder is not None
    except (LookupError, UnicodeError, ValueError):
        known = False
    if not known:
        raise ValueError(
            f"encoding is {encoding!r}, which Python does not know as an encoding of text; "
            "expected one such as utf-8, latin-1, cp1252, utf-16 or gb18030"
        )


def _check_delimiter(delimiter: str) -> None:
    if delimiter.startswith("\\"):
        raise ValueError(
            f"delimiter is a backslash and {delimiter[1:]!r}; a tab is written in double quotes: "
            '"\\t"'
        )
    if any(character in delimiter for character in '\r\n\0"'):
        raise ValueError(f"delimiter {delimiter!r} may have no line end, NUL or double quote")
