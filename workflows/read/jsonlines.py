"""Read JSON lines (one flat object per line) with all values as text, so that ids keep digits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workflows.ground.errors import DataError
from workflows.read import files
from workflows.read.encodings import decoding_error
from workflows.read.streams import UnpackedStream, open_unpacked

#: Number of bytes of a JSON lines file that are read to find the keys.
_HEAD = 1 << 20
#: Largest length of a JSON key in bytes: each block is searched together with this number of bytes
#: before it.
_KEY = 1 << 12
_LISTS = pa.list_(pa.string())
#: JSON values that can be read without a JSON parser: text without a backslash, numbers, true,
#: false.
_SIMPLE = r'^("[^"\\]*"|[^"\[{].*)$'
#: Half of a pair of surrogates, which is not a character.
_HALF = re.compile("[\ud800-\udfff]")

Object = dict[str, msgspec.Raw]


class JsonLinesFile:
    """A raw file with one JSON object per line, compressed or not.

    Each key becomes a column. If a line lacks a key, or the key's value is null, the cell is a
    missing value. If the first value of a key is a list, its column is a column of lists.

    Args:
        path: path of the raw file.
        encoding: text encoding of the file.
        nulls: texts in cells that mean a missing value.
        block: number of bytes of the file that are read at a time; no line may be longer.
        wanted: keys to look for in the whole file if the first lines do not have them.

    Attributes:
        path: path of the raw file.
        names: names of the file's columns: the keys of the first lines, and wanted keys of later
            lines.
        lists: names of the file's columns whose cells are lists.
        approximate_rows: estimated number of rows, from the lines at the beginning of the file; for
            a packed file it is a lower bound.
        is_empty: whether the file has no rows.
        notes: warnings about the file; always empty for JSON lines.

    Raises:
        DataError: the file is missing, is in another encoding, or does not hold JSON lines.
    """

    def __init__(
        self, path: Path, *, encoding: str, nulls: Sequence[str], block: int, wanted: Sequence[str]
    ) -> None:
        self.path = path
        self._encoding = encoding
        self._nulls = pa.array(list(nulls), pa.string())
        self._block = block
        self.notes: list[str] = []
        head = self._head()
        self.is_empty = not head
        self.approximate_rows = head.count(b"\n") * path.stat().st_size // max(1, len(head))
        try:
            found = self._first_values(head)
        except UnicodeError:
            raise decoding_error(path, encoding) from None
        self.lists = frozenset(name for name, value in found.items() if value.startswith(b"["))
        missing = [name for name in wanted if name not in found]
        self.names = [*found, *self._later(missing)]

    def _stream(self) -> UnpackedStream:
        return UnpackedStream(self.path, self._encoding)

    def _head(self) -> bytes:
        """Return the first lines of the JSON lines file; refuse a file of another format."""
        with files.reading(self.path, "jsonl"):
            with open_unpacked(self.path) as raw:
                files.refuse_other(self.path, "jsonl", raw.read(_HEAD), self._encoding)
            with self._stream() as stream:
                try:
                    head = stream.read(_HEAD)
                    while head and not head.strip():
                        head = stream.read(_HEAD)
                except UnicodeError:
                    raise decoding_error(self.path, self._encoding) from None
        head = head.removeprefix(b"\xef\xbb\xbf")
        if head.lstrip().startswith(b"["):
            raise DataError(
                f"{self.path} is one JSON array, not JSON lines. Write one object per line, for "
                "example with `jq -c '.[]'`."
            )
        cut = head.rfind(b"\n")
        return head if len(head) < _HEAD or cut < 0 else head[: cut + 1]

    def _first_values(self, head: bytes) -> dict[str, bytes]:
        """Return each key in the file's first lines, with its first value that is not null."""
        found: dict[str, bytes] = {}
        for line in _decode_lines(head, Object, self.path, 0):
            for name, value in line.items():
                if found.get(name, b"null") == b"null":
                    found[name] = bytes(value)
        return found

    def _later(self, wanted: Sequence[str]) -> list[str]:
        """Return those of the wanted keys that occur anywhere in the JSON lines file."""
        ways = {name: [json.dumps(name, ensure_ascii=a).encode() for a in (True, False)]
                for name in wanted}  # fmt: skip
        found: list[str] = []
        rest = b""
        with files.reading(self.path, "jsonl"), self._stream() as stream:
            while len(found) < len(wanted) and (data := stream.read(self._block)):
                text = rest + data
                new = [name for name in wanted if any(way in text for way in ways[name])]
                found += [name for name in new if name not in found]
                rest = text[-_KEY:]
        return found

    def batches(
        self, columns: Sequence[str], as_dictionary: Sequence[str] = ()
    ) -> Iterator[pa.Table]:
        """Yield the columns of the JSON lines file, as text or lists of text, in blocks of rows.

        Args:
            columns: names of the columns of the file to read.
            as_dictionary: names of the columns whose text is returned as Arrow dictionaries.

        Raises:
            DataError: a line is not an object, or is longer than a block; or a value is nested;
                or bytes cannot be decoded.
        """
        row = _row_type(columns)
        before = 0
        with files.reading(self.path, "jsonl"), self._stream() as stream:
            try:
                for text in self._blocks(stream):
                    rows = _decode_lines(text, row, self.path, before)
                    read = {}
                    for at, name in enumerate(columns):
                        cells = [bytes(getattr(one, f"c{at}")) for one in rows]
                        column = self._column(name, cells, before)
                        is_coded = name in as_dictionary and name not in self.lists
                        read[name] = column.dictionary_encode() if is_coded else column
                    yield pa.table(read)
                    before += len(rows)
            except (UnicodeError, pa.ArrowInvalid):
                raise decoding_error(self.path, self._encoding) from None

    def _blocks(self, stream: UnpackedStream) -> Iterator[bytes]:
        """Yield the bytes of the JSON lines file in blocks of whole lines."""
        rest = b""
        while data := stream.read(self._block):
            cut = data.rfind(b"\n") + 1
            if len(rest) + (data.find(b"\n") if cut else len(data)) > self._block:
                raise DataError(
                    f"{self.path}: a line is longer than {self._block:,} bytes. Write one object "
                    "per line."
                )
            if cut:
                yield rest + data[:cut]
                rest = b""
            rest += data[cut:]
        if rest.strip():
            yield rest

    def _column(self, name: str, cells: Sequence[bytes], before: int) -> pa.Array:
        """Turn the JSON values of one key into a column of text or of lists of text.

        Args:
            name: name of the column.
            cells: JSON text of the cells.
            before: number of rows of the file before these.
        """
        if name in self.lists:
            return pa.array(
                [_list(cell, self._place(name, before + at)) for at, cell in enumerate(cells)],
                _LISTS,
            )
        raw = pa.array(cells, pa.binary()).cast(pa.string())
        texts = pc.if_else(pc.equal(raw, "null"), pa.scalar(None, pa.string()), raw)
        odd = pc.invert(pc.match_substring_regex(texts, _SIMPLE)).fill_null(False)
        texts = pc.replace_substring_regex(texts, pattern=r'^"([^"\\]*)"$', replacement=r"\1")
        if pc.any(odd, min_count=0).as_py():
            at = np.flatnonzero(odd.to_numpy(zero_copy_only=False))
            whole = [_scalar(cells[n], self._place(name, before + int(n))) for n in at]
            texts = pc.replace_with_mask(texts, odd, pa.array(whole, pa.string()))
        is_null = pc.is_in(texts, value_set=self._nulls)
        return pc.if_else(is_null, pa.scalar(None, pa.string()), texts)

    def _place(self, name: str, row: int) -> str:
        return f"{self.path}, column {name!r}, row {row + 1}"


def _row_type(columns: Sequence[str]) -> type[msgspec.Struct]:
    """Return a struct type for a JSON line; it keeps the values of the columns as JSON text."""
    names = {f"c{at}": name for at, name in enumerate(columns)}
    null = msgspec.Raw(b"null")
    fields: list[tuple[str, type, Any]] = [(field, msgspec.Raw, null) for field in names]
    return msgspec.defstruct("Row", fields, rename=names)


def _decode_lines(text: bytes, kind: Any, path: Path, before: int) -> list[Any]:
    """Decode several JSON lines at once; if that fails, decode one by one to find the wrong line.

    Args:
        text: the bytes of one or more complete lines.
        kind: type into which a line is decoded.
        path: path of the raw file, for messages.
        before: number of rows of the file before these.
    """
    text = text.removeprefix(b"\xef\xbb\xbf")
    decoder = msgspec.json.Decoder(kind)
    try:
        return decoder.decode_lines(text)
    except msgspec.DecodeError:
        lines = [line for line in text.split(b"\n") if line.strip()]
        return [
            _decode_line(line, decoder, f"{path}, row {before + n + 1}")
            for n, line in enumerate(lines)
        ]


def _decode_line(line: bytes, decoder: msgspec.json.Decoder[Any], place: str) -> Any:
    """Decode one JSON line; accept NaN, which Python writes although JSON does not allow it."""
    try:
        return decoder.decode(line)
    except msgspec.DecodeError as error:
        reason = str(error)
    try:
        found = json.loads(line, parse_int=_Digits, parse_float=_Digits, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        found, reason = None, str(error)
    if isinstance(found, dict):
        halves = (name for name, value in found.items() if _HALF.search(_as_json({name: value})))
        name = next(halves, None)
        if name is None:
            pairs = (b"%s:%s" % (_dump(name), _dump(value)) for name, value in found.items())
            return decoder.decode(b"{%s}" % b",".join(pairs))
        reason = f"key {name!r}: half of a character, a surrogate"
    raise DataError(
        f"{place} is not a JSON object ({reason}): {line[:80].decode('utf-8', 'replace')!r}. "
        'Expected one object per line, such as {"user": "u1", "item": "i1"}; correct the file.'
    )


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class _Digits(str):
    """A JSON number as text, with all digits that it has in the file."""


def _constant(name: str) -> str | None:
    return None if name == "NaN" else _Digits(f'"{name}"')


def _dump(value: Any) -> bytes:
    if isinstance(value, _Digits):
        return value.encode()
    if isinstance(value, list):
        return b"[%s]" % b",".join(map(_dump, value))
    return b"{}" if isinstance(value, dict) else json.dumps(value).encode()


def _scalar(cell: bytes, place: str) -> str | None:
    """Return a JSON value (text, number or boolean) as text.

    Raises:
        DataError: the value is an object or a list.
    """
    if cell.startswith((b"{", b"[")):
        what = "an object" if cell.startswith(b"{") else "a list"
        raise DataError(
            f"{place}: {what}, where a single value is expected: "
            f"{cell[:80].decode('utf-8', 'replace')}. Write its values as columns of their own, or "
            "as a list in each row."
        )
    if not cell.startswith(b'"'):
        return None if cell == b"null" else cell.decode()
    text: str = json.loads(cell)
    return text


def _list(cell: bytes, place: str) -> list[str | None] | None:
    """Return a JSON list as a list of texts; None for null.

    Raises:
        DataError: the value is not a list, or is a list of objects or lists.
    """
    if cell == b"null":
        return None
    if not cell.startswith(b"["):
        raise DataError(
            f"{place}: {cell[:80].decode('utf-8', 'replace')} is not a list, although an earlier "
            "row has one. Write a list in each row."
        )
    return [_scalar(bytes(one), place) for one in msgspec.json.decode(cell, type=list[msgspec.Raw])]
