"""The towers of an export that take raw values: rows of features in, embeddings out.

TensorFlow is loaded when a tower is opened, not before: most questions are answered without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Floats, Ints
from workflows.ground import arguments, trust
from workflows.ground.errors import DataError
from workflows.ground.stage_content import reading
from workflows.raw.values import NUMBERS, TEXTS

#: Rows that are embedded at a time, and cells of their padded lists: rows x the longest list. A
#: cell becomes an embedding, so that these take 64 MB at 64 dimensions.
BATCH, CELLS = 4096, 1 << 18


@dataclass(frozen=True)
class RawTower:
    """A tower that takes raw values.

    Attributes:
        inputs: name → Arrow type of a raw value: text, a list of text, a float32, or a list of it.
        arguments: name → what the SavedModel calls it.
    """

    inputs: Mapping[str, pa.DataType]
    arguments: Mapping[str, str]
    _module: Any  # holds the variables and look-up tables that the function uses
    _encode: Any

    @classmethod
    def open(cls, path: Path) -> RawTower:
        """Load a tower.

        Args:
            path: the path of the SavedModel: `query_tower_raw` or `item_tower_raw` of an export.

        Raises:
            ArtifactError: it holds operations that no tower of ours needs, or is damaged.
        """
        import tensorflow as tf

        trust.refuse_unsafe_model(path)
        with reading(path, "export"):
            module = tf.saved_model.load(str(path))
            encode = module.signatures["serving_default"]
            specs = encode.structured_input_signature[1]
            named = arguments.read(path)
            inputs = {name: _arrow_type(specs[argument]) for name, argument in named.items()}
        return cls(inputs, named, module, encode)

    def embed(self, rows: pa.Table) -> Floats:
        """Return the embedding of each row, float32 [n_rows, dim].

        Args:
            rows: raw values; a null or a column that is not there is a missing value, and columns
                that are no inputs are not read.

        Raises:
            DataError: a column that is not what the tower takes.
        """
        columns = {
            name: _typed(rows[name], kind, f"column {name!r}")
            if name in rows.column_names
            else pa.chunked_array([pa.nulls(len(rows), kind)])
            for name, kind in self.inputs.items()
        }
        table = pa.table(columns) if columns else rows.select([])
        batches = _batches(_widths(table))
        if len(batches) == 1:
            return self._embed(table)
        parts = [self._embed(table.take(pa.array(batch))) for batch in batches]
        vectors = np.empty((len(rows), parts[0].shape[1]), np.float32)
        vectors[np.concatenate(batches)] = np.concatenate(parts)
        return vectors

    def _embed(self, rows: pa.Table) -> Floats:
        import tensorflow as tf

        inputs = {self.arguments[n]: tf.constant(_array(rows[n])) for n in rows.column_names}
        return self._encode(**inputs)["embedding"].numpy()


def _widths(table: pa.Table) -> Ints:
    """Return how long the longest list of each row is, int64 [n_rows]."""
    widths = np.zeros(len(table), np.int64)
    for column in table.columns:
        if pa.types.is_list(column.type):
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
            widths = np.maximum(widths, lengths)
    return widths


def _batches(widths: Ints) -> list[Ints]:
    """Return rows that are embedded together; where lists are long, those of like lengths.

    One long list pads all others of its batch, so it shares one with few.

    Args:
        widths: int64 [n_rows].
    """
    long = min(BATCH, len(widths)) * widths.max(initial=1) > CELLS
    order = np.argsort(widths, kind="stable") if long else np.arange(len(widths))
    batches: list[Ints] = []
    start = 0
    while start < len(order) or not batches:
        rows = order[start : start + BATCH]
        cells = np.maximum.accumulate(np.maximum(widths[rows], 1)) * np.arange(1, len(rows) + 1)
        n_rows = max(1, int(np.searchsorted(cells, CELLS, side="right")))
        batches.append(rows[:n_rows])
        start += n_rows
    return batches


def _typed(column: pa.ChunkedArray, kind: pa.DataType, place: str) -> pa.ChunkedArray:
    """Return a column with the type that a tower takes.

    Raises:
        DataError: it cannot be read as that.
    """
    try:
        return column.cast(kind, safe=not pa.types.is_floating(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{place}: expected {_EXPECTED[kind]}, got {column.type} ({error}). Correct the cell, "
            "or leave it empty."
        ) from None


_EXPECTED = {
    pa.string(): "text",
    TEXTS: "lists of text",
    pa.float32(): "numbers",
    NUMBERS: "lists of numbers",
}


def _arrow_type(spec: Any) -> pa.DataType:
    if spec.shape.rank == 2:
        return TEXTS if spec.dtype.name == "string" else NUMBERS
    return pa.string() if spec.dtype.name == "string" else pa.float32()


def _array(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[Any]]:
    """Return a column as the graph takes it: "" or NaN where nothing is, in padded lists, too."""
    column = column.combine_chunks()
    if pa.types.is_floating(column.type):
        return column.to_numpy(zero_copy_only=False).astype(np.float32)
    if pa.types.is_string(column.type):
        return column.fill_null("").to_numpy(zero_copy_only=False).astype(object)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    nothing, dtype = (np.nan, np.float32) if column.type == NUMBERS else ("", object)
    matrix = np.full((len(column), max(1, lengths.max(initial=0))), nothing, dtype)
    filled = np.arange(matrix.shape[1]) < lengths[:, None]
    matrix[filled] = column.flatten().fill_null(nothing).to_numpy(zero_copy_only=False)
    return matrix
