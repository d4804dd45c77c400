"""Time warnings: times far from all others are reported once, with their count."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any

import pyarrow as pa
import pytest
from test_value_warnings import RAW, recipe

from workflows.etl.check import time_warnings
from workflows.ground.errors import DataError


def seconds(*days: str) -> list[int]:
    zone = dt.timezone.utc
    return [int(dt.datetime.fromisoformat(d).replace(tzinfo=zone).timestamp()) for d in days]


def told_of(times: list[int], caplog, **changes: Any) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        of = time_warnings.CheckedTimes.of(recipe(**changes), pa.table({"ts": times}), by_day=False)
        time_warnings.check_times(recipe(**changes), "log", of)
    return caplog.messages


YEAR = [seconds("2020-01-01")[0] + 86_400 * n for n in range(360)]


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("1970-01-01", "1 of 361 times far from all others (1970-01-01; the median is 2020-06"),
        ("1900-01-01", "(1900-01-01; the median"),
        ("2035-05-05", "(2035-05-05; the median"),
        ("9999-12-31", "(9999-12-31; the median"),
    ],
)
def test_one_date_far_from_all_others_is_told(odd: str, said: str, caplog) -> None:
    (message,) = told_of([*YEAR, *seconds(odd)], caplog)
    assert said in message
    recent = "they decide what is recent" in message
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
    assert "with features.ts.unit most times are about 1970-01-19" in message
    assert "Set features.ts.unit to s" in message
    order = {**RAW["features"], "ts": {"role": "time", "unit": "order"}}
    assert told_of(list(range(9)), caplog, features=order) == []


def test_days_of_an_archive_are_no_placeholders(caplog):
    """The first day of 1900 is the date of many objects, and has neighbours before and behind."""
    years = seconds(*(f"{year}-01-01" for year in range(1850, 1950)))
    assert told_of(years * 3, caplog) == []
    old = seconds(*(f"{year}-01-01" for year in range(1850, 1901)))
    split = {"kind": "time", "valid": 0.015, "test": 0.015}
    assert told_of(old * 3, caplog, split=split) == []
