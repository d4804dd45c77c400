"""Find dropped interactions that count as seen: their items are not recommended again.

Dropped interactions are no positives, and count neither for histories nor for popularity. Each
dropped interaction is assigned to train, valid or test. An evaluation on valid does not recommend
the items of a user's interactions in train; an evaluation on test does not recommend those in train
and valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.core.column_names import ITEM_ROW, USER_ROW
from models.core.retriever import Ints
from workflows.etl.shape import split
from workflows.raw import dictionaries
from workflows.recipe import GlobalTime, LeaveLast, Recipe
from workflows.stages.etl import PART

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Seen:
    """User-item pairs that a filter drops, but whose items are not recommended to the user again.

    Attributes:
        users, items: raw ids of the user and the item of each pair, text [n].
        parts: part of each pair, as an index into `split.PARTS`, int64 [n].
    """

    users: pa.ChunkedArray
    items: pa.ChunkedArray
    parts: Ints

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        dropped: Mapping[split.Part, Sequence[pa.Table]],
        parts: Mapping[split.Part, pa.Table],
        cuts: tuple[int | None, int | None],
    ) -> Seen:
        """Collect the user-item pairs of the interactions that the filter rules dropped.

        Args:
            recipe: recipe with the split.
            dropped: train, valid, test → interactions dropped from the file of this part; if one
                file holds all parts, all dropped interactions are under `train`.
            parts: train, valid, test → interactions that were kept.
            cuts: times at which valid and test begin, for a split by time; None for no rows.
        """
        tables = [(part, table) for part, some in dropped.items() for table in some]
        named = (recipe.user_id, recipe.item_id)
        users, items = (
            pa.chunked_array([dictionaries.stack(*(table[name] for _, table in tables))])
            for name in named
        )
        known = [_known_from(recipe, table, parts, cuts, of=part) for part, table in tables]
        return cls(users, items, np.concatenate(known))

    def rows(
        self, users: pa.StringArray, user_rows: Ints, items: pa.StringArray, item_rows: Ints
    ) -> pa.Table:
        """Return each user-item pair once, with the earliest split that has it.

        Args:
            users: distinct ids of users; pairs with other ids are left out.
            user_rows: row of each of these users in the user table, or -1, -2, … for a user of
                valid or test that the table lacks.
            items: distinct ids of items; pairs with other ids are left out.
            item_rows: row of each of these items in the item table.
        """
        users_at, items_at = _places(self.users, users), _places(self.items, items)
        here = (users_at < len(users)) & (items_at < len(items))
        table = pa.table(
            {
                USER_ROW: user_rows[users_at[here]].astype(np.int32),
                ITEM_ROW: item_rows[items_at[here]].astype(np.int32),
                PART: self.parts[here].astype(np.int8),
            }
        )
        table = table.group_by([USER_ROW, ITEM_ROW]).aggregate([(PART, "min")])
        table = table.rename_columns(
            [name.removesuffix("_min") for name in table.column_names]
        ).select([USER_ROW, ITEM_ROW, PART])
        return table.sort_by([(USER_ROW, "ascending"), (ITEM_ROW, "ascending")])


def _known_from(
    recipe: Recipe,
    seen: pa.Table,
    parts: Mapping[split.Part, pa.Table],
    cuts: tuple[int | None, int | None],
    *,
    of: split.Part,
) -> Ints:
    """Return the split of each dropped interaction, as an index into `split.PARTS`, int64 [n].

    After a split by time, a dropped interaction belongs to train if it is earlier than all
    interactions of valid, and to test if it is not earlier than all interactions of test; for
    leave_last only interactions of the same user are compared. Splits without a cut in time assign
    a dropped interaction to the split of its file.
    """
    found = np.full(len(seen), split.PARTS.index(of))
    if not isinstance(recipe.split, LeaveLast | GlobalTime):
        return found
    assert recipe.time is not None
    times = seen[recipe.time].to_numpy()
    for part, cut in zip(split.PARTS[1:], cuts, strict=True):
        if isinstance(recipe.split, LeaveLast):
            ids, first = _first_of_each(recipe, parts[part])
            found += times >= first[_places(seen[recipe.user_id], ids)]
        elif cut is not None:
            found += times >= cut
    return found


def _first_of_each(recipe: Recipe, held: pa.Table) -> tuple[pa.StringArray, Ints]:
    """Return users of held-out rows, and their earliest times; a last time is for all others."""
    assert recipe.time is not None
    users = dictionaries.combine(held[recipe.user_id])
    first = np.full(len(users.dictionary) + 1, _NEVER)
    np.minimum.at(first, dictionaries.indices(users), held[recipe.time].to_numpy())
    return users.dictionary, first


def _places(ids: pa.ChunkedArray, among: pa.StringArray) -> Ints:
    """Return the position of each id in the array `among`; `len(among)` for an id not in it."""
    found = dictionaries.map_distinct(ids, lambda texts: pc.index_in(texts, value_set=among))
    return dictionaries.combine(found).fill_null(len(among)).to_numpy().astype(np.int64)
