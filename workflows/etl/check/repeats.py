"""Interactions that stand in the log more than once, as where a file is read twice."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pyarrow as pa

from workflows.raw import dictionaries
from workflows.recipe import Recipe

log = logging.getLogger(__name__)

#: A file may be read twice where such a share of rows repeats another; so many rows are looked at,
#: and fewer than so many say nothing.
_REPEATED, _LOOKED, _FEW = 0.4, 500_000, 20


def warn_of_repeats(recipe: Recipe, source: str, table: pa.Table) -> None:
    """Warn of interactions that stand there again, as where a file is read twice.

    Args:
        recipe: which columns are the ids and the time.
        source: of the rows, for the message.
        table: the rows. Of many, those of some users are looked at.
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
            "%s: %.0f %% of the rows%s have the %s of a row before, as where a file is there "
            "twice. Such a row may stand in train and in test at once; remove the copies if they "
            "are no events of their own.",
            *(source, 100 * share, "" if len(some) == len(table) else " looked at"),
            " and ".join(map(repr, keys)),
        )


def _are_pairs(looked: pd.DataFrame) -> bool:
    """Say whether every pair stands there equally often: people do not repeat all they do."""
    return bool(looked.value_counts().nunique() == 1)
