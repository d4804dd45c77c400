"""Convert times, text in a format such as %m/%d/%Y %H:%M, to seconds since the epoch, UTC.

A format ("form" in this module) consists of the directives of strptime. Arrow's strptime turns the
30th of February into the 2nd of March, and Python's strptime takes 6 µs per cell. Therefore this
module translates a format into a regular expression, which is applied to whole columns.
"""

from __future__ import annotations

import datetime as dt
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Bools, Ints
from workflows.recipe.time_formats import DIRECTIVES, MONTHS, NAMED, words

__all__ = ["NAMED", "OF_DIGITS", "example", "fits", "seconds", "suggest_forms"]

#: Strptime forms of dates that are written as one number, such as 20200913.
OF_DIGITS = ("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d%H", "%Y%m%d", "%Y%m", "%Y")
#: Strptime forms that messages suggest for a time that is not ISO 8601.
_USUAL = tuple(
    day + time
    for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
    for day in ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%m/%d/%y", "%d %b %Y")
)
_MOMENT = dt.datetime(2021, 3, 14, 15, 9, 26)
_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
#: Years of two digits mean 1969 to 2068, as POSIX defines.
_PIVOT = 69


def seconds(text: pa.ChunkedArray, form: str) -> pa.ChunkedArray:
    """Convert times to seconds since the epoch; null for text that is not in the format.

    Args:
        text: times as text, without surrounding blanks.
        form: the format of the times, in directives of strptime.
    """
    parts = pc.extract_regex(pc.utf8_upper(text), pattern=_pattern(form)).combine_chunks()
    there = parts.is_valid().to_numpy(zero_copy_only=False)
    fields = {field.name: parts.field(n) for n, field in enumerate(parts.type)}
    numbers = {name: _numbers(name, field, there) for name, field in fields.items()}
    zero = np.zeros(len(there), np.int64)
    year = numbers["Y"] if "Y" in numbers else _century(numbers["y"])
    month, day = numbers.get("m", numbers.get("b", zero + 1)), numbers.get("d", zero + 1)
    hour = numbers["H"] if "H" in numbers else numbers.get("I", zero)
    if "p" in numbers:
        there &= (hour >= 1) & (hour <= 12)
        hour = hour % 12 + 12 * numbers["p"]
    minute, second = numbers.get("M", zero), numbers.get("S", zero)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    there &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    longest = _DAYS[np.clip(month, 1, 12) - 1] + (leap & (month == 2))
    there &= (day <= longest) & (hour < 24) & (minute < 60) & (second < 60)
    days = _days(year, np.clip(month, 1, 12), day)
    found = days * 86_400 + hour * 3_600 + minute * 60 + second - numbers.get("z", zero)
    return pa.chunked_array([pa.array(found, mask=~there)])


def _pattern(form: str) -> str:
    """Return a regular expression for times in a strptime format, written in capital letters."""
    pattern, tight = "", words(form)
    for number, word in enumerate(tight):
        if not word.startswith("%") or word == "%%":
            literal = re.sub(r"\s+", " ", word.replace("%%", "%").upper())
            pattern += re.escape(literal).replace(r"\ ", r"\s+")
            continue
        directive = DIRECTIVES[word[1]]
        beside = tight[max(0, number - 1) : number] + tight[number + 1 : number + 2]
        is_tight = any(other.startswith("%") and other != "%%" for other in beside)
        expression = directive.tight if is_tight else directive.loose
        pattern += f"(?P<{directive.field}>{expression})" if directive.field else expression
    return f"^{pattern}$"


def _numbers(name: str, field: pa.StringArray, there: Bools) -> Ints:
    field = pc.if_else(pa.array(there), field, pa.scalar(None, pa.string()))
    if name == "b":
        months = pa.array(MONTHS)
        return (
            pc.fill_null(pc.index_in(pc.utf8_slice_codeunits(field, 0, 3), months), -1)
            .to_numpy(zero_copy_only=False)
            .astype(np.int64)
            + 1
        )
    if name == "p":
        return (
            pc.fill_null(pc.equal(field, "PM"), False)
            .to_numpy(zero_copy_only=False)
            .astype(np.int64)
        )
    if name == "z":
        return _offsets(field)
    return pc.fill_null(pc.cast(field, pa.int64()), 0).to_numpy()


def _offsets(zones: pa.StringArray) -> Ints:
    """Convert time zones such as Z, +02:00 and -0430 to offsets from UTC in seconds."""
    distinct = zones.dictionary_encode()
    ahead = [_offset(zone) for zone in distinct.dictionary.to_pylist()]
    found = pa.array(ahead, pa.int64()).take(distinct.indices)
    return pc.fill_null(found, 0).to_numpy()


def _offset(zone: str) -> int:
    if zone in ("Z", "UTC", "GMT"):
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    ahead = int(digits[:2]) * 3_600 + int(digits[2:]) * 60
    return -ahead if zone[0] == "-" else ahead


def _century(years: Ints) -> Ints:
    return years + np.where(years >= _PIVOT, 1900, 2000)


def _days(year: Ints, month: Ints, day: Ints) -> Ints:
    """Convert years, months and days (Gregorian calendar) to days since 1970-01-01."""
    months = (year - 1970) * 12 + month - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days: Ints = first + day - 1
    return days


def example(form: str) -> str:
    """Return an example of a time in a strptime format, for messages."""
    return _MOMENT.replace(tzinfo=dt.timezone.utc).strftime(form)


def suggest_forms(text: str) -> list[str]:
    """Return usual strptime formats that fit a time: two if day and month can be swapped."""
    array = pa.chunked_array([[text]])
    return [form for form in _USUAL if seconds(array, form)[0].is_valid][:2]


def fits(number: float, form: str) -> bool:
    """Say whether a number, in a strptime format such as %Y%m%d, is a date of 1900 to 2099."""
    if number != int(number) or number < 0:
        return False
    found = seconds(pa.chunked_array([[str(int(number))]]), form)[0]
    return bool(found.is_valid and dt.datetime(1900, 1, 1).year <= _year(found.as_py()) < 2100)


def _year(moment: int) -> int:
    return int(np.datetime64(moment, "s").astype("datetime64[Y]").astype(int)) + 1970
