"""Derive steps in the graph of a tower, beside the steps of etl on the same cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from workflows import recipe as recipes
from workflows.derive import cells, fitted
from workflows.derive.fitted import Centres, Frequent
from workflows.derive.times import iso_text
from workflows.recipe import (
    Bins,
    Clip,
    CyclicMonth,
    DatePart,
    Derive,
    Feature,
    Log1p,
    PathLevel,
    PriceCluster,
    TopValues,
)
from workflows.towers import derived

BETWEEN: dict[str, Any] = {"of": "x", "to": "y"}
EDGES = (18.0, 25.1, 35.0)
AGES = [18.0, 18.5, 25.1, None, 99.0, -1.0, 1e30]
PATHS = ["a", "a.b", None, "a.b.c", "a..c", ".b", "é.ü", "a.b."]
#: Dates in one form, because etl reads a column with one form; leap days, and years far away.
DATES = ["2020-09-22", None, "2000-02-29", "1900-02-28", "2100-03-01", "0001-01-01", "9999-12-31"]
ZONED = [
    *("1969-12-31T23:59:59Z", "2021-03-01T00:30:00+02:00", "2020-12-31 23:30-0130", None),
    *("2020-09-22T13:45:00.123456Z", " 2020-09-22T13:45:00 UTC", "2024-02-29T05+01"),
]
PARTS = ("year", "month", "day", "weekday", "hour", "epoch_day")
CENTRES = Centres([1.25, 3.0, 10.6], digits=1)


def in_etl(step: Derive, column: pa.ChunkedArray, state: fitted.State | None) -> list[Any]:
    if state is not None:
        return fitted.apply(column, state).to_pylist()
    is_number = pa.types.is_floating(column.type)
    made = cells.apply(column, step, cells="number" if is_number else None)
    return made.to_pylist()


def in_graph(step: Derive, values: tf.Tensor, state: fitted.State | None) -> list[Any]:
    known = derived.learnt({"y": state} if state else {}).get("y")
    made = derived.derive(values, step, known, "x")
    found = [cell.decode() if isinstance(cell, bytes) else float(cell) for cell in made.numpy()]
    return [None if cell == "" or cell != cell else cell for cell in found]


def tensor(column: list[Any], kind: pa.DataType) -> tf.Tensor:
    gap = "" if pa.types.is_string(kind) else np.nan
    dtype = tf.string if pa.types.is_string(kind) else tf.as_dtype(kind.to_pandas_dtype())
    return tf.constant([gap if cell is None else cell for cell in column], dtype)


CASES = [
    *((DatePart(**BETWEEN, part=part), DATES, pa.string(), None) for part in PARTS),
    *((DatePart(**BETWEEN, part=part), ZONED, pa.string(), None) for part in PARTS),
    (CyclicMonth(**BETWEEN, part="sin"), DATES, pa.string(), None),
    (CyclicMonth(**BETWEEN, part="cos", offset=3), [1.0, None, 12.0, 7.0], pa.float32(), None),
    (Bins(**BETWEEN, edges=EDGES, labels=("a", "b", "c", "d")), AGES, pa.float32(), None),
    (Bins(**BETWEEN, edges=EDGES, labels=("a", "b", "c", "d")), AGES, pa.float64(), None),
    (Log1p(**BETWEEN), [0.0, None, 1e-9, 3e8], pa.float32(), None),
    (Clip(**BETWEEN, low=-2.5), [-3.0, None, 7.0], pa.float32(), None),
    (Clip(**BETWEEN, low=-2.5, high=1.1), [-3.0, None, 1.1, 7.0], pa.float32(), None),
    *((PathLevel(**BETWEEN, level=n, levels=3), PATHS, pa.string(), None) for n in (1, 2, 3)),
    (PathLevel(**BETWEEN, level=1, levels=4, separator=" "), ["a b  c", None], pa.string(), None),
    (PriceCluster(**BETWEEN, k=3), [1.25, None, 2.125, 6.8, 7.0, -9.0], pa.float32(), CENTRES),
    (PriceCluster(**BETWEEN, k=3), [1.0, None], pa.float32(), Centres([2.5], 0)),
    (PriceCluster(**BETWEEN, k=3), [1.0, None], pa.float32(), Centres([], 0)),
    (TopValues(**BETWEEN, n=2), ["a", "x", None, "é"], pa.string(), Frequent(["é", "a"], "rest")),
    (TopValues(**BETWEEN, n=2), ["a", None], pa.string(), Frequent([], "rest")),
]


@pytest.mark.parametrize(("step", "column", "kind", "state"), CASES)
def test_a_step_gives_what_it_gives_in_etl(step, column, kind, state):
    expected = in_etl(step, pa.chunked_array([pa.array(column, kind)]), state)
    found = in_graph(step, tensor(column, kind), state)
    assert len({str(cell) for cell in expected}) > 1 or not getattr(state, "centres", [1])
    texts = isinstance(next((c for c in expected if c is not None), ""), str)
    if texts:
        assert found == expected
    else:
        as_numbers = [np.array(cells, float) for cells in (found, expected)]
        np.testing.assert_allclose(*as_numbers, rtol=1e-12, atol=1e-15)


def test_cells_of_lists_are_derived_one_by_one():
    paths = tf.constant([["a.b", "", "c.d"], ["e", "f.g", ""]])
    found = derived.derive(paths, PathLevel(**BETWEEN, level=2, levels=2), None, "x")
    assert found.numpy().tolist() == [[b"b", b"", b"d"], [b"", b"g", b""]]
    prices = tf.constant([[1.0, np.nan], [3.1, 9.0]])
    found = derived.derive(prices, PriceCluster(**BETWEEN, k=3), CENTRES, "x")
    assert found.numpy().tolist() == [[b"1.2", b""], [b"3.0", b"10.6"]]


def test_any_moment_has_the_parts_that_etl_finds():
    years_1_to_9999 = (-62_135_596_800, 253_402_300_800)
    times = pa.chunked_array([np.random.default_rng(1).integers(*years_1_to_9999, 5_000)])
    texts = tf.constant(iso_text(times).to_pylist())
    for part in PARTS:
        step = DatePart(**BETWEEN, part=part)
        assert in_graph(step, texts, None) == cells.apply(times, step).to_pylist()


@pytest.mark.parametrize(
    ("step", "values", "message"),
    [
        (CyclicMonth(**BETWEEN, part="sin"), [1.0, 13.0], "x: expected months, whole numbers"),
        (CyclicMonth(**BETWEEN, part="sin"), [1.5], "x: expected months, whole numbers from 1"),
        (CyclicMonth(**BETWEEN, part="sin"), ["2020-13-01"], "x: expected ISO 8601, such as"),
        (DatePart(**BETWEEN, part="day"), ["22.09.2020"], "x: expected ISO 8601, such as"),
        (DatePart(**BETWEEN, part="day"), ["2021-02-29"], "x: expected ISO 8601, such as"),
        (DatePart(**BETWEEN, part="day"), ["2021-02-28T24:00"], "x: expected ISO 8601, such as"),
        (Log1p(**BETWEEN), [0.0, -0.5], "x: expected numbers from 0 on"),
        (PathLevel(**BETWEEN, level=1, levels=2), ["a", "a.b.c"], "x: expected paths of at most 2"),
    ],
)
def test_a_value_that_etl_refuses_fails_with_a_message(step, values, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        in_graph(step, tf.constant(values), None)


def test_derived_numbers_get_the_type_of_their_feature():
    days = tf.constant([5.0, np.nan], tf.float64)
    assert derived.as_feature(days, None) is days
    assert derived.as_feature(days, Feature("context")).numpy().tolist() == [b"5", b""]
    assert derived.as_feature(days, Feature("context", kind="number")).dtype == tf.float32


def test_a_number_that_a_filter_reads_as_float64_is_derived_as_towers_take_it():
    raw = {
        "name": "t",
        "sources": {"log": {"files": "log.csv"}},
        "interactions": "log",
        "split": {"kind": "random"},
        "features": {"user": {"role": "user", "id": True}, "item": {"role": "item", "id": True}},
        "filter": [{"kind": "keep", "column": "x", "is": ">", "value": 0}],
        "derive": [{"kind": "bins", "of": "x", "to": "y", "edges": [0.1], "labels": ["a", "b"]}],
    }
    recipe = recipes.parse(raw, where="test")
    numbers = pa.chunked_array([pa.array([0.1 + 1e-12, 0.2], pa.float64())])
    (step,) = recipe.derive
    expected = cells.derive_column(recipe, step, numbers, states={}).to_pylist()
    assert expected == ["a", "b"]
    assert in_graph(step, tf.constant([0.1 + 1e-12, 0.2], tf.float32), None) == expected
