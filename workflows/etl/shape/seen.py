"""Rows that a filter drops, but that count as seen: their items are not offered again.

They are no positives, stand in no history and count for no popularity. Each is known from a part of
the split on, as the rows that were kept are: what a user met before the cut of test is known there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.core.column_names import ITEM_ROW, USER_ROW
from workflows.etl.shape import split
from workflows.raw import dictionaries
from workflows.recipe import GlobalTime, LeaveLast, Recipe
from workflows.stages.etl import PART, EtlFiles

Numbers = npt.NDArray[np.int64]

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Seen:
    """Items that users saw in rows that do not count as interactions.

    Attributes:
        users, items: raw ids, text [n].
        parts: from which part of the split on each is known: its place in `split.PARTS`, int64 [n].
    """

    users: pa.ChunkedArray
    items: pa.ChunkedArray
    parts: Numbers

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        dropped: Mapping[split.Part, Sequence[pa.Table]],
        parts: Mapping[split.Part, pa.Table],
    ) -> Seen:
        """Gather what rules dropped.

        Args:
            recipe: how rows were split.
            dropped: part → rows dropped from its file; those of one file that was split later
                stand under `train`.
            parts: the rows that were kept.
        """
        tables = [(part, table) for part, some in dropped.items() for table in some]
        named = (recipe.user_id, recipe.item_id)
        users, items = (
            pa.chunked_array([dictionaries.stack(*(table[name] for _, table in tables))])
            for name in named
        )
        known = [_known_from(recipe, table, parts, of=part) for part, table in tables]
        return cls(users, items, np.concatenate(known))

    def write(
        self, users: pa.StringArray, strangers: pa.StringArray, items: pa.StringArray, folder: Path
    ) -> None:
        """Write each pair of a user and an item once, known as early as it may be.

        Args:
            users, items: ids of the tables; pairs of others are left out.
            strangers: users of valid and test that are in no table, numbered -1, -2, …
            folder: the folder of the stage.
        """
        known = pa.concat_arrays([users, strangers])
        user_rows, item_rows = _places(self.users, known), _places(self.items, items)
        here = (user_rows < len(known)) & (item_rows < len(items))
        user_rows = np.where(user_rows < len(users), user_rows, len(users) - 1 - user_rows)
        table = pa.table(
            {
                USER_ROW: user_rows[here].astype(np.int32),
                ITEM_ROW: item_rows[here].astype(np.int32),
                PART: self.parts[here].astype(np.int8),
            }
        )
        table = table.group_by([USER_ROW, ITEM_ROW]).aggregate([(PART, "min")])
        table = table.rename_columns(
            [name.removesuffix("_min") for name in table.column_names]
        ).select([USER_ROW, ITEM_ROW, PART])
        keys = [(USER_ROW, "ascending"), (ITEM_ROW, "ascending")]
        pq.write_table(table.sort_by(keys), EtlFiles(folder).seen)


def _known_from(
    recipe: Recipe, seen: pa.Table, parts: Mapping[split.Part, pa.Table], *, of: split.Part
) -> Numbers:
    """Return from which part on each row is known, int64 [n].

    After a split by time it is known at a cut if its time is before that of all rows held out
    there: of the user where each has a cut of their own, else of anybody. Other splits have no cut
    in time, and it is known as the part is whose file it stood in.
    """
    found = np.full(len(seen), split.PARTS.index(of))
    if not isinstance(recipe.split, LeaveLast | GlobalTime):
        return found
    assert recipe.time is not None
    times = seen[recipe.time].to_numpy()
    for part in split.PARTS[1:]:
        held = parts[part]
        if isinstance(recipe.split, LeaveLast):
            ids, first = _first_of_each(recipe, held)
            found += times >= first[_places(seen[recipe.user_id], ids)]
        elif len(held):
            found += times >= held[recipe.time].to_numpy().min()
    return found


def _first_of_each(recipe: Recipe, held: pa.Table) -> tuple[pa.StringArray, Numbers]:
    """Return users and the earliest time of each one's rows; one more time for everybody else."""
    assert recipe.time is not None
    users = dictionaries.combine(held[recipe.user_id])
    first = np.full(len(users.dictionary) + 1, _NEVER)
    np.minimum.at(first, dictionaries.indices(users), held[recipe.time].to_numpy())
    return users.dictionary, first


def _places(ids: pa.ChunkedArray, among: pa.StringArray) -> Numbers:
    """Return where ids stand among distinct ones; one more than the last for those that do not."""
    found = dictionaries.map_distinct(ids, lambda texts: pc.index_in(texts, value_set=among))
    return dictionaries.combine(found).fill_null(len(among)).to_numpy().astype(np.int64)
