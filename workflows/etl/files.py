"""Which files a source has, and what is said of one that cannot be read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from workflows.errors import DataError
from workflows.recipe import Source

#: The first bytes of files that are no text.
_SIGNATURES = (
    (b"\xff\xfe", "is UTF-16, not UTF-8", "Convert it, such as with `iconv -f UTF-16 -t UTF-8`."),
    (b"\xfe\xff", "is UTF-16, not UTF-8", "Convert it, such as with `iconv -f UTF-16 -t UTF-8`."),
    (b"\x1f\x8b", "is compressed with gzip", "Give it a name that ends in .gz."),
    (b"PAR1", "is parquet", "Set the source's `format: parquet`."),
    (b"PK\x03\x04", "is a zip archive or a spreadsheet", "Unpack or export it."),
)


def find(name: str, patterns: str | Sequence[str], folder: Path) -> list[Path]:
    """Return the files that match, in order of the patterns and of their names, each once.

    Args:
        name: of the source, for messages.
        patterns: file names or globs, relative to the folder or absolute.
        folder: the data folder.

    Raises:
        DataError: a pattern without a match, a match that is no file.
    """
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    found = [path for pattern in patterns for path in _matches(name, pattern, folder)]
    return list(dict.fromkeys(found))


def _matches(name: str, pattern: str, folder: Path) -> list[Path]:
    root = Path(Path(pattern).anchor or folder)
    exact = root / pattern
    try:
        matches = [exact] if exact.exists() else sorted(root.glob(pattern.lstrip("/")))
    except (ValueError, OSError) as error:
        raise DataError(
            f"source {name!r}: {pattern!r} is no file name or glob ({error}). Correct `files:`."
        ) from None
    if not matches:
        link = " It is a link that leads nowhere." if exact.is_symlink() else ""
        raise DataError(
            f"source {name!r}: no file matches {pattern!r} in {root}.{link} Put the raw files "
            "there, set `data:` in the recipe, or run `two-tower fetch` if the recipe can fetch "
            "them."
        )
    for path in matches:
        if path.is_dir():
            raise DataError(
                f"source {name!r}: {path} is a folder. Name the files in it, such as "
                f"{path.name + '/*.parquet'!r}."
            )
        if path.exists() and not path.is_file():
            raise DataError(
                f"source {name!r}: {path} is no regular file but a pipe or a device. Write its "
                "content to a file."
            )
    return matches


def kind(path: Path, source: Source) -> str:
    """Return the format of a file: the recipe's word, else its ending's.

    Raises:
        DataError: neither says.
    """
    if source.format:
        return source.format
    ending = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if ending in ("csv", "tsv", "parquet"):
        return ending
    raise DataError(
        f"{path}: the ending .{ending} names no format. Set the source's `format:` to csv, tsv or "
        "parquet."
    )


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Say of what goes wrong inside which file it was, and what to do.

    Raises:
        DataError: in the place of what Arrow or the operating system said.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{path} cannot be read as {kind}: {said}. {_remedy(said, kind)}") from None


def _remedy(said: str, kind: str) -> str:
    if any(word in said for word in ("Truncated", "zlib", "No such", "Permission", "links")):
        return "See that the whole file is there and may be read."
    return f"Mend the file, or set the source's `format:` if it is not {kind}."


def refuse_other(path: Path, kind: str, head: bytes) -> None:
    """Refuse a text file that is visibly something else.

    Args:
        path: of the file.
        kind: what the recipe takes it for.
        head: its first bytes, decompressed.
    """
    for signature, what, remedy in _SIGNATURES:
        if head.startswith(signature):
            raise DataError(f"{path} {what}, so it cannot be read as {kind}. {remedy}")
    if not head.strip():
        raise DataError(f"{path} is empty. Put data there, or another file.")


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a question after the most similar name, or nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
