"""Explode: one row with lists becomes one row per value."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_sources import read, recipe

from workflows.etl.read import explode
from workflows.etl.read.source_files import SourceFiles
from workflows.ground.errors import DataError

EVENTS = [
    {"user": "u", "item": "a", "when": 1},
    {"user": "u", "item": "b", "when": 2},
    {"user": "v", "item": "c", "when": 3},
    {"user": "w", "item": "d", "when": 4},
    {"user": "w", "item": "a", "when": 5},
    {"user": "w", "item": "b", "when": 6},
]


@pytest.mark.parametrize("rows", [1, 2, 1 << 20])
@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int64()), pa.large_list(pa.int64()), pa.list_(pa.timestamp("s"))]
)
def test_lists_of_parquet(
    tmp_path: Path, kind: pa.DataType, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explode, "_ROWS", rows)
    table = pa.table(
        {
            "user": ["u", "v", "w"],
            "item": [["a", "b"], ["c"], ["d", "a", "b"]],
            "when": pa.array([[1, 2], [3], [4, 5, 6]], kind),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    assert read(tmp_path, "log.parquet", source={"explode": ["item", "when"]}) == EVENTS


def test_text_with_a_separator_and_other_columns_repeated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "user,things,tags,price\nu,a|b,x|y,1\nn,,z,2\nv,c,,3\n"
    (tmp_path / "log.csv").write_text(text, encoding="utf-8")
    source = {"rename": {"things": "item"}, "explode": ["item"], "separator": "|"}
    with caplog.at_level(logging.WARNING):
        found = read(tmp_path, source=source)
    assert found == [
        {"user": "u", "item": "a", "price": 1, "tags": ["x", "y"]},
        {"user": "u", "item": "b", "price": 1, "tags": ["x", "y"]},
        {"user": "v", "item": "c", "price": 3, "tags": None},
    ]
    (record,) = caplog.records
    assert "1 rows have no value in item, so `explode:` drops them" in record.message


def test_parts_without_text_keep_their_places(tmp_path: Path) -> None:
    text = "user,item,when\nu,a||b|c,1|2||3\n"
    (tmp_path / "log.csv").write_text(text, encoding="utf-8")
    found = read(tmp_path, source={"explode": ["item", "when"], "separator": "|"})
    assert [(row["item"], row["when"]) for row in found] == [
        ("a", 1),
        (None, 2),
        ("b", None),
        ("c", 3),
    ]


def test_json_lists(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"user": "u", "item": [1, 2]}\n', encoding="utf-8")
    found = read(tmp_path, "log.jsonl", source={"explode": ["item"]})
    assert [row["item"] for row in found] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "source", "message"),
    [
        (
            "u,a|b,1",
            {"separator": "|"},
            r"row 1: 2 values of 'item' and 1 of 'when'\. All lists that",
        ),
        ("u,a|b,1|2", {}, r"column 'item' holds text\. Set the source's `separator:`"),
        ("u,a|b,1|x", {"separator": "|"}, r"log\.csv, after `explode:`, column 'when', row 2: 'x'"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(
    tmp_path: Path, text: str, source: dict[str, Any], message: str
) -> None:
    (tmp_path / "log.csv").write_text(f"user,item,when\n{text}\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read(tmp_path, source={"explode": ["item", "when"], **source})


def test_single_values_and_unknown_columns_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": ["u"], "item": [1]}), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"'item' holds int64, not lists, so `explode:` cannot"):
        read(tmp_path, "log.parquet", source={"explode": ["item"]})
    with pytest.raises(
        DataError, match=r"has no column 'itme', which the source's `explode:` names"
    ):
        read(tmp_path, "log.parquet", source={"explode": ["itme"]})


def test_the_estimate_counts_values(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"user": ["u"] * 10, "item": [["a"] * 50] * 10}), tmp_path / "l.parquet"
    )
    asked = recipe("l.parquet", source={"explode": ["item"]})
    (file,) = SourceFiles(asked, "log", tmp_path, 1 << 20).files
    assert file.approximate_rows == 500
