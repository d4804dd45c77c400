"""A log of events → one row a user and item, with counts of each kind of event and the first time.

`tally` looks at one row at a time and `merge` adds up rows that are tallies already, so that a log
may come in chunks: merge(concat(merge(tally(chunk)), …)) is merge(tally(log)).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from workflows.raw import dictionaries, spelling
from workflows.recipe import Pivot


def tally(table: pa.Table, pivot: Pivot, *, keys: Sequence[str], time: str | None) -> pa.Table:
    """Return keys, time and, for each kind of event, 1 where the row is such an event, else 0."""
    events = table[pivot.event]
    columns = {name: table[name] for name in (*keys, *([time] if time else []))}
    for kind, name in pivot.counts.items():
        is_kind = dictionaries.map_distinct(events, functools.partial(_is, kind))
        columns[name] = pc.cast(pc.fill_null(is_kind, False), pa.int64())
    return pa.table(columns)


def _is(kind: str, texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.equal(texts, spelling.as_in(kind, texts))


def merge(tallies: pa.Table, pivot: Pivot, *, keys: Sequence[str], time: str | None) -> pa.Table:
    """Return one row for each of the keys, in their order: sums of counts, earliest of times."""
    sums = [(name, "sum") for name in pivot.counts.values()]
    firsts = [(time, "min")] if time else []
    texts = {key: dictionaries.sort_dictionary(tallies[key]) for key in keys}
    for key, ranks in texts.items():
        tallies = tallies.set_column(tallies.column_names.index(key), key, ranks.indices)
    tallies = tallies.combine_chunks()  # pyarrow 10, the container's, loses cells of chunks
    grouped = tallies.group_by(list(keys)).aggregate([*firsts, *sums])
    names = [*keys, *([time] if time else []), *pivot.counts.values()]
    found = [*keys, *(f"{name}_{how}" for name, how in [*firsts, *sums])]
    table = grouped.select(found).rename_columns(names)
    table = table.sort_by([(key, "ascending") for key in keys])
    for key, ranks in texts.items():
        named = pa.DictionaryArray.from_arrays(dictionaries.combine(table[key]), ranks.dictionary)
        table = table.set_column(table.column_names.index(key), key, named)
    return table
