"""Files of raw values: typed as the recipe says, and what is wrong with them is named."""

from __future__ import annotations

import gzip
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import SETTINGS
from world import RECIPE, World

from workflows.feature_files.rows import as_trained, read, read_ids, with_types
from workflows.ground.errors import DataError
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
        (
            "item_id,price\nx,cheap\n",
            "column 'price', row 1: 'cheap' cannot be read as float. Correct it",
        ),
        ("item_id,price\nx,1\n,2\n", "row 2: there is no 'item_id'"),
        ("item_id\nx\ny\nx\n", "item_id 'x' occurs 2 times. Keep one row of it"),
        ("item_id,title\nx\n", "1 unparsable row; the first, row 1, has 1 fields where 2 are"),
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
    (tmp_path / "new.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"expected a file that ends in \.csv, \.tsv \(or these "):
        read(tmp_path / "new.xlsx", recipe, "item_id", COLUMNS)
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.csv", recipe, "item_id", COLUMNS)
    with pytest.raises(DataError, match="cannot be read"):
        read_ids(tmp_path / "none.txt", recipe, "item_id")


def test_a_history_is_a_list(recipe):
    lists = pa.table({"history_item_id": pa.array([[1, 2], None])})
    assert with_types(lists, recipe, "here")["history_item_id"].to_pylist() == [["1", "2"], None]
    texts = pa.table({"history_item_id": ["1| 2", '["1|2", "a"]', ""]})
    found = with_types(texts, recipe, "here")["history_item_id"].to_pylist()
    assert found == [["1", "2"], ["1|2", "a"], None]


def test_ids_stand_in_lines_or_in_a_column(tmp_path, recipe):
    (tmp_path / "ids.txt").write_text("007\n\n 映画 \n-1\n", encoding="utf-8")
    (tmp_path / "ids.csv").write_text("stock,item_id\n3,007\n1,\n2,-1\n")
    pq.write_table(pa.table({"item_id": [-1, 7]}), tmp_path / "ids.parquet")
    assert read_ids(tmp_path / "ids.txt", recipe, "item_id") == ["007", "映画", "-1"]
    assert read_ids(tmp_path / "ids.csv", recipe, "item_id") == ["007", "-1"]
    assert read_ids(tmp_path / "ids.parquet", recipe, "item_id") == ["-1", "7"]
    with pytest.raises(DataError, match=r"there is no column 'sku'\. It has stock, item_id"):
        read_ids(tmp_path / "ids.csv", recipe, "sku")
    (tmp_path / "odd.txt").write_text("a\u2028b\r\nc\x0cd\n", encoding="utf-8", newline="")
    assert read_ids(tmp_path / "odd.txt", recipe, "item_id") == ["a\u2028b", "c\x0cd"]


def test_what_is_no_number_is_not_told(tmp_path, recipe):
    assert told(tmp_path / "new.csv", "item_id,price\nx,nan\n", recipe)["price"].null_count == 1


def test_text_of_any_width_is_split(tmp_path, recipe):
    for genres in (pa.array(["a|b"], pa.large_string()), pa.array(["a|b"]).dictionary_encode()):
        pq.write_table(pa.table({"item_id": ["x"], "genres": genres}), tmp_path / "new.parquet")
        found = read(tmp_path / "new.parquet", recipe, "item_id", COLUMNS)
        assert found["genres"].to_pylist() == [["a", "b"]]


def test_ids_of_a_file_with_a_mark_are_all_read(tmp_path, recipe):
    (tmp_path / "deny.txt").write_text("50\n51\n", encoding="utf-8-sig")
    assert read_ids(tmp_path / "deny.txt", recipe, "item_id") == ["50", "51"]


# ── the same rules as in training ───────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Return a recipe with words for nothing and with weights of a list."""
    text = RECIPE.replace("{files: log.csv}", "{files: log.csv, nulls: [NA, '-']}").replace(
        'separator: "|"}', 'separator: "|", weights: shares}'
    )
    text += "  shares: {role: item, kind: weights, separator: '|'}\n"
    return World(tmp_path_factory.mktemp("shop"), text=text + SETTINGS).write().recipe()


def known(column: str) -> pa.StringArray:
    """Return what training met: a city is called '-', members are booleans."""
    return pa.array(
        {"city": ["Oslo", "-", "true"], "history_item_id": ["1991", "7"]}.get(column, ["1", "2"])
    )


def of_people(folder: Path, text: str, recipe: Recipe, name: str = "people.csv") -> pa.Table:
    (folder / name).write_text(text, encoding="utf-8")
    return read(folder / name, recipe, "user_id", ["age", "city", "history_item_id"], known)


def test_words_for_nothing_are_missing_as_in_training(tmp_path, shop):
    rows = "p1, 34 ,NA\np2,NA,-\np3,-,Oslo\np4,,\n"
    found = of_people(tmp_path, "user_id,age,city\n" + rows, shop).to_pydict()
    assert found["age"] == [34, None, None, None]
    assert found["city"] == [None, "-", "Oslo", None]  # '-' is a city that training met


def test_values_are_spelt_as_training_met_them(tmp_path, shop):
    text = 'user_id,city,history_item_id\n2.0,True,1991.0|7.0|8.0\n3.0,Yes,"[""7.0"", ""x""]"\n'
    found = of_people(tmp_path, text, shop).to_pydict()
    assert found["user_id"] == ["2", "3"]  # as all known ids are whole
    assert found["city"] == ["true", "Yes"]
    assert found["history_item_id"] == [["1991", "7", "8"], ["7", "x"]]


def test_tsv_gzip_and_capital_endings_are_read(tmp_path, shop):
    rows = b"user_id\tcity\np1\tOslo\n"
    for name, data in {
        "a.tsv": rows,
        "b.TSV.gz": gzip.compress(rows),
        "c.CSV.GZ": gzip.compress(rows.replace(b"\t", b",")),
    }.items():
        (tmp_path / name).write_bytes(data)
        found = read(tmp_path / name, shop, "user_id", ["city"])
        assert found.to_pydict() == {"user_id": ["p1"], "city": ["Oslo"]}


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (
            pa.array([1.0, 2.0**53]),
            r"column 'user_id', row 2: 9007199254740992\.0 is a double, who",
        ),
        (pa.array([b"\xff"]), r"column 'user_id', row 1: b'\\xff' are bytes that are no UTF-8"),
    ],
)
def test_ids_that_may_have_become_others_are_refused(tmp_path, shop, ids, said):
    pq.write_table(pa.table({"user_id": ids}), tmp_path / "people.parquet")
    with pytest.raises(DataError, match=said):
        read(tmp_path / "people.parquet", shop, "user_id", [])
    with pytest.raises(DataError, match=said):
        read_ids(tmp_path / "people.parquet", shop, "user_id")


def test_uuids_and_long_whole_floats_are_the_ids_of_training(tmp_path, shop):
    one = uuid.UUID(int=2**127 + 12345)
    pq.write_table(pa.table({"user_id": [one.bytes]}), tmp_path / "people.parquet")
    assert read(tmp_path / "people.parquet", shop, "user_id", [])["user_id"][0].as_py() == str(one)
    pq.write_table(pa.table({"user_id": [1e15]}), tmp_path / "people.parquet")
    assert read_ids(tmp_path / "people.parquet", shop, "user_id") == ["1" + 15 * "0"]


def test_weights_stay_with_their_values(tmp_path, shop):
    columns = ["genres", "shares"]
    (tmp_path / "new.csv").write_text("item_id,genres,shares\nx,a|| b,1|5|2\ny,a,\n")
    found = read(tmp_path / "new.csv", shop, "item_id", columns)
    assert found["genres"].to_pylist() == [["a", "b"], ["a"]]
    assert found["shares"].to_pylist() == [[1, 2], None]
    (tmp_path / "new.csv").write_text("item_id,genres,shares\nx,a|b,1\n")
    with pytest.raises(DataError, match=r"column 'shares', row 1: 1 weights for 2 values"):
        read(tmp_path / "new.csv", shop, "item_id", columns)
    (tmp_path / "new.csv").write_text("item_id,genres,shares\nx,a|b,1|inf\n")
    with pytest.raises(DataError, match=r"column 'shares', row 1: a weight is infinite"):
        read(tmp_path / "new.csv", shop, "item_id", columns)
    (tmp_path / "new.csv").write_text("item_id,genres,shares\nx,a|b,1|-1\n")
    with pytest.raises(DataError, match=r"column 'shares', row 1: the weight -1\.0 is below 0"):
        read(tmp_path / "new.csv", shop, "item_id", columns)


def test_a_packed_file_is_known_by_its_content(tmp_path, recipe):
    (tmp_path / "new.csv").write_bytes(gzip.compress(b"item_id,price\nx,2\n"))
    assert read(tmp_path / "new.csv", recipe, "item_id", COLUMNS)["price"].to_pylist() == [2.0]
    (tmp_path / "new.csv.gz").write_bytes(b"item_id,price\nx,2\n")
    assert read_ids(tmp_path / "new.csv.gz", recipe, "item_id") == ["x"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"is empty\. Expected a first row with the names of the columns"),
        (
            b"item_id,title\nx,Gr\xf6\n",
            r", line 2: the byte b'\\xf6' is not valid in UTF-8\. .* write it as parq",
        ),
        (
            b"item_id,Gr\xf6\nx,1\n",
            r": the first row is not UTF-8: 'item_id,Gr.*, in UTF-8.* write it as parq",
        ),
        (
            "item_id\nx\n".encode("utf-16"),
            r" is UTF-16, so it cannot be read as csv in utf-8.* write it as parq",
        ),
        (
            b"item_id;price\nx;1\n",
            r"no column 'item_id'\. The delimiter seems to be ';'\. Expected",
        ),
        (b"item_id\n1.5E+15\n", r", row 1: '1\.5E\+15' is an id in scientific notation"),
    ],
)
def test_a_text_file_of_another_kind_is_refused(tmp_path, recipe, data, message):
    (tmp_path / "new.csv").write_bytes(data)
    with pytest.raises(DataError, match=rf"new\.csv.*{message}"):
        read(tmp_path / "new.csv", recipe, "item_id", COLUMNS)


@given(
    st.lists(
        st.lists(st.sampled_from(["True", "1991.0", "NA", "-", "", " a ", "7", "Ж"]), max_size=3),
        min_size=1,
    )
)
def test_files_and_questions_say_the_same(shop, lists):
    """What is told as rows of values becomes what a parquet file of them becomes."""
    rows = pa.table({"history_item_id": pa.array(lists, pa.list_(pa.string()))})
    told = as_trained(with_types(rows, shop, "here"), shop, known, "here")
    assert told.equals(with_types(rows, shop, "here", known))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('item_id,a\n1,"x\n2,"y"\n3,z\n', "column 'a', row 1: text follows the closing quote of a"),
        ('item_id,a\n1,"x\n2,y\n', "column 'a', row 1: a quote is opened and never closed"),
    ],
)
def test_a_quote_that_swallows_rows_is_refused(tmp_path: Path, recipe, text: str, said) -> None:
    (tmp_path / "new.csv").write_text(text)
    with pytest.raises(DataError, match=rf"new\.csv, {said}.* The file is read as csv with"):
        read_ids(tmp_path / "new.csv", recipe, "item_id")
    (tmp_path / "new.csv").write_text('item_id,a\n1,"x ""y"", z\nw"\n2,b"c\n')
    assert read_ids(tmp_path / "new.csv", recipe, "item_id") == ["1", "2"]
