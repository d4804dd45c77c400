"""Apply the recipe's `filter:` rules to the interactions, before or after the split."""

from __future__ import annotations

import datetime as dt

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.counts import DropCounts
from workflows.etl.read.slices import ROW
from workflows.etl.shape.split import Part
from workflows.raw import dictionaries, spelling
from workflows.recipe import Condition, Keep, PerDay, Recipe, SampleUsers, TopUsers, UsersWith
from workflows.recipe.filters import OF_ONE_ROW, Filter, Stage

_DAY = 86_400
_COMPARE = {
    "==": pc.equal,
    "!=": pc.not_equal,
    ">=": pc.greater_equal,
    ">": pc.greater,
    "<=": pc.less_equal,
    "<": pc.less,
}


def meets(condition: Condition, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the mask of the cells of a column that meet the condition of a filter rule.

    The mask of a condition is null or false for a missing cell.

    Args:
        condition: comparison and value of a filter rule.
        column: text, numbers, or times in seconds since the epoch.
    """
    if condition.is_ == "not_null":
        return pc.is_valid(column)
    return dictionaries.map_distinct(column, lambda cells: _compare(condition, cells))


def _compare(condition: Condition, column: pa.ChunkedArray) -> pa.ChunkedArray:
    values = [_seconds(v) if _is_date(v, column) else v for v in condition.values]
    if pa.types.is_integer(column.type):
        column = pc.cast(column, pa.float64())
    # text is compared in the canonical spelling that the column has
    if pa.types.is_string(column.type):
        values = [spelling.respell_one(str(value), column) for value in values]
    wanted = pa.array(values).cast(column.type, safe=False)
    if condition.is_ == "in":
        return pc.is_in(column, value_set=wanted)
    return _COMPARE[condition.is_](column, wanted[0])


def _is_date(value: float | str, column: pa.ChunkedArray) -> bool:
    return isinstance(value, str) and pa.types.is_integer(column.type)


def _seconds(value: float | str) -> float:
    moment = dt.datetime.fromisoformat(str(value))
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)).timestamp()


def filter_rows(
    recipe: Recipe, table: pa.Table, counts: DropCounts, seen: list[pa.Table]
) -> pa.Table:
    """Apply the filter rules that look at one interaction at a time, before the split.

    Args:
        recipe: recipe with the filter rules.
        table: the interactions.
        counts: the counter to which dropped interactions are added.
        seen: the list to which dropped interactions are appended if their items still count as
            seen.
    """
    for rule in recipe.filter:
        if rule.stage == "before" and isinstance(rule, OF_ONE_ROW):
            if isinstance(rule, Keep) and rule.still_seen:
                lost = pc.invert(pc.fill_null(meets(rule, table[rule.column]), False))
                names = (recipe.user_id, recipe.item_id, recipe.time)
                seen.append(table.select([n for n in names if n]).filter(lost))
            table = _apply_row_rule(recipe, rule, table, counts)
    return table


def filter_parts(
    recipe: Recipe,
    rule: Filter,
    tables: dict[Part, pa.Table],
    counts: DropCounts,
    top: pa.StringArray | None = None,
) -> dict[Part, pa.Table]:
    """Apply a filter rule to interactions that are split, such as a least number of rows per user.

    Interactions of valid and test have no influence on which interactions of train are kept.

    Args:
        recipe: recipe with the filter rules.
        rule: the rule to apply.
        tables: train, valid, test → its interactions.
        counts: the counter to which dropped interactions are added.
        top: ids of the users that a rule of kind `top_users` keeps.
    """
    if isinstance(rule, UsersWith):
        return _users_with(recipe, rule, tables, counts)
    if isinstance(rule, TopUsers):
        assert top is not None
        cause = f"not of the {rule.n} users with most rows of train"
        return {
            part: counts.keep(table, _are_among(table[recipe.user_id], top), cause)
            for part, table in tables.items()
        }
    if isinstance(rule, PerDay):
        return {p: _per_day(recipe, rule, t, counts) for p, t in tables.items()}
    return {p: _apply_row_rule(recipe, rule, t, counts) for p, t in tables.items()}


def rules_of_parts(recipe: Recipe, stage: Stage) -> list[Filter]:
    """Return the filter rules of a stage that are applied to interactions that are split."""
    return [
        rule
        for rule in recipe.filter
        if rule.stage == stage and (stage == "after" or not isinstance(rule, OF_ONE_ROW))
    ]


def _apply_row_rule(
    recipe: Recipe, rule: Keep | SampleUsers, table: pa.Table, counts: DropCounts
) -> pa.Table:
    if isinstance(rule, Keep):
        return _keep(table, rule, counts)
    users = table[recipe.user_id]
    chosen = sample_ids(dictionaries.distinct_texts(users), share=rule.share, seed=rule.seed)
    cause = f"user outside the sample of {rule.share:g}"
    return counts.keep(table, _are_among(users, chosen), cause)


def _are_among(ids: pa.ChunkedArray, chosen: pa.StringArray) -> pa.ChunkedArray:
    return dictionaries.map_distinct(ids, lambda texts: pc.is_in(texts, value_set=chosen))


def _keep(table: pa.Table, rule: Keep, counts: DropCounts) -> pa.Table:
    cause = f"no {rule.column}" if rule.is_ == "not_null" else f"not {rule}"
    return counts.keep(table, meets(rule, table[rule.column]), cause)


def _users_with(
    recipe: Recipe, rule: UsersWith, tables: dict[Part, pa.Table], counts: DropCounts
) -> dict[Part, pa.Table]:
    kept, known = {}, pa.array([], pa.string())
    for part, table in tables.items():
        users = table[recipe.user_id]
        mask = dictionaries.combine(meets(rule, table[rule.column]))
        here = dictionaries.distinct_texts(dictionaries.combine(users).filter(mask))
        known = pa.concat_arrays([known, here])
        kept[part] = counts.keep(table, _are_among(users, known), f"user without {rule}")
    return kept


def _per_day(recipe: Recipe, rule: PerDay, table: pa.Table, counts: DropCounts) -> pa.Table:
    assert recipe.time is not None
    keep = choose_per_day(
        table[recipe.user_id], table[recipe.item_id], table[recipe.time], n=rule.n, seed=rule.seed
    )
    return counts.keep(table, pa.array(keep), f"beyond {rule.n} of a user and day")


def count_values(values: pa.ChunkedArray) -> pa.Table:
    """Return the distinct values of a column of text, and the number `n` of cells of each."""
    array = dictionaries.combine(values)
    table = pa.table({"value": array.dictionary, "n": dictionaries.count_texts(array)[:-1]})
    return table.filter(pc.greater(table["n"], 0))


def first_values(counts: pa.Table, n: int) -> pa.StringArray:
    """Return the n most frequent values of a table of counts; ties are broken by value."""
    table = counts.sort_by([("n", "descending"), ("value", "ascending")])
    return table["value"].slice(0, n).combine_chunks()


def sample_ids(ids: pa.StringArray, *, share: float, seed: int) -> pa.StringArray:
    """Draw a random sample with about the given share of ids, each independently of the others."""
    hashes = _hashes({"id": ids}, seed)
    return ids.filter(pa.array(hashes < np.uint64(share * 2**64)))


def choose_per_day(
    users: pa.ChunkedArray, items: pa.ChunkedArray, times: pa.ChunkedArray, *, n: int, seed: int
) -> npt.NDArray[np.bool_]:
    """Choose n pseudo-random interactions per user and day, by a hash of user, item and time.

    Args:
        users, items: user id and item id of each interaction, text [n_rows].
        times: time of each row in seconds since the epoch, int64 [n_rows].
        n: largest number of interactions to keep per user and day.
        seed: seed of the hash.

    Returns:
        Mask of the interactions to keep, bool [n_rows].
    """
    hashes = _hashes({"user": users, "item": items, "time": times}, seed)
    numbers = dictionaries.indices(users)
    days = times.to_numpy() // _DAY
    order = np.lexsort((hashes, days, numbers))  # equal rows: the first one
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(numbers[order]) != 0) | (np.diff(days[order]) != 0)
    place = np.arange(len(order))
    rank = place - np.maximum.accumulate(np.where(new, place, 0))
    keep = np.empty(len(order), bool)
    keep[order] = rank < n
    return keep


def shuffle_order(table: pa.Table, user: str, item: str) -> npt.NDArray[np.int64]:
    """Return a pseudo-random order of interactions that does not depend on their order in the log.

    Interactions of the same user and item are ordered by their other columns.

    Args:
        table: columns of text and numbers; columns of lists have no influence.
        user, item: names of the id columns.
    """
    keys = _hashes({"user": table[user], "item": table[item]}, 0)
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    tied = order[np.append(same, False) | np.insert(same, 0, False)] if len(order) else order
    others = [f.name for f in table.schema if f.name != ROW and not pa.types.is_list(f.type)]
    few = table.select(others).take(pa.array(tied))
    more = [_hashes({name: few[name]}, 0) for name in others]
    order[np.isin(order, tied)] = tied[np.lexsort((*more, keys[tied]))]
    return order


def _hashes(columns: dict[str, pa.Array | pa.ChunkedArray], seed: int) -> npt.NDArray[np.uint64]:
    """Hash each interaction by some columns, with equal results on every machine."""
    frame = pd.DataFrame(
        {name: dictionaries.combine(column).to_pandas() for name, column in columns.items()}
    )
    key = f"{seed:016d}"[-16:]
    return pd.util.hash_pandas_object(frame, index=False, hash_key=key).to_numpy()
