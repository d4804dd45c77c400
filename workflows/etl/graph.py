"""Recipe → NVTabular workflows, and what fitting them learnt, kept without pickle.

`Workflow.save` of NVTabular 23.8 is cloudpickle (CVE-2025-33214). So the fitted state is written as
parquet and JSON, and a workflow is always built from recipe + state, in training as anywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import nvtabular as nvt
import pyarrow as pa
from google.protobuf import struct_pb2, text_format
from merlin.schema import ColumnSchema, Schema, Tags
from merlin.schema.io.tensorflow_metadata import TensorflowMetadata
from nvtabular.workflow.node import WorkflowNode
from tensorflow_metadata.proto.v0 import schema_pb2

from models.columns import ITEM_ROW, ROW_WEIGHT, USER_ROW
from workflows import statistics
from workflows.etl.ops import Encode, IsMissing, Rows
from workflows.recipe import Recipe
from workflows.statistics import NumberFact
from workflows.vocabulary import Vocabulary, read_all

_ROLE_TAGS = {"user": Tags.USER, "item": Tags.ITEM, "context": Tags.CONTEXT}
_ID_TAGS = {"user": Tags.USER_ID, "item": Tags.ITEM_ID}


def write_schema(schema: Schema, folder: Path) -> None:
    """Write schema.pbtxt, the same bytes for the same schema (Merlin's order of tags changes)."""
    text = TensorflowMetadata.from_merlin_schema(schema).to_proto_text()
    message = text_format.Parse(text, schema_pb2.Schema())
    for feature in message.feature:
        tags = sorted(feature.annotation.tag)
        feature.annotation.tag[:] = tags
        for packed in feature.annotation.extra_metadata:
            properties = struct_pb2.Struct()
            packed.Unpack(properties)
            packed.value = properties.SerializeToString(deterministic=True)
    (folder / "schema.pbtxt").write_text(text_format.MessageToString(message), encoding="utf-8")


@dataclass(frozen=True)
class Fitted:
    """What was learnt from the training rows, and from them alone."""

    vocabularies: dict[str, Vocabulary] = field(default_factory=dict)
    numbers: dict[str, NumberFact] = field(default_factory=dict)

    def grown_from(self, older: Fitted) -> Fitted:
        """Return a state in which codes and standardised numbers keep the meaning they had."""
        vocabularies = {
            name: vocabulary.grown_from(older.vocabularies[name])
            if name in older.vocabularies
            else vocabulary
            for name, vocabulary in self.vocabularies.items()
        }
        return Fitted(vocabularies, {**self.numbers, **older.numbers})

    def write(self, folder: Path) -> None:
        """Write vocabulary/<column>.parquet and statistics.json into a folder."""
        (folder / "vocabulary").mkdir()
        for name, vocabulary in self.vocabularies.items():
            vocabulary.write(folder / "vocabulary" / f"{name}.parquet")
        statistics.write(self.numbers, folder)

    @classmethod
    def read(cls, folder: Path) -> Fitted:
        """Read what `write` wrote."""
        return cls(read_all(folder), statistics.read(folder))


def raw_schema(recipe: Recipe, columns: Sequence[str]) -> Schema:
    """Say what raw columns are. Left alone, Merlin judges by the first row: a null is no list."""
    found = []
    for column in columns:
        feature = recipe.features[column]
        dtype: Any = np.str_
        if feature.role == "time":
            dtype = np.int64
        elif feature.kind == "number":
            dtype = np.float32
        dims = (None, None) if feature.kind == "categories" else (None,)
        found.append(ColumnSchema(column, dtype=dtype, dims=dims))
    return Schema(found)


def fit(recipe: Recipe, train: nvt.Dataset, columns: Sequence[str]) -> Fitted:
    """Learn vocabularies and statistics of these columns from the training rows.

    Args:
        recipe: kinds of columns and vocabulary rules.
        train: the raw training rows.
        columns: those to learn.
    """
    encode = Encode(
        {c: recipe.vocabulary_rule(c) for c in _encoded(recipe, columns)},
        lists=_lists(recipe, columns),
    )
    numbers = numeric(recipe, columns)
    fills = _fill_values(recipe, train, numbers)
    normalize = nvt.ops.Normalize(out_dtype=np.float32)
    nodes = None
    if _encoded(recipe, columns):
        nodes = _encoded(recipe, columns) >> encode
    if numbers:
        filled = _filled(numbers, fills) >> normalize
        nodes = filled if nodes is None else nodes + filled
    if nodes is not None:
        nvt.Workflow(nodes).fit(train)
    facts = {
        n: NumberFact(float(normalize.means[n]), _finite(normalize.stds[n]), fills[n])
        for n in numbers
    }
    return Fitted(dict(encode.vocabularies), facts)


def encoding(
    recipe: Recipe,
    fitted: Fitted,
    columns: Sequence[str],
    *,
    schema: Schema,
    rows: dict[str, pa.StringArray] | None = None,
) -> nvt.Workflow:
    """Build the fitted workflow that turns raw columns into model inputs with their tags.

    Args:
        recipe: roles and kinds.
        fitted: vocabularies and statistics.
        columns: the raw columns that are there.
        schema: of the raw data.
        rows: id column → the ids of its table; adds `user_row` or `item_row`.
    """
    tagged = [_tagged(recipe, fitted, column) for column in columns]
    nodes = [node for node in tagged if node is not None]
    for column, ids in (rows or {}).items():
        name = USER_ROW if recipe.features[column].role == "user" else ITEM_ROW
        nodes.append([column] >> Rows(ids, name))
    if recipe.time in columns:
        nodes.append([recipe.time] >> nvt.ops.AddMetadata())
    if recipe.weight in columns:
        nodes.append(_weights(recipe))
    workflow = nvt.Workflow(sum(nodes[1:], nodes[0]))
    return workflow.fit_schema(schema)


def _weights(recipe: Recipe) -> WorkflowNode:
    """Return the nodes of the row weights, under the name by which the loss knows them."""
    assert recipe.weight is not None
    nodes = [recipe.weight]
    policy = recipe.features[recipe.weight].null
    if isinstance(policy, float):
        nodes = nodes >> nvt.ops.FillMissing(fill_val=policy)
    return nodes >> nvt.ops.Rename(name=ROW_WEIGHT)


def _tagged(recipe: Recipe, fitted: Fitted, column: str) -> WorkflowNode | None:
    """Return the nodes of one column, ending in the tags that the model is built by."""
    feature = recipe.features[column]
    tags = [_ID_TAGS[feature.role]] if feature.id else [_ROLE_TAGS.get(feature.role)]
    if feature.encoded:
        encode = Encode(
            {},
            {column: fitted.vocabularies[column]},
            lists=_lists(recipe, [column]),
            model_input=feature.input,
        )
        return [column] >> encode >> nvt.ops.AddTags(tags)
    if not feature.is_input_number or not feature.input:
        return None
    fact = fitted.numbers[column]
    normalize = nvt.ops.Normalize(out_dtype=np.float32)
    normalize.means, normalize.stds = {column: fact.mean}, {column: fact.std}
    nodes = _filled([column], {column: fact.fill}) >> normalize
    if feature.indicator:
        nodes = nodes + ([column] >> IsMissing())
    return nodes >> nvt.ops.AddTags(tags)


def _encoded(recipe: Recipe, columns: Sequence[str]) -> list[str]:
    return [c for c in columns if recipe.features[c].encoded]


def _lists(recipe: Recipe, columns: Sequence[str]) -> list[str]:
    return [c for c in columns if recipe.features[c].kind == "categories"]


def numeric(recipe: Recipe, columns: Sequence[str]) -> list[str]:
    """Return those of the columns that are numbers for a tower."""
    return [c for c in columns if recipe.features[c].is_input_number]


def _filled(numbers: Sequence[str], fills: dict[str, float]) -> WorkflowNode:
    nodes = [[n] >> nvt.ops.FillMissing(fill_val=fills[n]) for n in numbers]
    return sum(nodes[1:], nodes[0])


def _fill_values(recipe: Recipe, train: nvt.Dataset, numbers: Sequence[str]) -> dict[str, float]:
    fills: dict[str, float] = {}
    frame: Any = train.to_ddf()[list(numbers)].compute() if numbers else None
    for name in numbers:
        policy = recipe.features[name].null
        if isinstance(policy, float):
            fills[name] = policy
        else:  # with policy `error` there are no gaps; the mean is what an unknown user gets
            known = frame[name].dropna()
            middle = known.median() if policy == "median" else known.mean()
            fills[name] = _finite(middle) if len(known) else 0.0
    return fills


def _finite(value: float) -> float:
    """A column without values, or one value without spread, gives NaN: count it as 0."""
    return float(value) if np.isfinite(value) else 0.0
