"""Warn of interactions that occur more than once, for example because a file is read twice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from workflows.raw import dictionaries
from workflows.recipe import Recipe

log = logging.getLogger(__name__)

#: The share of repeated rows from which a warning is logged, the number of rows to check, and the
#: smallest number of rows for which a warning is logged.
_REPEATED, _LOOKED, _FEW = 0.4, 500_000, 20


@dataclass(frozen=True)
class Repeats:
    """How many interactions of a source, or of a partition, repeat an earlier one.

    Attributes:
        rows: number of interactions.
        looked: number of interactions that were checked; in a large table, those of some users.
        repeated: number of interactions among them that repeat an earlier one.
        least, most: the smallest and the largest number of interactions of one user and item, for
            data without times; else 0.
    """

    rows: int
    looked: int
    repeated: int
    least: int
    most: int

    @classmethod
    def of(cls, recipe: Recipe, table: pa.Table) -> Repeats:
        """Check the interactions of a table, or some of them in a large table.

        Args:
            recipe: recipe that names the columns of ids and time.
            table: the interactions.
        """
        users = dictionaries.indices(table[recipe.user_id])
        some = np.flatnonzero(users % (len(table) // _LOOKED + 1) == 0)
        looked = pd.DataFrame(
            {
                key: table[key].to_numpy()[some]
                if key == recipe.time
                else dictionaries.indices(table[key])[some]
                for key in _keys(recipe)
            }
        )
        least = most = 0
        if recipe.time is None and len(looked):
            sizes = looked.value_counts()
            least, most = int(sizes.min()), int(sizes.max())
        return cls(len(table), len(looked), int(looked.duplicated().sum()), least, most)


def _keys(recipe: Recipe) -> list[str]:
    return [k for k in (recipe.user_id, recipe.item_id, recipe.time) if k is not None]


def warn_of_repeats(recipe: Recipe, source: str, found: Sequence[Repeats]) -> None:
    """Warn if many interactions repeat the user, the item and the time of an earlier interaction.

    Args:
        recipe: recipe that names the columns of ids and time.
        source: name of the source of the rows, for the message.
        found: what was found in each partition.
    """
    looked = sum(of.looked for of in found)
    if looked < _FEW:
        return
    sizes = {size for of in found if of.looked for size in (of.least, of.most)}
    if recipe.time is None and len(sizes) > 1:
        return  # not all pairs occur equally often, as if a file were read twice
    share = sum(of.repeated for of in found) / looked
    if share >= _REPEATED:
        log.warning(
            "%s: %.0f %% of the rows%s have the %s of an earlier row, as if a file were read "
            "twice. Such a row may be in train and in test at once; remove the copies if they are "
            "not separate events.",
            *(source, 100 * share),
            "" if looked == sum(of.rows for of in found) else " that were checked",
            " and ".join(map(repr, _keys(recipe))),
        )
