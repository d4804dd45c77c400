"""Counts of partitions add up to those of all rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from workflows.etl.shape import column_counts
from workflows.etl.shape.column_counts import NumberCounts, TextCounts, ValueCounts


def numbers(n: int) -> list[float | None]:
    rng = np.random.default_rng(5)
    return [None if k % 7 == 3 else float(v) for k, v in enumerate(rng.lognormal(3, 1, n))]


@pytest.mark.parametrize("policy", ["mean", "median", 4.5, "error"])
def test_sums_of_partitions_are_those_of_the_column(policy: str | float) -> None:
    cells = numbers(1000)
    column = pa.chunked_array([pa.array(cells, pa.float32())])
    whole = NumberCounts.of(column, policy, is_whole=True).fact(policy)
    parts = [
        NumberCounts.of(column.slice(start, 130), policy, is_whole=False)
        for start in range(0, 1000, 130)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total.add(part)
    found = total.fact(policy)
    known = np.array([np.float32(cell) for cell in cells if cell is not None])
    fill = {"median": np.median(known), "mean": known.mean(dtype=np.float64), "error": known.mean()}
    filled = np.append(known, [fill.get(policy, policy)] * (1000 - len(known))).astype(float)
    assert found.mean == pytest.approx(filled.mean(), rel=1e-6)
    assert found.std == pytest.approx(filled.std(ddof=1), rel=1e-6)
    assert (found.mean, found.std, found.fill) == pytest.approx(
        (whole.mean, whole.std, whole.fill), rel=1e-7
    )


def test_a_partition_without_numbers_changes_nothing() -> None:
    column = pa.chunked_array([pa.array([1.0, 3.0], pa.float32())])
    some = NumberCounts.of(column, "median", is_whole=False)
    none = NumberCounts.of(column.slice(0, 0), "median", is_whole=False)
    assert none.add(some).fact("median") == some.add(none).fact("median") == some.fact("median")
    assert none.fact("median").mean == 0.0


def test_a_median_of_many_values_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_counts, "_MOST", 100)
    values = np.random.default_rng(2).lognormal(3, 1, 20_000)
    parts = [ValueCounts.of(part) for part in np.split(values, 8)]
    total = parts[0]
    for part in parts[1:]:
        total = total.add(part)
    assert len(total.values) <= 100
    assert total.counts.sum() == 20_000
    rank = (values < total.median).mean()
    assert abs(rank - 0.5) < 0.02


def test_texts_are_added_by_their_spelling() -> None:
    first = TextCounts.of(pa.chunked_array([pa.array(["a", "b", None, "a"])]))
    second = TextCounts.of(pa.chunked_array([pa.array(["c", "b", None])]))
    total = first.add(second)
    counts = dict(zip(total.texts.to_pylist(), total.counts.tolist(), strict=False))
    assert counts == {"a": 2, "b": 2, "c": 1}
    assert total.counts[-1] == 2
    assert total.add(second).counts.sum() == 10
