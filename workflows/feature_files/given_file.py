"""Open a file of users or items for a trained model; recipe or file name state its format.

If the file looks like the files of a source of the recipe, it is read like them: with their
delimiter, quotes, escape and encoding, and with their column names if it has no header. Otherwise
it is csv, tsv, JSON lines or parquet in UTF-8, according to its first bytes or the ending of its
name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from workflows.feature_files.columns import log, raw_names
from workflows.ground.errors import DataError
from workflows.read import files
from workflows.read.dialect import Dialect
from workflows.read.encodings import decoding_error, encoding_name
from workflows.read.jsonlines import JsonLinesFile
from workflows.read.opening import BLOCK, DataFile
from workflows.read.parquet import ParquetFile
from workflows.read.streams import open_unpacked
from workflows.read.text import TextFile
from workflows.recipe import Recipe, Source

#: Number of bytes of a file that are read to recognise its format, and the first bytes of two
#: formats.
_LOOKED = 512
_PARQUET, _OBJECT = b"PAR1\x15", re.compile('[\ufeff\\s]*\\{\\s*"')
#: Only the empty text means a missing value while a file is read; the `nulls` of the recipe are
#: applied later, because some of them may be values of the vocabulary.
_NULLS = ("",)
_PLAIN = {"csv": Dialect("csv", quote='"', nulls=_NULLS), "tsv": Dialect("tsv", "\t", nulls=_NULLS)}


@dataclass(frozen=True)
class GivenFile:
    """An opened file of users or items, and sentences that say how it is read.

    Attributes:
        file: the opened raw file.
        how: sentences that say with which delimiter and encoding the file is read; empty for
            parquet and JSON lines.
    """

    file: DataFile
    how: str = ""

    @property
    def may_be_lines(self) -> bool:
        """Whether the file may be a list of ids: text of one column, no format in its name."""
        is_column = isinstance(self.file, TextFile) and len(self.file.names) == 1
        return is_column and files.kind_of_ending(self.file.path) is None

    def read(self, columns: Mapping[str, str]) -> pa.Table:
        """Read columns of the file, given as name in the returned table → name in the file.

        Raises:
            DataError: a row cannot be read.
        """
        with explained(self.how):
            batches = list(self.file.batches(list(columns.values())))
        for note in self.file.notes:
            log.warning("%s", note)
        return pa.concat_tables(batches).rename_columns(list(columns)) if batches else pa.table({})


@contextmanager
def explained(how: str) -> Iterator[None]:
    """Return a context that adds sentences, on how a file is read, to an error's message."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{error} {how}".rstrip()) from None


def open_given(path: Path, recipe: Recipe, wanted: Sequence[str]) -> GivenFile:
    """Open a file for a trained model, with one row per user or item id.

    Args:
        path: path of the given file of users or items.
        recipe: recipe whose sources state forms of files, and `rename` raw columns.
        wanted: the id column, and feature columns that the file may have.

    Raises:
        DataError: the file cannot be read, or its format is unknown.
    """
    given = recognise(path, recipe, wanted)
    if given is None:
        raise DataError(
            f"{path}: expected a file that ends in .csv, .tsv (or these and .gz, .bz2, .xz, .zst "
            f"or .lz4), .jsonl or .parquet, or one with a column {wanted[0]!r} in the form of a "
            f"source of the recipe.{_expected(_source_forms(recipe, wanted[0]))}"
        )
    return given


def recognise(path: Path, recipe: Recipe, wanted: Sequence[str]) -> GivenFile | None:
    """Open a file as a table; return None if its content and name do not show a table format.

    Args:
        path: path of the given file of users or items.
        recipe: recipe whose sources state forms of files, and `rename` raw columns.
        wanted: the id column, and feature columns that the file may have.

    Raises:
        DataError: the file cannot be read.
    """
    if path.exists() and not path.is_file():
        what = "folder" if path.is_dir() else "pipe or a device"
        raise DataError(f"{path} is a {what}. Expected a file: name one, or write one.")
    kind = files.kind_of_ending(path)
    with files.reading(path, kind or "text"), open_unpacked(path) as stream:
        head = bytes(stream.read(_LOOKED))
    if kind == "parquet" or head.startswith(_PARQUET):
        return GivenFile(ParquetFile(path, block=BLOCK))
    raw = raw_names(recipe, wanted)
    encoding = _json_encoding(head, _by_id(recipe, wanted[0]).values())
    if encoding or kind == "jsonl":
        encoding = encoding or "utf-8"
        named = [*wanted, *(old for olds in raw.values() for old in olds)]
        lines = JsonLinesFile(path, encoding=encoding, nulls=_NULLS, block=BLOCK, wanted=named)
        if lines.is_empty:
            raise DataError(f"{path} is empty. Expected one JSON object per line.")
        return GivenFile(lines)
    ids = {wanted[0], *raw.get(wanted[0], ())}
    return _recognise_text(path, kind, _source_forms(recipe, wanted[0]), ids)


def _recognise_text(
    path: Path, kind: str | None, forms: Sequence[_Form], ids: set[str]
) -> GivenFile | None:
    """Open a file of delimited text; return None if no form (delimiter, quotes) fits it.

    Args:
        path: path of the given file of users or items.
        kind: the format that the ending of the file's name states.
        forms: the forms of the sources, the likeliest first.
        ids: names that the id column may have.
    """
    plain = [_Form(_PLAIN[kind])] if kind else []
    form = _fitting([*forms, *plain], path, ids)
    if form is None and not kind:
        return None
    form = form or plain[0]
    others = [] if form.source else [one for one in forms if one.dialect != form.dialect]
    how = f"The file is read as {form}: convert it to this form, or write it as parquet."
    how += _expected(others)
    with explained(how):
        file = TextFile(path, form.dialect, block=BLOCK)
    if not file.names:
        raise DataError(f"{path} is empty. Expected a first row with the names of the columns.")
    return GivenFile(file, how)


def read_lines(path: Path, recipe: Recipe) -> list[str]:
    """Return the lines of a text file of ids that are not blank, without blanks around them.

    Args:
        path: path of the given file of users or items, which may be packed.
        recipe: the recipe; text that is not UTF-8 may have the encoding of one of the sources.

    Raises:
        DataError: the file cannot be read.
    """
    with (
        files.reading(path, "text"),
        path.open("rb") if path.is_fifo() else open_unpacked(path) as stream,
    ):
        data = bytes(stream.read())
    for encoding in dict.fromkeys(["utf-8-sig", *(s.encoding for s in recipe.sources.values())]):
        try:
            lines = data.decode(encoding).split("\n")
        except UnicodeError:
            continue
        return [line.strip() for line in lines if line.strip()]
    raise decoding_error(path, "utf-8")


@dataclass(frozen=True)
class _Form:
    """The form of a delimited text file: delimiter, quotes, encoding and column names.

    Attributes:
        dialect: syntax of the file.
        source: the source of the recipe that has the form; None if the file name's ending states
            the form.
    """

    dialect: Dialect
    source: str | None = None

    def __str__(self) -> str:
        dialect = self.dialect
        names = f", with the columns {', '.join(dialect.columns)}" if dialect.columns else ""
        like = f", like the source {self.source!r} of the recipe" if self.source else ""
        form = f"{dialect.kind} with the delimiter {dialect.delimiter!r}"
        return f"{form}, in {encoding_name(dialect.encoding)}{names}{like}"


def _json_encoding(head: bytes, sources: Iterable[Source]) -> str | None:
    """Return the text encoding in which a file begins with a JSON object; None if none fits."""
    encodings = [source.encoding for source in sources if _kind(source) == "jsonl"]
    for encoding in [*encodings, "utf-8"]:
        if _OBJECT.match(head.decode(encoding, "ignore")):
            return encoding
    return None


def _expected(forms: Sequence[_Form]) -> str:
    """Return a sentence that lists forms that the file does not have, for messages."""
    shown = "; ".join(str(form) for form in forms)
    return f" It is not {shown}." if shown else ""


def _by_id(recipe: Recipe, key: str) -> dict[str, Source]:
    """Return all sources of the recipe; first those that the id joins, then the interactions."""
    joined = [join.table for join in recipe.join if join.key == key]
    return {name: recipe.sources[name] for name in [*joined, recipe.interactions, *recipe.sources]}


def _source_forms(recipe: Recipe, key: str) -> list[_Form]:
    """Return the different forms of the csv and tsv sources of a recipe, the likeliest first."""
    found: dict[Dialect, _Form] = {}
    for name, source in _by_id(recipe, key).items():
        kind = _kind(source)
        if kind in _PLAIN:
            dialect = replace(Dialect.of(source, kind), nulls=_NULLS)
            if source.long:  # its `columns` name id, property and value
                dialect = replace(dialect, columns=())
            found.setdefault(dialect, _Form(dialect, name))
    return list(found.values())


def _kind(source: Source) -> str | None:
    """Return the format (such as csv) of a source's files; None if the recipe does not state it."""
    pattern = source.files if isinstance(source.files, str) else source.files[0]
    return files.stated_kind(Path(pattern), source)


def _fitting(forms: Sequence[_Form], path: Path, ids: set[str]) -> _Form | None:
    """Return the first form in which the file's first row has the name of the id column.

    If no form has it, return the first form without header that has as many columns as the file's
    first row has cells; None without such a form.

    Args:
        forms: the forms to try, the likeliest first.
        path: path of the given file of users or items.
        ids: names that the id column may have.
    """
    headed = [replace(form, dialect=replace(form.dialect, columns=())) for form in forms]
    rows = [_first_row(path, form.dialect) for form in headed]
    for form, row in zip(headed, rows, strict=True):
        if not ids.isdisjoint(row):
            return form
    for form, row in zip(forms, rows, strict=True):
        names = form.dialect.columns
        # a row with the name of a column is a row of names that lacks that of the id
        if len(row) == len(names) and not ids.isdisjoint(names) and set(names).isdisjoint(row):
            return form
    return None


def _first_row(path: Path, dialect: Dialect) -> list[str]:
    """Return the cells of a text file's first row; [] if the file does not fit the dialect."""
    try:
        return TextFile(path, dialect, block=BLOCK).names
    except DataError:
        return []
