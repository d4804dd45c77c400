"""Turn the times of one column of one file into seconds since the epoch, UTC.

Columns of a date type, and ISO 8601 text, need no description in the recipe. The fields `unit` and
`format` of the recipe describe other times. Numbers without a unit or format are taken as seconds;
if most of the dates are then implausible for a log, they are refused.
"""

from __future__ import annotations

import logging

import pyarrow as pa
import pyarrow.compute as pc

from workflows.derive import time_formats
from workflows.derive.plausible_times import (
    DAY,
    EXCEL,
    PER_SECOND,
    are_ahead,
    are_old,
    date,
    is_plausible,
    suggest_unit,
)
from workflows.ground.errors import DataError
from workflows.raw import dictionaries
from workflows.raw.values import Place, bad_cell, find_bad, parse, plain
from workflows.recipe import Feature

log = logging.getLogger(__name__)

#: Patterns: any number, a whole number, the end of ISO 8601 text with a zone, scientific notation.
_NUMBER = r"^-?\d+(\.\d*)?([eE][-+]?\d+)?$"
_WHOLE = r"^[-+]?\d+$"
_ZONE = r"\d:\d\d.*(Z|[-+]\d\d(:?\d\d)?)$"
_SCIENTIFIC = r"[eE]\+?\d"
#: A float32 holds all whole numbers below `_EXACT`; `_FEW` texts are checked for lost digits.
_EXACT, _FEW = 2**24, 1_000
#: The years 1 to 9999 in seconds since the epoch; other years cannot be written as dates.
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
_WRITTEN = "%Y-%m-%dT%H:%M:%SZ"
#: Phrases that say what a cell of a time column should hold, for messages.
_ISO = "ISO 8601, such as 2021-03-04 05:06:07"
_ISO_ZONE = "ISO 8601 with a zone, such as 2021-03-04T05:06:07Z"


class Times:
    """Converts the time column of one raw file to seconds since the epoch, batch by batch.

    Args:
        feature: the feature of the recipe that describes the times.

    Attributes:
        written: type, number or timestamp, that the first time of the file is written as; None
            before the first time.
    """

    def __init__(self, feature: Feature) -> None:
        self._feature = feature
        self.written: pa.DataType | None = None
        self._first: int | None = None
        self._guessed = _Guessed()
        self._has_warned = False

    def seconds(self, column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        """Convert the times of the file's next rows to seconds since the epoch, int64.

        Raises:
            DataError: a cell is not a time in the format that the recipe states.
        """
        is_guess = False
        if dictionaries.is_text(column.type):
            text = plain(column, place)
            self._note_format(text, place)
            is_guess = self.written == pa.int64()
            if not pa.types.is_dictionary(column.type):
                found = self._from_text(text, place)
            else:
                try:  # only distinct texts are parsed, or all cells to find a bad row
                    found = dictionaries.map_distinct(
                        column, lambda texts: self._from_text(texts, place)
                    )
                except DataError:
                    found = self._from_text(text, place)
        else:
            column = plain(column, place)
            if pa.types.is_string(column.type):
                return self.seconds(column, place)
            is_guess = not pa.types.is_temporal(column.type)
            found = self._from_typed(column, place)
        if is_guess and self._feature.unit is None and self._feature.format is None:
            self._guessed.add(found)
        return found

    def refuse_implausible(self, place: Place) -> None:
        """Raise an error if most times without a stated unit are implausible as seconds.

        Args:
            place: file and name of the column, for messages.
        """
        self._guessed.refuse(place)

    def _note_format(self, text: pa.ChunkedArray, place: Place) -> None:
        """Store the row number and the type, number or timestamp, of the first time of the file."""
        if self.written is None and text.null_count < len(text):
            row = pc.index(pc.is_valid(text), True).as_py()
            self._first = place.before + row
            first = pc.utf8_trim_whitespace(text.slice(row, 1))
            if pc.all(pc.match_substring_regex(first, _NUMBER)).as_py():
                self.written = pa.int64()
            else:
                zoned = pc.any(pc.match_substring_regex(iso(first), _ZONE)).as_py()
                self.written = pa.timestamp("us", "UTC" if zoned else None)

    def _from_text(self, text: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        if self.written is None:
            return pa.chunked_array([pa.nulls(len(text), pa.int64())])
        text = pc.utf8_trim_whitespace(text)
        form = self._feature.format
        if form == "excel":
            return self._from_serial_days(parse(text, pa.float64(), place), place)
        if form is not None:
            return _parse_form(text, form, place)
        if pa.types.is_timestamp(self.written):
            return self._from_timestamps(self._parse_iso(text, place), text, place)
        return self._from_numbers(text, place)

    def _parse_iso(self, text: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        assert self.written is not None
        try:
            return pc.cast(iso(text), self.written, safe=False)
        except pa.ArrowInvalid:
            row, _ = find_bad(iso(text), self.written)
        form = _ISO if self.written.tz is None else _ISO_ZONE
        is_first = place.before + row == self._first
        expected = f"Expected {form}{'' if is_first else ', as in the first row'}."
        value = text[row].as_py()
        like = time_formats.suggest_forms(value)
        if is_first and like:
            forms = " or to ".join(repr(form) for form in like)
            expected += f" Set features.{place.column}.format to {forms} if that is its meaning."
        elif is_first:
            expected += (
                f" Set features.{place.column}.format if times are written in another way, such "
                "as '%m/%d/%Y %H:%M'."
            )
        raise bad_cell(place, row, value, f"cannot be read as {self.written}.", expected)

    def _from_typed(self, column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        """Convert a time column of numbers, dates or timestamps to seconds since the epoch."""
        kind, form = column.type, self._feature.format
        if pa.types.is_temporal(kind) or pa.types.is_nested(kind) or pa.types.is_boolean(kind):
            moments = (
                column if pa.types.is_timestamp(kind) else parse(column, pa.timestamp("s"), place)
            )
            return self._from_timestamps(moments, column, place)
        if form == "excel":
            return self._from_serial_days(parse(column, pa.float64(), place), place)
        if form is not None:
            whole = pc.cast(parse(column, pa.int64(), place), pa.string())
            return _parse_form(whole, form, place)
        return self._from_numbers(column, place)

    def _from_timestamps(
        self, moments: pa.ChunkedArray, raw: pa.ChunkedArray, place: Place
    ) -> pa.ChunkedArray:
        per_second = PER_SECOND[moments.type.unit]
        seconds = _floor_divide(pc.cast(moments, pa.int64()), per_second)
        return _refuse_outside_calendar(seconds, raw, place)

    def _from_numbers(self, column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        unit = self._feature.unit or "s"
        if not self._has_warned:
            self._has_warned = _warn_of_rounded(column, place)
        if unit == "order":
            return _whole_numbers(column, place)
        if unit == "d":
            days = parse(column, pa.float64(), place)
            seconds = parse(pc.floor(pc.multiply(plain(days, place), DAY)), pa.int64(), place)
        else:
            seconds = _number_of_seconds(column, PER_SECOND[unit], place)
        return _refuse_outside_calendar(seconds, column, place)

    def _from_serial_days(self, days: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
        """Convert the day numbers of spreadsheets to seconds since the epoch, to about a second."""
        since = pc.multiply(pc.subtract(plain(days, place), float(EXCEL)), float(DAY))
        return _refuse_outside_calendar(parse(pc.round(since), pa.int64(), place), days, place)


class _Guessed:
    """Counts of plausible times, for numbers without a unit, which are read as seconds."""

    def __init__(self) -> None:
        self._all = 0
        self._odd = 0
        self._least, self._most = _LAST, _FIRST

    def add(self, seconds: pa.ChunkedArray) -> None:
        """Count the times of further rows."""
        numbers = seconds.drop_null().to_numpy()
        if not len(numbers):
            return
        self._all += len(numbers)
        self._least = min(self._least, int(numbers.min()))
        self._most = max(self._most, int(numbers.max()))
        if not is_plausible(self._least) or not is_plausible(self._most):
            self._odd += int((are_old(numbers) | are_ahead(numbers)).sum())

    def refuse(self, place: Place) -> None:
        """Raise an error if most of the times are implausible when read as seconds."""
        if 2 * self._odd > self._all:
            first, last = (date(number) for number in (self._least, self._most))
            raise DataError(
                f"{place}: the numbers run from {self._least} to {self._most}. As seconds since "
                f"1970 they would be dates from {first} to {last}, which is implausible for a log. "
                f"{suggest_unit(place.column, self._least, self._most)}"
            )


def _warn_of_rounded(column: pa.ChunkedArray, place: Place) -> bool:
    """Warn of times that lost digits when they were written; return True if there are any."""
    if pa.types.is_float32(column.type) or pa.types.is_float16(column.type):
        if not (pc.max(pc.abs(column)).as_py() or 0) >= _EXACT:
            return False
        log.warning(
            "%s is %s, which cannot hold such times exactly: they are rounded, some by minutes. "
            "Write them as integers, as float64 or as timestamps.",
            *(place, column.type),
        )
        return True
    if not pa.types.is_string(column.type):
        return False
    short = column.filter(pc.match_substring_regex(column, _SCIENTIFIC).fill_null(False))
    cut = [text for text in short.slice(0, _FEW).to_pylist() if _is_cut(text)]
    if cut:
        log.warning(
            "%s has times in scientific notation with fewer digits than the number has, such as "
            "%r: the other digits are lost, so that many times may be equal now. Write the column "
            "again, as whole numbers.",
            *(place, cut[0]),
        )
    return bool(cut)


def _is_cut(text: str) -> bool:
    """Say whether a time in scientific notation, such as 1.6E+09, has lost digits."""
    digits, _, exponent = text.strip().lower().partition("e")
    return len(digits.partition(".")[2]) < int(exponent)


def iso(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Rewrite times as Arrow reads ISO 8601: Z for `UTC`, at most six decimals of seconds."""
    text = pc.replace_substring_regex(text, pattern=r" ?UTC$", replacement="Z")
    return pc.replace_substring_regex(text, pattern=r"(:\d\d\.\d{6})\d+", replacement=r"\1")


def iso_text(seconds: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Write times (seconds since the epoch) as ISO 8601 text, the format that towers take."""
    times = seconds.dictionary_encode()  # many times repeat
    return dictionaries.combine(
        dictionaries.map_dictionary(
            times, lambda cells: pc.strftime(pc.cast(cells, pa.timestamp("s")), format=_WRITTEN)
        )
    )


def _parse_form(text: pa.ChunkedArray, form: str, place: Place) -> pa.ChunkedArray:
    """Convert times, text in the recipe's strptime `format`, to seconds since the epoch."""
    pattern = time_formats.NAMED.get(form, form)
    if form in time_formats.NAMED:  # pandas writes 20200913.0 if a column has gaps
        text = pc.replace_substring_regex(text, pattern=r"\.0*$", replacement="")
    found = time_formats.seconds(text, pattern)
    bad = pc.index(pc.and_(pc.is_null(found), pc.is_valid(text)), True).as_py()
    if bad >= 0:
        raise bad_cell(
            place,
            bad,
            text[bad].as_py(),
            "is not such a time.",
            f"Expected {time_formats.example(pattern)!r} or another time in the form {form!r} of "
            f"features.{place.column}.format.",
        )
    return found


def _whole_numbers(column: pa.ChunkedArray, place: Place) -> pa.ChunkedArray:
    """Return the whole numbers of a time column with `unit: order`; refuse other numbers."""
    if not pa.types.is_string(column.type):
        numbers = plain(parse(column, pa.float64(), place), place)
        row = pc.index(pc.not_equal(pc.floor(numbers), numbers), True).as_py()
        if row >= 0:
            raise bad_cell(
                place,
                row,
                numbers[row].as_py(),
                "is not a whole number, which `unit: order` needs.",
            )
    return parse(column, pa.int64(), place)


def _number_of_seconds(column: pa.ChunkedArray, per_second: int, place: Place) -> pa.ChunkedArray:
    """Convert numbers in a unit such as milliseconds to whole seconds, rounded down."""
    if pa.types.is_string(column.type):
        is_whole = pc.match_substring_regex(column, _WHOLE)
        if not pc.all(is_whole, min_count=0).as_py():
            none = pa.scalar(None, pa.string())
            whole, others = pc.if_else(is_whole, column, none), pc.if_else(is_whole, none, column)
            number = parse(others, pa.float64(), place)
            return pc.coalesce(
                _number_of_seconds(whole, per_second, place),
                _number_of_seconds(number, per_second, place),
            )
    if pa.types.is_integer(column.type) or pa.types.is_string(column.type):
        return _floor_divide(parse(column, pa.int64(), place), per_second)
    number = plain(parse(column, pa.float64(), place), place)
    return parse(pc.floor(pc.divide(number, per_second)), pa.int64(), place)


def _floor_divide(column: pa.ChunkedArray, by: int) -> pa.ChunkedArray:
    """Divide an int64 column by an integer, rounding down (Arrow's division rounds towards 0)."""
    if by == 1:
        return column
    towards_0 = pc.divide(column, by)
    is_above = pc.less(pc.subtract(column, pc.multiply(towards_0, by)), 0)
    return pc.subtract(towards_0, pc.cast(is_above, pa.int64()))


def _refuse_outside_calendar(
    seconds: pa.ChunkedArray, raw: pa.ChunkedArray, place: Place
) -> pa.ChunkedArray:
    outside = pc.or_(pc.less(seconds, _FIRST), pc.greater(seconds, _LAST))
    row = pc.index(outside, True).as_py()
    if row >= 0:
        value = raw[row].as_py()
        raise DataError(
            f"{place.row(row)}: {value!r} lies outside the years 1 to 9999. "
            f"{suggest_unit(place.column, seconds[row].as_py())} Or correct the cell."
        )
    return seconds
