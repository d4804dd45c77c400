"""Our operators against NVTabular's own, naive loops, and themselves on other partitions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import nvtabular as nvt
import pandas as pd
import pyarrow as pa
import pytest
from merlin.schema import Tags

from workflows.etl import ops
from workflows.etl.ops import Encode, IsMissing, Rows
from workflows.recipe import VocabularyRule
from workflows.vocabulary import Vocabulary


def run(
    op: Any, frame: pd.DataFrame, names: list[str], *, partitions: int = 1, schema: Any = None
) -> tuple[pd.DataFrame, nvt.Workflow]:
    """Fit and transform in a workflow of its own."""
    source: Any = frame if partitions == 1 else dd.from_pandas(frame, npartitions=partitions)
    dataset = nvt.Dataset(source, cpu=True, schema=schema)
    workflow = nvt.Workflow(names >> op)
    return workflow.fit_transform(dataset).to_ddf().compute(), workflow


def stock(frame: pd.DataFrame, name: str, folder: Path, **settings: Any) -> list[Any]:
    """Return the codes that NVTabular's Categorify gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own use of pandas
        op = nvt.ops.Categorify(out_path=str(folder), dtype=np.int32, **settings)
        return run(op, frame, [name])[0][name].tolist()


def lists(cells: list[list[str | None] | None]) -> pd.Series:
    """Return a column of lists as it comes out of Arrow: numpy arrays, and None."""
    return pa.array(cells, pa.list_(pa.string())).to_pandas()


def skewed(rng: np.random.Generator, values: list[str]) -> list[str]:
    """Return each value another number of times, shuffled: no ties."""
    cells = [value for n, value in enumerate(values, start=1) for _ in range(n)]
    return list(rng.permutation(cells))


WORDS = ["b", "a", "010", "10", "-5", "Ж", "zz", "é"]


# ── Encode ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("partitions", [1, 3])
def test_codes_are_those_of_categorify_where_nothing_ties(tmp_path: Path, partitions: int) -> None:
    cells = [*skewed(np.random.default_rng(0), WORDS), None, None]
    frame = pd.DataFrame({"c": cells})
    ours, _ = run(Encode({"c": VocabularyRule()}), frame, ["c"], partitions=partitions)
    assert ours["c"].tolist() == stock(frame, "c", tmp_path)
    # and by hand: the most frequent, the last of WORDS, comes first, after pad, null and unseen
    assert ours["c"].tolist() == [1 if c is None else 3 + WORDS[::-1].index(c) for c in cells]
    assert ours["c"].dtype == np.int32


def test_rare_values_share_the_unseen_code_as_in_categorify(tmp_path: Path) -> None:
    frame = pd.DataFrame({"c": [*skewed(np.random.default_rng(1), WORDS), None]})
    ours, _ = run(Encode({"c": VocabularyRule(min_count=4)}), frame, ["c"])
    assert ours["c"].tolist() == stock(frame, "c", tmp_path, freq_threshold=4)
    assert set(ours["c"][frame["c"].isin(WORDS[:3])]) == {2}


def test_lists_are_encoded_as_in_categorify(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    flat = skewed(rng, WORDS)
    cuts = np.sort(rng.integers(0, len(flat), 9))
    frame = pd.DataFrame({"g": lists([part.tolist() for part in np.split(np.array(flat), cuts)])})
    ours, _ = run(Encode({"g": VocabularyRule()}, lists=["g"]), frame, ["g"])
    theirs = stock(frame, "g", tmp_path)
    assert [c.tolist() for c in ours["g"]] == [list(c) for c in theirs]
    assert ours["g"][0].dtype == np.int32


@pytest.mark.parametrize("partitions", [1, 2, 5])
def test_ties_are_ordered_by_value_on_any_partitions_and_rows(partitions: int) -> None:
    cells = ["b", "a", None, "c", "a", "b", "c", "d"]
    for order in (cells, cells[::-1], sorted(cells, key=str)):
        frame = pd.DataFrame({"c": order})
        ours, _ = run(Encode({"c": VocabularyRule()}), frame, ["c"], partitions=partitions)
        expected = {"a": 3, "b": 4, "c": 5, "d": 6, None: 1}
        assert ours["c"].tolist() == [expected[c] for c in order]


def test_several_columns_at_once_have_their_own_rules_and_counts() -> None:
    frame = pd.DataFrame(
        {
            "c": ["x", "x", "y", None],
            "d": ["1", "2", "2", "3"],
            "g": lists([["x"], [], None, ["y", "x", None]]),
        }
    )
    rules = {
        "c": VocabularyRule(min_count=2),
        "d": VocabularyRule(max_values=1, oov_buckets=3),
        "g": VocabularyRule(),
    }
    op = Encode(rules, lists=["g"])
    ours, _ = run(op, frame, ["c", "d", "g"], partitions=2)
    assert ours["c"].tolist() == [3, 3, 2, 1]
    assert ours["d"].tolist()[1:3] == [5, 5]
    assert set(ours["d"].iloc[[0, 3]]) <= {2, 3, 4}
    assert [c.tolist() for c in ours["g"]] == [[3], [], [], [4, 3, 1]]
    counts = {
        name: dict(zip(v.values.to_pylist(), v.counts, strict=True))
        for name, v in op.vocabularies.items()
    }
    assert counts == {"c": {"x": 2}, "d": {"2": 2}, "g": {"x": 2, "y": 1}}
    facts = {name: (v.null_count, v.oov_count) for name, v in op.vocabularies.items()}
    assert facts == {"c": (1, 1), "d": (0, 2), "g": (1, 0)}


def test_a_column_of_lists_stays_one_where_every_cell_is_null() -> None:
    known = Vocabulary.build(pa.array(["x"]), np.array([1]))
    frame = pd.DataFrame({"g": lists([None, None, ["x"]])})
    op, selector = Encode({}, {"g": known}, lists=["g"]), nvt.ColumnSelector(["g"])
    nulls = op.transform(selector, frame.head(2))
    assert [c.tolist() for c in nulls["g"]] == [[], []]
    # without being told, it could only take them for text
    untold = Encode({}, {"g": known}).transform(selector, frame.head(2))
    assert untold["g"].tolist() == [1, 1]


@pytest.mark.parametrize("partitions", [1, 3])
def test_null_lists_are_not_counted_as_null_elements(partitions: int) -> None:
    # with three partitions the first two hold nothing but nulls
    frame = pd.DataFrame({"g": lists([None, None, None, None, ["x"], ["x", None]])})
    op = Encode({"g": VocabularyRule()}, lists=["g"])
    ddf = dd.from_pandas(frame, npartitions=partitions)
    op.fit_finalize(op.fit(nvt.ColumnSelector(["g"]), ddf).compute())
    assert op.vocabularies["g"].counts.tolist() == [2]
    assert op.vocabularies["g"].null_count == 1


def test_a_fitted_column_is_not_counted_again() -> None:
    known = Vocabulary.build(pa.array(["old"]), np.array([9]), oov_buckets=2)
    op = Encode({"d": VocabularyRule()}, {"c": known})
    frame = pd.DataFrame({"c": ["new", "old"], "d": ["new", "new"]})
    ours, _ = run(op, frame, ["c", "d"])
    assert op.vocabularies["c"] is known
    assert ours["c"].tolist()[1] == 4
    assert ours["c"].tolist()[0] in (2, 3)
    assert ours["d"].tolist() == [3, 3]


def test_rows_keep_their_index() -> None:
    op = Encode({}, {"c": Vocabulary.build(pa.array(["x", "y"]), np.array([2, 1]))})
    frame = pd.DataFrame({"c": ["y", "x", None]}, index=[30, 10, 20])
    out = op.transform(nvt.ColumnSelector(["c"]), frame)
    assert out["c"].to_dict() == {30: 4, 10: 3, 20: 1}


def test_a_slice_of_lists_is_encoded_by_its_own_offsets() -> None:
    op = Encode({}, {"g": Vocabulary.build(pa.array(["x", "y"]), np.array([2, 1]))}, lists=["g"])
    frame = pd.DataFrame({"g": lists([["x"], ["y", "y"], [], ["x", "y"]])})
    out = op.transform(nvt.ColumnSelector(["g"]), frame.iloc[1:])
    assert [c.tolist() for c in out["g"]] == [[4, 4], [], [3, 4]]


def test_offsets_of_a_slice_start_at_zero() -> None:
    # cudf hands such slices over; pandas copies
    part = pa.array([["x"], ["y", "y"], [], ["x"]]).slice(1, 2)
    assert part.offsets.to_pylist() == [1, 3, 3]
    assert ops._offsets(part).to_pylist() == [0, 2, 2]


def test_fitting_again_starts_anew() -> None:
    op = Encode({"c": VocabularyRule()})
    run(op, pd.DataFrame({"c": ["old"]}), ["c"])
    op.clear()
    assert op.vocabularies == {}
    run(op, pd.DataFrame({"c": ["new"]}), ["c"])
    assert op.vocabularies["c"].values.to_pylist() == ["new"]


def test_the_schema_has_the_size_and_no_path_of_this_machine() -> None:
    frame = pd.DataFrame({"c": ["a", "b"]})
    op = Encode({"c": VocabularyRule(oov_buckets=2)})
    _, workflow = run(op, frame, ["c"])
    column = workflow.output_schema["c"]
    assert column.properties == {
        "domain": {"min": 0, "max": 5, "name": "c"},  # pad, null, two unseen, a, b
        "num_buckets": 2,
    }
    assert Tags.CATEGORICAL in column.tags
    _, workflow = run(Encode({"c": VocabularyRule()}, model_input=False), frame, ["c"])
    assert Tags.CATEGORICAL not in workflow.output_schema["c"].tags


# ── Rows, IsMissing ─────────────────────────────────────────────────────────────────────


def test_rows_names_the_place_of_an_id() -> None:
    ids = pa.array(["b", "0a", "Ж", None])
    frame = pd.DataFrame({"id": ["Ж", "b", "a", "0a", "b"]}, index=[9, 8, 7, 6, 5])
    out = Rows(ids, "row").transform(nvt.ColumnSelector(["id"]), frame)
    assert out["row"].to_dict() == {9: 2, 8: 0, 7: -1, 6: 1, 5: 0}
    assert out["row"].dtype == np.int32
    through, workflow = run(Rows(ids, "row"), frame.reset_index(drop=True), ["id"])
    assert through["row"].tolist() == [2, 0, -1, 1, 0]
    assert workflow.output_schema.column_names == ["row"]


def test_is_missing_marks_the_gaps() -> None:
    frame = pd.DataFrame({"x": [1.0, np.nan, 0.0], "y": [np.nan, np.nan, 2.0]}, dtype="float32")
    out, workflow = run(IsMissing(), frame, ["x", "y"])
    assert out["x_missing"].tolist() == [0.0, 1.0, 0.0]
    assert out["y_missing"].tolist() == [1.0, 1.0, 0.0]
    assert set(map(str, out.dtypes)) == {"float32"}
    assert all(Tags.CONTINUOUS in c.tags for c in workflow.output_schema)
