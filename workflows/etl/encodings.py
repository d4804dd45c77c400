"""Errors of text that is not in the encoding that the recipe names."""

from __future__ import annotations

import codecs
from pathlib import Path

from workflows.errors import DataError
from workflows.etl.streams import opened

#: Bytes that are read at a time.
_STEP = 1 << 20


def undecodable(path: Path, encoding: str) -> DataError:
    """Return the error that names the first line of a file that is no text in an encoding."""
    decoder, line, bad = codecs.getincrementaldecoder(encoding)(), 1, b""
    with opened(path) as stream:
        while data := stream.read(_STEP):
            try:
                decoder.decode(data)
            except UnicodeError as error:
                if not isinstance(error, UnicodeDecodeError):
                    return DataError(
                        f"{path} is no {name_of(encoding)}: {error}. Correct the source's "
                        "`encoding:`, or convert the file."
                    )
                line += error.object[: error.start].count(b"\n")
                bad = error.object[error.start : error.start + 1]
                break
            line += data.count(b"\n")
    if not bad:
        return DataError(
            f"{path}, line {line}: the file ends within a character of {name_of(encoding)}, so it "
            "is cut off, or in another encoding. Fetch it again, or set the source's `encoding:`."
        )
    remedy = (
        "Set the source's `encoding:` to what it is, such as latin-1 or cp1252"
        if encoding == "utf-8"
        else "Correct the source's `encoding:`"
    )
    return DataError(
        f"{path}, line {line}: the byte {bad!r} is no {name_of(encoding)}. {remedy}, or convert "
        "the file."
    )


def name_of(encoding: str) -> str:
    """Return what an encoding is called in messages."""
    return "UTF-8" if encoding == "utf-8" else encoding
