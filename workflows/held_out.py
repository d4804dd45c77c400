"""Whether what is held out can say anything: seen by nobody who learnt, and free to be found."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.retriever import Interactions
from models.trial import Trial
from workflows.errors import StaleInput
from workflows.prepared import Prepared

log = logging.getLogger(__name__)

#: Hidden targets are told from this share on.
MANY = 0.1
#: A larger share of a held-out part than this is no correction of some rows, but another split.
SOME = 0.01


def refuse_leak(before: Prepared, now: Prepared, earlier: str) -> None:
    """Refuse to begin with weights that were fitted on rows of valid or test.

    Args:
        before: the etl stage that the weights were fitted on.
        now: the one they are to be fitted on.
        earlier: names the run of the former.

    Raises:
        StaleInput: too many held-out rows were rows of train there.
    """
    learnt = _Rows(before.interactions("train"), before).of(now)
    own = _Rows(now.interactions("train"), now).of(now)
    for part in ("valid", "test"):
        held = _Rows(now.interactions(part), now).of(now)
        leaked = int((np.isin(held, learnt) & ~np.isin(held, own)).sum())
        if leaked > SOME * len(held):
            raise StaleInput(
                f"--warm-start {earlier}: {leaked:,} of {len(held):,} rows of {part} were rows of "
                f"train there, so that figures on {part} would be too good. A split of kind "
                f"{now.recipe.split.__struct_config__.tag} does not keep what is held out apart "
                "when the data grows or its settings change. Take split given, time or leave_last, "
                "which hold out the newest rows, or train without --warm-start."
            )


def warn_of_hidden(trial: Trial, part: str) -> None:
    """Warn where many targets may not be shown, because their users had them before.

    Args:
        trial: of the part.
        part: its name.
    """
    hidden, targets = trial.n_hidden(), len(trial.targets.values)
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


class _Rows:
    """Interactions of one stage, as another stage would number them."""

    def __init__(self, rows: Interactions, prepared: Prepared) -> None:
        self._rows = rows
        self._users = prepared.raw_users[prepared.recipe.user_id].slice(0, rows.n_users)
        self._items = prepared.raw_items[prepared.recipe.item_id]

    def of(self, prepared: Prepared) -> npt.NDArray[np.void]:
        """Return one value a row, equal for equal user, item and time, of what both tables know."""
        users = _renumbered(self._users, prepared.raw_users[prepared.recipe.user_id])
        items = _renumbered(self._items, prepared.raw_items[prepared.recipe.item_id])
        rows = self._rows
        known = (rows.users >= 0) & (rows.items >= 0)
        times = np.zeros(len(known), np.int64) if rows.times is None else rows.times
        found = (users[rows.users[known]], items[rows.items[known]], times[known])
        both = (found[0] >= 0) & (found[1] >= 0)
        table = np.ascontiguousarray(np.stack([column[both] for column in found], axis=1))
        return table.view([("", np.int64)] * 3).ravel()


def _renumbered(ids: pa.ChunkedArray, among: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return where ids stand in another table; -1 for those that do not."""
    found = pc.index_in(ids, value_set=among.combine_chunks()).fill_null(-1)
    return found.to_numpy().astype(np.int64)
