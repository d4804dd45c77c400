"""Turn a log of events into one row per user and item, with a count per kind of event.

`tally` works on single rows and `merge` adds up its results, so a log can be processed in chunks:
merge(concat(merge(tally(chunk)), …)) equals merge(tally(log)).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from workflows.raw import dictionaries, spelling
from workflows.recipe import Pivot


def tally(table: pa.Table, pivot: Pivot, *, keys: Sequence[str], time: str | None) -> pa.Table:
    """Return ids and time of each event, and a column of 1 and 0 for each kind of event."""
    events = table[pivot.event]
    columns = {name: table[name] for name in (*keys, *([time] if time else []))}
    for kind, name in pivot.counts.items():
        is_kind = dictionaries.map_distinct(events, functools.partial(_is, kind))
        columns[name] = pc.cast(pc.fill_null(is_kind, False), pa.int64())
    return pa.table(columns)


def _is(kind: str, texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.equal(texts, spelling.respell_one(kind, texts))


def merge(tallies: pa.Table, pivot: Pivot, *, keys: Sequence[str], time: str | None) -> pa.Table:
    """Return one row per user and item, sorted, with summed counts and the earliest time."""
    sums = [(name, "sum") for name in pivot.counts.values()]
    firsts = [(time, "min")] if time else []
    texts = {key: dictionaries.sort_dictionary(tallies[key]) for key in keys}
    for key, ranks in texts.items():
        tallies = tallies.set_column(tallies.column_names.index(key), key, ranks.indices)
    tallies = tallies.combine_chunks()  # pyarrow 10 (of the NGC container) loses cells of chunks
    grouped = tallies.group_by(list(keys)).aggregate([*firsts, *sums])
    names = [*keys, *([time] if time else []), *pivot.counts.values()]
    found = [*keys, *(f"{name}_{how}" for name, how in [*firsts, *sums])]
    table = grouped.select(found).rename_columns(names)
    table = table.sort_by([(key, "ascending") for key in keys])
    for key, ranks in texts.items():
        column = pa.DictionaryArray.from_arrays(dictionaries.combine(table[key]), ranks.dictionary)
        table = table.set_column(table.column_names.index(key), key, column)
    return table
