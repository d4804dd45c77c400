"""Partitioned files: columns from folder names, and files that differ only by their folder."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_sources import read, recipe

from workflows.etl.read import sources
from workflows.ground.errors import DataError

NULL = "__HIVE_DEFAULT_PARTITION__"


def csv_in(folder: Path, user: str, header: str = "user,item") -> None:
    folder.mkdir(parents=True)
    (folder / "part-0.csv").write_text(f"{header}\n{user},i\n", encoding="utf-8")


def test_columns_are_read_from_the_path(tmp_path: Path) -> None:
    csv_in(tmp_path / "log" / "when=1970-01-02" / "item2=a%2Fb%20c", "u")
    csv_in(tmp_path / "log" / "when=1970-01-03" / f"item2={NULL}", "v")
    found = read(
        tmp_path,
        "log/*/*/*.csv",
        features={"item2": {"role": "context"}},
    )
    assert found == [
        {"user": "u", "item": "i", "when": 86_400, "item2": "a/b c"},
        {"user": "v", "item": "i", "when": 2 * 86_400, "item2": None},
    ]


def test_of_parquet_as_numbers_and_renamed(tmp_path: Path) -> None:
    for n in range(3):
        folder = tmp_path / f"cost={n}.5"
        folder.mkdir()
        pq.write_table(
            pa.table({"user": ["u", "v"], "item": ["i", "j"]}), folder / "part-0.parquet"
        )
    found = read(tmp_path, "*/*.parquet", source={"rename": {"cost": "price"}})
    assert [row["price"] for row in found] == [0.5, 0.5, 1.5, 1.5, 2.5, 2.5]


def test_a_column_of_the_file_counts_more_than_one_of_the_path(tmp_path: Path) -> None:
    csv_in(tmp_path / "item=path", "u")
    assert read(tmp_path, "*/*.csv")[0]["item"] == "i"


def test_the_data_folder_itself_tells_nothing(tmp_path: Path) -> None:
    csv_in(tmp_path / "item=path", "u", header="user,thing")
    asked = recipe("*.csv")
    assert sources.read(asked, tmp_path / "item=path").columns["log"] == ["user", "thing"]


def test_files_are_named_with_their_folders(tmp_path: Path) -> None:
    for n in range(6):
        csv_in(tmp_path / f"dt={n}", "u")
    raw = sources.read(recipe("*/*.csv"), tmp_path)
    with pytest.raises(
        DataError,
        match=r"source 'log' \(dt=0/part-0\.csv, dt=1/part-0\.csv, dt=2/part-0\.csv, 3 more "
        r"files\) has no column 'day'",
    ):
        raw.require("log", "day")


def test_a_folder_is_refused_with_the_glob_of_its_files(tmp_path: Path) -> None:
    csv_in(tmp_path / "events" / "dt=1", "u")
    (tmp_path / "events" / "_SUCCESS").touch()
    with pytest.raises(
        DataError, match=r"is a folder\. Name the files in it, such as 'events/\*\*/"
    ):
        read(tmp_path, "events")
    assert len(read(tmp_path, "events/**/*.csv")) == 1


def test_a_glob_passes_over_what_spark_puts_beside_data(tmp_path: Path) -> None:
    csv_in(tmp_path / "log", "u")
    for name in ("_SUCCESS", ".part-0.csv.crc", "_metadata"):
        (tmp_path / "log" / name).write_bytes(b"\0crc")
    assert len(read(tmp_path, "log/*")) == 1
