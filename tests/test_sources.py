"""Reading sources: every format gives the same table, and faults are named with their cell."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows import recipe as recipes
from workflows.etl.read import sources
from workflows.ground.errors import DataError
from workflows.raw import list_cells
from workflows.raw.dictionaries import TEXT
from workflows.raw.values import Place
from workflows.recipe import Recipe

#: 2021-03-04 05:06:07 UTC, counted by hand in test_times_are_seconds_since_the_epoch.
MOMENT = 1_614_834_367

ROWS: list[dict[str, Any]] = [
    {"user": "0108775015", "item": "a,b", "price": 1.5, "when": MOMENT, "tags": ["x", "y"]},
    {"user": "-8200171396217105230", "item": 'say "hi"', "price": None, "when": 7, "tags": []},
    {"user": "Ж", "item": "two\nlines", "price": -2.0, "when": 0, "tags": None},
]


def recipe(files: Any = "log.csv", **changes: Any) -> Recipe:
    source = {"files": files, **changes.pop("source", {})}
    raw: dict[str, Any] = {
        "name": "t",
        "sources": {"log": source, **changes.pop("more", {})},
        "interactions": "log",
        "split": {"kind": "random"},
        "features": {
            "user": {"role": "user", "id": True},
            "item": {"role": "item", "id": True},
            "price": {"role": "item", "kind": "number", "fill": "mean"},
            "when": {"role": "time", "unit": "s", **changes.pop("when", {})},
            "tags": {"role": "item", "kind": "categories", "separator": "|"},
            **changes.pop("features", {}),
        },
    }
    return recipes.parse({**raw, **changes}, where="test")


def read(folder: Path, *arguments: Any, **changes: Any) -> list[dict[str, Any]]:
    """Return the rows of the canonical table of source `log`."""
    return sources.read(recipe(*arguments, **changes), folder).tables["log"].to_pylist()


def cells(
    tmp_path: Path, column: str, values: list[str], **changes: Any
) -> list[Any]:  # of a csv that has user, item and this column
    lines = "".join(f"u,i,{value}\n" for value in values)
    (tmp_path / "log.csv").write_text(f"user,item,{column}\n{lines}", encoding="utf-8")
    return [row[column] for row in read(tmp_path, **changes)]


def as_text(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: "|".join(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]


def as_csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_text(rows))
    return out.getvalue()


# ── formats ─────────────────────────────────────────────────────────────────────────────

#: An empty cell of text is not a list at all: csv cannot tell the two apart, parquet can.
FROM_TEXT = [row if row["tags"] else {**row, "tags": None} for row in ROWS]


def test_csv_with_separators_quotes_and_newlines_in_cells(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(as_csv(ROWS), encoding="utf-8")
    assert read(tmp_path) == FROM_TEXT


def test_newlines_in_cells_of_a_file_of_several_blocks(tmp_path: Path) -> None:
    rows = [{"user": f"u{n}", "item": f'"{n}",\n' * 150} for n in range(3_000)]
    (tmp_path / "log.csv").write_text(as_csv(rows), encoding="utf-8")
    assert (tmp_path / "log.csv").stat().st_size > 2 << 20  # Arrow's block is 1 MiB
    assert read(tmp_path) == rows


def test_e01_gzipped_csv(tmp_path: Path) -> None:
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(as_csv(ROWS).encode()))
    assert read(tmp_path, "log.csv.gz") == FROM_TEXT


def test_tsv_takes_quotes_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "log.tsv").write_text('user\titem\n0108\t5" disk\n"1"\ta,b\n', encoding="utf-8")
    assert read(tmp_path, "log.tsv") == [
        {"user": "0108", "item": '5" disk'},
        {"user": '"1"', "item": "a,b"},
    ]


def test_the_format_of_the_recipe_beats_the_ending(tmp_path: Path) -> None:
    (tmp_path / "log.inter").write_text("user\titem\n1\t2\n", encoding="utf-8")
    assert read(tmp_path, "log.inter", source={"format": "tsv"}) == [{"user": "1", "item": "2"}]
    with pytest.raises(
        DataError,
        match=r"log\.inter: the ending \.inter names no format\. Set the source's `format:` to csv",
    ):
        read(tmp_path, "log.inter")


def test_parquet_from_arrow(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "log.parquet")
    assert read(tmp_path, "log.parquet") == ROWS


def test_parquet_from_pandas_with_its_own_types(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "user": np.array([-8200171396217105230, 42, 7]),  # int64
            "item": pd.Categorical(["b", "a", None]),  # a dictionary in the file
            "price": [1.0, np.nan, 3.5],
            "when": pd.to_datetime(["2021-03-04 05:06:07.9", "1970-01-01", "1970-01-02"]),
            "tags": [["x"], [], None],
        }
    )
    frame.to_parquet(tmp_path / "log.parquet")
    assert read(tmp_path, "log.parquet") == [
        {"user": "-8200171396217105230", "item": "b", "price": 1, "when": MOMENT, "tags": ["x"]},
        {"user": "42", "item": "a", "price": None, "when": 0, "tags": []},
        {"user": "7", "item": None, "price": 3.5, "when": 86400, "tags": None},
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (pa.array([1, -5], pa.int8()), ["1", "-5"]),
        (pa.array([2**64 - 1, 0], pa.uint64()), ["18446744073709551615", "0"]),
        (pa.array([1.0, 2.5]), ["1", "2.5"]),
        (pa.array([123.0, float("nan")]), ["123", None]),  # integers, and a gap, out of pandas
        (pa.array([True, None]), ["true", None]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([b"a", b"b"]), ["a", "b"]),
        (pa.array([dt.date(2020, 1, 2), None]), ["2020-01-02", None]),
    ],
)
def test_ids_and_categories_become_text(tmp_path: Path, values: pa.Array, text: list[str]) -> None:
    pq.write_table(pa.table({"user": ["u", "v"], "item": values}), tmp_path / "log.parquet")
    assert [row["item"] for row in read(tmp_path, "log.parquet")] == text


@pytest.mark.parametrize(
    "values",
    [
        pa.array([["x", "y"], []], pa.list_(pa.string())),
        pa.array([["x", "y"], []], pa.large_list(pa.large_string())),
    ],
)
def test_lists_of_any_width_become_lists_of_text(tmp_path: Path, values: pa.Array) -> None:
    pq.write_table(pa.table({"user": ["u", "v"], "tags": values}), tmp_path / "log.parquet")
    assert [row["tags"] for row in read(tmp_path, "log.parquet")] == [["x", "y"], []]


@pytest.mark.parametrize("size", [-1, 2])
def test_lists_of_numbers_become_lists_of_text(tmp_path: Path, size: int) -> None:
    numbers = pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), size))
    pq.write_table(pa.table({"user": ["u", "v"], "tags": numbers}), tmp_path / "log.parquet")
    if size > 0 and int(pa.__version__.split(".")[0]) < 12:  # as in the container
        with pytest.raises(DataError, match=r"holds fixed_size_list.* cannot be read as list"):
            read(tmp_path, "log.parquet")
        return
    assert [row["tags"] for row in read(tmp_path, "log.parquet")] == [["1", "2"], ["3", "4"]]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "user": st.text(
                    st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=8
                ),
                "item": st.integers(-(2**63), 2**63 - 1).map(str),
                "price": st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)),
                "when": st.integers(-(2**35), 2**37),
            }
        ),
        min_size=1,
        max_size=8,
    )
)
def test_csv_and_parquet_of_the_same_rows_are_the_same(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "log.csv").write_text(as_csv(rows), encoding="utf-8")
        pq.write_table(pa.Table.from_pylist(rows), folder / "log.parquet")
        assert read(folder, "log.csv") == rows
        if all(row["price"] is None for row in rows):
            return  # Arrow has no type for a column of nothing
        assert read(folder, "log.parquet") == rows


def test_canonical_types(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(as_csv(ROWS), encoding="utf-8")
    table = sources.read(recipe(), tmp_path).tables["log"]
    assert {f.name: f.type for f in table.schema} == {
        "user": TEXT,
        "item": TEXT,
        "price": pa.float32(),
        "when": pa.int64(),
        "tags": pa.list_(TEXT),
    }


# ── files ───────────────────────────────────────────────────────────────────────────────


def test_globs_and_lists_of_files_are_read_in_order_and_once(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("log-2.csv", "log-1.csv", "deep/log-0.csv"):
        (tmp_path / name).write_text(f"user,item\n{name},i\n", encoding="utf-8")

    def users(files: Any) -> list[str]:
        return [row["user"] for row in read(tmp_path, files)]

    assert users("log-*.csv") == ["log-1.csv", "log-2.csv"]
    assert users("**/*.csv") == ["deep/log-0.csv", "log-1.csv", "log-2.csv"]
    assert users(["log-2.csv", "log-1.csv"]) == ["log-2.csv", "log-1.csv"]
    assert users(["log-2.csv", "log-*.csv"]) == ["log-2.csv", "log-1.csv"]
    assert users(str(tmp_path / "log-1.csv")) == ["log-1.csv"]
    assert users(str(tmp_path / "log-?.csv")) == ["log-1.csv", "log-2.csv"]


def test_a_name_with_brackets_is_no_glob_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "log[1].csv").write_text("user,item\nbrackets,i\n", encoding="utf-8")
    (tmp_path / "log1.csv").write_text("user,item\nglob,i\n", encoding="utf-8")
    assert read(tmp_path, "log[1].csv")[0]["user"] == "brackets"


def test_the_order_of_columns_and_of_files_with_other_columns_does_not_matter(
    tmp_path: Path,
) -> None:
    (tmp_path / "log-1.csv").write_text("item,junk,user\na,?,u\n", encoding="utf-8")
    (tmp_path / "log-2.csv").write_text("user,item\nv,b\n", encoding="utf-8")
    assert read(tmp_path, "log-*.csv") == [
        {"user": "u", "item": "a"},
        {"user": "v", "item": "b"},
    ]


@pytest.mark.parametrize("pattern", ["log.csv", "*.csv", "/nowhere/log.csv"])
def test_a_missing_file_is_named_with_three_remedies(tmp_path: Path, pattern: str) -> None:
    folder = "/" if pattern.startswith("/") else str(tmp_path)
    with pytest.raises(
        DataError,
        match=rf"^source 'log': no file matches {re.escape(repr(pattern))} in {folder}\. Put the "
        r"raw files there, set `data:` in the recipe, or run `two-tower fetch`",
    ):
        read(tmp_path, pattern)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "log.parquet").mkdir()
    with pytest.raises(
        DataError, match=r"source 'log': .*log\.parquet is a folder\. Name the files in it, such as"
    ):
        read(tmp_path, "log.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", b"", r"is empty\. Put data there"),
        ("log.csv", b"user,item\n", r"has no rows\. Put data there"),
        ("log.parquet", b"user,item\n1,2\n", r"cannot be read as parquet: .*magic bytes"),
        (
            "log.tsv",
            b"user,item\n1,2\n",
            r"has none of the columns that the recipe names; it has: u",
        ),
        (
            "log.csv",
            b"1,2\n3,4\n",
            r"has none of the columns that the recipe names; it has: 1, 2\.",
        ),
        ("log.csv", b"user,item,item\n1,2,3\n", r"has more than one column 'item'"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path / name))} {message}"):
        read(tmp_path, name)


def test_the_first_line_that_is_no_text_is_found(tmp_path: Path) -> None:
    lines = ["user,item"] + ["Жж,1"] * 700_000  # several blocks, cut within a letter
    text = "\n".join(lines).encode() + b"\n\xffa,1\n\xff,1\n"
    (tmp_path / "log.csv").write_bytes(text)
    with pytest.raises(
        DataError, match=r"log\.csv, line 700002: the byte b'\\xff' is not valid in UTF-8\."
    ):
        read(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes("\ufeffuser,item\nu,i\n".encode())
    assert read(tmp_path) == [{"user": "u", "item": "i"}]


# ── columns ─────────────────────────────────────────────────────────────────────────────


def test_columns_are_renamed_and_others_left_behind(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id:token,item,junk\nu,i,?\n", encoding="utf-8")
    raw = sources.read(recipe(source={"rename": {"user_id:token": "user"}}), tmp_path)
    assert raw.tables["log"].to_pylist() == [{"user": "u", "item": "i"}]
    assert raw.columns["log"] == ["user", "item", "junk"]


def test_a_rename_of_nothing_names_the_nearest_column(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item\nu,i\n", encoding="utf-8")
    with pytest.raises(
        DataError,
        match=r"log\.csv has no column 'userid', which the source's `rename:` names "
        r"\(did you mean 'user_id'\?\)\. It has: user_id, item\.",
    ):
        read(tmp_path, source={"rename": {"userid": "user"}})


def test_a_rename_onto_another_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,name,item\nu,n,i\n", encoding="utf-8")
    with pytest.raises(DataError, match="more than one column 'user', after `rename:`"):
        read(tmp_path, source={"rename": {"name": "user"}})


def test_a_missing_column_is_named_with_its_file_and_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,itm,pages\nu,i,1\n", encoding="utf-8")
    raw = sources.read(recipe(), tmp_path)
    raw.require("log", "user")
    with pytest.raises(
        DataError,
        match=r"^source 'log' \(log\.csv\) has no column 'item' \(did you mean 'itm'\?\)\. Correct "
        r"the name in the recipe, or .*`rename:`\. Columns: user, itm, pages\.$",
    ):
        raw.require("log", "item")
    with pytest.raises(DataError, match=r"has no column 'zebra'\. Correct"):
        raw.require("log", "zebra")


def test_a_column_may_be_in_a_joined_table(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\nu,i\n", encoding="utf-8")
    (tmp_path / "items.csv").write_text("item,price\ni,1\n", encoding="utf-8")
    raw = sources.read(recipe(more={"items": {"files": "items.csv"}}), tmp_path)
    raw.require("log", "price", "items")
    with pytest.raises(
        DataError,
        match=r"source 'log' \(log\.csv\) has no column 'prize', nor source 'items' \(items\.csv\) "
        r"\(did you mean 'price'\?\)",
    ):
        raw.require("log", "prize", "items")


def test_files_of_one_source_must_agree(tmp_path: Path) -> None:
    (tmp_path / "log-1.csv").write_text("user,item,price\nu,i,1\n", encoding="utf-8")
    (tmp_path / "log-2.csv").write_text("user,item\nu,i\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"log-2\.csv has no column 'price', which another file of the same source"
    ):
        read(tmp_path, "log-*.csv")


def test_rows_are_placed_in_their_files(tmp_path: Path) -> None:
    (tmp_path / "log-1.csv").write_text("user,item\na,1\nb,2\n", encoding="utf-8")
    (tmp_path / "log-2.csv").write_text("user,item\nc,3\n", encoding="utf-8")
    raw = sources.read(recipe("log-*.csv"), tmp_path)
    assert [raw.place("log", row) for row in range(3)] == [
        f"{tmp_path}/log-1.csv, row 1",
        f"{tmp_path}/log-1.csv, row 2",
        f"{tmp_path}/log-2.csv, row 1",
    ]
    with pytest.raises(IndexError):
        raw.place("log", 3)


def test_files_are_named_within_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    for path in (tmp_path / "data" / "train" / "p.csv", tmp_path / "p.csv"):
        path.write_text("user,item\na,1\n", encoding="utf-8")
    files = ["train/p.csv", str(tmp_path / "p.csv")]
    raw = sources.read(recipe(files), tmp_path / "data")
    assert [raw.name(path) for path in raw.files["log"]] == ["train/p.csv", "p.csv"]


# ── in chunks ───────────────────────────────────────────────────────────────────────────


def written(folder: Path, kind: str, rows: list[dict[str, Any]], parts: int) -> Recipe:
    """Write the rows as some files of a kind, and return a recipe that reads them."""
    for part in range(parts):
        some = rows[part * len(rows) // parts : (part + 1) * len(rows) // parts]
        path = folder / f"log-{part}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(some), path, row_group_size=7)
        elif kind == "csv.gz":
            path.write_bytes(gzip.compress(as_csv(some).encode()))
        else:
            path.write_text(as_csv(some), encoding="utf-8")
    return recipe(f"log-*.{kind}")


MANY = [
    {
        "user": f"0{n % 7}",
        "item": f"{n}," + "x" * (n % 11),
        "price": n / 4 if n % 5 else None,
        "when": n * 1000 - 7,
        "tags": ["a", f"t{n % 3}"][: 1 + n % 2],
    }
    for n in range(100)
]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize("parts", [1, 3])
def test_the_size_of_chunks_and_the_number_of_files_do_not_matter(
    tmp_path: Path, kind: str, parts: int
) -> None:
    asked = written(tmp_path, kind, MANY, parts)
    for block, least in [(70, 20), (500, 5), (sources.BLOCK, parts)]:
        chunks = list(sources.stream(asked, "log", tmp_path, block=block))
        assert len(chunks) >= least
        assert max(len(chunk) for chunk in chunks) <= max(2, block // 10)
        assert pa.concat_tables(chunks).to_pylist() == MANY
        whole = sources.read(asked, tmp_path, block=block)
        assert whole.tables["log"].to_pylist() == MANY
        assert sum(whole.rows["log"]) == 100


def test_a_chunk_that_is_smaller_than_the_first_row_is_no_empty_file(tmp_path: Path) -> None:
    asked = written(tmp_path, "csv", MANY, 1)
    with pytest.raises(DataError, match=r"row 1, or one soon after it, is longer than 3 bytes"):
        list(sources.stream(asked, "log", tmp_path, block=3))


def test_a_file_of_one_long_line_is_not_quoted_whole(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("x" * 9_000 + "\n1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"it has: x{200} …\. If these are names"):
        read(tmp_path)


def test_chunks_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    asked = written(tmp_path, "csv", MANY, 2)
    with (tmp_path / "log-1.csv").open("a", encoding="utf-8") as file:
        file.write("short\n")
    chunks = sources.stream(asked, "log", tmp_path, block=200)
    for _ in range(5):
        assert next(chunks).column_names == ["user", "item", "price", "when", "tags"]
    with pytest.raises(DataError, match=r"log-1\.csv has 1 unparsable row; the first, row 51,"):
        list(chunks)


@pytest.mark.parametrize("block", [40, 200, sources.BLOCK])
def test_the_first_time_of_a_file_says_how_all_of_it_are_written(
    tmp_path: Path, block: int
) -> None:
    """Also where the first chunks have none, and a file later on writes them otherwise."""
    dated = ["", "", "", "2021-03-04T05:06:07Z", "", "2021-03-04 06:06:07+01:00"]
    lines = "".join(f"u,i,{value}\n" for value in dated)
    (tmp_path / "log-1.csv").write_text(f"user,item,when\n{lines}", encoding="utf-8")
    (tmp_path / "log-2.csv").write_text(f"user,item,when\nu,i,{MOMENT}\n", encoding="utf-8")
    asked = recipe("log-*.csv")
    times = sources.read(asked, tmp_path, block=block).tables["log"]["when"].to_pylist()
    assert times == [None, None, None, MOMENT, None, MOMENT, MOMENT]
    with (tmp_path / "log-1.csv").open("a", encoding="utf-8") as file:
        file.write("u,i,2021-03-04 05:06:07\n")
    with pytest.raises(DataError, match=r"log-1\.csv, column 'when', row 7: '2021-03-04 05:06:07'"):
        sources.read(asked, tmp_path, block=block)


@pytest.mark.parametrize("block", [64, 1_000, sources.BLOCK])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u,i,cheap", "column 'price', row 78: 'cheap' cannot be read as float"),
        ("u,i", "has 1 unparsable row; the first, row 78, has 2 fields"),
        ("u,i\0,1", "line 79 has a NUL byte"),
    ],
)
def test_what_is_wrong_is_placed_alike_in_chunks_of_any_size(
    tmp_path: Path, block: int, line: str, message: str
) -> None:
    lines = [f"u{n},i{n},{n}" for n in range(200)]
    lines[77] = line
    (tmp_path / "log.csv").write_text("\n".join(["user,item,price", *lines]), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        sources.read(recipe(), tmp_path, block=block)


def test_a_stream_may_be_left(tmp_path: Path) -> None:
    asked = written(tmp_path, "csv.gz", MANY, 1)
    chunks = sources.stream(asked, "log", tmp_path, block=100)
    assert len(next(chunks)) > 0
    chunks.close()
    assert list(chunks) == []


def test_memory_is_bounded_by_the_chunk(tmp_path: Path) -> None:
    line = "user,item,3,2021-03-04,a|b\n" * 400_000  # 10 MB of text, 25 MB as a table
    (tmp_path / "log.csv").write_text("user,item,price,when,tags\n" + line, encoding="utf-8")
    before = pa.total_allocated_bytes()
    most = 0
    for _ in sources.stream(recipe(), "log", tmp_path, block=1 << 18):
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < 8 << 20


# ── weights of lists ────────────────────────────────────────────────────────────────────


def test_lists_come_with_the_weights_of_their_values(tmp_path: Path) -> None:
    rows = [
        {"user": "u", "tags": ["a", "b"], "tags_weight": [1.0, 0.5]},
        {"user": "v", "tags": [], "tags_weight": []},
        {"user": "w", "tags": None, "tags_weight": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    assert read(tmp_path, "log.parquet") == rows
    table = sources.read(recipe("log.parquet"), tmp_path).tables["log"]
    assert str(table.schema.field("tags_weight").type) == "list<item: float>"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0, 2.0], [3.0]], r"row 2: 1 weights for 2 values\. Expected one each; correct it"),
        ([[1.0, 2.0], None], r"row 2: 0 weights for 2 values\. Expected one each"),
        ([[1.0, 2.0], [3.0, math.nan]], r"row 2: nan is no weight\. Expected a finite number"),
        ([[1.0, 2.0], [None, 3.0]], r"row 2: None is no weight\. Expected a finite number"),
        (
            [["1", "2"], ["3", "heavy"]],
            r"row 2: .* cannot be read as list<item: float>\. Correct it",
        ),
    ],
)
def test_a_list_has_one_weight_a_value(tmp_path: Path, weights: list[Any], message: str) -> None:
    rows = pa.table({"user": ["u", "v"], "tags": [["a", "b"]] * 2, "tags_weight": weights})
    pq.write_table(rows, tmp_path / "log.parquet")
    with pytest.raises(DataError, match=rf"log\.parquet, column 'tags_weight', {message}"):
        read(tmp_path, "log.parquet")


def test_a_text_column_of_such_a_name_is_none(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,tags,tags_weight\nu,a|b,heavy\n", encoding="utf-8")
    assert read(tmp_path) == [{"user": "u", "tags": ["a", "b"]}]


def weighing(**more: Any) -> dict[str, Any]:
    """Features by which `tags` are weighed by a column `n`."""
    return {
        "tags": {"role": "item", "kind": "categories", "separator": "|", "weights": "n"},
        "n": {"role": "item", "kind": "weights", **more},
    }


def test_weights_may_be_text_with_a_separator_and_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,tags,n\nu,a|b,1| 0.5\nv,,\n", encoding="utf-8")
    found = read(tmp_path, features=weighing(separator="|"))
    assert found[0] == {"user": "u", "tags": ["a", "b"], "n": [1.0, 0.5]}
    assert not found[1]["tags"]
    assert not found[1]["n"]


def test_lists_of_lists_are_named_as_such(tmp_path: Path) -> None:
    rows = pa.table({"user": ["u"], "tags": pa.array([[["a"]]])})
    pq.write_table(rows, tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"'tags' holds list<\w+: list<\w+: string>>, which cannot"):
        read(tmp_path, "log.parquet")


def test_weights_may_be_lists_as_json_or_python_write_them(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text('user,tags,n\nu,a|b,"[1, 5e-1]"\n', encoding="utf-8")
    assert read(tmp_path, features=weighing()) == [{"user": "u", "tags": ["a", "b"], "n": [1, 0.5]}]
    (tmp_path / "log.csv").write_text("user,tags,n\nu,a,1;2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"column 'n', row 1: '1;2' is text, not a list\. Set feat"):
        read(tmp_path, features=weighing())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0, 2.0], [3.0]], r"row 2: 1 weights for 2 values\. Expected one each"),
        ([[1.0, 2.0], [3.0, -1.0]], r"row 2: the weight -1\.0 is below 0\. Correct it"),
        ([[1.0, 2.0], [3.0, math.inf]], r"row 2: inf is no weight\. Expected a finite number"),
    ],
)
def test_weights_that_the_recipe_names_are_checked(
    tmp_path: Path, weights: list[Any], message: str
) -> None:
    rows = pa.table({"user": ["u", "v"], "tags": [["a", "b"]] * 2, "n": weights})
    pq.write_table(rows, tmp_path / "log.parquet")
    with pytest.raises(DataError, match=rf"log\.parquet, column 'n', {message}"):
        read(tmp_path, "log.parquet", features=weighing())


# ── nulls ───────────────────────────────────────────────────────────────────────────────


def test_nulls_are_what_the_recipe_says(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        'user,item,price\n,NA,1\nNA,"",\nNULL,"NA",NA\n', encoding="utf-8"
    )

    def found(nulls: list[str]) -> list[list[str | None]]:
        return [
            [row["user"], row["item"]]
            for row in read(tmp_path, source={"nulls": nulls}, features={"price": CATEGORY})
        ]

    assert found([""]) == [[None, "NA"], ["NA", None], ["NULL", "NA"]]
    assert found(["", "NA"]) == [[None, None], [None, None], ["NULL", None]]
    assert found([]) == found([""])  # an empty cell never is a value
    assert found(["NA"]) == found(["", "NA"])
    with pytest.raises(
        DataError, match=r"column 'price', row 3: 'NA' cannot be read as float.*source's `nulls`"
    ):
        read(tmp_path)


CATEGORY = {"role": "item"}


def test_a_file_that_quotes_every_cell_has_the_same_nulls(tmp_path: Path) -> None:
    with (tmp_path / "log.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["user", "item", "price"], ["007", "", 2.5], ["", "i", None]])
    assert read(tmp_path) == [
        {"user": "007", "item": None, "price": 2.5},
        {"user": None, "item": "i", "price": None},
    ]


# ── cells that cannot be parsed ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_ragged_rows_are_counted_and_the_first_is_shown(tmp_path: Path, kind: str) -> None:
    comma = "," if kind == "csv" else "\t"
    lines = ["user,item", "a,1", "b,2", "short", "c,3", "too,much,here", "d,4"]
    text = "\n".join(lines).replace(",", comma) + "\n"
    (tmp_path / f"log.{kind}").write_text(text, encoding="utf-8")
    with pytest.raises(
        DataError,
        match=rf"log\.{kind} has 2 unparsable rows; the first, row 3, has 1 fields where 2 are "
        rf"expected: 'short'\. Correct the file, or set the source's `format:` or `delimiter:` "
        rf"if it is not {kind}\.",
    ):
        read(tmp_path, f"log.{kind}")


def test_a_ragged_row_far_down_in_a_large_file_is_numbered(tmp_path: Path) -> None:
    lines = [f"user{n},{n},padding so that the file has several blocks" for n in range(60_000)]
    lines[51_000] = "only,two"
    (tmp_path / "log.csv").write_text("user,item,junk\n" + "\n".join(lines), encoding="utf-8")
    assert (tmp_path / "log.csv").stat().st_size > 2 << 20  # Arrow's block is 1 MiB
    with pytest.raises(
        DataError, match=r"has 1 unparsable row; the first, row 51001, has 2 fields"
    ):
        read(tmp_path)


@pytest.mark.parametrize("bad", [0, 1, 6, 7])
def test_an_unparsable_number_names_file_column_row_and_value(tmp_path: Path, bad: int) -> None:
    values = [str(n) for n in range(8)]
    values[bad] = "cheap"
    values.append("also bad")
    with pytest.raises(
        DataError,
        match=rf"^{tmp_path}/log\.csv, column 'price', row {bad + 1}: 'cheap' cannot be read as"
        r" float\. Correct it, or list the text under the source's `nulls` if it stands "
        r"for no value\.$",
    ):
        cells(tmp_path, "price", values)


def test_the_bad_cell_is_numbered_in_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "log-1.csv").write_text("user,item,price\na,1,1\nb,2,2\n", encoding="utf-8")
    (tmp_path / "log-2.csv").write_text("user,item,price\nc,3,1\nd,4,oops\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"log-2\.csv, column 'price', row 2: 'oops'"):
        read(tmp_path, "log-*.csv")


def test_numbers_are_read_with_spaces_and_exponents(tmp_path: Path) -> None:
    found = cells(tmp_path, "price", [" 1.5 ", "-2", "1e3", "", "nan"])
    assert found == [1.5, -2.0, 1000.0, None, None]


@pytest.mark.parametrize("value", ["inf", "-inf", "1e39"])
def test_an_infinite_number_is_refused(tmp_path: Path, value: str) -> None:
    assert math.isinf(np.float32(float(value)))
    with pytest.raises(
        DataError, match=r"log\.csv, column 'price', row 2: the number is infinite, or too large"
    ):
        cells(tmp_path, "price", ["1", value])


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("price", pa.array([dt.date(2020, 1, 1)]), r"date32\[day\], which cannot be read as float"),
        ("item", pa.array([{"a": 1}]), r"struct<.*>, which cannot be read as string"),
        ("when", pa.array([dt.time(1, 2)]), r"time64\[us\], which cannot be read as timestamp"),
        ("tags", pa.array([{"a": 1}]), r"struct<.*>, which cannot be read as list<item: string>"),
    ],
)
def test_a_column_of_another_nature_is_refused(
    tmp_path: Path, column: str, values: pa.Array, kind: str
) -> None:
    pq.write_table(pa.table({"user": ["u"], column: values}), tmp_path / "log.parquet")
    with pytest.raises(
        DataError,
        match=rf"log\.parquet, column '{column}' holds {kind}.*Correct the role or kind of featu"
        rf"res\.{column}, or the file\.$",
    ):
        read(tmp_path, "log.parquet")


@pytest.mark.parametrize(("column", "values"), [("price", [[1.0]]), ("item", [["a"]])])
def test_lists_in_a_column_of_single_values_are_refused(
    tmp_path: Path, column: str, values: list[Any]
) -> None:
    pq.write_table(pa.table({"user": ["u"], column: values}), tmp_path / "log.parquet")
    with pytest.raises(
        DataError,
        match=rf"log\.parquet, column '{column}' holds lists, and the recipe expects single "
        r"values\. If each value is a separate event, name the column in .*`explode:`",
    ):
        read(tmp_path, "log.parquet")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": ["u"] * 2, "item": [b"a", b"\xff"]}), tmp_path / "log.parquet")
    with pytest.raises(
        DataError, match=r"log\.parquet, column 'item', row 2: b'\\xff' are bytes that are no UTF-8"
    ):
        read(tmp_path, "log.parquet")


# ── time ────────────────────────────────────────────────────────────────────────────────


def test_times_are_seconds_since_the_epoch(tmp_path: Path) -> None:
    # 51 years of 365 days, 13 leap days (1972 … 2020), January and February, 3 days, 05:06:07
    days = 51 * 365 + 13 + 31 + 28 + 3
    assert days * 86400 + 5 * 3600 + 6 * 60 + 7 == MOMENT
    (moment,) = cells(tmp_path, "when", ["2021-03-04 05:06:07"])
    assert moment == MOMENT


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (["1614834367", "0", "-5"], [MOMENT, 0, -5]),
        (["1614834367.9", "0.5", "-0.5"], [MOMENT, 0, -1]),
        (["1.614834367e9", "7.", ""], [MOMENT, 7, None]),
        ([" 1614834367 ", "3"], [MOMENT, 3]),
        (["2021-03-04T05:06:07", "1970-01-01"], [MOMENT, 0]),
        (["2021-03-04 05:06:07.999", "", "1970-01-01 00:01"], [MOMENT, None, 60]),
        (["2021-03-04T05:06:07Z", "2021-03-04 07:06:07+02:00"], [MOMENT, MOMENT]),
        (["2021-03-04T00:36:07-0430", "1969-12-31T23:59:59Z"], [MOMENT, -1]),
        (["", ""], [None, None]),
        (["nan", "4"], [None, 4]),
        (["2021-03-04 05:06:07 UTC", "1970-01-01 00:00:01 UTC"], [MOMENT, 1]),
        (["1969-12-31 23:59:59.5"], [-1]),
    ],
)
def test_text_of_time(tmp_path: Path, values: list[str], seconds: list[int | None]) -> None:
    if values[0] == "nan":
        values.reverse()  # the first cell decides between numbers and dates
        seconds.reverse()
    assert cells(tmp_path, "when", values) == seconds


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("s", MOMENT),
        ("ms", MOMENT * 1_000 + 999),
        ("us", MOMENT * 1_000_000 + 999_999),
        ("ns", MOMENT * 1_000_000_000 + 999_000_000),
    ],
)
def test_units_of_time(tmp_path: Path, unit: str, value: int) -> None:
    assert cells(tmp_path, "when", [str(value)], when={"unit": unit}) == [MOMENT]
    pq.write_table(pa.table({"user": ["u"], "when": [value]}), tmp_path / "log.parquet")
    assert read(tmp_path, "log.parquet", when={"unit": unit})[0]["when"] == MOMENT


@pytest.mark.parametrize(
    "values",
    [
        pa.array([MOMENT], pa.timestamp("s")),
        pa.array([MOMENT * 10**9 + 5000], pa.timestamp("ns")),
        pa.array([MOMENT * 10**3], pa.timestamp("ms", "Europe/Berlin")),  # stored as UTC
        pa.array([float(MOMENT) + 0.25]),
        pa.array([str(MOMENT)], pa.large_string()),
        pa.array(["2021-03-04 05:06:07"]).dictionary_encode(),
    ],
)
def test_columns_of_time(tmp_path: Path, values: pa.Array) -> None:
    pq.write_table(pa.table({"user": ["u"], "when": values}), tmp_path / "log.parquet")
    assert read(tmp_path, "log.parquet")[0]["when"] == MOMENT


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_no_digit_of_a_whole_number_is_lost(tmp_path: Path, unit: str) -> None:
    """As a double, the last nanosecond of a second is the next second."""
    per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    last = MOMENT * per_second + per_second - 1
    assert (unit == "ns") == (math.floor(float(last) / per_second) > MOMENT)
    values = [str(last), f"{MOMENT * per_second}.0", "", str(-1)]
    assert cells(tmp_path, "when", values, when={"unit": unit}) == [MOMENT, MOMENT, None, -1]
    pq.write_table(pa.table({"user": ["u"], "when": [last]}), tmp_path / "log.parquet")
    assert read(tmp_path, "log.parquet", when={"unit": unit})[0]["when"] == MOMENT
    moments = pa.array([last], pa.timestamp(unit))
    table = pa.table({"user": ["u"], "when": moments})
    pq.write_table(table, tmp_path / "log.parquet", version="2.6")  # keeps nanoseconds
    assert read(tmp_path, "log.parquet", when={"unit": unit})[0]["when"] == MOMENT


def test_dates_are_midnight_in_utc(tmp_path: Path) -> None:
    days = pa.array([dt.date(2021, 3, 4), None])
    pq.write_table(pa.table({"user": ["u", "v"], "when": days}), tmp_path / "log.parquet")
    midnight = MOMENT - (5 * 3600 + 6 * 60 + 7)
    assert [row["when"] for row in read(tmp_path, "log.parquet")] == [midnight, None]


@pytest.mark.parametrize(
    ("values", "row", "value", "kind"),
    [
        (["1", "2021-03-04"], 2, "'2021-03-04'", "double"),
        (["2021-03-04", "1"], 2, "'1'", r"timestamp\[us\]"),
        (["yesterday"], 1, "'yesterday'", r"timestamp\[us\]"),
        (["2021-03-04", "2021-02-30"], 2, "'2021-02-30'", r"timestamp\[us\]"),
        (["2021-03-04T00:00:00Z", "2021-03-04T00:00:00"], 2, "'2021-03-04T00:00:00'", "timestamp"),
        (["1", "1e300"], 2, r"1e\+300", "int64"),
        (["1", "inf"], 2, "inf", "int64"),
    ],
)
def test_a_time_that_is_none_names_the_cell(
    tmp_path: Path, values: list[str], row: int, value: str, kind: str
) -> None:
    with pytest.raises(
        DataError, match=rf"log\.csv, column 'when', row {row}: {value} cannot be read as {kind}"
    ):
        cells(tmp_path, "when", values)


# ── lists ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("separator", "text", "parts"),
    [
        ("|", "a|b", ["a", "b"]),
        (".", "a.b", ["a", "b"]),  # literal, no regular expression
        (" ", "Sci-Fi Drama", ["Sci-Fi", "Drama"]),
        ("::", "a::b:c", ["a", "b:c"]),
        ("|", "a||b|", ["a", "b"]),
        ("|", "||", []),
        ("|", "abc", ["abc"]),
        ("|", "a|a", ["a", "a"]),
        ("|", "Ж|01", ["Ж", "01"]),
        ("|", "", None),
    ],
)
def test_text_is_split_at_the_literal_separator(
    tmp_path: Path, separator: str, text: str, parts: list[str] | None
) -> None:
    tags = {"role": "item", "kind": "categories", "separator": separator}
    found = cells(tmp_path, "tags", ["x", text, ""], features={"tags": tags})
    assert found == [["x"], parts, None]


@given(
    st.lists(
        st.one_of(st.none(), st.lists(st.sampled_from(["a", "b", "", "Ж"]), min_size=1)),
        min_size=1,
        max_size=20,
    )
)
def test_lists_of_any_length_stay_in_their_rows(lists: list[list[str] | None]) -> None:
    column = pa.chunked_array([[None if x is None else "|".join(x) for x in lists]], pa.string())
    found = list_cells.read_lists(column, "|", Place("x.csv", "tags")).to_pylist()
    assert found == [None if x is None else [part for part in x if part] for x in lists]


def test_text_without_a_separator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"log\.csv, column 'tags', row 1: 'a\|b' is text, not a list\. Set features\.tags\.",
    ):
        cells(tmp_path, "tags", ["a|b"], features={"tags": {"role": "item", "kind": "categories"}})


def test_a_file_of_nulls_alone_has_lists_like_its_siblings(tmp_path: Path) -> None:
    for name, tags in (("a", pa.array([["x"], []])), ("b", pa.nulls(2))):
        table = pa.table({"user": ["u", "v"], "when": [MOMENT] * 2, "tags": tags})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    found = read(tmp_path, "*.parquet", features={"tags": {"role": "item", "kind": "categories"}})
    assert [row["tags"] for row in found] == [["x"], [], None, None]


def test_nulls_hold_for_text_of_parquet_too(tmp_path: Path) -> None:
    values = {"user": ["NA", "u", ""], "item": pa.array(["i", "NA", "j"]).dictionary_encode()}
    pq.write_table(pa.table({**values, "price": ["1", " NA ", ""]}), tmp_path / "log.parquet")
    found = read(tmp_path, "log.parquet", source={"files": "log.parquet", "nulls": ["NA"]})
    assert found == [
        {"user": None, "item": "i", "price": 1.0},
        {"user": "u", "item": None, "price": None},
        {"user": None, "item": "j", "price": None},
    ]
