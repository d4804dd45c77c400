"""Find the raw files of a source and their format, and explain why a file cannot be read."""

from __future__ import annotations

import logging
import lzma
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from workflows.ground.errors import DataError
from workflows.read import streams
from workflows.recipe import Source

log = logging.getLogger(__name__)

#: The first bytes of a file of a format that is not read as text, the format's name, and the
#: remedy.
_SIGNATURES = (
    (b"PAR1", "is parquet", "Set the source's `format: parquet`."),
    (b"PK\x03\x04", "is a zip archive or a spreadsheet", "Unpack or export it."),
    (b"\xd0\xcf\x11\xe0", "is a spreadsheet", "Export it as csv in UTF-8."),
    (b"\x1f\x9d", "is packed with compress", "Unpack it, or pack it with gzip."),
    (b"7z\xbc\xaf", "is a 7z archive", "Unpack it."),
    (b"ORC", "is ORC", "Write it as parquet."),
    (b"Obj\x01", "is Avro", "Write it as parquet."),
    (b"ARROW1", "is Feather", "Write it as parquet."),
    (b"SQLite format 3", "is an SQLite database", "Export its tables as csv."),
    (b"Rar!", "is a rar archive", "Unpack it."),
    (b"\x89HDF", "is HDF5", "Write it as parquet."),
    (b"\x1f\x8b", "is packed twice", "Unpack it once."),
    (b"BZh", "is packed twice", "Unpack it once."),
    (b"\xfd7zXZ", "is packed twice", "Unpack it once."),
    (b"\xff\x06\x00\x00sNaPpY", "is packed with snappy", "Unpack it, or pack it with gzip."),
    (b"version https://git-lfs", "is a Git LFS pointer, not the data", "Run `git lfs pull`."),
    (b"<!DOCTYPE html", "is an HTML page, not the data", "Download it again."),
    (b"<!doctype html", "is an HTML page, not the data", "Download it again."),
    (b"<html", "is an HTML page, not the data", "Download it again."),
    (b"<?xml", "is XML", "If it is a server's error page, download it again; else convert it."),
)
#: A tar archive has this text at this byte position.
_TAR = (257, b"ustar")
#: A text in UTF-16 begins with one of these byte order marks.
_WIDE = (b"\xff\xfe", b"\xfe\xff")
#: Endings, such as .gz, that compression programs append to a file's name.
_PACKERS = r"\.(gz|gzip|bz2|xz|zst|zstd|lz4)$"
_FORMATS = {"csv": "csv", "tsv": "tsv", "parquet": "parquet", "jsonl": "jsonl", "ndjson": "jsonl"}
#: Number of bytes of a file that are read to recognise its format.
_LOOKED = 512
#: Names of folders and files that a glob skips: copies and drafts by Jupyter, macOS, Git, Spark,
#: Delta Lake.
_HIDDEN = re.compile(r"\..+|_temporary|_delta_log|_spark_metadata|__MACOSX|__pycache__")
#: Names of files that Spark, Hadoop and desktops write beside data; a glob skips them, too.
_BESIDE = re.compile(
    r"_SUCCESS|_metadata|_common_metadata|_(started|committed)_\d+|\..*\.crc|\.DS_Store"
)


def find(name: str, patterns: str | Sequence[str], folder: Path) -> list[Path]:
    """Return the raw files that match a source's patterns, sorted by pattern and then by name.

    Args:
        name: name of the source of the recipe, for messages.
        patterns: file names or globs, absolute or relative to the folder.
        folder: folder of the raw files.

    Raises:
        DataError: a pattern matches nothing, or a match is not a file.
    """
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    found = [path for pattern in patterns for path in _matches(name, pattern, folder)]
    return list(dict.fromkeys(found))


def _matches(name: str, pattern: str, folder: Path) -> list[Path]:
    written = pattern
    try:
        pattern = str(Path(pattern).expanduser())
        root = Path(Path(pattern).anchor or folder)
        exact = root / pattern
        matches = [exact] if exact.exists() else _glob(root, pattern)
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: ~name without a home
        raise DataError(
            f"source {name!r}: {written!r} is not a file name or glob ({error}). Correct `files:`."
        ) from None
    if not matches:
        link = " It is a link to a file that does not exist." if exact.is_symlink() else ""
        raise DataError(
            f"source {name!r}: no file matches {written!r} in {root}.{link} Put the raw files "
            "there, set `data:` in the recipe, or run `two-tower fetch` if the recipe can fetch "
            "them."
        )
    for path in matches:
        if path.is_dir():
            raise DataError(
                f"source {name!r}: {path} is a folder. Name the files in it, such as "
                f"{_glob_for(path, written)!r}."
            )
        if path.exists() and not path.is_file():
            raise DataError(
                f"source {name!r}: {path} is not a regular file but a pipe or a device. Write its "
                "content to a file."
            )
    return matches


def _glob(root: Path, pattern: str) -> list[Path]:
    """Return the raw files that match a glob, without hidden files and logs that Spark writes."""
    parts = Path(pattern.lstrip("/")).parts
    matches = [p for p in sorted(root.glob(pattern.lstrip("/"))) if not _BESIDE.fullmatch(p.name)]
    hidden = [p for p in matches if _is_hidden(p.relative_to(root), parts)]
    if hidden:
        log.warning(
            "%d hidden or temporary files that match %r are skipped, such as %s. Name them in "
            "`files:` without a wildcard if they are data.",
            *(len(hidden), pattern, hidden[0].relative_to(root)),
        )
    return [path for path in matches if path not in set(hidden)]


def _is_hidden(path: Path, pattern_parts: Sequence[str]) -> bool:
    """Say whether a part of a path is hidden (`.name`) although the pattern does not name it."""
    return any(_HIDDEN.fullmatch(part) and part not in pattern_parts for part in path.parts)


def _glob_for(folder: Path, written: str) -> str:
    """Return a glob for the files in a folder; `written` is the folder's name in the recipe."""
    inside = sorted(p for p in folder.rglob("*") if p.is_file() and not _BESIDE.fullmatch(p.name))
    ending = "".join(inside[0].suffixes[-2:]) if inside else ".parquet"
    deep = "**/" if inside and inside[0].parent != folder else ""
    return f"{written.rstrip('/')}/{deep}*{ending}"


def stated_kind(path: Path, source: Source) -> str | None:
    """Return the format that the recipe or a file name's ending states; None if neither does."""
    if source.format:
        return source.format
    if found := kind_of_ending(path):
        return found
    is_text = set(source.text_options) & {"columns", "delimiter", "quote", "escape"}
    return "csv" if is_text else None


def kind_of_ending(path: Path) -> str | None:
    """Return the format that the ending of a file's name states; None if it states none."""
    return _FORMATS.get(_ending(path))


def _ending(path: Path) -> str:
    return re.sub(_PACKERS, "", path.name.lower()).rpartition(".")[2]


def kind(path: Path, source: Source) -> str:
    """Return the format of a raw file, as the recipe or else the ending of its name states.

    Raises:
        DataError: neither the recipe nor the ending states a format.
    """
    if found := stated_kind(path, source):
        return found
    with reading(path, "text"), streams.open_unpacked(path) as stream:
        refuse_other(path, "text", bytes(stream.read(_LOOKED)), "utf-16")
    raise DataError(
        f"{path}: the ending .{_ending(path)} names no format. Set the source's `format:` to csv, "
        "tsv, jsonl (one JSON object per line) or parquet."
    )


#: Words in error messages of libraries which show that a file is damaged or missing.
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
    """Return a context that turns a reading error into a DataError with the file and a remedy.

    Raises:
        DataError: Arrow or the operating system reported an error.
    """
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, lzma.LZMAError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{path} cannot be read as {kind}: {reason}. {_remedy(reason, kind)}"
        ) from None


def _remedy(reason: str, kind: str) -> str:
    if any(word in reason for word in _CUT):
        return "Check that the file exists, is complete and may be read."
    return f"Correct the file, or set the source's `format:` if it is not {kind}."


def refuse_other(path: Path, kind: str, head: bytes, encoding: str) -> None:
    """Raise an error if a file should be text by the recipe, but begins like another format.

    Args:
        path: path of the raw file.
        kind: the file's format according to the recipe.
        head: first bytes of the file, decompressed.
        encoding: the file's text encoding according to the recipe.

    Raises:
        DataError: the first bytes are those of another format or encoding.
    """
    if head[_TAR[0] :].startswith(_TAR[1]):
        raise DataError(f"{path} is a tar archive, so it cannot be read as {kind}. Unpack it.")
    for signature, what, remedy in _SIGNATURES:
        if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(signature):
            raise DataError(f"{path} {what}, so it cannot be read as {kind}. {remedy}")
    if kind in ("csv", "tsv") and head.lstrip().startswith((b'{"', b"[{")):
        raise DataError(
            f"{path} looks like JSON, so it cannot be read as {kind}. Set the source's `format: "
            "jsonl` if it has one object per line."
        )
    if head.startswith(_WIDE) and "16" not in encoding and "32" not in encoding:
        raise DataError(
            f"{path} is UTF-16, so it cannot be read as {kind} in {encoding}. Set the source's "
            "`encoding: utf-16`."
        )


def no_rows_error(path: Path, *, is_empty: bool) -> DataError:
    """Return the error for a raw file without rows."""
    return DataError(
        f"{path} {'is empty' if is_empty else 'has no rows'}. Put data there, or another file."
    )
