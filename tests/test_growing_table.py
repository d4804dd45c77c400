"""Growing tables: the pieces of a table give the same rows however it was cut."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages import with_dictionaries

from workflows.etl.read import growing_table
from workflows.etl.read.growing_table import GrowingTable
from workflows.ground.errors import DataError
from workflows.raw import dictionaries

CELLS = st.lists(st.none() | st.sampled_from(["a", "b", "", "Ж", "010", "10"]), max_size=30)


def grown(table: pa.Table, size: int) -> pa.Table:
    """Cut a table, give each piece texts of its own, and let it grow together again."""
    pieces = GrowingTable("a table")
    for start in range(0, max(1, len(table)), size):
        pieces.add(with_dictionaries(table.slice(start, size)))
    return pieces.table()


@given(CELLS, st.lists(st.none() | CELLS, min_size=1, max_size=20), st.integers(1, 8))
def test_pieces_grow_together(cells: list[str | None], lists: list[list[str]], size: int) -> None:
    n = min(len(cells), len(lists))
    table = pa.table(
        {
            "text": pa.array(cells[:n], pa.string()),
            "lists": pa.array(lists[:n], pa.list_(pa.string())),
            "number": pa.array(range(n), pa.int64()),
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing_table, "_WAITING", 3)  # merge often
        found = grown(table, size)
    assert found.to_pydict() == table.to_pydict()
    assert found.column_names == table.column_names
    met = [cell for cell in dict.fromkeys(cells[:n]) if cell is not None]
    assert dictionaries.combine(found["text"]).dictionary.to_pylist() == met  # by first appearance


INTEGERS = st.one_of(
    *(
        st.tuples(st.just(kind), st.lists(st.none() | st.integers(*ends), min_size=1, max_size=30))
        for kind, ends in (
            (pa.int64(), (-(2**63), 2**63 - 1)),
            (pa.int64(), (-9, 9)),
            (pa.int64(), (2**40, 2**40 + 50)),
            (pa.int64(), (-(2**31) - 3, -(2**31) + 3)),  # some pieces need 64 bits, some do not
            (pa.uint64(), (2**31 - 3, 2**31 + 3)),
            (pa.uint64(), (2**64 - 20, 2**64 - 1)),
            (pa.int32(), (-(2**31), 2**31 - 1)),
            (pa.int8(), (-128, 127)),
        )
    )
)


@given(INTEGERS, st.integers(1, 8), st.sampled_from([1, 100, 1 << 20]))
def test_whole_numbers_are_written_as_text_at_the_end(
    written: tuple[pa.DataType, list[int | None]], size: int, table_of: int
) -> None:
    kind, cells = written
    pieces = GrowingTable("a table", texts=["id"])
    for start in range(0, len(cells), size):
        piece = pa.array(cells[start : start + size], kind)
        pieces.add(pa.table({"id": piece, "time": piece}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing_table, "_RANGE", table_of)  # by hash, and by a table of the range
        patch.setattr(growing_table, "_PER_ROW", 1)
        table = pieces.table()
    assert table["id"].to_pylist() == [None if cell is None else str(cell) for cell in cells]
    assert table["id"].type == dictionaries.TEXT
    texts = dictionaries.combine(table["id"]).dictionary.to_pylist()
    assert sorted(texts) == sorted({str(cell) for cell in cells if cell is not None})
    assert table["time"].type == kind
    assert table["time"].to_pylist() == cells


def test_whole_numbers_take_as_much_memory_as_codes_until_then() -> None:
    pieces = GrowingTable("a table", texts=["id"])
    pieces.add(pa.table({"id": pa.array(range(100), pa.int64())}))
    assert pieces.width == 4
    pieces.add(pa.table({"id": pa.array([2**40] * 100, pa.int64())}))
    assert pieces.width == 6


def test_too_much_text_is_a_named_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(*_: object) -> None:
        raise pa.ArrowCapacityError("array cannot contain more than 2147483646 bytes")

    monkeypatch.setattr(growing_table._TextPieces, "array", overflow)
    pieces = GrowingTable("source 'log'")
    pieces.add(with_dictionaries(pa.table({"note": ["a"]})))
    with pytest.raises(DataError, match=r"source 'log', column 'note' has more than 2 GiB of dist"):
        pieces.table()
