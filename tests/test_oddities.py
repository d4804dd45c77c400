"""What is odd about whole columns: one warning each, or a refusal."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workflows import recipe as recipes
from workflows.errors import DataError
from workflows.etl import oddities, sources
from workflows.recipe import Recipe

RAW: dict[str, Any] = {
    "name": "t",
    "sources": {"log": {"files": "log*"}},
    "interactions": "log",
    "split": {"kind": "random"},
    "features": {
        "user": {"role": "user", "id": True},
        "item": {"role": "item", "id": True},
        "city": {"role": "user"},
        "ts": {"role": "time"},
    },
}


def recipe(**changes: Any) -> Recipe:
    return recipes.parse({**RAW, **changes}, where="test")


def write(folder: Path, name: str = "log.csv", **columns: list[Any]) -> None:
    n = max(map(len, columns.values()))
    rows = {"user": [f"u{k % 7}" for k in range(n)], "item": [f"i{k % 9}" for k in range(n)]}
    table = pa.table({**rows, **columns})
    if name.endswith(".parquet"):
        pq.write_table(table, folder / name)
        return
    lines = [",".join(map(str, row.values())) for row in table.to_pylist()]
    text = "\n".join([",".join(table.column_names), *lines]) + "\n"
    (folder / name).write_text(text, encoding="utf-8")


def read(
    folder: Path, caplog: pytest.LogCaptureFixture, **changes: Any
) -> tuple[pa.Table, list[str]]:
    """Return the table of the log, and what was warned of."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        table = sources.read(recipe(**changes), folder).tables["log"]
    return table, caplog.messages


# ── words for nothing ───────────────────────────────────────────────────────────────────


def test_words_for_nothing_are_told_once_a_column(tmp_path, caplog):
    users = ["\\N" if k % 5 == 0 else f"u{k}" for k in range(100)]
    cities = ["NULL" if k % 3 == 0 else "\\N" if k % 3 == 1 else "Oslo" for k in range(100)]
    write(tmp_path, user=users, city=cities)
    _, told = read(tmp_path, caplog)
    assert len(told) == 2
    assert told[0].startswith("column 'user' of log has '\\N' (20 cells), so that these rows share")
    assert told[0].endswith(r"such as sources.log.nulls=['\N'].")
    assert "column 'city' of log has 'NULL' (34 cells), '\\N' (33 cells), which count" in told[1]
    nulls = {"log": {"files": "log*", "nulls": ["\\N", "NULL"]}}
    table, told = read(tmp_path, caplog, sources=nulls)
    assert told == []
    assert (table["user"].null_count, table["city"].null_count) == (20, 67)


def test_a_rare_word_in_a_category_is_left_alone(tmp_path, caplog):
    write(tmp_path, city=["None", *["Oslo"] * 400])
    assert read(tmp_path, caplog)[1] == []


# ── ids in scientific notation ──────────────────────────────────────────────────────────


def test_ids_of_spreadsheets_are_refused(tmp_path, caplog):
    write(tmp_path, item=["9780140000020", "9.78014E+12", "i", "9.78014E+12"])
    with pytest.raises(DataError) as caught:
        read(tmp_path, caplog)
    said = str(caught.value)
    assert f"{tmp_path}/log.csv, row 2, column 'item': this and 1 more cells hold ids in" in said
    assert "such as '9.78014E+12' (2 cells)" in said


def test_categories_of_spreadsheets_are_told(tmp_path, caplog):
    write(tmp_path, city=["1.5e+20", "2"])
    assert "column 'city' of log has numbers in scientific notation" in read(tmp_path, caplog)[1][0]


# ── two spellings ───────────────────────────────────────────────────────────────────────


def test_one_frame_in_two_formats_has_one_spelling(tmp_path, caplog):
    write(tmp_path, "log-1.parquet", user=[17850, 17851], city=[True, False])
    write(tmp_path, "log-2.csv", user=["17850.0", "17852.0"], city=["True", "False"])
    table, told = read(tmp_path, caplog)
    assert table["user"].to_pylist() == ["17850", "17851", "17850", "17852"]
    assert table["city"].to_pylist() == ["true", "false", "true", "false"]
    assert told == []


def test_ids_with_a_gap_meet_those_of_a_joined_table(tmp_path, caplog):
    write(tmp_path, user=["17850.0", "", "17851.0"])
    (tmp_path / "customers.csv").write_text("user,city\n17850,Rome\n17851,Oslo\n")
    changes = {
        "sources": {"log": {"files": "log*"}, "customers": {"files": "customers.csv"}},
        "join": [{"table": "customers", "on": "user"}],
    }
    table, told = read(tmp_path, caplog, **changes)
    assert table["user"].to_pylist() == ["17850", None, "17851"]
    assert told == []


def test_values_that_stand_in_one_file_in_both_spellings_stay_two(tmp_path, caplog):
    write(tmp_path, city=["1.0", "1", "1.1", "1.0", "2.0"])
    table, told = read(tmp_path, caplog)
    assert table["city"].to_pylist() == ["1.0", "1", "1.1", "1.0", "2.0"]
    assert len(told) == 1
    assert "column 'city' of log has 1 values in two spellings, such as '1.0' and '1'" in told[0]
    assert "(2 cells have the first)" in told[0]


def test_a_float_that_is_too_long_is_refused_in_text_too(tmp_path, caplog):
    write(tmp_path, item=["5.0", f"{2**53}.0"])
    with pytest.raises(
        DataError, match=r"column 'item': '9007199254740992\.0' is a float, whose d"
    ):
        read(tmp_path, caplog)


# ── times ───────────────────────────────────────────────────────────────────────────────


def seconds(*days: str) -> list[int]:
    zone = dt.timezone.utc
    return [int(dt.datetime.fromisoformat(d).replace(tzinfo=zone).timestamp()) for d in days]


def told_of(times: list[int], caplog, **changes: Any) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        oddities.tell_of_times(recipe(**changes), "log", pa.table({"ts": times}))
    return caplog.messages


YEAR = [seconds("2020-01-01")[0] + 86_400 * n for n in range(360)]


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("1970-01-01", "1 of 361 times far from all others (1970-01-01; the middle one is 2020-06"),
        ("1900-01-01", "(1900-01-01; the middle one"),
        ("2035-05-05", "(2035-05-05; the middle one"),
        ("9999-12-31", "(9999-12-31; the middle one"),
    ],
)
def test_one_date_far_from_all_others_is_told(odd: str, said: str, caplog) -> None:
    (message,) = told_of([*YEAR, *seconds(odd)], caplog)
    assert said in message
    recent = "they decide what counts as recent" in message
    assert recent == (odd > "2020")
    assert "{kind: keep, column: ts" in message


def test_a_placeholder_of_many_rows_is_told(caplog):
    (message,) = told_of(YEAR + seconds("1970-01-01") * 200, caplog)
    assert "200 of 560 times" in message


def test_many_dates_that_are_still_to_come_are_told(caplog):
    (message,) = told_of(YEAR + seconds("2080-05-05") * 100, caplog)
    assert "100 of 460 times far from all others (2080-05-05" in message


@pytest.mark.parametrize("times", [YEAR, [5], YEAR[:2], [YEAR[n // 100] for n in range(1000)]])
def test_usual_times_are_no_matter(times: list[int], caplog) -> None:
    assert told_of(times, caplog) == []


def test_a_log_of_many_years_with_a_thin_start_is_usual(caplog):
    thin = seconds(*(f"{year}-06-01" for year in range(1996, 2010)))
    dense = seconds(
        *(f"{year}-{month:02d}-01" for year in range(2010, 2019) for month in range(1, 13))
    )
    assert told_of(thin + dense, caplog) == []


def test_far_dates_do_not_decide_a_cut(caplog):
    split = {"kind": "time", "valid": 0.05, "test": 0.05}
    times = YEAR + seconds("9999-12-31") * 20
    with pytest.raises(DataError, match=r"20 of 380 times far.*would decide where the split cuts"):
        told_of(times, caplog, split=split)
    assert len(told_of(YEAR + seconds("9999-12-31"), caplog, split=split)) == 1


def test_a_unit_that_gives_1970_is_told_with_the_likely_one(caplog):
    ts = {**RAW["features"], "ts": {"role": "time", "unit": "ms"}}
    (message,) = told_of([second // 1000 for second in YEAR], caplog, features=ts)
    assert "by features.ts.unit most times are about 1970-01-19" in message
    assert "Set features.ts.unit to s" in message
    order = {**RAW["features"], "ts": {"role": "time", "unit": "order"}}
    assert told_of(list(range(9)), caplog, features=order) == []
