"""Checks that held-out rows were not used in training, and that lists can contain their items."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.core.evaluation_set import EvaluationSet
from workflows.ground.errors import StaleInput
from workflows.ground.pair_hash import pair_hash
from workflows.stages.etl import Prepared

log = logging.getLogger(__name__)

#: The share of target items excluded from the lists from which on a warning is given.
MANY = 0.1
#: Up to this share of a held-out part, leaked rows are taken for corrections of single rows; a
#: larger share is another split.
SOME = 0.01


def refuse_leak(before: Prepared, now: Prepared, earlier: str) -> None:
    """Refuse a warm start from weights that were fitted on rows of the new valid or test part.

    Args:
        before: the etl stage that the weights were fitted on.
        now: the etl stage that the new fit uses.
        earlier: the name of the run of `before`.

    Raises:
        StaleInput: too many held-out rows were rows of train in `before`.
    """
    timed = bool(before.recipe.time and now.recipe.time)
    learnt = _rows(before, "train", as_of=now, timed=timed)
    own = _rows(now, "train", as_of=now, timed=timed)
    for part in ("valid", "test"):
        held = _rows(now, part, as_of=now, timed=timed)
        leaked = int((np.isin(held, learnt) & ~np.isin(held, own)).sum())
        if leaked > SOME * len(held):
            raise StaleInput(
                f"--warm-start {earlier}: {leaked:,} of {len(held):,} rows of {part} were rows of "
                f"train there, so that figures on {part} would be too good. A split of kind "
                f"{now.recipe.split.__struct_config__.tag} does not keep what is held out apart "
                "when the data grows or its settings change. Take split given, time or leave_last, "
                "which hold out the newest rows, or train without --warm-start."
            )


def warn_of_hidden(evaluation_set: EvaluationSet, part: str) -> None:
    """Warn if many target items cannot be in the lists, because their users have seen them before.

    Args:
        evaluation_set: the queries and target items of the part.
        part: the name of the part, `valid` or `test`.
    """
    hidden, targets = evaluation_set.n_hidden(), len(evaluation_set.targets.values)
    if not targets or hidden < MANY * targets:
        return
    effect = "they are misses for every model"
    if hidden == targets:
        effect = "every figure is 0, and an epoch that is chosen by them is chosen by chance"
    log.warning(
        "%s of %s targets of %s (%.0f %%) are items that their users had before. "
        "`evaluate.exclude_seen: true` leaves such items out of all lists; %s. Set "
        "`evaluate.exclude_seen: false` where users come back to the same items.",
        f"{hidden:,}",
        f"{targets:,}",
        part,
        100 * hidden / targets,
        effect,
    )


def _rows(prepared: Prepared, part: str, *, as_of: Prepared, timed: bool) -> npt.NDArray[np.int64]:
    """Return a hash of user, item and (if `timed`) time of each interaction of a part.

    Users and items are numbered as in the tables of `as_of`. Interactions of users or items that
    are not in these tables are left out.
    """
    rows = prepared.interactions(part)
    rows_of = {}
    for role, key in (("user", prepared.recipe.user_id), ("item", prepared.recipe.item_id)):
        mine = prepared.raw_users if role == "user" else prepared.raw_items
        theirs = as_of.raw_users if role == "user" else as_of.raw_items
        found = rows.users if role == "user" else rows.items
        rows_of[role] = np.where(
            found < 0, -1, _renumbered(mine[key], theirs[key])[np.maximum(found, -1)]
        )
    both = (rows_of["user"] >= 0) & (rows_of["item"] >= 0)
    numbers = pair_hash(rows_of["user"][both], rows_of["item"][both], seed=0)
    if not timed or rows.times is None:
        return numbers
    return pair_hash(numbers, rows.times[both], seed=0)


def _renumbered(ids: pa.ChunkedArray, among: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Map row numbers in one table of ids to row numbers in another; -1 for ids it lacks."""
    found = pc.index_in(ids, value_set=among.combine_chunks()).fill_null(-1)
    return found.to_numpy().astype(np.int64)
