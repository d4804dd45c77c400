"""Warn of interactions that occur more than once, for example because a file is read twice."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pyarrow as pa

from workflows.raw import dictionaries
from workflows.recipe import Recipe

log = logging.getLogger(__name__)

#: The share of repeated rows from which a warning is logged, the number of rows to check, and the
#: smallest number of rows for which a warning is logged.
_REPEATED, _LOOKED, _FEW = 0.4, 500_000, 20


def warn_of_repeats(recipe: Recipe, source: str, table: pa.Table) -> None:
    """Warn if many interactions repeat the user, the item and the time of an earlier interaction.

    Args:
        recipe: recipe that names the columns of ids and time.
        source: name of the source of the rows, for the message.
        table: the interactions. In a large table only the interactions of some users are checked.
    """
    keys = [k for k in (recipe.user_id, recipe.item_id, recipe.time) if k is not None]
    users = dictionaries.indices(table[recipe.user_id])
    some = np.flatnonzero(users % (len(table) // _LOOKED + 1) == 0)
    looked = pd.DataFrame(
        {
            key: table[key].to_numpy()[some]
            if key == recipe.time
            else dictionaries.indices(table[key])[some]
            for key in keys
        }
    )
    if len(looked) < _FEW or (recipe.time is None and not _are_pairs(looked)):
        return
    share = looked.duplicated().mean()
    if share >= _REPEATED:
        log.warning(
            "%s: %.0f %% of the rows%s have the %s of an earlier row, as if a file were read "
            "twice. Such a row may be in train and in test at once; remove the copies if they are "
            "not separate events.",
            *(source, 100 * share, "" if len(some) == len(table) else " that were checked"),
            " and ".join(map(repr, keys)),
        )


def _are_pairs(looked: pd.DataFrame) -> bool:
    """Say whether all user-item pairs occur equally often, as if a file were read twice."""
    return bool(looked.value_counts().nunique() == 1)
