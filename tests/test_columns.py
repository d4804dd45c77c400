from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models.core.columns
from models.core.columns import (
    as_array,
    fixed_lists,
    from_arrow,
    n_rows,
    read_columns,
    read_rows,
    take,
    take_rows,
    write_vectors,
)
from models.core.retriever import Ragged

LISTS = [[3, 1], [], [7], [2, 2, 9], []]


def ragged(lists: list[list[int]]) -> Ragged:
    values = np.array([v for one in lists for v in one], np.int32)
    return Ragged(values, np.cumsum([0, *map(len, lists)]))


def as_lists(column: Ragged) -> list[list[int]]:
    return [column[i].tolist() for i in range(len(column))]


COLUMNS = {
    "code": np.arange(10, 15, dtype=np.int32),
    "age": np.array([0.5, -1.0, 2.0, 0.0, 9.0], np.float32),
    "genres": ragged(LISTS),
}


@pytest.fixture
def folder(tmp_path):
    """Two parts of one table, as parquet."""
    table = pa.table(
        {
            "code": COLUMNS["code"],
            "age": COLUMNS["age"],
            "genres": pa.array(LISTS, pa.list_(pa.int32())),
        }
    )
    pq.write_table(table.slice(0, 2), tmp_path / "part-0.parquet")
    pq.write_table(table.slice(2), tmp_path / "part-1.parquet")
    return tmp_path


def test_parquet_comes_back_as_it_was_written(folder):
    columns = read_columns(folder)
    assert list(columns) == ["code", "age", "genres"]
    np.testing.assert_array_equal(columns["code"], COLUMNS["code"])
    np.testing.assert_array_equal(columns["age"], COLUMNS["age"])
    assert as_lists(columns["genres"]) == LISTS
    assert columns["code"].dtype == columns["genres"].values.dtype == np.int32
    assert columns["age"].dtype == np.float32
    assert columns["genres"].offsets.dtype == np.int64


@pytest.mark.parametrize("block", [1, 2, 100])
def test_rows_are_read_by_their_numbers_whatever_the_blocks(folder, monkeypatch, block):
    monkeypatch.setattr(models.core.columns, "BLOCK_ROWS", block)
    files = [folder / "part-1.parquet", folder / "part-0.parquet"]
    rows = read_rows(files, ["age", "code"], "code", np.array([-4, 11, 12, 14, 20]))
    assert rows.to_pydict() == {"age": [2.0, 9.0, -1.0], "code": [12, 14, 11]}
    none = read_rows(files, ["code", "age"], "code", np.array([], np.int64))
    assert none.to_pydict() == {"code": [], "age": []}


def test_only_the_named_columns_are_read(folder):
    columns = read_columns(folder / "part-1.parquet", ["genres"])
    assert list(columns) == ["genres"]
    assert as_lists(columns["genres"]) == LISTS[2:]


@given(st.lists(st.lists(st.integers(-5, 5), max_size=4), max_size=6), st.data())
def test_any_slice_of_lists_comes_back(lists, data):
    array = pa.array(lists, pa.list_(pa.int32()))
    start = data.draw(st.integers(0, len(lists)))
    chunked = pa.chunked_array([array.slice(start), array.slice(0, start)])
    assert as_lists(from_arrow(chunked)) == lists[start:] + lists[:start]


def test_a_column_without_chunks_has_no_rows():
    assert len(from_arrow(pa.chunked_array([], pa.int32()))) == 0
    assert as_lists(from_arrow(pa.chunked_array([], pa.list_(pa.int32())))) == []


def test_rows_are_counted_in_numbers_and_in_lists():
    assert n_rows(COLUMNS) == 5
    assert n_rows({"genres": COLUMNS["genres"]}) == 5


def test_a_batch_has_the_form_of_merlins_loader():
    batch = take(COLUMNS, np.array([3, 1, 3]))
    assert {name: values.tolist() for name, values in batch.items()} == {
        "code": [13, 11, 13],
        "age": [0.0, -1.0, 0.0],
        "genres__values": [2, 2, 9, 2, 2, 9],
        "genres__offsets": [0, 3, 3, 6],
    }
    assert batch["genres__offsets"].dtype == np.int32
    assert batch["code"].dtype == np.int32


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=6), st.data())
def test_rows_taken_are_those_of_a_loop(lists, data):
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=8))
    column = ragged(lists)
    assert as_lists(take_rows(column, np.array(rows, int))) == [lists[r] for r in rows]
    numbers = np.arange(len(lists)) * 7
    assert take_rows(numbers, np.array(rows, int)).tolist() == [7 * r for r in rows]
    batch = take({"c": column}, np.array(rows, int))
    pieces = zip(batch["c__offsets"][:-1], batch["c__offsets"][1:], strict=True)
    assert [batch["c__values"][a:b].tolist() for a, b in pieces] == [lists[r] for r in rows]


def test_lists_are_no_array():
    assert as_array(COLUMNS["code"]) is COLUMNS["code"]
    with pytest.raises(TypeError, match="Expected a column with one number per row"):
        as_array(COLUMNS["genres"])


def test_vectors_are_read_as_they_were_written(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    table = pa.table({"item_id": [f"i{n}" for n in range(300)], "embedding": fixed_lists(vectors)})
    write_vectors(table, tmp_path / "vectors.parquet")
    assert pq.read_table(tmp_path / "vectors.parquet").equals(table)
    group = pq.ParquetFile(tmp_path / "vectors.parquet").metadata.row_group(0)
    assert not any(group.column(i).has_dictionary_page for i in range(group.num_columns))
