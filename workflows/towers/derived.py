"""Derives columns from raw values in the graph of an exported tower, by TensorFlow alone.

The graph derives the same values as etl (workflows/derive/cells.py and fitted.py). In the graph, a
missing text is "", and a missing number is NaN. A value that etl refuses, such as the month 13,
fails an assertion, whose message is the error that TensorFlow Serving and Triton return.
"""

from __future__ import annotations

import math

import tensorflow as tf

from workflows.derive.fitted import Centres, Frequent, States
from workflows.recipe import (
    Bins,
    Clip,
    CyclicMonth,
    DatePart,
    Derive,
    Feature,
    Log1p,
    PathLevel,
)

#: ISO 8601: a date, then perhaps the time of day and the zone; without a zone it is UTC.
_ISO = (
    r"^\s*(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.\d*)?)?)?)?"
    r"(?: ?UTC|Z|([+-])(\d\d):?(\d\d)?)?\s*$"
)
_DAY = 86_400
#: Days of the months, and the days of 400 years of the Gregorian calendar.
_DAYS, _ERA = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), 146_097
#: Days from 0000-03-01, where these computations begin, to 1970-01-01, which was a Thursday.
_EPOCH, _THURSDAY = 719_468, 3


class FrequentValues(tf.Module):
    """The frequent values of a text column as a look-up table; other values get another text."""

    def __init__(self, state: Frequent) -> None:
        super().__init__()
        self.other = state.other
        # a table needs a value, and "" is a missing one
        keys = tf.constant(["", *state.values])
        of_keys = tf.lookup.KeyValueTensorInitializer(keys, tf.ones(len(keys), tf.int64))
        self.table = tf.lookup.StaticHashTable(of_keys, default_value=0)

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """Return each text if it is frequent or missing, else the text for rare values."""
        return tf.where(self.table.lookup(texts) > 0, texts, self.other)


#: What a step learnt from the training rows, as the graph needs it.
Learnt = Centres | FrequentValues


def learnt(states: States) -> dict[str, Learnt]:
    """Return what steps learnt, by derived column; frequent values as a look-up table."""
    return {
        name: FrequentValues(state) if isinstance(state, Frequent) else state
        for name, state in states.items()
    }


def derive(values: tf.Tensor, step: Derive, state: Learnt | None, name: str) -> tf.Tensor:
    """Return the values that a derive step makes of other values: text, or float64 numbers.

    Args:
        values: text or numbers, of any shape.
        step: a derive step of the recipe.
        state: what the step learnt from the training rows; None for a step that does not learn.
        name: the name of the input, for the message of an assertion.
    """
    if isinstance(step, PathLevel):
        return _level(values, step, name)
    if isinstance(state, FrequentValues):
        return state(values)
    if values.dtype == tf.string:
        return _of_time(_seconds(values, name), step)
    if isinstance(state, Centres):
        return _choose(tf.cast(values, tf.float64), state.borders.tolist(), state.labels)
    if isinstance(step, Bins):
        return _choose(values, step.edges, step.labels)
    return _of_number(tf.cast(values, tf.float64), step, name)


def as_feature(values: tf.Tensor, feature: Feature | None) -> tf.Tensor:
    """Return derived values in the type of their feature: float32, or numbers as text."""
    if feature is None or values.dtype == tf.string:
        return values
    if feature.meaning.cells == "number":
        return tf.cast(values, tf.float32)
    missing = is_missing(values)
    whole = tf.cast(tf.where(missing, tf.zeros_like(values), values), tf.int64)
    return tf.where(missing, "", tf.strings.as_string(whole))


def is_missing(values: tf.Tensor) -> tf.Tensor:
    """Return whether each value is missing: "" for text, NaN for a number."""
    return values == "" if values.dtype == tf.string else tf.math.is_nan(values)


def _require(is_good: tf.Tensor, values: tf.Tensor, message: str) -> None:
    tf.debugging.Assert(tf.reduce_all(is_good | is_missing(values)), [message])


# ── numbers ─────────────────────────────────────────────────────────────────────────────


def _of_number(numbers: tf.Tensor, step: Derive, name: str) -> tf.Tensor:
    if isinstance(step, Log1p):
        _require(numbers >= 0, numbers, f"{name}: expected numbers from 0 on")
        return tf.math.log1p(numbers)
    if isinstance(step, Clip):
        low = -math.inf if step.low is None else step.low
        high = math.inf if step.high is None else step.high
        clipped = tf.maximum(tf.minimum(numbers, high), low)
        return tf.where(is_missing(numbers), numbers, clipped)
    assert isinstance(step, CyclicMonth)
    is_month = (numbers == tf.floor(numbers)) & (numbers >= 1) & (numbers <= 12)
    _require(is_month, numbers, f"{name}: expected months, whole numbers from 1 to 12")
    return _cyclic(numbers, step)


def _cyclic(month: tf.Tensor, step: CyclicMonth) -> tf.Tensor:
    angle = (month + step.offset) * (2 * math.pi / 12)
    return tf.sin(angle) if step.part == "sin" else tf.cos(angle)


def _choose(
    numbers: tf.Tensor, edges: list[float] | tuple[float, ...], labels: list[str] | tuple[str, ...]
) -> tf.Tensor:
    """Return the label of the interval of each number; an edge belongs to the interval below."""
    if not labels:
        return tf.fill(tf.shape(numbers), "")
    places = tf.zeros(tf.shape(numbers), tf.int32)
    if edges:
        flat = tf.searchsorted(tf.constant(edges, numbers.dtype), tf.reshape(numbers, [-1]))
        places = tf.minimum(tf.reshape(flat, tf.shape(numbers)), len(labels) - 1)  # NaN is beyond
    return tf.where(is_missing(numbers), "", tf.gather(tf.constant(labels), places))


# ── text ────────────────────────────────────────────────────────────────────────────────


def _level(paths: tf.Tensor, step: PathLevel, name: str) -> tf.Tensor:
    flat = tf.reshape(paths, [-1])
    levels = tf.strings.split(flat, step.separator)
    is_short = levels.row_lengths() <= step.levels
    _require(is_short, flat, f"{name}: expected paths of at most {step.levels} levels")
    level = levels.to_tensor("", shape=[None, step.levels])[:, step.level - 1]
    return tf.reshape(level, tf.shape(paths))


# ── times ───────────────────────────────────────────────────────────────────────────────


def _seconds(texts: tf.Tensor, name: str) -> tf.Tensor:
    """Return ISO 8601 texts as seconds since the epoch, float64; NaN if missing."""
    is_time = tf.strings.regex_full_match(texts, _ISO)
    dated = tf.where(is_time, texts, "1970-01-01")

    def field(number: int) -> tf.Tensor:
        digits = tf.strings.regex_replace(dated, _ISO, rf"0\{number}")
        return tf.strings.to_number(digits, tf.int64)

    year, month, day = (field(number) for number in (1, 2, 3))
    hour, minute, second = (field(number) for number in (4, 5, 6))
    is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    index = tf.clip_by_value(month, 1, 12)
    length = tf.gather(tf.constant(_DAYS, tf.int64), index - 1)
    length += tf.cast(is_leap & (month == 2), tf.int64)
    is_date = (index == month) & (day >= 1) & (day <= length)
    is_hour = (hour < 24) & (minute < 60) & (second < 60)
    _require(is_time & is_date & is_hour, texts, f"{name}: expected ISO 8601, such as 2020-09-22")
    west = tf.strings.regex_replace(dated, _ISO, r"\7") == "-"
    zone = tf.where(west, tf.constant(-1, tf.int64), 1) * (field(8) * 3_600 + field(9) * 60)
    found = _days(year, index, day) * _DAY + hour * 3_600 + minute * 60 + second - zone
    return tf.where(texts == "", tf.constant(math.nan, tf.float64), tf.cast(found, tf.float64))


def _days(year: tf.Tensor, month: tf.Tensor, day: tf.Tensor) -> tf.Tensor:
    """Return days since 1970-01-01 of dates in the Gregorian calendar (Hinnant 2013)."""
    year -= tf.cast(month <= 2, tf.int64)  # a year begins in March, so that a leap day is its last
    in_era = year % 400
    in_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    in_era_days = in_era * 365 + in_era // 4 - in_era // 100 + in_year
    return (year // 400) * _ERA + in_era_days - _EPOCH


def _date(days: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return year, month and day of days since 1970-01-01, the inverse of `_days`."""
    days += _EPOCH
    in_era = days % _ERA
    year = (in_era - in_era // 1_460 + in_era // 36_524 - in_era // 146_096) // 365
    in_year = in_era - (365 * year + year // 4 - year // 100)
    from_march = (5 * in_year + 2) // 153
    day = in_year - (153 * from_march + 2) // 5 + 1
    month = (from_march + 2) % 12 + 1
    year += (days // _ERA) * 400 + tf.cast(month <= 2, tf.int64)
    return year, month, day


def _of_time(seconds: tf.Tensor, step: Derive) -> tf.Tensor:
    missing = is_missing(seconds)
    whole = tf.cast(tf.where(missing, tf.zeros_like(seconds), seconds), tf.int64)
    days, second = whole // _DAY, whole % _DAY
    year, month, day = _date(days)
    if isinstance(step, CyclicMonth):
        derived = _cyclic(tf.cast(month, tf.float64), step)
    else:
        assert isinstance(step, DatePart)
        parts = {"year": year, "month": month, "day": day, "epoch_day": days}
        parts |= {"weekday": (days + _THURSDAY) % 7, "hour": second // 3_600}
        derived = tf.cast(parts[step.part], tf.float64)
    return tf.where(missing, tf.constant(math.nan, tf.float64), derived)
