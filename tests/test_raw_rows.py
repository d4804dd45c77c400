"""Files of raw values: typed as the recipe says, and what is wrong with them is named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_run import SETTINGS
from world import RECIPE, World

from workflows.errors import DataError
from workflows.raw_rows import as_told, read, read_ids
from workflows.recipe import Recipe

COLUMNS = ["title", "price", "genres"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return World(tmp_path_factory.mktemp("world"), text=RECIPE + SETTINGS).write().recipe()


def told(path: Path, text: str, recipe: Recipe) -> pa.Table:
    path.write_text(text, encoding="utf-8")
    return read(path, recipe, "item_id", COLUMNS)


def test_csv_and_parquet_say_the_same(tmp_path, recipe):
    rows = {
        "item_id": ["0108", "-8200171396217105230", "映画"],
        "price": [2.5, None, 3.0],
        "genres": [["a", "b"], None, []],
    }
    text = "item_id,price,genres\n0108,2.5,a||b\n-8200171396217105230,,\n映画,3,|\n"
    from_text = told(tmp_path / "new.csv", text, recipe)
    numbers = {**rows, "item_id": pa.array([108, -8200171396217105230, 3])}
    pq.write_table(pa.table(numbers), tmp_path / "new.parquet")
    from_numbers = read(tmp_path / "new.parquet", recipe, "item_id", COLUMNS)
    assert from_text.to_pydict() == rows
    assert from_numbers.to_pydict() == {**rows, "item_id": ["108", "-8200171396217105230", "3"]}
    assert from_text.schema.types == [pa.string(), pa.float32(), pa.list_(pa.string())]
    assert from_text.schema == from_numbers.schema


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title\nx\n", "there is no column 'item_id'. Expected 'item_id' and, if you like, title"),
        ("item_id,price\nx,cheap\n", "column 'price', row 1: 'cheap' is no float. Mend it"),
        ("item_id,price\nx,1\n,2\n", "row 2: there is no 'item_id'"),
        ("item_id\nx\ny\nx\n", "item_id 'x' stands there 2 times. Keep one row of it"),
        ("item_id,title\nx\n", "cannot be read"),
        ("item_id,price\nx,1\ny,1e39\n", "column 'price', row 2: the number is infinite"),
        ("item_id,item_id\nx,y\n", "'item_id' is the name of several columns"),
        ("item_id,price\n", "has no rows. Expected one for each 'item_id'"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, recipe, text, said):
    with pytest.raises(DataError) as caught:
        told(tmp_path / "new.csv", text, recipe)
    assert said in str(caught.value)
    assert str(tmp_path / "new.csv") in str(caught.value)


def test_files_that_are_none_are_refused(tmp_path, recipe):
    with pytest.raises(DataError, match=r"expected a file that ends in \.csv, \.tsv \(or these "):
        read(tmp_path / "new.xlsx", recipe, "item_id", COLUMNS)
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.csv", recipe, "item_id", COLUMNS)
    with pytest.raises(DataError, match="cannot be read"):
        read_ids(tmp_path / "none.txt", "item_id")


def test_a_history_is_a_list(recipe):
    lists = pa.table({"history_item_id": pa.array([[1, 2], None])})
    assert as_told(lists, recipe, "here")["history_item_id"].to_pylist() == [["1", "2"], None]
    texts = pa.table({"history_item_id": ["1| 2", '["1|2", "a"]', ""]})
    found = as_told(texts, recipe, "here")["history_item_id"].to_pylist()
    assert found == [["1", "2"], ["1|2", "a"], None]


def test_ids_stand_in_lines_or_in_a_column(tmp_path):
    (tmp_path / "ids.txt").write_text("007\n\n 映画 \n-1\n", encoding="utf-8")
    (tmp_path / "ids.csv").write_text("stock,item_id\n3,007\n1,\n2,-1\n")
    pq.write_table(pa.table({"item_id": [-1, 7]}), tmp_path / "ids.parquet")
    assert read_ids(tmp_path / "ids.txt", "item_id") == ["007", "映画", "-1"]
    assert read_ids(tmp_path / "ids.csv", "item_id") == ["007", "-1"]
    assert read_ids(tmp_path / "ids.parquet", "item_id") == ["-1", "7"]
    with pytest.raises(DataError, match=r"there is no column 'sku'\. It has stock, item_id"):
        read_ids(tmp_path / "ids.csv", "sku")
    assert read_ids(tmp_path / "ids.csv", "sku", raw=["no", "item_id"]) == ["007", "-1"]
    (tmp_path / "odd.txt").write_text("a\u2028b\r\nc\x0cd\n", encoding="utf-8", newline="")
    assert read_ids(tmp_path / "odd.txt", "item_id") == ["a\u2028b", "c\x0cd"]


def test_what_is_no_number_is_not_told(tmp_path, recipe):
    assert told(tmp_path / "new.csv", "item_id,price\nx,nan\n", recipe)["price"].null_count == 1


def test_text_of_any_width_is_split(tmp_path, recipe):
    for genres in (pa.array(["a|b"], pa.large_string()), pa.array(["a|b"]).dictionary_encode()):
        pq.write_table(pa.table({"item_id": ["x"], "genres": genres}), tmp_path / "new.parquet")
        found = read(tmp_path / "new.parquet", recipe, "item_id", COLUMNS)
        assert found["genres"].to_pylist() == [["a", "b"]]


def test_ids_of_a_file_with_a_mark_are_all_read(tmp_path):
    (tmp_path / "deny.txt").write_text("50\n51\n", encoding="utf-8-sig")
    assert read_ids(tmp_path / "deny.txt", "item_id") == ["50", "51"]
