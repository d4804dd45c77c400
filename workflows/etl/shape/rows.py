"""Raw tables → the interactions of each part: new columns, look-ups, the rows that are wanted."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.check import repeats, time_warnings
from workflows.etl.counts import DropCounts
from workflows.etl.read.sources import Raw
from workflows.etl.shape import derive, filters, gaps, joins, learnt, pivot, split
from workflows.etl.shape.seen import Seen
from workflows.ground.errors import DataError
from workflows.raw import dictionaries
from workflows.recipe import GivenFiles, Keep, Recipe

log = logging.getLogger(__name__)


def pivoted(recipe: Recipe, raw: Raw, counts: DropCounts) -> Raw:
    """Return the raw tables with the interactions' rows merged into one a user and item.

    Raises:
        DataError: a feature is lost by it.
    """
    if recipe.pivot is None:
        return raw
    keys, time = (recipe.user_id, recipe.item_id), recipe.time
    for source in interactions(recipe):
        raw.require(source, recipe.pivot.event)
        _refuse_lost(recipe, raw, source)
        table = _with_keys(recipe, raw, source, counts)
        tallies = pivot.tally(table, recipe.pivot, keys=keys, time=time)
        merged = pivot.merge(tallies, recipe.pivot, keys=keys, time=time)
        counts.add("merged with another event of its user and item", len(table) - len(merged))
        for name in recipe.pivot.counts.values():
            place = merged.column_names.index(name)
            column = derive.declared(merged[name], recipe.features.get(name))
            merged = merged.set_column(place, name, column)
        raw = dataclasses.replace(
            raw,
            tables={**raw.tables, source: merged},
            columns={**raw.columns, source: merged.column_names},
        )
    return raw


def interactions(recipe: Recipe) -> list[str]:
    """Return the sources whose rows are interactions."""
    given = recipe.split if isinstance(recipe.split, GivenFiles) else None
    others = [name for name in (given.valid, given.test) if name] if given else []
    return list(dict.fromkeys([recipe.interactions, *others]))


def _refuse_lost(recipe: Recipe, raw: Raw, source: str) -> None:
    assert recipe.pivot is not None
    kept = {recipe.user_id, recipe.item_id, recipe.time, *recipe.pivot.counts.values()}
    kept |= {column for join in recipe.join for column in raw.columns[join.table]}
    lost = [name for name in recipe.features if name in raw.columns[source] and name not in kept]
    if lost:
        raise DataError(
            f"{raw.where(source)}, column {lost[0]!r}: `pivot:` makes one row of many, and keeps "
            f"the ids, the time and the counts. Remove features.{lost[0]}, or the pivot."
        )


def _with_keys(recipe: Recipe, raw: Raw, source: str, counts: DropCounts) -> pa.Table:
    """Return the rows of a source that have both ids and a time."""
    table = raw.tables[source]
    for column in (recipe.user_id, recipe.item_id, recipe.time):
        if column:
            raw.require(source, column)
            table = counts.keep(table, pc.is_valid(table[column]), f"no {column}")
    return table


def with_derived(recipe: Recipe, raw: Raw) -> Raw:
    """Return the raw tables with the columns that are made of one row each.

    Raises:
        DataError: no table has what a step reads, or one has what it would make.
    """
    for step in recipe.derive:
        owners = [name for name, table in raw.tables.items() if step.of in table.column_names]
        if not owners:
            others = [name for name in raw.tables if name != recipe.interactions]
            raw.require(recipe.interactions, step.of, *others)
        for name in owners:
            if step.to in raw.columns[name]:
                raise DataError(
                    f"{raw.where(name)} has a column {step.to!r}, and the recipe derives one of "
                    "that name. Remove the step, or give its column another name in `to`."
                )
        if not step.fitted:
            for name in owners:
                made = derive.made(raw.tables[name][step.of], step, where=raw.where(name))
                raw = _with_column(recipe, raw, name, step.to, made)
    return _with_filled(recipe, raw)


def with_learnt(recipe: Recipe, raw: Raw, states: learnt.States) -> Raw:
    """Return the raw tables with the columns that are made of what was learnt."""
    for step in recipe.derive:
        if step.fitted:
            for name, table in raw.tables.items():
                if step.of in table.column_names:
                    made = learnt.apply(table[step.of], states[step.to])
                    raw = _with_column(recipe, raw, name, step.to, made)
    return _with_filled(recipe, raw, states)


def _with_filled(recipe: Recipe, raw: Raw, states: learnt.States | None = None) -> Raw:
    """Return the raw tables, told what is made of a value that a join fills in.

    So an id that is not in a joined table has the same values in the log and in its own table.
    """
    filled = {join.table: raw.fill(join) for join in recipe.join}
    for fill in filled.values():
        for step in recipe.derive:
            if step.of in fill and (states is not None if step.fitted else step.to not in fill):
                value = fill[step.of]
                kind = pa.string() if isinstance(value, str) else pa.float32()
                cell = pa.chunked_array([pa.array([value], kind)])
                if step.fitted:
                    assert states is not None
                    made = learnt.apply(cell, states[step.to])
                else:
                    made = derive.made(cell, step, where="the join's `fill`")
                cell = derive.declared(made, recipe.features.get(step.to))
                if cell[0].is_valid:  # a step may make nothing of it
                    fill[step.to] = cell[0].as_py()
    return dataclasses.replace(raw, filled=filled)


def _with_column(recipe: Recipe, raw: Raw, source: str, name: str, column: pa.ChunkedArray) -> Raw:
    table = raw.tables[source].append_column(
        name, derive.declared(column, recipe.features.get(name))
    )
    return dataclasses.replace(
        raw,
        tables={**raw.tables, source: table},
        columns={**raw.columns, source: [*raw.columns[source], name]},
    )


def learn(
    recipe: Recipe, parts: dict[split.Part, pa.Table], older: learnt.States
) -> tuple[learnt.States, dict[split.Part, pa.Table]]:
    """Learn from the rows of train what some steps need, and add their columns to every part."""
    states = learnt.fit(recipe, parts["train"], older=older)
    for step in recipe.derive:
        if step.fitted:
            parts = {
                part: table.append_column(
                    step.to,
                    derive.declared(
                        learnt.apply(table[step.of], states[step.to]), recipe.features.get(step.to)
                    ),
                )
                for part, table in parts.items()
            }
    return states, parts


def divided(
    recipe: Recipe, raw: Raw, counts: DropCounts
) -> tuple[dict[split.Part, pa.Table], Seen | None]:
    """Join, keep the wanted rows, order by time, and split.

    Returns:
        Part → its rows, with all columns; and the dropped rows that still count as seen, where a
        filter asks for them.
    """
    seen: dict[split.Part, list[pa.Table]] = {part: [] for part in split.PARTS}
    parts = _parts(recipe, raw, counts, seen)
    asked = any(isinstance(rule, Keep) and rule.still_seen for rule in recipe.filter)
    return parts, Seen.of(recipe, seen, parts) if asked else None


def _parts(
    recipe: Recipe, raw: Raw, counts: DropCounts, seen: dict[split.Part, list[pa.Table]]
) -> dict[split.Part, pa.Table]:
    given = recipe.split if isinstance(recipe.split, GivenFiles) else None
    if given:
        names: dict[split.Part, str | None] = {
            "train": recipe.interactions,
            "valid": given.valid,
            "test": given.test,
        }
        found = {p: _wanted(recipe, raw, s, counts, seen[p]) for p, s in names.items() if s}
        split.refuse_empty(
            {part: len(table) for part, table in found.items()}, counts.describe_drops()
        )
        return {part: found.get(part, found["train"].slice(0, 0)) for part in split.PARTS}
    table = _wanted(recipe, raw, recipe.interactions, counts, seen["train"])
    if len(table) == 0:
        split.refuse_empty({"train": 0}, counts.describe_drops())
    labels = _labels(recipe, table, counts.describe_drops())
    return {
        part: table.filter(pa.array(labels == number)) for number, part in enumerate(split.PARTS)
    }


def _labels(recipe: Recipe, table: pa.Table, dropped: str) -> split.Labels:
    """Say which part each row is of; without a time, whatever the order of the rows."""
    users = table[recipe.user_id]
    if recipe.time:
        times = table[recipe.time].to_numpy()
        return split.assign(recipe.split, users=_numbered(users), times=times, dropped=dropped)
    order = filters.shuffle_order(table, recipe.user_id, recipe.item_id)
    labels = np.empty(len(table), np.int8)
    numbers = _numbered(users.take(pa.array(order)))
    labels[order] = split.assign(recipe.split, users=numbers, times=None, dropped=dropped)
    return labels


def _numbered(ids: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Number ids by their first appearance here, whatever stood in rows that are gone."""
    numbers: npt.NDArray[np.int32] = pd.factorize(dictionaries.indices(ids))[0].astype(np.int32)
    return numbers


def _wanted(
    recipe: Recipe, raw: Raw, source: str, counts: DropCounts, seen: list[pa.Table]
) -> pa.Table:
    """Return the wanted rows of a source with all columns, in order of time.

    Dropped rows that still count as seen are added to `seen`.
    """
    table = _with_keys(recipe, raw, source, counts)
    gaps.refuse(recipe, raw, source)
    for join in recipe.join:
        raw.require(join.table, join.on)
        gaps.refuse(recipe, raw, join.table)
        table = joins.join_columns(recipe, raw, source, table, join, counts)
    late = {step.to for step in recipe.derive if step.fitted}
    for column in recipe.features:
        if column not in late:
            raw.require(source, column, *(j.table for j in recipe.join))
    for column in joins.columns_of_rules(recipe):
        if column not in late:
            raw.require(source, column, *(j.table for j in recipe.join))
    table = filters.filter_rows(recipe, table, counts, seen)
    _refuse_negative(recipe, table)
    time_warnings.check_times(recipe, source, table)
    repeats.warn_of_repeats(recipe, source, table)
    return _in_order(table, recipe.time) if recipe.time else table


def _in_order(table: pa.Table, time: str) -> pa.Table:
    """Sort by time, ties as they stood."""
    times = table[time].to_numpy()
    if (times[1:] >= times[:-1]).all():
        return table
    order = pa.array(np.argsort(times, kind="stable"))
    return pa.table({name: dictionaries.take(table[name], order) for name in table.column_names})


def _refuse_negative(recipe: Recipe, table: pa.Table) -> None:
    if recipe.weight is None:
        return
    least = pc.min(table[recipe.weight]).as_py()
    if least is not None and least < 0:
        count = pc.sum(pc.less(table[recipe.weight], 0)).as_py()
        raise DataError(
            f"{count} interactions have a negative weight, the least {least}, in "
            f"{recipe.weight!r}. A weight says how much a row counts in the loss: 0 or more. "
            "Correct the column, or leave such rows out with `filter:`."
        )
