"""Writes raw text files, a batch of lines at a time, without a Python loop over lines."""

from __future__ import annotations

import binascii
import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.random import Generator

from models.core.retriever import Floats, Ints


class RawFile(NamedTuple):
    """A raw file that was written: its path and its number of rows.

    Attributes:
        name: the path of the file in the sample's folder.
        rows: number of rows of the file, without the header.
    """

    name: str
    rows: int


def write_csv(
    folder: Path, name: str, header: Sequence[str], batches: Iterable[Sequence[pa.Array]]
) -> RawFile:
    """Write text columns as comma-separated lines; a file whose name ends in .gz is compressed.

    Args:
        folder: the folder of the sample.
        name: the path of the file in this folder.
        header: the names of the columns; empty for a file without a header.
        batches: batches of text columns of equal length, whose text is written as it is; null is an
            empty cell.
    """
    rows = 0
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open(path) as file:
        if header:
            file.write(f"{','.join(header)}\n".encode())
        for columns in batches:
            rows += len(columns[0])
            file.write(_text(columns))
    return RawFile(name, rows)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    with path.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        # no name and no time in the header: the same rows are the same bytes
        with gzip.GzipFile(
            filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0
        ) as packed:
            yield packed


def _text(columns: Sequence[pa.Array]) -> bytes | pa.Buffer:
    """Return the lines of some text columns as bytes, without a copy of each line."""
    if not len(columns[0]):
        return b""
    cells = [pc.fill_null(column, "") for column in columns]
    lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*cells, ","), "", "\n")
    return lines.buffers()[2]


def read_text(path: Path, columns: Mapping[str, str]) -> pa.Table:
    """Read some columns of a file that `write_csv` wrote, as text.

    Args:
        path: the file to read.
        columns: name of a column in the file → name of the column in the returned table.
    """
    as_text = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()), include_columns=list(columns)
    )
    return pa.csv.read_csv(path, convert_options=as_text).rename_columns(list(columns.values()))


def as_text(values: Sequence[object] | Ints | pa.Array) -> pa.Array:
    """Return an array of whole numbers, or of text, as an arrow array of text."""
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return pc.cast(array, pa.string())


def as_decimals(values: Floats) -> pa.Array:
    """Return numbers as text as Python prints them (a whole number as `49.0`); NaN becomes null."""
    text = pc.cast(pa.array(values, mask=np.isnan(values)), pa.string())
    whole = pc.binary_join_element_wise(text, ".0", "")
    return pc.if_else(pc.match_substring_regex(text, r"^-?\d+$"), whole, text)


def quote(values: Sequence[str | None]) -> pa.Array:
    """Return text with double quotes around the cells that need them in a CSV file."""
    array = pa.array(values, pa.string())
    inside = pc.replace_substring(array, '"', '""')
    around = pc.binary_join_element_wise("", inside, "", '"')
    return pc.if_else(pc.match_substring_regex(array, '[",\n]'), around, array)


def hexadecimal(n: int, width: int, rng: Generator) -> pa.Array:
    """Return n random numbers of `width` hexadecimal digits each, as text in ascending order.

    Args:
        n: number of random numbers.
        width: number of digits of each number, which must be even.
        rng: the generator of random numbers.
    """
    digits = np.frombuffer(binascii.hexlify(rng.bytes(n * width // 2)), f"S{width}")
    offsets = np.arange(n + 1, dtype=np.int32) * width
    return pa.StringArray.from_buffers(
        n, pa.py_buffer(offsets), pa.py_buffer(np.sort(digits).tobytes())
    )
