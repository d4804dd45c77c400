"""Build NVTabular workflows from a recipe and fitted vocabularies, stored without pickle.

`Workflow.save` of NVTabular 23.8 is cloudpickle (CVE-2025-33214). Therefore vocabularies and
statistics are written as parquet and JSON, and every NVTabular workflow is built from the recipe
and these files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import nvtabular as nvt
import pyarrow as pa
from merlin.schema import ColumnSchema, Schema, Tags
from nvtabular.workflow.node import WorkflowNode

from models.core.columns import ITEM_ROW, USER_ROW
from workflows.etl.encode.ops import CodeTable, Encode, Int32s, IsMissing
from workflows.etl.shape.column_counts import NumberCounts, TextCounts
from workflows.etl.threads import map_threads
from workflows.ground import statistics
from workflows.ground.stage_content import reading
from workflows.ground.statistics import NumberFact
from workflows.ground.vocabulary import Vocabulary, read_all
from workflows.recipe import Recipe, VocabularyRule
from workflows.recipe.kinds.base import Encoded, LookUp, MarkMissing, PassOn, Standardise
from workflows.stages.etl import EtlFiles

_DTYPES: dict[str, Any] = {"int32": np.int32, "int64": np.int64, "float32": np.float32}


@dataclass(frozen=True)
class Fitted:
    """The vocabularies of texts and the statistics of numbers, learnt from training rows alone."""

    vocabularies: dict[str, Vocabulary] = field(default_factory=dict)
    numbers: dict[str, NumberFact] = field(default_factory=dict)

    def grow_from(self, older: Fitted) -> Fitted:
        """Return an earlier run's vocabularies, with new values added, and its statistics."""
        vocabularies = {
            name: vocabulary.grow_from(older.vocabularies[name])
            if name in older.vocabularies
            else vocabulary
            for name, vocabulary in self.vocabularies.items()
        }
        numbers = {name: older.numbers.get(name, fact) for name, fact in self.numbers.items()}
        return Fitted(vocabularies, numbers)

    def write(self, folder: Path) -> None:
        """Write the files vocabulary/<column>.parquet and statistics.json into a folder."""
        files, of = EtlFiles(folder), self.vocabularies
        files.vocabularies.mkdir()
        map_threads(of, lambda name: of[name].write(files.vocabularies / f"{name}.parquet"))
        statistics.write(self.numbers, folder)

    @classmethod
    def read(cls, folder: Path) -> Fitted:
        """Read the vocabularies and statistics that `write` wrote.

        Raises:
            ArtifactError: the content of the files is not valid.
        """
        with reading(folder, "etl"):
            return cls(read_all(folder), statistics.read(folder))


def raw_schema(recipe: Recipe, columns: Sequence[str]) -> Schema:
    """Return the Merlin schema of a data frame that `ops.to_frame` makes."""
    found = []
    for column in columns:
        feature = recipe.features[column]
        dtype, dims = _DTYPES[feature.meaning.dtype], feature.meaning.dims(feature)
        found.append(ColumnSchema(column, dtype=dtype, dims=dims))
    return Schema(found)


def fit(
    recipe: Recipe, texts: Mapping[str, TextCounts], numbers: Mapping[str, NumberCounts]
) -> Fitted:
    """Learn the vocabularies of text columns and the statistics of numbers from training rows.

    NVTabular's own `fit` would first transform a whole partition to infer types that the recipe
    declares.

    Args:
        recipe: recipe with the features and their vocabulary rules.
        texts: text column → counts of the texts of the training interactions.
        numbers: number column → sums of the numbers of the training interactions.
    """
    vocabularies = map_threads(
        texts, lambda c: build_vocabulary(texts[c], recipe.vocabulary_rule(c))
    )
    return Fitted(vocabularies, {c: of.fact(recipe.features[c].fill) for c, of in numbers.items()})


def build_vocabulary(counts: TextCounts, rule: VocabularyRule) -> Vocabulary:
    """Return the vocabulary of a text column, or of the values of a column of lists."""
    there = counts.counts > 0
    values = pa.concat_arrays([counts.texts, pa.nulls(1, counts.texts.type)])
    return Vocabulary.build(
        values.filter(pa.array(there)),
        counts.counts[there],
        min_count=rule.min_count,
        max_values=rule.max_values,
        oov_buckets=rule.oov_buckets,
    )


def build_workflow(
    recipe: Recipe,
    lookups: Mapping[str, CodeTable],
    numbers: Mapping[str, NumberFact],
    columns: Sequence[str],
    *,
    rows: Mapping[str, Int32s] | None = None,
) -> nvt.Workflow:
    """Build the fitted NVTabular workflow that turns raw data frames into model inputs with tags.

    Args:
        recipe: recipe that describes the features.
        lookups: text column → the vocabulary codes of its distinct texts.
        numbers: number column → its mean, its standard deviation and the value that fills gaps.
        columns: the columns of the data frame to encode, without labels.
        rows: id column → for each distinct id, its row in the user or item table, from which the
            column `user_row` or `item_row` is made.
    """
    named = {
        USER_ROW if recipe.features[column].role == "user" else ITEM_ROW: (column, places)
        for column, places in (rows or {}).items()
    }
    described = _describe(recipe, columns, numbers)
    tags = {e.name: _tags(e) for e in described if isinstance(e.change, LookUp)}
    nodes = [list(tags) >> Encode(lookups, tags, named)]
    nodes += [_node(e) for e in described if not isinstance(e.change, LookUp)]
    workflow = nvt.Workflow(sum(nodes[1:], nodes[0]))
    return workflow.fit_schema(raw_schema(recipe, columns))


def _describe(
    recipe: Recipe, columns: Sequence[str], numbers: Mapping[str, NumberFact]
) -> list[Encoded]:
    """Describe how each model input is encoded; the time and the weight of rows come last."""
    features = {column: recipe.features[column] for column in columns}
    found = [
        e for c, feature in features.items() for e in feature.meaning.encode(c, feature, numbers)
    ]
    last = (recipe.time, recipe.weight)
    return sorted(found, key=lambda e: last.index(e.source) if e.source in last else -1)


def _node(encoded: Encoded) -> WorkflowNode:
    """Return the NVTabular operators that make a model input; `ops.Encode` looks up its codes."""
    node: Any = [encoded.source]
    change = encoded.change
    if isinstance(change, Standardise):
        normalize = nvt.ops.Normalize(out_dtype=np.float32)
        normalize.means = {encoded.source: change.fact.mean}
        normalize.stds = {encoded.source: change.fact.std}
        node = node >> _filled(change.fact.fill) >> normalize
    elif isinstance(change, MarkMissing):
        node = node >> IsMissing()
    elif isinstance(change, PassOn) and change.fill is not None:
        node = node >> _filled(change.fill)
    if encoded.name != encoded.source and not isinstance(change, MarkMissing):
        return node >> nvt.ops.Rename(name=encoded.name)
    return node >> nvt.ops.AddMetadata(_tags(encoded), dict(encoded.properties))


def _tags(encoded: Encoded) -> list[Tags]:
    return [Tags(tag) for tag in encoded.tags]


def _filled(value: float) -> nvt.ops.FillMissing:
    """Return an NVTabular operator that fills missing numbers with a value exact as float32.

    With a value that is not exact as float32, pandas would make the column float64, so that the
    last digits of its numbers would depend on whether a block has a gap.
    """
    return nvt.ops.FillMissing(fill_val=float(np.float32(value)))
