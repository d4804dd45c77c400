"""Text as codes: what comes back is what went in, whatever the pieces and the order."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages import coded

from workflows.errors import DataError
from workflows.etl import codes
from workflows.etl.codes import Growing

CELLS = st.lists(st.none() | st.sampled_from(["a", "b", "", "Ж", "010", "10"]), max_size=30)


def grown(table: pa.Table, size: int) -> pa.Table:
    """Cut a table, give each piece texts of its own, and let it grow together again."""
    growing = Growing("a table")
    for start in range(0, max(1, len(table)), size):
        growing.add(coded(table.slice(start, size)))
    return growing.table()


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
        patch.setattr(codes, "_WAITING", 3)  # merge often
        found = grown(table, size)
    assert found.to_pydict() == table.to_pydict()
    assert found.column_names == table.column_names
    met = [cell for cell in dict.fromkeys(cells[:n]) if cell is not None]
    assert codes.one(found["text"]).dictionary.to_pylist() == met  # by first appearance


def test_whole_numbers_are_written_as_text_at_the_end() -> None:
    growing = Growing("a table")
    for piece in ([7, -8200171396217105230], [None, 7]):
        growing.add(pa.table({"id": pa.array(piece, pa.int64()).dictionary_encode()}))
    assert growing.width == pytest.approx(4, abs=0.3)  # and a bit for the null
    column = growing.table()["id"]
    assert column.to_pylist() == ["7", "-8200171396217105230", None, "7"]
    assert column.type == codes.TEXT


def test_too_much_text_is_a_named_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(*_: object) -> None:
        raise pa.ArrowCapacityError("array cannot contain more than 2147483646 bytes")

    monkeypatch.setattr(codes._Texts, "array", overflow)
    growing = Growing("source 'log'")
    growing.add(coded(pa.table({"note": ["a"]})))
    with pytest.raises(DataError, match=r"source 'log', column 'note' has more than 2 GiB of dist"):
        growing.table()


@given(CELLS)
def test_cells_are_counted_and_known(cells: list[str | None]) -> None:
    column = coded(pa.table({"c": pa.array(cells, pa.string())}))["c"]
    array = codes.one(column)
    counts = dict(zip([*array.dictionary.to_pylist(), None], codes.counts(column), strict=True))
    assert {cell: n for cell, n in counts.items() if n} == {c: cells.count(c) for c in set(cells)}
    assert set(codes.present(column[3:]).to_pylist()) == set(cells[3:]) - {None}
    assert codes.plain(column).to_pylist() == cells
    ranks = codes.in_order(column)
    assert ranks.to_pylist() == cells
    texts = ranks.dictionary.to_pylist()
    assert texts == sorted(texts, key=str.encode)


def test_a_function_is_asked_once_for_each_text() -> None:
    asked: list[str] = []

    def lengths(texts: pa.ChunkedArray) -> pa.ChunkedArray:
        asked.extend(texts.to_pylist())
        return pc.utf8_length(texts)

    column = coded(pa.table({"c": ["aa", None, "b", "aa", "b"]}))["c"]
    assert codes.each(column, lengths).to_pylist() == [2, None, 1, 2, 1]
    assert asked == ["aa", "b"]
    # two texts that become one share a code, or they would be counted apart
    upper = codes.one(codes.each(coded(pa.table({"c": ["x", "X"]}))["c"], pc.utf8_upper))
    assert (upper.to_pylist(), upper.dictionary.to_pylist()) == (["X", "X"], ["X"])


def test_filled_cells_use_a_text_that_is_there_or_a_new_one() -> None:
    column = codes.one(coded(pa.table({"c": ["a", None, "b"]}))["c"])
    for text, n in (("b", 2), ("new", 3)):
        filled = codes.filled(column, text, column.is_null())
        assert filled.to_pylist() == ["a", text, "b"]
        assert len(filled.dictionary) == n
