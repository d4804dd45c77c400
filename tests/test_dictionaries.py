"""Text as dictionaries: values survive whatever the chunks and the order are."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st
from stages import with_dictionaries

from workflows.raw import dictionaries

CELLS = st.lists(st.none() | st.sampled_from(["a", "b", "", "Ж", "010", "10"]), max_size=30)


@given(CELLS)
def test_cells_are_counted_and_known(cells: list[str | None]) -> None:
    column = with_dictionaries(pa.table({"c": pa.array(cells, pa.string())}))["c"]
    array = dictionaries.combine(column)
    counts = dict(
        zip([*array.dictionary.to_pylist(), None], dictionaries.count_texts(column), strict=True)
    )
    assert {cell: n for cell, n in counts.items() if n} == {c: cells.count(c) for c in set(cells)}
    assert set(dictionaries.distinct_texts(column[3:]).to_pylist()) == set(cells[3:]) - {None}
    assert dictionaries.decode(column).to_pylist() == cells
    ranks = dictionaries.sort_dictionary(column)
    assert ranks.to_pylist() == cells
    texts = ranks.dictionary.to_pylist()
    assert texts == sorted(texts, key=str.encode)


def test_a_function_is_asked_once_for_each_text() -> None:
    asked: list[str] = []

    def lengths(texts: pa.ChunkedArray) -> pa.ChunkedArray:
        asked.extend(texts.to_pylist())
        return pc.utf8_length(texts)

    column = with_dictionaries(pa.table({"c": ["aa", None, "b", "aa", "b"]}))["c"]
    assert dictionaries.map_distinct(column, lengths).to_pylist() == [2, None, 1, 2, 1]
    assert asked == ["aa", "b"]
    # two texts that become one share a code, or they would be counted apart
    upper = dictionaries.combine(
        dictionaries.map_distinct(
            with_dictionaries(pa.table({"c": ["x", "X"]}))["c"], pc.utf8_upper
        )
    )
    assert (upper.to_pylist(), upper.dictionary.to_pylist()) == (["X", "X"], ["X"])


def test_filled_cells_use_a_text_that_is_there_or_a_new_one() -> None:
    column = dictionaries.combine(with_dictionaries(pa.table({"c": ["a", None, "b"]}))["c"])
    for text, n in (("b", 2), ("new", 3)):
        filled = dictionaries.put_text(column, text, column.is_null())
        assert filled.to_pylist() == ["a", text, "b"]
        assert len(filled.dictionary) == n
