"""Turn raw tables into the interactions of train, valid and test: derive, join, filter, split."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from workflows.derive.cells import cast_to_feature, derive_column
from workflows.derive.fitted import States
from workflows.etl.check import repeats, time_warnings
from workflows.etl.check.repeats import Repeats
from workflows.etl.check.time_warnings import CheckedTimes
from workflows.etl.counts import DropCounts
from workflows.etl.read.sources import Raw, interaction_sources
from workflows.etl.shape import filters, gaps, joins, pivot, split
from workflows.ground.errors import DataError
from workflows.raw import dictionaries
from workflows.recipe import Derive, GivenFiles, Recipe

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


def derive_interactions(recipe: Recipe, raw: Raw) -> Raw:
    """Add the derived columns to the interactions of a partition; other tables have them already.

    `add_derived` has checked the steps before.
    """
    for step in recipe.derive:
        for name in interaction_sources(recipe):
            if step.of in raw.tables[name].column_names and not step.fitted:
                raw = _with_column(recipe, raw, name, step, {})
    return raw


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


def add_fitted_to_rows(recipe: Recipe, table: pa.Table, states: States) -> pa.Table:
    """Add the derived columns whose states were fitted on train to a table of interactions."""
    for step in recipe.derive:
        if step.fitted:
            column = derive_column(recipe, step, table[step.of], states=states)
            table = table.append_column(step.to, column)
    return table


@dataclass(frozen=True)
class LogFacts:
    """What is checked in the interactions of a source, over all partitions together.

    Attributes:
        rows: number of interactions that are left.
        negative: number of negative weights, and the least weight.
        times: the times that are checked.
        repeats: how many interactions repeat earlier ones.
    """

    rows: int
    negative: tuple[int, float]
    times: CheckedTimes
    repeats: Repeats


def join_and_filter(
    recipe: Recipe, raw: Raw, counts: DropCounts, seen: dict[split.Part, list[pa.Table]]
) -> tuple[dict[split.Part, pa.Table], dict[str, LogFacts]]:
    """Join side tables to the interactions of each source, filter and sort them.

    Args:
        recipe: recipe with the joins and the filter rules.
        raw: the tables of all sources, or of one partition.
        counts: the counter to which dropped interactions are added.
        seen: the lists to which dropped interactions are appended if their items still count as
            seen by the user.

    Returns:
        The part of each source of interactions → its interactions, with all columns; if one source
        holds all parts, they are under `train`. And source → facts of its interactions.
    """
    given = recipe.split if isinstance(recipe.split, GivenFiles) else None
    names: dict[split.Part, str | None] = {"train": recipe.interactions}
    if given:
        names |= {"valid": given.valid, "test": given.test}
    found, facts = {}, {}
    for part, source in names.items():
        if source:
            found[part], facts[source] = _join_and_filter(recipe, raw, source, counts, seen[part])
    return found, facts


def check_facts(recipe: Recipe, source: str, facts: Sequence[LogFacts]) -> None:
    """Refuse negative weights, and warn of times and repeated interactions that look wrong.

    Args:
        recipe: recipe that names the columns.
        source: name of the source of the interactions.
        facts: the facts of each partition.

    Raises:
        DataError: a weight is negative, or times would decide where a split by time cuts.
    """
    n = sum(of.negative[0] for of in facts)
    if n:
        least = min(of.negative[1] for of in facts)
        raise DataError(
            f"{n} interactions have a negative weight, the least {least}, in "
            f"{recipe.weight!r}. The weight of a row in the loss must be 0 or more. "
            "Correct the column, or leave such rows out with `filter:`."
        )
    time_warnings.check_times(recipe, source, CheckedTimes.merge([of.times for of in facts]))
    repeats.warn_of_repeats(recipe, source, [of.repeats for of in facts])


def cut_into_parts(table: pa.Table, labels: split.Labels) -> dict[split.Part, pa.Table]:
    """Return train, valid, test → its interactions."""
    return {
        part: table.filter(pa.array(labels == number)) for number, part in enumerate(split.PARTS)
    }


@dataclass(frozen=True)
class SplitOrder:
    """The interactions in the order in which a split looks at them.

    Attributes:
        users: index of each interaction's user, numbered by first appearance, int32 [n].
        times: time of each interaction in seconds, int64 [n], rising; None if the data has no time.
        order: number of the row of each interaction, int64 [n]; None for the order of the rows.
    """

    users: npt.NDArray[np.int32]
    times: npt.NDArray[np.int64] | None
    order: npt.NDArray[np.int64] | None

    @classmethod
    def of(cls, recipe: Recipe, table: pa.Table) -> SplitOrder:
        """Return interactions in order of time, or without times in an order by a hash."""
        users = table[recipe.user_id]
        if recipe.time:
            return cls(_number_ids(users), table[recipe.time].to_numpy(), None)
        order = filters.shuffle_order(table, recipe.user_id, recipe.item_id)
        return cls(_number_ids(users.take(pa.array(order))), None, order)

    def by_row(self, labels: split.Labels) -> split.Labels:
        """Return the labels of the interactions in the order of the rows."""
        if self.order is None:
            return labels
        found = np.empty_like(labels)
        found[self.order] = labels
        return found


def _number_ids(ids: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Number user ids from 0 in order of first appearance; dropped rows have no influence."""
    numbers: npt.NDArray[np.int32] = pd.factorize(dictionaries.indices(ids))[0].astype(np.int32)
    return numbers


def _join_and_filter(
    recipe: Recipe, raw: Raw, source: str, counts: DropCounts, seen: list[pa.Table]
) -> tuple[pa.Table, LogFacts]:
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
    facts = LogFacts(
        len(table),
        _negative_weights(recipe, table),
        CheckedTimes.of(recipe, table, by_day=bool(raw.numbers)),
        Repeats.of(recipe, table),
    )
    return _sort_by_time(table, recipe.time) if recipe.time else table, facts


def _sort_by_time(table: pa.Table, time: str) -> pa.Table:
    """Sort interactions by time; those of equal times keep their order."""
    times = table[time].to_numpy()
    if (times[1:] >= times[:-1]).all():
        return table
    order = pa.array(np.argsort(times, kind="stable"))
    return pa.table({name: dictionaries.take(table[name], order) for name in table.column_names})


def _negative_weights(recipe: Recipe, table: pa.Table) -> tuple[int, float]:
    """Return the number of negative weights, and the least weight."""
    least = pc.min(table[recipe.weight]).as_py() if recipe.weight is not None else None
    if least is None or least >= 0:
        return 0, 0.0
    return pc.sum(pc.less(table[recipe.weight], 0)).as_py(), least
