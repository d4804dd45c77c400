"""Write errors and warnings for text files that are not in the encoding that the recipe names."""

from __future__ import annotations

import codecs
import contextlib
from pathlib import Path

from workflows.ground.errors import DataError
from workflows.read.streams import is_utf8, open_unpacked

#: Number of bytes of a text file that are decoded at a time to find a fault.
_STEP = 1 << 20


def decoding_error(path: Path, encoding: str) -> DataError:
    """Return the error that names the first line that is not in the encoding of the recipe."""
    decoder, line, bad = codecs.getincrementaldecoder(encoding)(), 1, b""
    with open_unpacked(path) as stream:
        while data := stream.read(_STEP):
            try:
                decoder.decode(data)
            except UnicodeError as error:
                if not isinstance(error, UnicodeDecodeError):
                    return DataError(
                        f"{path} is not {encoding_name(encoding)}: {error}. Correct the source's "
                        "`encoding:`, or convert the file."
                    )
                line += error.object[: error.start].count(b"\n")
                bad = error.object[error.start : error.start + 1]
                break
            line += data.count(b"\n")
    if not bad:
        return DataError(
            f"{path}, line {line}: the file ends within a character of {encoding_name(encoding)}, "
            "so it is cut off, or in another encoding. Fetch it again, or set the source's "
            "`encoding:`."
        )
    remedy = (
        "Set the source's `encoding:` to the right one, such as latin-1 or cp1252"
        if encoding == "utf-8"
        else "Correct the source's `encoding:`"
    )
    return DataError(
        f"{path}, line {line}: the byte {bad!r} is not valid in {encoding_name(encoding)}. "
        f"{remedy}, or convert the file."
    )


def encoding_warnings(path: Path, encoding: str, head: bytes) -> list[str]:
    """Return warnings if the beginning of a text file does not look like its stated encoding.

    Args:
        path: path of the raw file.
        encoding: encoding that the recipe names.
        head: first decompressed bytes of the file.
    """
    if head.isascii() or is_utf8(encoding):
        return []
    with contextlib.suppress(UnicodeDecodeError):
        codecs.getincrementaldecoder("utf-8")().decode(head)
        return [
            f"{path}: the source's `encoding:` is {encoding}, and the file begins as UTF-8. If "
            "letters are read wrongly, leave `encoding:` out."
        ]
    if codecs.lookup(encoding).name == "iso8859-1" and any(0x7F < byte < 0xA0 for byte in head):
        return [
            f"{path}: the source's `encoding:` is {encoding}, in which the file has control "
            "characters where cp1252 has quotes, dashes and the euro. Set it to cp1252 if the text "
            "should have those."
        ]
    return []


def encoding_name(encoding: str) -> str:
    """Return the usual name of a text encoding, such as UTF-8, for messages."""
    return "UTF-8" if encoding == "utf-8" else encoding
