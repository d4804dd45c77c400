"""What is odd about the raw tables as a whole: told once, with column and count, or refused.

Texts are looked at once each, and rows are only counted for those that look odd.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows import spelling
from workflows.errors import DataError
from workflows.etl import codes, times
from workflows.recipe import GlobalTime, Recipe

log = logging.getLogger(__name__)

#: A word for a missing value is told of where it is at least this share of a column's cells.
_FREQUENT = 0.01
#: Days that stand for no date: 1900-01-01 and its kin, the epoch, and the last ones.
_PLACEHOLDERS = ("0001-01-01", "1753-01-01", "1899-12-30", "1899-12-31", "1900-01-01", "1970-01-01")
_PLACEHOLDERS_AHEAD = ("2099-12-31", "2100-01-01", "2999-12-31", "9999-12-31")
_DAY, _YEAR = 86_400, 366 * 86_400
#: Most of a log's times lie between these shares of them; so many are enough to see where.
_SHARES, _SAMPLE = (0.05, 0.5, 0.95), 100_000

Seconds = npt.NDArray[np.int64]
Tables = Mapping[str, pa.Table]
#: Source and row (from 0) → the row's file, and its number there.
Row = Callable[[str, int], str]


def tell(recipe: Recipe, tables: Tables, row: Row) -> None:
    """Warn of odd texts in the tables of all sources.

    Args:
        recipe: what each column is.
        tables: source → its rows.
        row: names a row of a source, for messages.

    Raises:
        DataError: ids in scientific notation.
    """
    for name, feature in recipe.features.items():
        if feature.encoded:
            columns = dict(_columns(name, tables))
            nulls = {source: recipe.sources[source].nulls for source in columns}
            _tell_of_words(name, columns, nulls, is_id=feature.id)
            _tell_of_exponents(name, columns, row, is_id=feature.id)
            _tell_of_twins(name, columns)


def _columns(name: str, tables: Tables) -> Iterator[tuple[str, pa.DictionaryArray]]:
    for source, table in tables.items():
        if name in table.column_names and codes.holds_text(table[name].type):
            yield source, codes.flat(table[name])


class _Found(NamedTuple):
    """Odd texts of one column: text → how many cells of all sources."""

    cells: dict[str, int]
    of: int

    @property
    def total(self) -> int:
        return sum(self.cells.values())

    def shown(self, most: int = 3) -> str:
        """Name the most frequent ones."""
        first = sorted(self.cells.items(), key=lambda item: (-item[1], item[0]))[:most]
        return ", ".join(f"'{text}' ({n:,} cells)" for text, n in first)


def _counted(columns: Mapping[str, pa.DictionaryArray], odd: Mapping[str, pa.Array]) -> _Found:
    """Count the cells of the texts of each source that a mask names."""
    cells: dict[str, int] = {}
    total = 0
    for source, column in columns.items():
        total += len(column) - column.null_count
        if not pc.any(odd[source]).as_py():
            continue
        counts = codes.counts(column)[:-1]
        for place in np.flatnonzero(odd[source].to_numpy(zero_copy_only=False)).tolist():
            text = column.dictionary[place].as_py()
            if counts[place]:
                cells[text] = cells.get(text, 0) + int(counts[place])
    return _Found(cells, total)


def _tell_of_words(
    name: str,
    columns: Mapping[str, pa.DictionaryArray],
    nulls: Mapping[str, tuple[str, ...]],
    *,
    is_id: bool,
) -> None:
    odd = {source: spelling.is_nullish(column.dictionary) for source, column in columns.items()}
    found = _counted(columns, odd)
    least = 1 if is_id else max(2, round(_FREQUENT * found.of))
    words = {text: n for text, n in found.cells.items() if n >= least}
    if not words:
        return
    shown = _Found(words, found.of)
    sources = " and ".join(sorted(s for s in columns if pc.any(odd[s]).as_py()))
    what = "so that these rows share one id" if is_id else "which count as values of their own"
    quoted = ", ".join("'" + text.replace("'", "''") + "'" for text in words)
    log.warning(
        "column %r of %s has %s, %s. If that stands for a missing value, list it in the source's "
        "`nulls`, such as sources.%s.nulls=[%s].",
        *(name, sources, shown.shown(), what, sources.partition(" ")[0], quoted),
    )


def _tell_of_exponents(
    name: str, columns: Mapping[str, pa.DictionaryArray], row: Row, *, is_id: bool
) -> None:
    odd = {source: spelling.is_scientific(column.dictionary) for source, column in columns.items()}
    found = _counted(columns, odd)
    if not found.cells:
        return
    place = f"column {name!r} of {' and '.join(s for s in columns if pc.any(odd[s]).as_py())}"
    if is_id:
        source = next(s for s in columns if pc.any(odd[s]).as_py())
        of = columns[source].indices
        first = pc.index(pc.is_in(of, value_set=pc.indices_nonzero(odd[source])), True).as_py()
        raise DataError(
            f"{row(source, first)}, column {name!r}: this and {found.total - 1:,} more cells hold "
            f"ids in scientific notation, such as {found.shown(1)}. A spreadsheet or a float has "
            "cut off digits, so that several ids may have become one. Export the column again, as "
            "text or as integers."
        )
    log.warning(
        "%s has numbers in scientific notation, such as %s, which are read as text as they stand. "
        "If digits were cut off, export the column again as text.",
        place,
        found.shown(1),
    )


def _tell_of_twins(name: str, columns: Mapping[str, pa.DictionaryArray]) -> None:
    """Warn of values that stand there in both spellings, such as '1' and '1.0'."""
    texts = {s: column.dictionary for s, column in columns.items()}
    twins = {s: spelling.other(of) for s, of in texts.items()}
    if all(of.null_count == len(of) for of in twins.values()):
        return
    every = pa.chunked_array(list(texts.values())).combine_chunks()
    odd = {s: pc.and_(pc.is_valid(of), pc.is_in(of, value_set=every)) for s, of in twins.items()}
    found = _counted(columns, odd)
    if not found.cells:
        return
    text = next(iter(found.cells))
    twin = spelling.other(pa.array([text]))[0].as_py()
    log.warning(
        "column %r of %s has %s values in two spellings, such as %r and %r, which stay "
        "values of their own (%s cells have the first). Write them alike if they are the same.",
        name,
        " and ".join(columns),
        len(found.cells),
        text,
        twin,
        f"{found.total:,}",
    )


# ── times ───────────────────────────────────────────────────────────────────────────────


def tell_of_times(recipe: Recipe, source: str, table: pa.Table) -> None:
    """Warn of odd times among the wanted rows of a source.

    Raises:
        DataError: far dates that would be the parts of a split.
    """
    name = recipe.time
    if name is None or recipe.features[name].unit == "order" or not len(table):
        return
    seconds = table[name].to_numpy()
    low, middle, high = _bulk(seconds)
    if recipe.features[name].unit and not times.is_plausible(middle):
        log.warning(
            "column %r of %s: by features.%s.unit most times are about %s, which hardly any log "
            "has. If that is not meant: %s",
            *(name, source, name, _date(middle), _cure(recipe, name, middle)),
        )
    else:
        _tell_of_far(recipe, name, source, seconds, (low, middle, high))


def _bulk(seconds: Seconds) -> tuple[int, int, int]:
    """Return between which times most others lie, and the middle one."""
    some = np.sort(seconds[:: max(1, len(seconds) // _SAMPLE)])
    low, middle, high = (int(some[int(share * (len(some) - 1))]) for share in _SHARES)
    return low, middle, high


def _tell_of_far(
    recipe: Recipe, name: str, source: str, seconds: Seconds, bulk: tuple[int, int, int]
) -> None:
    """Warn of dates that lie far from all others, and of those that stand for none."""
    low, middle, high = bulk
    margin = _YEAR + (high - low)
    early, late = seconds < low - margin, seconds > high + margin
    if times.is_plausible(middle):
        early, late = early | times.are_old(seconds), late | times.are_ahead(seconds)
    for day in (*_PLACEHOLDERS, *_PLACEHOLDERS_AHEAD):
        start = int(np.datetime64(day, "s").astype(np.int64))
        if abs(start - middle) > 5 * _YEAR:
            at = (seconds >= start) & (seconds < start + _DAY)
            early, late = early | (at & (start < middle)), late | (at & (start > middle))
    far = early | late
    n = int(far.sum())
    if not n:
        return
    first, last = (_date(int(x)) for x in (seconds[far].min(), seconds[far].max()))
    said = (
        f"column {name!r} of {source} has {n:,} of {len(seconds):,} times far from all others "
        f"({first}{f' to {last}' if first != last else ''}; the middle one is {_date(middle)})"
    )
    remedy = (
        f"Leave such rows out with `filter:` ({{kind: keep, column: {name}, is: '<', value: ...}}),"
        " or list what stands for no time under the source's `nulls`."
    )
    split = recipe.split
    if isinstance(split, GlobalTime) and source == recipe.interactions:
        held = (split.valid + split.test) * len(seconds)
        if 2 * int(late.sum()) > held > 0:
            raise DataError(f"{said}: they would decide where the split cuts. {remedy}")
    effect = (
        "they decide what counts as recent" if late.any() else "they count as the oldest events"
    )
    log.warning("%s: %s. %s", said, effect, remedy)


def _cure(recipe: Recipe, name: str, seconds: int) -> str:
    per_second = {"ms": 1e3, "us": 1e6, "ns": 1e9, "d": 1 / _DAY}
    return times.cure(name, int(seconds * per_second.get(recipe.features[name].unit or "", 1)))


def _date(seconds: int) -> str:
    return str(np.datetime64(seconds, "s").astype("datetime64[D]"))
