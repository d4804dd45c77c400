"""row_groups: rows that are read by their numbers, beside those of the whole table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.core.columns import from_arrow
from models.core.row_groups import RowGroups, take_lists, take_rows

LISTS = [[3, 1], [], [7], [2, 2, 9], [], [5], [8, 8]]
NAMES = ["a", "b", "c", "d", "e", "f", "g"]
ROWS = [[6, 0, 3, 3, 2], [4], [1, 2, 3], [5, 4, 3, 2, 1, 0]]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files with row groups of two rows, and one without any rows between them."""
    table = pa.table({"name": NAMES, "items": pa.array(LISTS, pa.list_(pa.int32()))})
    paths = [tmp_path / name for name in ("1.parquet", "2.parquet", "3.parquet")]
    for path, part in zip(paths, (table[:3], table[:0], table[3:]), strict=True):
        pq.write_table(part, path, row_group_size=2)
    return paths


@pytest.mark.parametrize("kept", [1, None])
@pytest.mark.parametrize("rows", ROWS)
def test_rows_come_in_the_order_in_which_they_are_asked_for(files, kept, rows):
    table = RowGroups(files, ["name"], lambda group: group, kept=kept)
    assert len(table) == 7
    assert take_rows(table, np.array(rows)).to_pydict() == {"name": [NAMES[i] for i in rows]}
    lists = RowGroups(files, ["items"], lambda group: from_arrow(group["items"]), kept=kept)
    asked = [-1, *rows, -1]
    found = take_lists(lists, np.array(asked))
    assert [found[n].tolist() for n in range(len(asked))] == [[], *(LISTS[i] for i in rows), []]


def test_no_rows_are_a_table_without_rows(files):
    table = RowGroups(files, ["name", "items"], lambda group: group)
    none = take_rows(table, np.zeros(0, np.int64))
    assert none.column_names == ["name", "items"]
    assert len(none) == 0
    lists = RowGroups(files, ["items"], lambda group: from_arrow(group["items"]))
    assert take_lists(lists, np.array([-1, -1])).lengths.tolist() == [0, 0]


def test_only_the_row_groups_of_the_wanted_rows_are_read_and_so_many_are_kept(files):
    read = []

    def convert(group: pa.Table) -> pa.Table:
        read.append(group["name"].to_pylist())
        return group

    table = RowGroups(files, ["name"], convert, kept=1)
    take_rows(table, np.array([5, 6, 0]))
    assert read == [["a", "b"], ["f", "g"]]
    take_rows(table, np.array([6]))
    assert len(read) == 2  # the last group is kept
    take_rows(table, np.array([1]))
    assert read[2:] == [["a", "b"]]
    every = RowGroups(files, ["name"], convert, kept=None)
    every.load()
    assert [names for names in read[3:] if names] == [["a", "b"], ["c"], ["d", "e"], ["f", "g"]]
    n_read = len(read)
    take_rows(every, np.arange(7))
    assert len(read) == n_read
