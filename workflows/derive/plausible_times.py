"""Decide whether times are plausible for a log; suggest a unit for times that are not."""

from __future__ import annotations

import datetime as dt

import numpy as np

from models.core.retriever import Bools, Ints
from workflows.derive import time_formats

#: Unit of time → number of these units in a second.
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
#: Seconds of a day.
DAY = 86_400
#: The day number that spreadsheets give to 1970-01-01.
EXCEL = 25_569
#: Plausible dates begin with 1990 (in seconds since 1970) and end `_AHEAD` years after this year.
_OLDEST, _AHEAD = 631_152_000, 5


def is_plausible(seconds: float) -> bool:
    """Say whether a date is plausible for a log: from 1990 on, at most some years after today."""
    return bool(_OLDEST <= seconds < _newest())


def are_old(seconds: Ints) -> Bools:
    """Return the mask of the times that are too early to be plausible for a log, bool [n]."""
    return seconds < _OLDEST


def are_ahead(seconds: Ints) -> Bools:
    """Return the mask of the times that are too late to be plausible for a log, bool [n]."""
    return seconds >= _newest()


def _newest() -> int:
    """Return the earliest time, in seconds since 1970, that is too late to be plausible."""
    year = dt.datetime.now(dt.timezone.utc).year + _AHEAD
    return int(dt.datetime(year, 1, 1, tzinfo=dt.timezone.utc).timestamp())


def date(seconds: int) -> str:
    """Return the UTC date, such as 2020-09-13, of a time in seconds since 1970."""
    return str(np.datetime64(seconds, "s").astype("datetime64[D]"))


def suggest_unit(column: str, *numbers: float) -> str:
    """Return a sentence that suggests a unit or format for numbers that are implausible as seconds.

    Args:
        column: name of the column of times.
        numbers: some values of the column.
    """
    for form in time_formats.OF_DIGITS:
        if all(time_formats.fits(number, form) for number in numbers):
            name = "yyyymmdd" if form == "%Y%m%d" else repr(form)
            return (
                f"They look like dates written {form}: set features.{column}.format to {name}. "
                + _ELSE.format(column=column)
            )
    if all(is_plausible((number - EXCEL) * DAY) for number in numbers):
        return (
            f"They look like the days of a spreadsheet: set features.{column}.format to excel. "
            + _ELSE.format(column=column)
        )
    for unit, per in (*PER_SECOND.items(), ("d", 1 / DAY)):
        if all(is_plausible(number / per) for number in numbers):
            return f"Set features.{column}.unit to {unit}. " + _ELSE.format(column=column)
    return f"Set features.{column}.unit or features.{column}.format as they need. " + _ELSE.format(
        column=column
    )


_ELSE = (
    "If they only order the events, set features.{column}.unit to order; if they are seconds "
    "indeed, to s."
)
