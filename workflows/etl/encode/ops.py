"""Our NVTabular operators, and the frames that they take: text is int32 already (codes.py).

A frame's text column holds the codes of `codes.py`, the number of distinct texts standing for null.
So encoding is one look-up, in NumPy on a CPU as in CuPy on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import nvtabular as nvt
import pandas as pd
import pyarrow as pa
from merlin.core import dispatch
from merlin.dag import ColumnSelector
from merlin.schema import ColumnSchema, Schema, Tags

from models.core.reserved_codes import NULL
from workflows.ground.vocabulary import Vocabulary
from workflows.raw import dictionaries
from workflows.recipe.kinds.number import MISSING

#: Int32s or rows of a table, one for each index of a dictionary.
Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True)
class CodeTable:
    """What stands for each code of a column.

    Attributes:
        codes: int32 [n_texts + 1]; the last stands for null.
        size: number of codes of the vocabulary.
        oov_buckets: how many of them unseen values share.
    """

    codes: Int32s
    size: int
    oov_buckets: int

    @classmethod
    def of(cls, vocabulary: Vocabulary, texts: pa.StringArray) -> CodeTable:
        """Look all distinct texts of a column up in a vocabulary."""
        found = np.append(vocabulary.encode(texts), np.int32(NULL))
        return cls(found, vocabulary.size, vocabulary.oov_buckets)


class Encode(nvt.ops.Operator):
    """What Categorify does, by look-up: the same codes, tags and schema properties.

    Categorify merges and sorts to encode, and orders ties of a count by an unstable sort. All
    columns are looked up in one operator, as Merlin copies a frame wherever two come together.

    Args:
        lookups: column → its look-up.
        tags: column → its tags.
        rows: new column → the id column that it is made of, and of each of its codes the row of
            the user or item table, int32 [n_texts + 1], below 0 where it is in none.
    """

    def __init__(
        self,
        lookups: Mapping[str, CodeTable],
        tags: Mapping[str, Sequence[Tags]],
        rows: Mapping[str, tuple[str, Int32s]] | None = None,
    ) -> None:
        super().__init__()
        self.lookups = lookups
        self.tags = tags
        self.rows = rows or {}

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Replace codes of text by codes of the vocabulary, in lists too; look the ids up."""
        made = {n: _looked_up(df[n], self.lookups[n].codes) for n in col_selector.names}
        made |= {name: _looked_up(df[key], table) for name, (key, table) in self.rows.items()}
        return _like(df, made)

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """A column each, and the rows' of their ids."""
        of_rows = {name: [key] for name, (key, _) in self.rows.items()}
        return {**{name: [name] for name in col_selector.names}, **of_rows}

    @property
    def output_dtype(self) -> Any:
        """int32."""
        return np.int32

    def _compute_tags(self, col_schema: ColumnSchema, input_schema: Schema) -> ColumnSchema:
        return col_schema.with_tags(list(self.tags.get(col_schema.name, ())))

    def _compute_properties(self, col_schema: ColumnSchema, input_schema: Schema) -> ColumnSchema:
        # not Categorify's: its cat_path would put a path of this machine into the schema
        name = col_schema.name
        if name in self.rows:
            return col_schema
        found = self.lookups[name]
        properties = {
            "domain": {"min": 0, "max": found.size - 1, "name": name},
            "num_buckets": found.oov_buckets,
        }
        return col_schema.with_properties({**col_schema.properties, **properties})


class IsMissing(nvt.ops.Operator):
    """1.0 where a number is missing, else 0.0, in a column `<name>_missing`."""

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Mark the gaps."""
        out = type(df)()
        for name in col_selector.names:
            out[name + MISSING] = df[name].isna().astype("float32")
        return out

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """One new column a number."""
        return {name + MISSING: [name] for name in col_selector.names}

    @property
    def output_tags(self) -> list[Tags]:
        """It is a model input."""
        return [Tags.CONTINUOUS]

    @property
    def output_dtype(self) -> Any:
        """float32."""
        return np.float32


def _looked_up(column: Any, table: Int32s) -> Any:
    """Return what a table has for each code of a column, or of the lists of a column."""
    if isinstance(column, pd.Series):
        array = column.array
        if not isinstance(array, pd.arrays.ArrowExtensionArray):
            return table[column.to_numpy()]
        lists = dictionaries.combine(array.__arrow_array__())
        values = pa.array(table[lists.flatten().to_numpy()])
        return pd.arrays.ArrowExtensionArray(dictionaries.make_lists(lists.value_lengths(), values))
    # cudf; not exercised on a GPU in CI
    if dispatch.is_list_dtype(column):
        values = dispatch.flatten_list_column_values(column)
        return dispatch.encode_list_column(column, _looked_up(values, table))
    return type(column)(table).take(column)


def _like(frame: Any, columns: dict[str, Any]) -> Any:
    """Return new columns as a frame of the same kind and with the same index."""
    if isinstance(frame, pd.DataFrame):
        return pd.DataFrame(columns, index=frame.index, copy=False)
    made = type(frame)(columns)  # cudf; not exercised on a GPU in CI
    made.index = frame.index
    return made


def numbered(table: pa.Table) -> pa.Table:
    """Return rows with the codes alone, without the texts; a null list becomes an empty one."""
    return pa.table(
        {name: _numbered(dictionaries.combine(table[name])) for name in table.column_names}
    )


def frame(table: pa.Table, *, on_gpu: bool) -> Any:
    """Return `numbered` rows as Merlin takes them: cuDF on a GPU, else pandas."""
    if on_gpu:
        return dispatch.get_lib().DataFrame.from_arrow(table)
    columns = {}
    for name in table.column_names:
        array = dictionaries.combine(table[name])
        columns[name] = (
            pd.Series(pd.arrays.ArrowExtensionArray(array))
            if pa.types.is_list(array.type)
            else array.to_numpy(zero_copy_only=False)
        )
    return pd.DataFrame(columns, copy=False)


def _numbered(array: pa.Array) -> pa.Array:
    if pa.types.is_list(array.type):
        return dictionaries.make_lists(
            array.value_lengths().fill_null(0), _numbered(array.flatten())
        )
    return pa.array(dictionaries.indices(array)) if pa.types.is_dictionary(array.type) else array


def table(frame: Any) -> pa.Table:
    """Return a frame as an Arrow table."""
    if hasattr(frame, "to_arrow"):  # cudf; not exercised on a GPU in CI
        return frame.to_arrow().replace_schema_metadata(None)
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
