"""Operators: compared with those of NVTabular, with naive loops, and over several block sizes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import nvtabular as nvt
import pandas as pd
import pyarrow as pa
import pytest
from merlin.schema import Tags
from stages import with_dictionaries

from workflows.etl.encode import graph, ops
from workflows.etl.encode.ops import CodeTable, Encode, IsMissing
from workflows.etl.shape.column_counts import TextCounts
from workflows.ground.vocabulary import Vocabulary
from workflows.raw import dictionaries
from workflows.recipe import VocabularyRule

Cells = list[Any]


def run(op: Any, frame: pd.DataFrame, names: list[str]) -> tuple[pd.DataFrame, nvt.Workflow]:
    """Fit and transform in a workflow of its own."""
    workflow = nvt.Workflow(names >> op)
    dataset = nvt.Dataset(frame, cpu=True)
    return workflow.fit_transform(dataset).to_ddf().compute(), workflow


def stock(cells: Cells, folder: Path, **settings: Any) -> list[Any]:
    """Return the codes that NVTabular's Categorify gives."""
    frame = pd.DataFrame({"c": table(cells).to_pandas()["c"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own use of pandas
        op = nvt.ops.Categorify(out_path=str(folder), dtype=np.int32, **settings)
        return run(op, frame, ["c"])[0]["c"].tolist()


def table(cells: Cells, *, lists: bool | None = None) -> pa.Table:
    lists = any(isinstance(cell, list) for cell in cells) if lists is None else lists
    kind = pa.list_(pa.string()) if lists else pa.string()
    return pa.table({"c": pa.array(cells, kind)})


def vocabulary_of(raw: pa.Table, rule: VocabularyRule) -> Vocabulary:
    return graph.build_vocabulary(TextCounts.of(raw["c"]), rule)


def encoded(
    cells: Cells, *, block: int = 1000, known: Vocabulary | None = None, **rule: Any
) -> Cells:
    """Count and encode a column, some rows at a time."""
    raw = with_dictionaries(table(cells))
    vocabulary = known or vocabulary_of(raw, VocabularyRule(**rule))
    op = Encode({"c": CodeTable.of(vocabulary, dictionaries.flatten(raw["c"]).dictionary)}, {})
    found: Cells = []
    for rows in dictionaries.blocks(len(raw), block):
        frame = ops.to_frame(ops.to_indices(raw[rows]), on_gpu=False)
        out = op.transform(nvt.ColumnSelector(["c"]), frame)
        kind = ops.to_table(out).schema.field("c").type
        assert kind == (pa.list_(pa.int32()) if pa.types.is_list(raw["c"].type) else pa.int32())
        found += ops.to_table(out)["c"].to_pylist()
    return found


def skewed(rng: np.random.Generator, values: list[str]) -> list[str]:
    """Return each value another number of times, shuffled: no ties."""
    cells = [value for n, value in enumerate(values, start=1) for _ in range(n)]
    return list(rng.permutation(cells))


WORDS = ["b", "a", "010", "10", "-5", "Ж", "zz", "é"]


# ── Encode ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_codes_are_those_of_categorify_where_nothing_ties(tmp_path: Path, block: int) -> None:
    cells = [*skewed(np.random.default_rng(0), WORDS), None, None]
    found = encoded(cells, block=block)
    assert found == stock(cells, tmp_path)
    # and by hand: the most frequent, the last of WORDS, comes first, after pad, null and unseen
    assert found == [1 if c is None else 3 + WORDS[::-1].index(c) for c in cells]


def test_rare_values_share_the_unseen_code_as_in_categorify(tmp_path: Path) -> None:
    cells = [*skewed(np.random.default_rng(1), WORDS), None]
    found = encoded(cells, min_count=4)
    assert found == stock(cells, tmp_path, freq_threshold=4)
    assert {code for code, cell in zip(found, cells, strict=True) if cell in WORDS[:3]} == {2}


@pytest.mark.parametrize("block", [1, 4, 1000])
def test_lists_are_encoded_as_in_categorify(tmp_path: Path, block: int) -> None:
    rng = np.random.default_rng(2)
    flat = skewed(rng, WORDS)
    cuts = np.sort(rng.integers(0, len(flat), 9))
    cells = [part.tolist() for part in np.split(np.array(flat), cuts)]
    assert encoded(cells, block=block) == [list(cell) for cell in stock(cells, tmp_path)]


def test_ties_are_ordered_by_value_in_any_order_of_rows() -> None:
    cells = ["b", "a", None, "c", "a", "b", "c", "d"]
    expected = {"a": 3, "b": 4, "c": 5, "d": 6, None: 1}
    for order in (cells, cells[::-1], sorted(cells, key=str)):
        assert encoded(order) == [expected[c] for c in order]


def test_rules_decide_what_has_a_code() -> None:
    assert encoded(["x", "x", "y", None], min_count=2) == [3, 3, 2, 1]
    found = encoded(["1", "2", "2", "3"], max_values=1, oov_buckets=3)
    assert found[1:3] == [5, 5]
    assert {found[0], found[3]} <= {2, 3, 4}
    counts = vocabulary_of(
        with_dictionaries(table(["1", "2", None, "2"])), VocabularyRule(max_values=1)
    )
    assert dict(zip(counts.values.to_pylist(), counts.counts, strict=True)) == {"2": 2}
    assert (counts.null_count, counts.oov_count) == (1, 1)


def test_e14_null_lists_are_empty_and_not_counted_as_null_elements() -> None:
    cells: Cells = [["x"], [], None, ["y", "x", None]]
    assert encoded(cells) == [[3], [], [], [4, 3, 1]]
    counts = vocabulary_of(with_dictionaries(table(cells)), VocabularyRule())
    assert counts.counts.tolist() == [2, 1]
    assert counts.null_count == 1
    nothing = with_dictionaries(table([None, []], lists=True))
    assert vocabulary_of(nothing, VocabularyRule()).size == 3


def test_what_a_vocabulary_does_not_know_is_unseen() -> None:
    known = Vocabulary.build(pa.array(["old"]), np.array([9]), oov_buckets=2)
    found = encoded(["new", "old", None], known=known)
    assert found[0] in (2, 3)
    assert found[1:] == [4, 1]


def test_rows_keep_their_index() -> None:
    op = Encode({"c": CodeTable(np.array([4, 3, 1], np.int32), 5, 1)}, {})
    frame = pd.DataFrame({"c": [0, 1, 2]}, index=[30, 10, 20])
    out = op.transform(nvt.ColumnSelector(["c"]), frame)
    assert out["c"].to_dict() == {30: 4, 10: 3, 20: 1}


def test_the_schema_has_the_size_and_no_path_of_this_machine() -> None:
    lookups = {"c": CodeTable(np.array([4, 5, 1], np.int32), 6, 2)}
    frame = pd.DataFrame({"c": [0, 1]})
    _, workflow = run(Encode(lookups, {"c": [Tags.ITEM, Tags.CATEGORICAL]}), frame, ["c"])
    column = workflow.output_schema["c"]
    assert column.properties == {
        "domain": {"min": 0, "max": 5, "name": "c"},  # pad, null, two unseen, a, b
        "num_buckets": 2,
    }
    assert set(column.tags) == {Tags.ITEM, Tags.CATEGORICAL}
    _, workflow = run(Encode(lookups, {}), frame, ["c"])
    assert not workflow.output_schema["c"].tags


def test_the_place_of_an_id_is_named_beside_its_code() -> None:
    rows = np.array([2, 0, -2, 1, -1], np.int32)  # of four ids, and of null
    lookups = {"id": CodeTable(np.array([3, 4, 5, 6, 1], np.int32), 7, 1)}
    frame = pd.DataFrame({"id": [0, 1, 2, 3, 1, 4]}, index=[9, 8, 7, 6, 5, 4])
    op = Encode(lookups, {"id": [Tags.USER_ID]}, {"row": ("id", rows)})
    out = op.transform(nvt.ColumnSelector(["id"]), frame)
    assert out["row"].to_dict() == {9: 2, 8: 0, 7: -2, 6: 1, 5: 0, 4: -1}
    assert out["row"].dtype == np.int32
    through, workflow = run(op, frame.reset_index(drop=True), ["id"])
    assert through["row"].tolist() == [2, 0, -2, 1, 0, -1]
    assert through["id"].tolist() == [3, 4, 5, 6, 4, 1]
    assert workflow.output_schema.column_names == ["id", "row"]
    assert not workflow.output_schema["row"].tags
    assert "domain" not in workflow.output_schema["row"].properties


# ── IsMissing ───────────────────────────────────────────────────────────────────────────


def test_is_missing_marks_the_gaps() -> None:
    frame = pd.DataFrame({"x": [1.0, np.nan, 0.0], "y": [np.nan, np.nan, 2.0]}, dtype="float32")
    out, workflow = run(IsMissing(), frame, ["x", "y"])
    assert out["x_missing"].tolist() == [0.0, 1.0, 0.0]
    assert out["y_missing"].tolist() == [1.0, 1.0, 0.0]
    assert set(map(str, out.dtypes)) == {"float32"}
    assert all(Tags.CONTINUOUS in c.tags for c in workflow.output_schema)
