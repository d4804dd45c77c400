"""The bytes of a raw file as a parser takes them: unpacked, in UTF-8, one byte between two cells.

How a file is packed is seen by its first bytes, never by its name.
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

#: The first bytes of a packed file → what Arrow calls the packer; Arrow does not know xz.
_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x50\x2a\x4d\x18", "zstd"),  # of pzstd, which begins with a frame to be skipped
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xfd7zXZ\0", "xz"),
)
#: So many bytes are decoded at a time.
_STEP = 1 << 20
_PIECE = 1 << 19
#: What stands between two cells where that is more than one byte in the file.
UNIT = b"\x1f"


def is_packed(path: Path) -> bool:
    """Say whether the first bytes of a file are those of a packed one."""
    return bool(_packer(path))


def opened(path: Path) -> BinaryIO:
    """Open a file for reading, unpacked."""
    packer = _packer(path)
    if packer == "xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    return pa.input_stream(str(path), compression=packer or None)


def _packer(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    return next((name for signature, name in _PACKED if start.startswith(signature)), "")


def is_utf8(encoding: str) -> bool:
    """Say whether text in an encoding can be taken as it is."""
    return codecs.lookup(encoding).name in ("utf-8", "ascii")


class Unpacked(io.RawIOBase):
    """The text of a file, unpacked and in UTF-8.

    Args:
        path: the path of the file.
        encoding: the encoding of its text.

    Raises:
        UnicodeError: while it is read, where a text in another encoding than UTF-8 is none.
    """

    def __init__(self, path: Path, encoding: str = "utf-8") -> None:
        self._stream = opened(path)
        self._decoder = None
        if not is_utf8(encoding):
            self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""
        self._is_over = False

    def readable(self) -> bool:
        """Say that this is for reading, as Arrow asks."""
        return True

    @property
    def _is_changed(self) -> bool:
        """Whether bytes are not taken as they are."""
        return self._decoder is not None

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes: as many as are asked for, unless the file ends."""
        if not self._is_changed:
            return _filled(self._stream.read, size)
        parts = [self._ready]
        there = len(self._ready)
        while not self._is_over and (size < 0 or there < size):
            data = self._stream.read(_STEP)
            self._is_over = not data
            parts.append(self._changed(data, last=self._is_over))
            there += len(parts[-1])
        whole = b"".join(parts)
        size = len(whole) if size < 0 else size
        self._ready = whole[size:]
        return whole[:size]

    def _changed(self, data: bytes, *, last: bool) -> bytes:
        """Return the next bytes in UTF-8."""
        return self._decoder.decode(data, last).encode() if self._decoder else data

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()


def _filled(read: Callable[[int], bytes], size: int) -> bytes:
    """Return as many bytes as are asked for, unless the file ends: xz gives what it has."""
    data = read(size)
    while data and 0 <= len(data) < size:
        more = read(size - len(data))
        if not more:
            break
        data += more
    return bytes(data)


class Watched(Unpacked):
    """The bytes of delimited text as they go by: where the first NUL is, and whether quotes close.

    Args:
        path: the path of the file.
        encoding: the encoding of its text.
        delimiter: what stands between two cells; where it is more than one byte in UTF-8, a parser
            meets `UNIT` in its place.
        quotes: looks at the quotes; None where a quote is an ordinary character.

    Attributes:
        nul: place of the first NUL, from 0.
        quotes: what was found out about the quotes so far.
        has_units: whether the text itself has a `UNIT`, which a parser meets as NUL.
        lines: how many line ends there were so far; none is counted without `quotes`.
    """

    def __init__(
        self, path: Path, encoding: str, delimiter: str, quotes: Quotes | None = None
    ) -> None:
        super().__init__(path, encoding)
        self._delimiter = delimiter.encode()
        self._rest = b""
        self._read = 0
        self.nul: int | None = None
        self.quotes = quotes
        self.has_units = False
        self.lines = 0

    @property
    def _is_changed(self) -> bool:
        return super()._is_changed or len(self._delimiter) > 1

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, and look at them."""
        data = super().read(size)
        if len(self._delimiter) == 1:
            self._look_for_nul(data)
        if self.quotes is not None:
            self.quotes.see(data)
            self.lines += _line_ends(data)
        return data

    def _look_for_nul(self, data: bytes) -> None:
        if self.nul is None and (at := data.find(b"\0")) >= 0:
            self.nul = self._read + at
        self._read += len(data)

    def _changed(self, data: bytes, *, last: bool) -> bytes:
        data = super()._changed(data, last=last)
        if len(self._delimiter) == 1:
            return data
        self._look_for_nul(data)
        if UNIT in data:
            self.has_units = True
            data = data.replace(UNIT, b"\0")
        *cells, end = (self._rest + data).split(self._delimiter)
        kept = 0 if last else _begun(end, self._delimiter)
        self._rest = end[len(end) - kept :]
        return UNIT.join([*cells, end[: len(end) - kept]])


def _line_ends(text: bytes) -> int:
    """Count the line ends of a text; in pieces that a processor's cache holds."""
    found = 0
    for start in range(0, len(text), _PIECE):
        found += np.count_nonzero(np.frombuffer(text[start : start + _PIECE], np.uint8) == 10)
    return found or text.count(b"\r")


def _begun(text: bytes, delimiter: bytes) -> int:
    """Return how many bytes at the end of a text may be the beginning of a delimiter."""
    sizes = range(len(delimiter) - 1, 0, -1)
    return next((size for size in sizes if text.endswith(delimiter[:size])), 0)
