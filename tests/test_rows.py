"""The rows of each part: in order whatever their chunks, each dropped one counted."""

from __future__ import annotations

import random

import pandas as pd
import pyarrow as pa
import pytest
from stages import part, run
from world import World

from workflows.etl import codes, rows
from workflows.etl.counts import Counts

RULES = [
    "{kind: per_day, n: 3}",
    "{kind: users_with, column: rating, is: '>=', value: 4}",
    "{kind: top_users, n: 6}",
    "{kind: keep, column: rating, is: '>=', value: 2, stage: after}",
    "{kind: sample_users, share: 0.9, stage: after}",
]


def log(n: int, *, sorted_: bool) -> pd.DataFrame:
    dice = random.Random(3)
    times = [dice.randrange(20) for _ in range(n)]
    return pd.DataFrame(
        {
            "at": sorted(times) if sorted_ else times,
            "name": [None if k % 9 == 0 else f"Ж{k}" for k in range(n)],
            "tags": [[str(k)] * (k % 3) for k in range(n)],
            "number": [k / 2 for k in range(n)],
        }
    )


@pytest.mark.parametrize("sorted_", [True, False])
def test_order_is_that_of_time_and_ties_stand_as_they_stood(
    sorted_: bool,
) -> None:
    frame = log(100, sorted_=sorted_)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    chunks = pa.concat_tables([table.slice(n, 13) for n in range(0, 100, 13)])
    found = rows._in_order(chunks, "at")
    expected = frame.sort_values("at", kind="stable")
    assert found.to_pylist() == pa.Table.from_pandas(expected, preserve_index=False).to_pylist()
    assert [codes.plain(column).type for column in found.columns] == table.schema.types


def test_users_are_numbered_across_chunks() -> None:
    ids = pa.chunked_array([["b", "a"], [], ["a", "c", "b"]], pa.string())
    assert rows._numbered(ids).tolist() == [0, 1, 1, 2, 0]


def test_every_dropped_row_has_a_cause() -> None:
    counts = Counts()
    table = pa.table({"x": [1, 2, 3]})
    mask = pa.array([True, None, False])
    assert counts.kept(table, mask, "why").to_pydict() == {"x": [1]}
    counts.kept(table, mask, "why")
    assert counts.dropped == {"why": 4}


@pytest.mark.parametrize(
    "split", ["{kind: time, valid: 0, test: 0.3}", "{kind: leave_last, valid: 2, test: 2}"]
)
def test_all_rows_are_in_a_part_or_counted(world: World, split: str) -> None:
    """Every rule at once, also with a part that has no rows."""
    result = run(
        world,
        f"filter=[{', '.join(RULES)}]",
        f"split={split}",
        "derive=[{kind: price_cluster, of: price, to: cluster, k: 3}, "
        "{kind: bins, of: price, to: dear, edges: [1], labels: [no, yes]}, "
        "{kind: path_level, of: title, to: word, level: 1, levels: 2, separator: ' '}]",
        "features.cluster={role: item}",
    )
    report = result.report
    assert sum(report.rows.values()) + sum(report.dropped.values()) == 163
    assert len(report.dropped) == 3 + len(RULES)
    assert len(part(result, "valid")) == report.rows["valid"]
