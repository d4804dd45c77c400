"""Our NVTabular operators: where its own are slow, unstable or lose something, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import nvtabular as nvt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from dask.delayed import delayed
from merlin.dag import ColumnSelector
from merlin.schema import ColumnSchema, Schema, Tags

from workflows.recipe import VocabularyRule
from workflows.vocabulary import Vocabulary


class Encode(nvt.ops.Categorify):
    """Categorify with a total order of codes, a hash look-up, and text in, int32 out.

    Categorify orders ties by an unstable sort and merges and sorts to encode; on a CPU a look-up
    is several times faster. Codes, tags and schema properties are Categorify's.

    Args:
        rules: column → which values get a code of their own; they are counted by `Workflow.fit`.
        vocabularies: column → a vocabulary fitted earlier; such a column is not counted.
        lists: columns whose cells are lists; the cells cannot tell where all of them are null.
        model_input: tag the columns CATEGORICAL, by which models select their inputs.
    """

    def __init__(
        self,
        rules: dict[str, VocabularyRule],
        vocabularies: dict[str, Vocabulary] | None = None,
        *,
        lists: Sequence[str] = (),
        model_input: bool = True,
    ) -> None:
        super().__init__(dtype=np.int32)
        self.rules = rules
        self.lists = lists
        self.model_input = model_input
        self.given = dict(vocabularies or {})
        self.vocabularies: dict[str, Vocabulary] = dict(self.given)

    def fit(self, col_selector: ColumnSelector, ddf: Any) -> Any:
        """Count the values of each column, one Dask task a partition."""
        columns = [name for name in col_selector.names if name not in self.vocabularies]
        parts = [delayed(_count)(part, columns, self.lists) for part in ddf[columns].to_delayed()]
        return delayed(_merge)(parts)

    def fit_finalize(self, counts: dict[str, pa.Table]) -> None:
        """Turn counts into vocabularies."""
        for name, table in counts.items():
            rule = self.rules[name]
            self.vocabularies[name] = Vocabulary.build(
                table["value"].combine_chunks(),
                table["count"].to_numpy(),
                min_count=rule.min_count,
                max_values=rule.max_values,
                oov_buckets=rule.oov_buckets,
            )

    def clear(self) -> None:
        """Forget what was fitted here."""
        self.vocabularies = dict(self.given)

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Replace text by codes; a list of texts by a list of codes (null lists become empty)."""
        out = type(df)()
        for name in col_selector.names:
            values = _to_arrow(df[name], is_list=name in self.lists)
            vocabulary = self.vocabularies[name]
            if name in self.lists:
                values = pc.fill_null(values, [])
                codes = pa.array(vocabulary.encode(pc.list_flatten(values)))
                lists = pa.ListArray.from_arrays(_offsets(values), codes)
                out[name] = _from_arrow(lists, df)
            else:
                out[name] = _from_arrow(pa.array(vocabulary.encode(values)), df)
        return out

    @property
    def output_tags(self) -> list[Tags]:
        """CATEGORICAL for model inputs."""
        return [Tags.CATEGORICAL] if self.model_input else []

    def _compute_properties(self, col_schema: ColumnSchema, input_schema: Schema) -> ColumnSchema:
        # not Categorify's: its cat_path would put a path of this machine into the schema
        name = col_schema.name
        properties: dict[str, Any] = {}
        if name in self.vocabularies:
            size = self.vocabularies[name].size
            properties = {
                "domain": {"min": 0, "max": size - 1, "name": name},
                "num_buckets": self.vocabularies[name].oov_buckets,
            }
        return col_schema.with_properties({**col_schema.properties, **properties})


class Rows(nvt.ops.Operator):
    """The row of the user or item table that an id names; -1 where it is in none.

    Args:
        ids: text [n_rows], the table's ids in order.
        name: of the new column.
    """

    def __init__(self, ids: pa.StringArray, name: str) -> None:
        super().__init__()
        self.ids = ids
        self.name = name

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Look the ids up."""
        found = pc.index_in(_to_arrow(df[col_selector.names[0]]), value_set=self.ids)
        out = type(df)()
        out[self.name] = _from_arrow(pc.fill_null(found, -1).cast(pa.int32()), df)
        return out

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """One new column from one id."""
        return {self.name: list(col_selector.names)}

    @property
    def output_dtype(self) -> Any:
        """int32."""
        return np.int32


class IsMissing(nvt.ops.Operator):
    """1.0 where a number is missing, else 0.0, in a column `<name>_missing`."""

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Mark the gaps."""
        out = type(df)()
        for name in col_selector.names:
            out[f"{name}_missing"] = df[name].isna().astype("float32")
        return out

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """One new column a number."""
        return {f"{name}_missing": [name] for name in col_selector.names}

    @property
    def output_tags(self) -> list[Tags]:
        """It is a model input."""
        return [Tags.CONTINUOUS]

    @property
    def output_dtype(self) -> Any:
        """float32."""
        return np.float32


def _count(frame: Any, columns: list[str], lists: Sequence[str]) -> dict[str, pa.Table]:
    return {name: _value_counts(_to_arrow(frame[name], is_list=name in lists)) for name in columns}


def _value_counts(values: pa.Array) -> pa.Table:
    if pa.types.is_list(values.type):
        values = pc.list_flatten(values)
    counts = pc.value_counts(values.cast(pa.string()))
    return pa.table({"value": counts.field("values"), "count": counts.field("counts")})


def _merge(parts: list[dict[str, pa.Table]]) -> dict[str, pa.Table]:
    merged = {}
    for name in parts[0]:
        table = pa.concat_tables([part[name] for part in parts])
        merged[name] = table.group_by("value").aggregate([("count", "sum")])
        merged[name] = merged[name].rename_columns(
            [c.replace("count_sum", "count") for c in merged[name].column_names]
        )
    return merged


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Return offsets that start at 0, whatever slice of a larger array this is."""
    return pc.subtract(lists.offsets, lists.offsets[0])


def _to_arrow(series: Any, *, is_list: bool = False) -> pa.Array:
    """Return a pandas or cudf column of text, or of lists of text, as one Arrow array."""
    kind = pa.list_(pa.string()) if is_list else pa.string()
    if hasattr(series, "to_arrow"):  # cudf; not exercised on a GPU in CI
        return series.to_arrow().cast(kind)
    return pa.array(series, kind, from_pandas=True)


def _from_arrow(values: pa.Array, like: Any) -> Any:
    """Return an Arrow array as a column of the same kind of frame, with its index."""
    if isinstance(like, pd.DataFrame):
        return pd.Series(values.to_pandas().values, index=like.index)
    return type(like[like.columns[0]]).from_arrow(values)  # cudf; not exercised on a GPU in CI
