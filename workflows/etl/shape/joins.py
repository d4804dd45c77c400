"""Join the columns of side tables to the rows of the log, by user, item or another id."""

from __future__ import annotations

import logging

import pyarrow as pa

from workflows.etl.check import matches
from workflows.etl.counts import DropCounts
from workflows.etl.read.sources import Raw
from workflows.etl.shape import gaps, tables
from workflows.ground.errors import DataError
from workflows.raw import dictionaries
from workflows.recipe import Condition, Join, Recipe

log = logging.getLogger(__name__)


def join_columns(
    recipe: Recipe, raw: Raw, source: str, table: pa.Table, join: Join, counts: DropCounts
) -> pa.Table:
    """Add the needed columns of one side table (such as item features) to the rows of the log.

    Args:
        recipe: recipe that describes the raw columns and the features.
        raw: the raw tables of all sources of the recipe.
        source: name of the source of the interactions.
        table: the interactions of `source`.
        join: the table to join, and the id to join it by.
        counts: the counter to which unmatched and dropped interactions are added.

    Raises:
        DataError: no id is found, a number is missing, or two tables have the same column and its
            role does not decide between them.
    """
    side = tables.side_table(raw, join)
    if not raw.numbers:
        check_ids(recipe, raw, source, join, dictionaries.distinct_texts(table[join.key]))
    found = tables.find_rows(table[join.key], side[join.key])
    unmatched = counts.unmatched.get(join.table, 0) + found.null_count
    counts.unmatched[join.table] = unmatched
    if join.on_missing == "drop":
        table = counts.keep(table, found.is_valid(), f"{join.key} not in {join.table}")
        found = found.drop_null()
    others = [n for j in recipe.join if j is not join for n in raw.tables[j.table].column_names]
    fill = raw.fill(join)
    for column in join.fill:
        raw.require(join.table, column)
    for column in side.column_names:
        if column in table.column_names or not _is_needed(recipe, column):
            continue
        if column in others and not _is_owner(recipe, raw, column, join):
            continue
        if found.null_count and column not in fill:
            _refuse_gap(recipe, raw, join, column, found.null_count)
        values = tables.take_or_fill(side[column], found, fill, column)
        table = table.append_column(column, pa.chunked_array([values]))
    return table


def check_ids(recipe: Recipe, raw: Raw, source: str, join: Join, ids: pa.StringArray) -> None:
    """Check the ids and the columns of a join, for all partitions of the interactions together.

    Args:
        recipe: recipe that describes the raw columns and the features.
        raw: the raw tables of all sources of the recipe.
        source: name of the source of the interactions.
        join: the table to join, and the id to join it by.
        ids: the distinct ids of the interactions.

    Raises:
        DataError: no id is found.
    """
    _refuse_unmatched(recipe, raw, source, ids, join)
    _warn_of_namesakes(recipe, raw, source, join)


def _warn_of_namesakes(recipe: Recipe, raw: Raw, source: str, join: Join) -> None:
    """Warn of column names that both the interactions and a joined table have."""
    there = raw.tables[join.table].column_names
    both = [c for c in raw.tables[source].column_names if c in there and c != join.key]
    named = [column for column in both if column in recipe.features]
    if named and source == recipe.interactions:
        log.warning(
            "%s and %s both have %s; that of the former is used. To use the other, give one of "
            "them another name with `rename:`.",
            *(raw.where(source), raw.where(join.table), " and ".join(map(repr, named))),
        )


def _refuse_gap(recipe: Recipe, raw: Raw, join: Join, column: str, n: int) -> None:
    """Raise an error because a number is missing in n rows whose ids the joined table lacks."""
    if column in gaps.numbers_without_policy(recipe, [column]):
        raise DataError(
            f"{n} interactions have a {join.key!r} that is not in {raw.where(join.table)}, so "
            f"their number {column!r} is missing, and the recipe has no policy for it. Set "
            f"features.{column}.fill to median, mean or a number, or `on_missing: drop` or `fill` "
            f"in the join of {join.table!r}."
        )


def _refuse_unmatched(
    recipe: Recipe, raw: Raw, source: str, ids: pa.StringArray, join: Join
) -> None:
    """Raise an error if a join finds none of the log's ids, and warn if it finds few."""
    found = matches.match(ids, dictionaries.decode(raw.tables[join.table][join.key]))
    if not found.is_poor:
        return
    sentences = found.sentences(join.key, raw.where(source), raw.where(join.table))
    if found.found or join.on_missing == "fill" or source != recipe.interactions:
        log.warning("%s Interactions with other ids get no value from it.", sentences)
        return
    raise DataError(
        f"{sentences} Correct the ids in one of them, or leave the join out; to go on with values "
        "of your own, give the join `on_missing: fill` and `fill`."
    )


def _is_owner(recipe: Recipe, raw: Raw, column: str, join: Join) -> bool:
    """Return whether a column of several tables is taken from a join's table, by the column's role.

    Raises:
        DataError: the column's role is neither user nor item.
    """
    role = recipe.features[column].role if column in recipe.features else None
    if role not in tables.ROLES:
        places = " and ".join(raw.where(j.table) for j in recipe.join)
        raise DataError(
            f"{places} both have a column {column!r}, and the recipe does not decide between them. "
            "Give one of them another name with `rename:`."
        )
    return join.key == (recipe.user_id if role == "user" else recipe.item_id)


def _is_needed(recipe: Recipe, column: str) -> bool:
    """Return whether the log needs a joined column, and not only the user or item table."""
    if column in recipe.features and not recipe.features[column].meaning.is_label:
        return True
    return column in [
        *columns_of_rules(recipe),
        *(step.of for step in recipe.derive if step.fitted),
    ]


def columns_of_rules(recipe: Recipe) -> list[str]:
    """Return the columns that the recipe's filter rules and `history.events` read."""
    events = recipe.history.events if recipe.history else None
    rules = [rule.column for rule in recipe.filter if isinstance(rule, Condition)]
    return [*rules, events.column] if events else rules
