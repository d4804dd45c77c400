"""Times of logs: text forms and numbers are read, and implausible ones are refused."""

from __future__ import annotations

import datetime as dt
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
from workflows.derive import time_formats
from workflows.etl.read import sources
from workflows.ground.errors import DataError, RecipeError
from workflows.recipe import Recipe

UTC = dt.timezone.utc


def recipe(files: str, **time: Any) -> Recipe:
    raw = {
        "name": "t",
        "sources": {"log": {"files": files}},
        "interactions": "log",
        "split": {"kind": "random"},
        "features": {
            "user": {"role": "user", "id": True},
            "item": {"role": "item", "id": True},
            "ts": {"role": "time", **time},
        },
    }
    return recipes.parse(raw, where="test")


def read(folder: Path, cells: list[Any], **time: Any) -> list[int | None]:
    """Return the seconds of cells: of a csv where they are text, of parquet where they are not."""
    users = [f"u{n}" for n in range(len(cells))]
    if isinstance(cells, list) and all(isinstance(cell, str) for cell in cells):
        lines = "".join(f'{user},i,"{cell}"\n' for user, cell in zip(users, cells, strict=True))
        (folder / "log.csv").write_text(f"user,item,ts\n{lines}", encoding="utf-8")
        name = "log.csv"
    else:
        pq.write_table(
            pa.table({"user": users, "item": users, "ts": cells}), folder / "log.parquet"
        )
        name = "log.parquet"
    return sources.read(recipe(name, **time), folder).tables["log"]["ts"].to_pylist()


def moment(*parts: int) -> int:
    return int(dt.datetime(*parts, tzinfo=UTC).timestamp())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "cell", "parts"),
    [
        ("%m/%d/%Y %H:%M", "9/13/2020 12:26", (2020, 9, 13, 12, 26)),
        ("%m/%d/%Y %H:%M", "12/01/2010 8:05", (2010, 12, 1, 8, 5)),
        ("%d.%m.%Y", "13.9.2020", (2020, 9, 13)),
        ("%d-%b-%Y", "02-Mar-2021", (2021, 3, 2)),
        ("%B %d, %Y", "September 3, 2019", (2019, 9, 3)),
        ("%a %b %d %H:%M:%S %Y", "Sun Sep 13 12:26:40 2020", (2020, 9, 13, 12, 26, 40)),
        ("%m/%d/%y %I:%M %p", "1/2/21 12:05 am", (2021, 1, 2, 0, 5)),
        ("%m/%d/%y %I:%M %p", "1/2/21 12:05 PM", (2021, 1, 2, 12, 5)),
        ("%Y%m%d%H%M%S", "20200913122640", (2020, 9, 13, 12, 26, 40)),
        ("yyyymmdd", "20200913", (2020, 9, 13)),
        ("yyyymmdd", "20200913.0", (2020, 9, 13)),
        ("%Y-%m-%dT%H:%M:%S.%f", "2020-09-13T12:26:40.999", (2020, 9, 13, 12, 26, 40)),
        ("%Y-%m-%d %H:%M:%S%z", "2020-09-13 14:26:40+02:00", (2020, 9, 13, 12, 26, 40)),
        ("%Y-%m-%d %H:%M:%S %z", "2020-09-13 08:56:40 -0330", (2020, 9, 13, 12, 26, 40)),
        ("%d/%m/%Y %H:%M", "  29/02/2020   23:59 ", (2020, 2, 29, 23, 59)),
        ("excel", "44087.51852", (2020, 9, 13, 12, 26, 40)),
        ("excel", "25569", (1970, 1, 1)),
    ],
)
def test_a_form_says_what_is_written(
    tmp_path: Path, form: str, cell: str, parts: tuple[int, ...]
) -> None:
    assert read(tmp_path, [cell, ""], format=form) == [moment(*parts), None]


def test_numbers_of_parquet_may_be_dates(tmp_path: Path) -> None:
    days = [moment(2020, 9, 13), moment(2021, 1, 31)]
    for cells in ([20200913, 20210131], [20200913.0, 20210131.0]):
        assert read(tmp_path, cells, format="yyyymmdd") == days
        assert read(tmp_path, cells, format="%Y%m%d") == days
    assert read(tmp_path, [44087.5, None], format="excel") == [moment(2020, 9, 13, 12), None]
    assert read(tmp_path, [18518, 18519], unit="d") == [moment(2020, 9, 13), moment(2020, 9, 14)]


@pytest.mark.parametrize(
    ("form", "cell"),
    [
        ("%m/%d/%Y", "13/9/2020"),
        ("%d/%m/%Y", "30/2/2020"),
        ("%d/%m/%Y", "29/2/2021"),
        ("%d/%m/%Y", "1/1/2021 12:00"),
        ("%H:%M %d/%m/%Y", "24:00 1/1/2021"),
        ("%I:%M %p %Y", "13:00 PM 2021"),
        ("yyyymmdd", "2020913"),
        ("yyyymmdd", "2020-09-13"),
        ("%d %b %Y", "3 Okt 2020"),
    ],
)
def test_what_is_not_of_the_form_is_named_with_its_row(
    tmp_path: Path, form: str, cell: str
) -> None:
    good = time_formats.example(time_formats.NAMED.get(form, form))
    with pytest.raises(DataError) as caught:
        read(tmp_path, [good, cell], format=form)
    said = str(caught.value)
    assert f"column 'ts', row 2: {cell!r} is not such a time. Expected {good!r}" in said
    assert f"another time in the form {form!r} of features.ts.format. Correct it" in said


@given(st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)))
def test_forms_are_read_as_python_reads_them(when: dt.datetime) -> None:
    when = when.replace(microsecond=0, tzinfo=UTC)
    for form in ("%d.%m.%Y %H:%M:%S", "%Y%m%d%H%M%S", "%b %d %Y %I:%M:%S %p"):
        text = when.strftime(form)
        if not text[-4:].isdigit() and "%Y" in form and when.year < 1000:
            continue  # C's strftime writes no leading zeros
        if when.year < 1000:
            continue
        (found,) = time_formats.seconds(pa.chunked_array([[text]]), form).to_pylist()
        assert found == int((when - dt.datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("%m/%d", r"format '%m/%d' needs the year, as one of %Y and %y"),
        ("%Y-%q", r"has '%q', which is not known; known: %Y"),
        ("yyyymdd", r"is no form of times; Did you mean 'yyyymmdd'\?"),
        ("%Y %d", r"has %d without %m"),
        ("%Y %I", r"has %I, hours of a half day, without %p"),
        ("%Y %Y", r"says %Y twice"),
    ],
)
def test_a_form_that_is_none_is_refused_with_the_recipe(form: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe("log.csv", format=form)


def test_a_time_has_a_unit_or_a_format() -> None:
    with pytest.raises(RecipeError, match="either a unit or a format"):
        recipe("log.csv", format="excel", unit="s")


# ── numbers that nobody explained ───────────────────────────────────────────────────────

SECONDS = [moment(2020, 9, 13), moment(2020, 9, 14)]


@pytest.mark.parametrize(
    ("numbers", "cure"),
    [
        ([20200913, 20200914], "written %Y%m%d: set features.ts.format to yyyymmdd"),
        ([202009131226, 202009141226], "set features.ts.format to '%Y%m%d%H%M'"),
        ([20200913122640, 20200914122640], "set features.ts.format to '%Y%m%d%H%M%S'"),
        ([2020091312, 2020091412], "set features.ts.format to '%Y%m%d%H'"),
        ([202009, 202010], "set features.ts.format to '%Y%m'"),
        ([1998, 2020], "set features.ts.format to '%Y'"),
        ([44087.51, 44088.2], "days of a spreadsheet: set features.ts.format to excel"),
        ([18518, 18519], "Set features.ts.unit to d."),
        ([s * 1_000 for s in SECONDS], "Set features.ts.unit to ms."),
        ([s * 1_000_000 for s in SECONDS], "Set features.ts.unit to us."),
        ([s * 1_000_000_000 for s in SECONDS], "Set features.ts.unit to ns."),
        ([0, 1, 2, 3], "If they only order the events, set features.ts.unit to order"),
    ],
)
def test_numbers_that_are_no_dates_as_seconds_are_refused_with_the_cure(
    tmp_path: Path, numbers: list[float], cure: str
) -> None:
    for cells in ([str(number) for number in numbers], numbers):
        with pytest.raises(DataError) as caught:
            read(tmp_path, cells)
        assert cure in str(caught.value)
        assert "column 'ts'" in str(caught.value)
        assert not str(caught.value).endswith("..")


def test_who_insists_gets_the_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, ["0", "1", "2"], unit="order") == [0, 1, 2]
    assert read(tmp_path, [0.0, 1.0, None], unit="order") == [0, 1, None]
    assert read(tmp_path, ["86400", "5"], unit="s") == [86400, 5]
    with pytest.raises(DataError, match=r"row 2: 1\.5 is not a whole number, which"):
        read(tmp_path, [1.0, 1.5], unit="order")


def test_a_few_odd_numbers_do_not_decide(tmp_path: Path) -> None:
    assert read(tmp_path, ["0", *map(str, SECONDS)]) == [0, *SECONDS]


def test_order_numbers_are_no_days() -> None:
    raw = recipe("log.csv", unit="order").to_dict()
    raw["history"] = {"columns": ["item"], "before": "day"}
    with pytest.raises(RecipeError, match="unit: order"):
        recipes.parse(raw, where="test")
    raw["history"] = None
    raw["derive"] = [{"kind": "date_part", "of": "ts", "to": "m", "part": "month"}]
    with pytest.raises(RecipeError, match="unit: order"):
        recipes.parse(raw, where="test")


# ── text ────────────────────────────────────────────────────────────────────────────────


def test_the_first_row_is_not_told_to_be_like_the_first_row(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, ["", "9/13/2020 12:26", "9/14/2020 12:26"])
    said = str(caught.value)
    assert (
        "column 'ts', row 2: '9/13/2020 12:26' cannot be read as timestamp[us]. Expected ISO 8601"
        in said
    )
    assert "Set features.ts.format to '%m/%d/%Y %H:%M' if that is its meaning" in said
    assert "first row" not in said
    with pytest.raises(DataError, match=r"row 2: '1/2/2020'.*as in the first row"):
        read(tmp_path, ["2020-01-02", "1/2/2020"])
    with pytest.raises(DataError, match=r"to '%m/%d/%Y' or to '%d/%m/%Y' if that is"):
        read(tmp_path, ["1/2/2020"])


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(19)])
def test_iso_times_may_be_stored_as_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    cells = pa.array([b"2021-03-04 05:06:07", b"2021-03-04 05:06:08"], kind)
    start = moment(2021, 3, 4, 5, 6, 7)
    assert read(tmp_path, cells) == [start, start + 1]
    assert read(tmp_path, cells.cast(pa.binary()).dictionary_encode()) == [start, start + 1]


def test_times_of_pandas_are_the_same_in_csv_and_parquet(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = pd.to_datetime(rng.integers(10**9, 1_700_000_000, 300), unit="s")
    text = times.strftime("%d/%m/%Y %H:%M:%S").tolist()
    assert read(tmp_path, text, format="%d/%m/%Y %H:%M:%S") == read(tmp_path, pa.array(times))


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["1.600000e+09", "1.600001e+09"], "times in scientific notation with fewer digits"),
        (["1.6E9", "1.6E9"], "times in scientific notation"),
        (["1.600000123e+09", "1.600001230000e+09"], ""),
        (pa.array([1_600_000_000.0, 1_600_000_500.0], pa.float32()), "is float, which cannot hold"),
        (pa.array([1_600_000_000.0, 1_600_000_500.0], pa.float64()), ""),
    ],
)
def test_times_that_lost_digits_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cells: Any, words: str
) -> None:
    read(tmp_path, cells)
    assert len(caplog.messages) == bool(words)
    assert words in " ".join(caplog.messages)
