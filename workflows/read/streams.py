"""Open raw text files for a parser: decompressed, in UTF-8, and with a delimiter of one byte.

The first bytes of a file show how it is compressed; its name has no influence.
"""

from __future__ import annotations

import codecs
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa

from workflows.raw.quotes import Quotes

#: First bytes of a compressed file, and Arrow's name of the compression; Arrow cannot read xz.
_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x50\x2a\x4d\x18", "zstd"),  # pzstd writes this first frame, which readers skip
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xfd7zXZ\0", "xz"),
)
#: Numbers of bytes of a text file to decode, and to search for line ends, at a time.
_STEP = 1 << 20
_PIECE = 1 << 19
#: The byte that replaces a csv delimiter of more than one byte.
UNIT = b"\x1f"


def open_unpacked(path: Path) -> BinaryIO:
    """Open a file, compressed or not, for reading its decompressed bytes."""
    packer = _packer(path)
    if packer == "xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    return pa.input_stream(str(path), compression=packer or None)


def _packer(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    return next((name for signature, name in _PACKED if start.startswith(signature)), "")


def is_packed(path: Path) -> bool:
    """Say whether a file is compressed, by its first bytes."""
    return bool(_packer(path))


def is_utf8(encoding: str) -> bool:
    """Say whether text in the named encoding is also UTF-8, as ASCII is."""
    return codecs.lookup(encoding).name in ("utf-8", "ascii")


class UnpackedStream(io.RawIOBase):
    """A stream of the decompressed text of a raw file, converted to UTF-8.

    Args:
        path: path of the raw file.
        encoding: encoding of its text.
        span: the first byte to read and the byte after the last; None for the whole file. Only
            files in UTF-8 that are not compressed have spans.

    Raises:
        UnicodeError: `read` cannot decode the text. Text in UTF-8 is passed on unchecked.
    """

    def __init__(
        self, path: Path, encoding: str = "utf-8", span: tuple[int, int] | None = None
    ) -> None:
        self._stream = open_unpacked(path)
        self._left: int | None = None
        if span is not None:
            self._stream.seek(span[0])
            self._left = span[1] - span[0]
        self._decoder = None
        if not is_utf8(encoding):
            self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""
        self._is_over = False

    def readable(self) -> bool:
        """Return True, because Arrow calls this method to learn whether the stream can be read."""
        return True

    @property
    def _is_converted(self) -> bool:
        """Whether the stream converts the file's bytes, as for encodings other than UTF-8."""
        return self._decoder is not None

    def read(self, size: int = -1, /) -> bytes:
        """Return the next `size` bytes of the text in UTF-8, or fewer at the end of the file."""
        if self._left is not None:
            size = self._left if size < 0 else min(size, self._left)
            self._left -= size
        if not self._is_converted:
            return _read_fully(self._stream.read, size)
        parts = [self._ready]
        there = len(self._ready)
        while not self._is_over and (size < 0 or there < size):
            data = self._stream.read(_STEP)
            self._is_over = not data
            parts.append(self._convert(data, last=self._is_over))
            there += len(parts[-1])
        whole = b"".join(parts)
        size = len(whole) if size < 0 else size
        self._ready = whole[size:]
        return whole[:size]

    def _convert(self, data: bytes, *, last: bool) -> bytes:
        """Convert the next bytes of the file from its encoding to UTF-8."""
        return self._decoder.decode(data, last).encode() if self._decoder else data

    def close(self) -> None:
        """Close the raw file."""
        self._stream.close()
        super().close()


def _read_fully(read: Callable[[int], bytes], size: int) -> bytes:
    """Read `size` bytes, or fewer at the end of the file, by repeated calls of `read`."""
    data = read(size)
    while data and 0 <= len(data) < size:
        more = read(size - len(data))
        if not more:
            break
        data += more
    return bytes(data)


class CheckedStream(UnpackedStream):
    """A stream of delimited text that looks for NUL bytes and unclosed quotes while it is read.

    Args:
        path: path of the raw file.
        encoding: encoding of its text.
        delimiter: text between two cells. A delimiter of several bytes is replaced by the byte
            `UNIT` (0x1f, the unit separator of ASCII).
        quotes: the checker of quotes; None if quotes are ordinary characters.
        span: the first byte to read and the byte after the last; None for the whole file.

    Attributes:
        nul: position, from 0, of the first NUL byte in the text so far; None if there is none.
        quotes: the checker of quotes, with its findings so far.
        has_units: whether the file has the byte `UNIT` itself, which is then replaced by NUL.
        lines: number of line ends so far, counted only if `quotes` is given.
    """

    def __init__(
        self,
        path: Path,
        encoding: str,
        delimiter: str,
        quotes: Quotes | None = None,
        span: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(path, encoding, span)
        self._delimiter = delimiter.encode()
        self._rest = b""
        self._read = 0
        self.nul: int | None = None
        self.quotes = quotes
        self.has_units = False
        self.lines = 0

    @property
    def _is_converted(self) -> bool:
        return super()._is_converted or len(self._delimiter) > 1

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes of the csv text, and look for NUL bytes and unclosed quotes."""
        data = super().read(size)
        if len(self._delimiter) == 1:
            self._look_for_nul(data)
        if self.quotes is not None:
            self.quotes.check(data)
            self.lines += _line_ends(data)
        return data

    def _look_for_nul(self, data: bytes) -> None:
        if self.nul is None and (at := data.find(b"\0")) >= 0:
            self.nul = self._read + at
        self._read += len(data)

    def _convert(self, data: bytes, *, last: bool) -> bytes:
        data = super()._convert(data, last=last)
        if len(self._delimiter) == 1:
            return data
        self._look_for_nul(data)
        if UNIT in data:
            self.has_units = True
            data = data.replace(UNIT, b"\0")
        *cells, end = (self._rest + data).split(self._delimiter)
        kept = 0 if last else _partial_delimiter(end, self._delimiter)
        self._rest = end[len(end) - kept :]
        return UNIT.join([*cells, end[: len(end) - kept]])


def _line_ends(text: bytes) -> int:
    """Count the line ends of a csv text, in pieces that fit into a processor's cache."""
    found = 0
    for start in range(0, len(text), _PIECE):
        found += np.count_nonzero(np.frombuffer(text[start : start + _PIECE], np.uint8) == 10)
    return found or text.count(b"\r")


def _partial_delimiter(text: bytes, delimiter: bytes) -> int:
    """Return how many bytes at the end of a text may be the first part of a delimiter."""
    sizes = range(len(delimiter) - 1, 0, -1)
    return next((size for size in sizes if text.endswith(delimiter[:size])), 0)
