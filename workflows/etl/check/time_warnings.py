"""Check times of interactions that look wrong: log a warning with a count, or refuse them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.core.retriever import Bools, Ints
from workflows.derive import plausible_times
from workflows.ground.errors import DataError
from workflows.recipe import GlobalTime, Recipe

log = logging.getLogger(__name__)

#: Days that programs write for a missing date: first and last days of calendars.
_FIRST_DAYS = ("0001-01-01", "1753-01-01", "1899-12-30", "1899-12-31", "1900-01-01", "1970-01-01")
_LAST_DAYS = ("2099-12-31", "2100-01-01", "2999-12-31", "9999-12-31")
_DAY, _YEAR = 86_400, 366 * 86_400
#: The quantiles that show where most times are, and the size of the sample to compute them.
_SHARES, _SAMPLE = (0.05, 0.5, 0.95), 100_000


@dataclass(frozen=True)
class CheckedTimes:
    """The times of interactions: each of them, or how many lie on each day.

    Attributes:
        seconds: time of each interaction, or a time of each day that has some, int64 [n].
        counts: number of interactions of each of these days, int64 [n]; None for single times.
    """

    seconds: Ints
    counts: Ints | None = None

    @classmethod
    def of(cls, recipe: Recipe, table: pa.Table, *, by_day: bool) -> CheckedTimes:
        """Return the times of a table of interactions; none if times are not to be checked.

        Args:
            recipe: recipe that names the column of times.
            table: the interactions.
            by_day: whether only days are kept, because these are the times of one partition.
        """
        name = recipe.time
        if name is None or recipe.features[name].unit == "order" or not len(table):
            return cls(np.zeros(0, np.int64))
        seconds = table[name].to_numpy()
        if not by_day:
            return cls(seconds)
        days, counts = np.unique(seconds // _DAY, return_counts=True)
        return cls(days * _DAY, counts.astype(np.int64))

    @classmethod
    def merge(cls, some: Sequence[CheckedTimes]) -> CheckedTimes:
        """Return the times of all partitions together."""
        if len(some) == 1:
            return some[0]
        counts = [np.ones(len(of.seconds)) if of.counts is None else of.counts for of in some]
        seconds, which = np.unique(np.concatenate([of.seconds for of in some]), return_inverse=True)
        weights = np.bincount(which, weights=np.concatenate(counts), minlength=len(seconds))
        return cls(seconds, weights.astype(np.int64))

    def number(self, chosen: Bools | slice = slice(None)) -> int:
        """Return the number of interactions, or of those that a mask of the times chooses."""
        if self.counts is None:
            return len(self.seconds) if isinstance(chosen, slice) else int(chosen.sum())
        return int(self.counts[chosen].sum())


def check_times(recipe: Recipe, source: str, times: CheckedTimes) -> None:
    """Warn of interaction times that look wrong, such as dates far from those of other rows.

    Args:
        recipe: recipe that names the column of times.
        source: name of the source of the interactions.
        times: the times of all its interactions.

    Raises:
        DataError: a split by time would begin valid or test among dates far ahead of all others.
    """
    name = recipe.time
    if name is None or not len(times.seconds):
        return
    bulk = _bulk(times)
    middle = bulk[1]
    if recipe.features[name].unit and not plausible_times.is_plausible(middle):
        log.warning(
            "column %r of %s: with features.%s.unit most times are about %s, which is implausible "
            "for a log. If that is not intended: %s",
            *(name, source, name, plausible_times.date(middle), _remedy(recipe, name, middle)),
        )
    else:
        _check_far(recipe, name, source, times, bulk)


def _bulk(times: CheckedTimes) -> tuple[int, int, int]:
    """Return the 5 %, 50 % and 95 % quantiles of the times of interactions."""
    seconds = times.seconds
    if times.counts is None:
        some = np.sort(seconds[:: max(1, len(seconds) // _SAMPLE)])
        low, middle, high = (int(some[int(share * (len(some) - 1))]) for share in _SHARES)
    else:
        ends = np.cumsum(times.counts)
        wanted = [int(share * (ends[-1] - 1)) for share in _SHARES]
        low, middle, high = (int(seconds[np.searchsorted(ends, at, "right")]) for at in wanted)
    return low, middle, high


def _check_far(
    recipe: Recipe, name: str, source: str, times: CheckedTimes, bulk: tuple[int, int, int]
) -> None:
    """Warn of interaction times far from all others; refuse them if valid or test begins there."""
    seconds = times.seconds
    early, late = _far(times, bulk)
    far = early | late
    n = times.number(far)
    if not n:
        return
    first, last = (plausible_times.date(int(x)) for x in (seconds[far].min(), seconds[far].max()))
    found = (
        f"column {name!r} of {source} has {n:,} of {times.number():,} times far from all others "
        f"({first}{f' to {last}' if first != last else ''}; the median is "
        f"{plausible_times.date(bulk[1])})"
    )
    remedy = (
        f"Leave such rows out with `filter:` ({{kind: keep, column: {name}, is: '<', value: ...}}),"
        " or list the text of a missing time under the source's `nulls`."
    )
    split = recipe.split
    if isinstance(split, GlobalTime) and source == recipe.interactions:
        held = (split.valid + split.test) * times.number()
        if 2 * times.number(late) > held > 0:
            raise DataError(f"{found}: they would decide where the split cuts. {remedy}")
    effect = "they decide what is recent" if late.any() else "they count as the oldest events"
    log.warning("%s: %s. %s", found, effect, remedy)


def _far(times: CheckedTimes, bulk: tuple[int, int, int]) -> tuple[Bools, Bools]:
    """Return two masks of times, bool [n]: those far before, and those far after, most times."""
    seconds = times.seconds
    low, middle, high = bulk
    margin = _YEAR + (high - low)
    early, late = seconds < low - margin, seconds > high + margin
    if plausible_times.is_plausible(middle):
        early, late = (
            early | plausible_times.are_old(seconds),
            late | plausible_times.are_ahead(seconds),
        )
    first, last = int(seconds.min()), int(seconds.max())
    for start in map(_start, _FIRST_DAYS):  # most logs have none of these days
        if first < start + _DAY and start < middle - 5 * _YEAR:
            early |= _are_isolated(times, start)
    for start in map(_start, _LAST_DAYS):
        if middle + 5 * _YEAR < start <= last:
            late |= _are_isolated(times, start)
    return early, late


def _are_isolated(times: CheckedTimes, start: int) -> Bools:
    """Return the mask of the times on one day, if few others are within a year of that day."""
    seconds = times.seconds
    at = (seconds >= start) & (seconds < start + _DAY)
    n = times.number(at)
    if n:
        around = (seconds >= start - _YEAR) & (seconds < start + _DAY + _YEAR)
        if 2 * n <= times.number(around):
            at[:] = False
    return at


def _start(day: str) -> int:
    return int(np.datetime64(day, "s").astype(np.int64))


def _remedy(recipe: Recipe, name: str, seconds: int) -> str:
    per_second = {"ms": 1e3, "us": 1e6, "ns": 1e9, "d": 1 / _DAY}
    return plausible_times.suggest_unit(
        name, int(seconds * per_second.get(recipe.features[name].unit or "", 1))
    )
