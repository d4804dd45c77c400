"""Define the NVTabular operators of etl, and convert Arrow tables to the data frames they take.

In the data frame that an operator takes, a text column holds the int32 indices of a dictionary
(workflows/raw/dictionaries.py); the index of a null is the number of distinct texts. So a column is
encoded by indexing an array of vocabulary codes by an array of dictionary indices, in NumPy on a
CPU and in CuPy on a GPU.
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
from workflows.raw import dictionaries, list_cells
from workflows.recipe.kinds.number import MISSING

#: An array of int32: the codes, or the rows of a table, of all indices of a dictionary.
Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True)
class CodeTable:
    """The vocabulary code of each distinct text of a column, indexed by its dictionary index.

    Attributes:
        codes: vocabulary code of each distinct text, int32 [n_texts + 1]; the last code is that of
            null.
        size: number of codes of the vocabulary.
        oov_buckets: number of codes of the vocabulary that are shared by unseen values.
    """

    codes: Int32s
    size: int
    oov_buckets: int

    @classmethod
    def of(cls, vocabulary: Vocabulary, texts: pa.StringArray) -> CodeTable:
        """Look up the vocabulary codes of all distinct texts of a column."""
        found = np.append(vocabulary.encode(texts), np.int32(NULL))
        return cls(found, vocabulary.size, vocabulary.oov_buckets)


class Encode(nvt.ops.Operator):
    """The NVTabular operator that looks up the codes of text columns, in place of Categorify.

    Categorify itself encodes by a merge and a sort, and it orders values of equal counts by an
    unstable sort. One operator looks up all columns, because Merlin copies the data frame wherever
    it joins the outputs of two operators.

    Args:
        lookups: text column → the vocabulary codes of its distinct texts.
        tags: column → its Merlin tags.
        rows: new column (`user_row`, `item_row`) → the id column that it is made from, and the row
            of each distinct id in the user or item table, int32 [n_texts + 1]; below 0 if the table
            lacks the id.
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
        """Replace dictionary indices by vocabulary codes; add columns `user_row` and `item_row`."""
        new = {n: _take(df[n], self.lookups[n].codes) for n in col_selector.names}
        new |= {name: _take(df[key], table) for name, (key, table) in self.rows.items()}
        return _like(df, new)

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """Map each output column to its input column; `user_row` and `item_row` to id columns."""
        of_rows = {name: [key] for name, (key, _) in self.rows.items()}
        return {**{name: [name] for name in col_selector.names}, **of_rows}

    @property
    def output_dtype(self) -> Any:
        """The type of vocabulary codes and of table rows: int32."""
        return np.int32

    def _compute_tags(self, col_schema: ColumnSchema, input_schema: Schema) -> ColumnSchema:
        return col_schema.with_tags(list(self.tags.get(col_schema.name, ())))

    def _compute_properties(self, col_schema: ColumnSchema, input_schema: Schema) -> ColumnSchema:
        # Categorify also has `cat_path`, which would put a path of this machine into the schema
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
    """An NVTabular operator that adds `<name>_missing`: 1.0 where a number is missing, else 0.0."""

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Return the columns `<name>_missing` of a frame: 1.0 for a missing number, else 0.0."""
        out = type(df)()
        for name in col_selector.names:
            out[name + MISSING] = df[name].isna().astype("float32")
        return out

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """Map each column `<name>_missing` to the number column that it is made from."""
        return {name + MISSING: [name] for name in col_selector.names}

    @property
    def output_tags(self) -> list[Tags]:
        """The Merlin tags of the columns `<name>_missing`, which are model inputs."""
        return [Tags.CONTINUOUS]

    @property
    def output_dtype(self) -> Any:
        """The type of the columns `<name>_missing`: float32."""
        return np.float32


def _take(column: Any, table: Int32s) -> Any:
    """Replace each index in a column, or in its lists, by the entry of `table` at this index."""
    if isinstance(column, pd.Series):
        array = column.array
        if not isinstance(array, pd.arrays.ArrowExtensionArray):
            return table[column.to_numpy()]
        lists = dictionaries.combine(array.__arrow_array__())
        values = pa.array(table[lists.flatten().to_numpy()])
        return pd.arrays.ArrowExtensionArray(list_cells.replace_values(lists, values))
    # cudf; not exercised on a GPU in CI
    if dispatch.is_list_dtype(column):
        values = dispatch.flatten_list_column_values(column)
        return dispatch.encode_list_column(column, _take(values, table))
    return type(column)(table).take(column)


def _like(frame: Any, columns: dict[str, Any]) -> Any:
    """Return a data frame of new columns, of the library (pandas, cuDF) and index of `frame`."""
    if isinstance(frame, pd.DataFrame):
        return pd.DataFrame(columns, index=frame.index, copy=False)
    new = type(frame)(columns)  # cudf; not exercised on a GPU in CI
    new.index = frame.index
    return new


def to_indices(table: pa.Table) -> pa.Table:
    """Return a table with dictionary indices in place of text, and empty lists in place of null."""
    return pa.table(
        {name: _to_indices(dictionaries.combine(table[name])) for name in table.column_names}
    )


def to_frame(table: pa.Table, *, on_gpu: bool) -> Any:
    """Return the output of `to_indices` as a data frame for Merlin: cuDF on a GPU, else pandas."""
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


def _to_indices(array: pa.Array) -> pa.Array:
    if pa.types.is_list(array.type):
        return dictionaries.make_lists(
            array.value_lengths().fill_null(0), _to_indices(array.flatten())
        )
    return pa.array(dictionaries.indices(array)) if pa.types.is_dictionary(array.type) else array


def to_table(frame: Any) -> pa.Table:
    """Return an encoded data frame (pandas or cuDF) as an Arrow table."""
    if hasattr(frame, "to_arrow"):  # cudf; not exercised on a GPU in CI
        return frame.to_arrow().replace_schema_metadata(None)
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
