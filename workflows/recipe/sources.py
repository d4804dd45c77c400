"""Parts of a recipe: where raw rows come from."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal

from msgspec import Meta

from models.core.fields import Part

Text = Annotated[str, Meta(min_length=1)]
#: A character that is one byte in UTF-8, or none.
Character = Annotated[str, Meta(pattern=r"^[ -~]?$")]
Pattern = Annotated[str, Meta(min_length=1)]
Patterns = Pattern | Annotated[tuple[Pattern, ...], Meta(min_length=1)]


class Fetch(Part, frozen=True):
    """Raw files that lie inside a wheel of the package index, taken without installing it.

    Attributes:
        package: name and exact version, such as `recbole==1.2.1`.
        sha256: the SHA-256 of the wheel.
        members: path inside the wheel → file name in the data folder.
    """

    package: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*==[A-Za-z0-9_.]+\Z")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    members: dict[str, Annotated[str, Meta(pattern=r"^(?!\.{1,2}\Z)[^/\0]+\Z")]]


class Latest(Part, frozen=True):
    """Take one row an id of a table that has several: the latest.

    Attributes:
        id: the column of ids.
        time: the column that says which row is later: numbers, or ISO 8601; of equal ones the last
            row counts.
    """

    id: Text
    time: Text


class Long(Part, frozen=True):
    """Turn a table with one row a property into one with a row an id and a column a property.

    Attributes:
        id: the column of ids.
        property: the column that names the property.
        value: the column with its value.
        time: the column that says which value is later, as in `latest`; without it no property of
            an id may stand there twice.
    """

    id: Text
    property: Text
    value: Text
    time: Text | None = None


class Source(Part, frozen=True):
    """A raw table.

    Files may be packed with gzip, bz2, xz, zstd or lz4. A folder `day=2020-09-13` on the way from
    the data folder to a file (csv, tsv, jsonl, parquet) is a column `day` of it, unless the file
    has one.

    Attributes:
        files: one file name or glob, or several, in the data folder.
        format: by the file's ending where it is not given; `jsonl` is one JSON object a line;
            `aliccp` is Tianchi's skeleton of impressions, whose columns get the names that NVIDIA's
            converter gives them.
        common: the files of common features that belong to an aliccp skeleton.
        columns: the names of the columns in their order, for files without a row of names (csv and
            tsv). Without them the first row is the names.
        delimiter: what stands between two cells, one character or several (csv and tsv); a comma
            for csv, a tab for tsv.
        quote: the character around cells (csv and tsv); an empty text where quotes are ordinary
            characters. It is `"` for csv; for tsv and for a delimiter of several bytes there is
            none.
        escape: the character that makes a quote or a delimiter behind it an ordinary one, such as a
            backslash (csv and tsv); a doubled quote stands for a quote anyhow.
        encoding: of the text (csv, tsv and jsonl), as Python calls it, such as latin-1 or cp1252.
        rename: raw column name → name used in the rest of the recipe.
        nulls: texts that stand for "no value", beside the empty text, which always does.
        explode: columns (their names in the recipe) that hold a list a row: each value gets a row
            of its own, in which the other columns are repeated. Lists of one row must be of one
            length.
        separator: what stands between the values of `explode` where they are text.
        latest: take one row an id, the latest.
        long: the table has one row a property; make a column of each that the recipe names.
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
        for name in self.told:
            if self.format == "parquet" or self.format == "aliccp":
                raise ValueError(f"{name} says how text is written, and format {self.format} knows")
            if self.format == "jsonl" and name != "encoding":
                raise ValueError(f"{name} is for csv and tsv; JSON lines say it themselves")
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
        marks = [mark for mark in (self.delimiter, self.quote, self.escape) if mark]
        if len(set(marks)) < len(marks):
            raise ValueError(f"delimiter, quote and escape must differ, got {marks}")

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
    def told(self) -> list[str]:
        """Names of the fields that say how text is written, and are not as they are by default."""
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
        "".encode(found.name)  # base64 and the like are codecs, too, but not of text
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
