"""Loads the exported towers that take raw feature values (text and numbers), and embeds rows.

TensorFlow is imported only when a tower is loaded, because most recommendation requests use stored
embeddings and do not need it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Floats, Ints
from workflows.ground import arguments, trust
from workflows.ground.column_names import EMBEDDING
from workflows.ground.errors import DataError
from workflows.ground.stage_content import reading
from workflows.recipe.kinds.form import Form

#: Rows that a tower embeds at a time, and cells of their padded lists: rows x longest list. A
#: cell becomes an embedding, so that these take 64 MB at 64 dimensions.
BATCH, CELLS = 4096, 1 << 18


@dataclass(frozen=True)
class RawTower:
    """A loaded SavedModel of a tower that takes raw values (text and numbers) in place of codes.

    Attributes:
        inputs: name of an input feature → the type and shape of its raw values.
        arguments: name of an input feature → name of the SavedModel's argument.
        sources: name of an input whose missing values the tower derives → name of the input from
            which it derives them.
    """

    inputs: Mapping[str, Form]
    arguments: Mapping[str, str]
    sources: Mapping[str, str]
    _module: Any  # holds the variables and look-up tables that the function uses
    _encode: Any

    @classmethod
    def open(cls, path: Path) -> RawTower:
        """Load a tower that takes raw values from the SavedModel of an export.

        Args:
            path: the folder of the SavedModel in an export.

        Raises:
            ArtifactError: the tower is damaged, or has operations that exported towers never use.
        """
        import tensorflow as tf

        trust.refuse_unsafe_model(path)
        with reading(path, "export"):
            module = tf.saved_model.load(str(path))
            encode = module.signatures["serving_default"]
            specs = encode.structured_input_signature[1]
            described = arguments.read(path)
            named = {name: one.argument for name, one in described.items()}
            inputs = {
                name: Form.of_tensor(specs[argument].dtype.name, specs[argument].shape)
                for name, argument in named.items()
            }
        sources = {n: one.derived_from for n, one in described.items() if one.derived_from}
        return cls(inputs, named, sources, module, encode)

    def missing_inputs(self, given: Collection[str]) -> list[str]:
        """Return the inputs that are neither given nor can be replaced by given inputs.

        A raw input is replaced if a column that the tower would derive from it is given.

        Args:
            given: names of columns, of which some are inputs.
        """
        replaced = {self.sources[name] for name in given if name in self.sources}
        while more := {self.sources[n] for n in replaced if n in self.sources} - replaced:
            replaced |= more
        present = {*given, *replaced, *self.sources}
        return [name for name in self.inputs if name not in present]

    def embed(self, rows: pa.Table) -> Floats:
        """Return the tower's embedding of each row of raw feature values, float32 [n_rows, dim].

        Args:
            rows: raw feature values, one row per user or item. Null, or the absence of a column,
                means a missing value. Columns that the tower does not take are ignored.

        Raises:
            DataError: a column has values of another type than the tower takes.
        """
        columns = {
            name: _typed(rows[name], form, f"column {name!r}")
            if name in rows.column_names
            else pa.chunked_array([pa.nulls(len(rows), form.arrow)])
            for name, form in self.inputs.items()
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

        inputs = {
            self.arguments[name]: tf.constant(self.inputs[name].array(rows[name]))
            for name in rows.column_names
        }
        return self._encode(**inputs)[EMBEDDING].numpy()


def _widths(table: pa.Table) -> Ints:
    """Return the length of the longest list in each row of a feature table, int64 [n_rows]."""
    widths = np.zeros(len(table), np.int64)
    for column in table.columns:
        if pa.types.is_list(column.type):
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
            widths = np.maximum(widths, lengths)
    return widths


def _batches(widths: Ints) -> list[Ints]:
    """Divide rows into batches with similar list lengths, so that padding takes little memory.

    A batch with a long list has few rows, because all its lists are padded to that length.

    Args:
        widths: length of the longest list of each row, int64 [n_rows].
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


def _typed(column: pa.ChunkedArray, form: Form, place: str) -> pa.ChunkedArray:
    """Return a column of raw feature values, converted to the Arrow type that the tower takes.

    Raises:
        DataError: the values of the column cannot be converted.
    """
    try:
        return form.cast(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{place}: expected {form.plural}, got {column.type} ({error}). Correct the cell, "
            "or leave it empty."
        ) from None
