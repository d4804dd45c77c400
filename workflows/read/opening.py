"""Open a raw file in the format that its source in the recipe or the ending of its name states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workflows.ground.errors import DataError
from workflows.read import files
from workflows.read.dialect import Dialect
from workflows.read.jsonlines import JsonLinesFile
from workflows.read.parquet import ParquetFile
from workflows.read.text import TextFile
from workflows.recipe import Source

#: An opened raw file of any format: csv or tsv, JSON lines, or parquet.
DataFile = TextFile | ParquetFile | JsonLinesFile
#: Number of bytes of text that are read at a time; no row of text may be longer.
BLOCK = 8 << 20


def open_file(
    path: Path, source: Source, *, block: int = BLOCK, named: Sequence[str] = ()
) -> DataFile:
    """Open a raw file in the format that the recipe or the ending of its name states.

    Args:
        path: path of the raw file.
        source: the source of the recipe that the file belongs to.
        block: number of bytes of the file that are read at a time.
        named: raw names of the columns that the recipe names.

    Raises:
        DataError: the file cannot be read, or is of another format.
    """
    kind = files.kind(path, source)
    if kind == "parquet":
        if source.text_options:
            raise DataError(
                f"{path} is parquet, which needs no description of its cells: "
                f"`{source.text_options[0]}` is for csv and tsv. Remove it from the source."
            )
        return ParquetFile(path, block=block)
    if kind == "jsonl":
        return JsonLinesFile(
            path, encoding=source.encoding, nulls=("", *source.nulls), block=block, wanted=named
        )
    return TextFile(path, Dialect.of(source, kind), block=block)
