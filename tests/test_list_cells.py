"""Cells of lists: separators, brackets, and weights that stay with their values."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.ground.errors import DataError
from workflows.raw import list_cells
from workflows.raw.values import Place

PLACE = Place("items.csv", "tags")


def lists(cells: list[Any], separator: str | None = ",", **more: Any) -> list[Any]:
    column = pa.chunked_array([pa.array(cells, pa.string())])
    return list_cells.read_lists(column, separator, PLACE, **more).to_pylist()


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ("Action, Comedy", ["Action", "Comedy"]),
        (" Action ,\tComedy ", ["Action", "Comedy"]),
        ("Action,, ,Comedy", ["Action", "Comedy"]),
        (" , ", []),
        ("['Action', 'Comedy']", ["Action", "Comedy"]),
        (" ['Action']\n", ["Action"]),
        ("[]", []),
        ('["Sci-Fi, Drama", "it\'s"]', ["Sci-Fi, Drama", "it's"]),
        (r"""['it\'s', "say \"hi\"", 'a\\b']""", ["it's", 'say "hi"', r"a\b"]),
        (r'["caf\u00e9", "a\/b"]', ["café", "a/b"]),
        ("[u'old', u'Python']", ["old", "Python"]),
        ("['Action' 'Comedy']", ["Action", "Comedy"]),  # as NumPy writes it
        ("['Action'\n 'Comedy']", ["Action", "Comedy"]),
        ("[1, 2.0, true, False, null, None]", ["1", "2", "true", "false"]),
        ("[1 2 3]", ["1", "2", "3"]),
        ("('a', 'b')", ["a", "b"]),
        ("{'a'}", ["a"]),
        ("['a', '', ' b ']", ["a", "b"]),
        ("['[x', 'y]']", ["[x", "y]"]),
        ("[PC]", ["[PC]"]),
        ("Film (2000, 2001)", ["Film (2000", "2001)"]),  # no list in brackets: the owner's commas
    ],
)
def test_parts_of_a_cell(cell: str, parts: list[str]) -> None:
    assert lists([None, cell, "x"]) == [None, parts, ["x"]]


@pytest.mark.parametrize("separator", [",", ", ", "|", None])
def test_a_list_in_brackets_is_no_matter_of_the_separator(separator: str | None) -> None:
    assert lists(["['a', 'b']", None, "['c']"], separator) == [["a", "b"], None, ["c"]]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ('[{"id": 1, "name": "Comedy"}]', "holds objects or lists within a list"),
        ("[{'id': 1}, {'id': 2}]", "holds objects or lists within a list"),
        ("[['a'], ['b', 'c']]", "holds objects or lists within a list"),
        ('{"id": 1, "name": "Comedy"}', "holds objects or lists within a list"),
        ("[Action, Comedy]", r"cut at the separator ',', '\[Action' would be a value"),
        ("{Action,Comedy}", r"'{Action' would be a value"),
        ("['a', 'b]", r"'\['a'|would be a value"),
    ],
)
def test_halves_of_brackets_are_never_values(cell: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"items\.csv, column 'tags', row 2: .*{message}"):
        lists(["x", cell])


def test_text_needs_a_separator_unless_all_of_it_is_in_brackets() -> None:
    with pytest.raises(
        DataError, match=r"row 2: 'b' is text, not a list\. Set features\.tags\.sep"
    ):
        lists(["['a']", "b"], None)


@given(st.lists(st.lists(st.text(max_size=5).map(str.strip).filter(bool)), min_size=1))
def test_lists_written_by_python_and_json_come_back(rows: list[list[str]]) -> None:
    texts = [json.dumps(row) for row in rows] + [
        json.dumps(row, ensure_ascii=False) for row in rows
    ]
    wanted = [[part.strip() for part in row] for row in rows]
    assert lists(texts, "|") == wanted * 2
    if all(part.isprintable() for row in rows for part in row):
        assert lists([repr(row) for row in rows], None) == wanted


@pytest.mark.parametrize(
    ("values", "weights", "expected"),
    [
        ("a,b", "1,2", (["a", "b"], ["1", "2"])),
        ("a,,b", "1,5,2", (["a", "b"], ["1", "2"])),  # an empty part goes with its weight
        ("a,,b", "1,,2", (["a", "b"], ["1", "2"])),
        ("a, b,", "1,2", (["a", "b"], ["1", "2"])),  # other lengths: each loses its own gaps
        ("a,b", "1,", (["a", "b"], ["1", None])),
    ],
)
def test_weights_stay_with_their_values(values: str, weights: str, expected: Any) -> None:
    pair = [
        list_cells.read_lists(pa.chunked_array([["z", of, None]]), ",", PLACE, all_parts=True)
        for of in (values, weights)
    ]
    one, other = list_cells.align(*(column.combine_chunks() for column in pair))
    assert (one.to_pylist(), other.to_pylist()) == tuple([["z"], of, None] for of in expected)


def test_nothing_within_lists_of_parquet_is_no_value() -> None:
    column = pa.chunked_array([pa.array([["a", None, "", " b"], None, []])])
    assert list_cells.read_lists(column, None, PLACE).to_pylist() == [["a", "b"], None, []]
    numbers = pa.chunked_array([pa.array([[1.0, 2.5], [1e15]])])
    assert list_cells.read_lists(numbers, None, PLACE).to_pylist() == [
        ["1", "2.5"],
        ["1000000000000000"],
    ]
