"""Find the files of a source and their format, and explain why one cannot be read."""

from __future__ import annotations

import logging
import lzma
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from workflows.etl.read import streams
from workflows.ground.errors import DataError
from workflows.recipe import Source

log = logging.getLogger(__name__)

#: The first bytes of files that are no text.
_SIGNATURES = (
    (b"PAR1", "is parquet", "Set the source's `format: parquet`."),
    (b"PK\x03\x04", "is a zip archive or a spreadsheet", "Unpack or export it."),
    (b"\xd0\xcf\x11\xe0", "is a spreadsheet", "Export it as csv in UTF-8."),
    (b"\x1f\x9d", "is packed with compress", "Unpack it, or pack it with gzip."),
    (b"7z\xbc\xaf", "is a 7z archive", "Unpack it."),
    (b"ORC", "is ORC", "Write it as parquet."),
    (b"Obj\x01", "is Avro", "Write it as parquet."),
    (b"ARROW1", "is Feather", "Write it as parquet."),
    (b"SQLite format 3", "is a database of SQLite", "Export its tables as csv."),
    (b"Rar!", "is a rar archive", "Unpack it."),
    (b"\x89HDF", "is HDF5", "Write it as parquet."),
    (b"\x1f\x8b", "is packed twice", "Unpack it once."),
    (b"BZh", "is packed twice", "Unpack it once."),
    (b"\xfd7zXZ", "is packed twice", "Unpack it once."),
    (b"\xff\x06\x00\x00sNaPpY", "is packed with snappy", "Unpack it, or pack it with gzip."),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the data", "Run `git lfs pull`."),
    (b"<!DOCTYPE html", "is a page of HTML, not the data", "Download it again."),
    (b"<!doctype html", "is a page of HTML, not the data", "Download it again."),
    (b"<html", "is a page of HTML, not the data", "Download it again."),
    (b"<?xml", "is XML", "If it is an error of a server, download it again; else write it as csv."),
)
#: Where a tar archive says that it is one.
_TAR = (257, b"ustar")
#: The first bytes of UTF-16.
_WIDE = (b"\xff\xfe", b"\xfe\xff")
#: Endings that compression programs append to a file's name.
_PACKERS = r"\.(gz|gzip|bz2|xz|zst|zstd|lz4)$"
_FORMATS = {"csv": "csv", "tsv": "tsv", "parquet": "parquet", "jsonl": "jsonl", "ndjson": "jsonl"}
#: So many bytes show what a file is.
_LOOKED = 512
#: Folders and files that hold copies and drafts: of Jupyter, macOS, Git, Spark, Delta Lake.
_HIDDEN = re.compile(r"\..+|_temporary|_delta_log|_spark_metadata|__MACOSX|__pycache__")
#: Files that Spark, Hadoop and desktops put beside data. A glob passes over them.
_BESIDE = re.compile(
    r"_SUCCESS|_metadata|_common_metadata|_(started|committed)_\d+|\..*\.crc|\.DS_Store"
)


def find(name: str, patterns: str | Sequence[str], folder: Path) -> list[Path]:
    """Return the files that match, in order of the patterns and of their names, each once.

    Args:
        name: the name of the source, for messages.
        patterns: file names or globs, relative to the folder or absolute.
        folder: the data folder.

    Raises:
        DataError: a pattern without a match, a match that is no file.
    """
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    found = [path for pattern in patterns for path in _matches(name, pattern, folder)]
    return list(dict.fromkeys(found))


def _matches(name: str, pattern: str, folder: Path) -> list[Path]:
    asked = pattern
    try:
        pattern = str(Path(pattern).expanduser())
        root = Path(Path(pattern).anchor or folder)
        exact = root / pattern
        matches = [exact] if exact.exists() else _globbed(root, pattern)
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: nobody's home
        raise DataError(
            f"source {name!r}: {asked!r} is no file name or glob ({error}). Correct `files:`."
        ) from None
    if not matches:
        link = " It is a link that leads nowhere." if exact.is_symlink() else ""
        raise DataError(
            f"source {name!r}: no file matches {asked!r} in {root}.{link} Put the raw files "
            "there, set `data:` in the recipe, or run `two-tower fetch` if the recipe can fetch "
            "them."
        )
    for path in matches:
        if path.is_dir():
            raise DataError(
                f"source {name!r}: {path} is a folder. Name the files in it, such as "
                f"{_within(path, asked)!r}."
            )
        if path.exists() and not path.is_file():
            raise DataError(
                f"source {name!r}: {path} is no regular file but a pipe or a device. Write its "
                "content to a file."
            )
    return matches


def _globbed(root: Path, pattern: str) -> list[Path]:
    asked = Path(pattern.lstrip("/")).parts
    matches = [p for p in sorted(root.glob(pattern.lstrip("/"))) if not _BESIDE.fullmatch(p.name)]
    hidden = [p for p in matches if _is_hidden(p.relative_to(root), asked)]
    if hidden:
        log.warning(
            "%d hidden or temporary files that match %r are passed over, such as %s. Name them in "
            "`files:` without a wildcard if they are data.",
            *(len(hidden), pattern, hidden[0].relative_to(root)),
        )
    return [path for path in matches if path not in set(hidden)]


def _is_hidden(path: Path, asked: Sequence[str]) -> bool:
    """Say whether a path leads to what programs hide, by a name that the pattern does not name."""
    return any(_HIDDEN.fullmatch(part) and part not in asked for part in path.parts)


def _within(folder: Path, asked: str) -> str:
    """Return a glob for the files in a folder that was asked for."""
    inside = sorted(p for p in folder.rglob("*") if p.is_file() and not _BESIDE.fullmatch(p.name))
    ending = "".join(inside[0].suffixes[-2:]) if inside else ".parquet"
    deep = "**/" if inside and inside[0].parent != folder else ""
    return f"{asked.rstrip('/')}/{deep}*{ending}"


def kind(path: Path, source: Source) -> str:
    """Return the format of a file: the recipe's word, else its ending's.

    Raises:
        DataError: neither says.
    """
    if source.format:
        return source.format
    ending = re.sub(_PACKERS, "", path.name.lower()).rpartition(".")[2]
    if ending in _FORMATS:
        return _FORMATS[ending]
    if set(source.told) & {"columns", "delimiter", "quote", "escape"}:
        return "csv"
    with reading(path, "text"), streams.opened(path) as stream:
        refuse_other(path, "text", bytes(stream.read(_LOOKED)), "utf-16")
    raise DataError(
        f"{path}: the ending .{ending} names no format. Set the source's `format:` to csv, tsv, "
        "jsonl (one JSON object a line) or parquet."
    )


#: Words of errors that say that a file is damaged, or not there.
_CUT = (
    "Truncated",
    "zlib",
    "No such",
    "Permission",
    "links",
    "Compressed",
    "Corrupt",
    "Lz4",
    "ZSTD",
)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn an error in the block into a DataError with the file and the remedy.

    Raises:
        DataError: Arrow or the operating system reported an error.
    """
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, lzma.LZMAError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{path} cannot be read as {kind}: {said}. {_remedy(said, kind)}") from None


def _remedy(said: str, kind: str) -> str:
    if any(word in said for word in _CUT):
        return "See that the whole file is there and may be read."
    return f"Mend the file, or set the source's `format:` if it is not {kind}."


def refuse_other(path: Path, kind: str, head: bytes, encoding: str) -> None:
    """Refuse a text file that is visibly something else.

    Args:
        path: the path of the file.
        kind: what the recipe takes it for.
        head: its first bytes, unpacked.
        encoding: what its text should be in.
    """
    if head[_TAR[0] :].startswith(_TAR[1]):
        raise DataError(f"{path} is a tar archive, so it cannot be read as {kind}. Unpack it.")
    for signature, what, remedy in _SIGNATURES:
        if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(signature):
            raise DataError(f"{path} {what}, so it cannot be read as {kind}. {remedy}")
    if kind in ("csv", "tsv") and head.lstrip().startswith((b'{"', b"[{")):
        raise DataError(
            f"{path} looks like JSON, so it cannot be read as {kind}. Set the source's `format: "
            "jsonl` if it has one object a line."
        )
    if head.startswith(_WIDE) and "16" not in encoding and "32" not in encoding:
        raise DataError(
            f"{path} is UTF-16, so it cannot be read as {kind} in {encoding}. Set the source's "
            "`encoding: utf-16`."
        )


def without_rows(path: Path, *, is_empty: bool) -> DataError:
    """Return the error that says that a file has no rows."""
    return DataError(
        f"{path} {'is empty' if is_empty else 'has no rows'}. Put data there, or another file."
    )
