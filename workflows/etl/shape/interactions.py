"""Turn raw tables into the interactions of train, valid and test: derive, join, filter, split."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from workflows.derive.cells import cast_to_feature, derive_column
from workflows.derive.fitted import States
from workflows.etl.check import repeats, time_warnings
from workflows.etl.counts import DropCounts
from workflows.etl.read.sources import Raw
from workflows.etl.shape import filters, fitted_columns, gaps, joins, pivot, split
from workflows.etl.shape.seen import Seen
from workflows.ground.errors import DataError
from workflows.raw import dictionaries
from workflows.recipe import Derive, GivenFiles, Keep, Recipe

log = logging.getLogger(__name__)


def pivot_events(recipe: Recipe, raw: Raw, counts: DropCounts) -> Raw:
    """Merge the events into one row per user and item, if the recipe has a `pivot`.

    Raises:
        DataError: merging the events would drop the column of a feature.
    """
    if recipe.pivot is None:
        return raw
    keys, time = (recipe.user_id, recipe.item_id), recipe.time
    for source in interaction_sources(recipe):
        raw.require(source, recipe.pivot.event)
        _refuse_lost(recipe, raw, source)
        table = _rows_with_keys(recipe, raw, source, counts)
        tallies = pivot.tally(table, recipe.pivot, keys=keys, time=time)
        merged = pivot.merge(tallies, recipe.pivot, keys=keys, time=time)
        counts.add("merged with another event of its user and item", len(table) - len(merged))
        for name in recipe.pivot.counts.values():
            place = merged.column_names.index(name)
            column = cast_to_feature(merged[name], recipe.features.get(name))
            merged = merged.set_column(place, name, column)
        raw = dataclasses.replace(
            raw,
            tables={**raw.tables, source: merged},
            columns={**raw.columns, source: merged.column_names},
        )
    return raw


def interaction_sources(recipe: Recipe) -> list[str]:
    """Return the sources of the recipe whose rows are interactions, not users or items."""
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
            f"{raw.where(source)}, column {lost[0]!r}: `pivot:` merges many rows into one, and "
            f"keeps only ids, time and counts. Remove features.{lost[0]}, or the pivot."
        )


def _rows_with_keys(recipe: Recipe, raw: Raw, source: str, counts: DropCounts) -> pa.Table:
    """Return the interactions of a source that have a user id, an item id and a time."""
    table = raw.tables[source]
    for column in (recipe.user_id, recipe.item_id, recipe.time):
        if column:
            raw.require(source, column)
            table = counts.keep(table, pc.is_valid(table[column]), f"no {column}")
    return table


def add_derived(recipe: Recipe, raw: Raw) -> Raw:
    """Add to the raw tables the derived columns that need no fit on train.

    Raises:
        DataError: no table has the column that a step reads, or a table already has a column with
            the name of the derived one.
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
                raw = _with_column(recipe, raw, name, step, {})
    return _derive_fills(recipe, raw)


def add_fitted(recipe: Recipe, raw: Raw, states: States) -> Raw:
    """Add to the raw tables the derived columns whose states were fitted on train."""
    for step in recipe.derive:
        if step.fitted:
            for name, table in raw.tables.items():
                if step.of in table.column_names:
                    raw = _with_column(recipe, raw, name, step, states)
    return _derive_fills(recipe, raw, states)


def _derive_fills(recipe: Recipe, raw: Raw, states: States | None = None) -> Raw:
    """Apply the derive steps to the `fill` values of joins, the feature values of unmatched ids.

    So an id that is not in a joined table has the same feature values in the log and in the user or
    item table.

    Args:
        recipe: recipe with the steps and the joins.
        raw: the raw tables of all sources of the recipe.
        states: fitted states of the steps that learn from data; without states, only the steps that
            learn nothing are applied.
    """
    filled = {join.table: raw.fill(join) for join in recipe.join}
    for fill in filled.values():
        for step in recipe.derive:
            if step.of in fill and (states is not None if step.fitted else step.to not in fill):
                value = fill[step.of]
                kind = pa.string() if isinstance(value, str) else pa.float32()
                cell = pa.chunked_array([pa.array([value], kind)])
                where = "the join's `fill`"
                cell = derive_column(recipe, step, cell, states=states or {}, where=where)
                if cell[0].is_valid:  # the result of a step may be null
                    fill[step.to] = cell[0].as_py()
    return dataclasses.replace(raw, filled=filled)


def _with_column(recipe: Recipe, raw: Raw, source: str, step: Derive, states: States) -> Raw:
    """Append to a raw table the column that a derive step makes."""
    table, where = raw.tables[source], raw.where(source)
    column = derive_column(recipe, step, table[step.of], states=states, where=where)
    return dataclasses.replace(
        raw,
        tables={**raw.tables, source: table.append_column(step.to, column)},
        columns={**raw.columns, source: [*raw.columns[source], step.to]},
    )


def fit_columns(
    recipe: Recipe, parts: dict[split.Part, pa.Table], older: States
) -> tuple[States, dict[split.Part, pa.Table]]:
    """Fit derive steps on train, and add the derived columns to train, valid and test."""
    states = fitted_columns.fit(recipe, parts["train"], older=older)
    for step in recipe.derive:
        if step.fitted:
            for part, table in parts.items():
                column = derive_column(recipe, step, table[step.of], states=states)
                parts = {**parts, part: table.append_column(step.to, column)}
    return states, parts


def split_rows(
    recipe: Recipe, raw: Raw, counts: DropCounts
) -> tuple[dict[split.Part, pa.Table], Seen | None]:
    """Join side tables to the interactions, filter and sort them, and split them.

    Returns:
        For train, valid and test, the interactions with all columns; and the dropped interactions
        whose items still count as seen by the user, if a filter rule says so.
    """
    seen: dict[split.Part, list[pa.Table]] = {part: [] for part in split.PARTS}
    parts = _parts(recipe, raw, counts, seen)
    keeps_seen = any(isinstance(rule, Keep) and rule.still_seen for rule in recipe.filter)
    return parts, Seen.of(recipe, seen, parts) if keeps_seen else None


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
        found = {
            p: _join_and_filter(recipe, raw, s, counts, seen[p]) for p, s in names.items() if s
        }
        split.refuse_empty(
            {part: len(table) for part, table in found.items()}, counts.describe_drops()
        )
        return {part: found.get(part, found["train"].slice(0, 0)) for part in split.PARTS}
    table = _join_and_filter(recipe, raw, recipe.interactions, counts, seen["train"])
    if len(table) == 0:
        split.refuse_empty({"train": 0}, counts.describe_drops())
    labels = _labels(recipe, table, counts.describe_drops())
    return {
        part: table.filter(pa.array(labels == number)) for number, part in enumerate(split.PARTS)
    }


def _labels(recipe: Recipe, table: pa.Table, dropped: str) -> split.Labels:
    """Return for each interaction whether it belongs to train, valid or test."""
    users = table[recipe.user_id]
    if recipe.time:
        times = table[recipe.time].to_numpy()
        return split.assign(recipe.split, users=_number_ids(users), times=times, dropped=dropped)
    order = filters.shuffle_order(table, recipe.user_id, recipe.item_id)
    labels = np.empty(len(table), np.int8)
    numbers = _number_ids(users.take(pa.array(order)))
    labels[order] = split.assign(recipe.split, users=numbers, times=None, dropped=dropped)
    return labels


def _number_ids(ids: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Number user ids from 0 in order of first appearance; dropped rows have no influence."""
    numbers: npt.NDArray[np.int32] = pd.factorize(dictionaries.indices(ids))[0].astype(np.int32)
    return numbers


def _join_and_filter(
    recipe: Recipe, raw: Raw, source: str, counts: DropCounts, seen: list[pa.Table]
) -> pa.Table:
    """Join side tables to a source's interactions, filter them and sort them by time.

    Dropped interactions whose items still count as seen by the user are appended to `seen`.
    """
    table = _rows_with_keys(recipe, raw, source, counts)
    gaps.refuse(recipe, raw, source)
    for join in recipe.join:
        raw.require(join.table, join.key)
        gaps.refuse(recipe, raw, join.table)
        table = joins.join_columns(recipe, raw, source, table, join, counts)
    fitted = {step.to for step in recipe.derive if step.fitted}
    for column in (*recipe.features, *joins.columns_of_rules(recipe)):
        if column not in fitted:
            raw.require(source, column, *(j.table for j in recipe.join))
    table = filters.filter_rows(recipe, table, counts, seen)
    _refuse_negative(recipe, table)
    time_warnings.check_times(recipe, source, table)
    repeats.warn_of_repeats(recipe, source, table)
    return _sort_by_time(table, recipe.time) if recipe.time else table


def _sort_by_time(table: pa.Table, time: str) -> pa.Table:
    """Sort interactions by time; those of equal times keep their order."""
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
            f"{recipe.weight!r}. The weight of a row in the loss must be 0 or more. "
            "Correct the column, or leave such rows out with `filter:`."
        )
