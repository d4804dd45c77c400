"""Tables with several rows per id: the latest row, and the latest value of each property."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_sources import recipe

from workflows.etl.read import sources
from workflows.etl.read.sources import Raw
from workflows.ground.errors import DataError


def read(folder: Path, text: str, **source: Any) -> Raw:
    """Read a log of one row, and items.csv."""
    (folder / "log.csv").write_text("user,item\nu,a\n", encoding="utf-8")
    (folder / "items.csv").write_text(text, encoding="utf-8")
    more = {"items": {"files": "items.csv", **source}}
    return sources.read(recipe(more=more).of_raw_files(), folder)


LONG = {"id": "item", "property": "property", "value": "value", "time": "seen"}
ROWS = """\
seen,item,property,value
2020-01-02,a,price,2
2020-01-01,a,price,1
2020-01-01,a,tags,x|y
2020-01-03,b,available,0
2020-01-01,b,tags,
2020-01-01,c,price,9
2020-01-01,c,price,7
"""


def test_properties_become_columns_with_their_latest_value(tmp_path: Path) -> None:
    raw = read(tmp_path, ROWS, long=LONG)
    assert raw.tables["items"].to_pylist() == [
        {"item": "a", "price": 2, "tags": ["x", "y"]},
        {"item": "b", "price": None, "tags": None},
        {"item": "c", "price": 7, "tags": None},  # of equal times the last row
    ]
    assert raw.columns["items"] == ["item", "available", "price", "tags"]
    assert raw.place("items", 1).endswith("items.csv, after `long:`, row 2")


def test_numbers_for_properties_can_be_renamed(tmp_path: Path) -> None:
    text = "itemid,property,value\na,790,5\nb,790,6\n"
    long = {"id": "item", "property": "property", "value": "value"}
    raw = read(tmp_path, text, long=long, rename={"itemid": "item", "790": "price"})
    assert raw.tables["items"].to_pylist() == [{"item": "a", "price": 5}, {"item": "b", "price": 6}]


@pytest.mark.parametrize(
    ("text", "long", "message"),
    [
        (
            ROWS,
            {**LONG, "time": None},
            r"row 1: 'a' has the property 'price' more than once\. Set `t",
        ),
        (ROWS, {**LONG, "time": "sen"}, r"has no column 'sen', which .* \(did you mean 'seen'\?\)"),
        (
            ROWS.replace("price", "x").replace("tags", "y"),
            LONG,
            r"no property that the recipe names",
        ),
        (ROWS.replace("01,c,price,9", "01,,price,9"), LONG, r"row 6: 'item' is missing"),
        (ROWS.replace("2020-01-03", ""), LONG, r"row 4: the time is missing"),
        (ROWS.replace("2020-01-03", "soon"), LONG, r"are neither all numbers nor all ISO 8601"),
        (
            ROWS.replace("price,2", "price,two"),
            LONG,
            r"after `long:`, column 'price', row 1: 'two'",
        ),
    ],
)
def test_what_is_no_long_table_is_refused(
    tmp_path: Path, text: str, long: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text, long=long)


@pytest.mark.parametrize("times", [["5", "40", "5"], ["2020-01-01", "2020-01-02", "2019-12-31"]])
def test_the_latest_row_of_an_id_counts(tmp_path: Path, times: list[str]) -> None:
    text = "item,seen,price\n" + "".join(
        f"{item},{time},{n}\n" for n, (item, time) in enumerate(zip("aab", times, strict=True))
    )
    raw = read(tmp_path, text + f"a,{times[0]},9\n", latest={"id": "item", "time": "seen"})
    assert raw.tables["items"].to_pylist() == [
        {"item": "a", "price": 1},
        {"item": "b", "price": 2},
    ]
    assert raw.place("items", 0).endswith("items.csv, row 2")


def test_of_parquet_over_several_files(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\nu,a\n", encoding="utf-8")
    for n, moment in enumerate((2_000_000, 1_000_000)):
        seen = pa.array([moment], pa.timestamp("us"))
        table = pa.table({"item": ["a"], "seen": seen, "price": [float(n)]})
        pq.write_table(table, tmp_path / f"items-{n}.parquet")
    latest = {"id": "item", "time": "seen"}
    more = {"items": {"files": "items-*.parquet", "latest": latest}}
    raw = sources.read(recipe(more=more).of_raw_files(), tmp_path)
    assert raw.tables["items"].to_pylist() == [{"item": "a", "price": 0}]
