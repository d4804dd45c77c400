"""Interactions that stay in the files of the etl stage until a model needs all of them at once.

Popularity counts interactions, and a report names the time of the last one. Both are read in
blocks. A baseline that learns from pairs of users and items has all rows in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from models.core.retriever import Interactions, Ints
from workflows.stages.etl import Prepared


class StoredInteractions(Interactions):
    """The interactions of some parts of the split, as `Prepared.interactions` returns them.

    Args:
        prepared: the content of the run's etl stage.
        parts: the parts of the split: train, valid or test.
    """

    def __init__(self, prepared: Prepared, parts: Sequence[str]) -> None:
        # the attributes of a frozen dataclass are not assigned
        vars(self).update(
            n_users=prepared.n_users, n_items=prepared.n_items, _prepared=prepared, _parts=parts
        )

    @cached_property
    def _rows(self) -> Interactions:
        prepared: Prepared = vars(self)["_prepared"]
        return prepared.interactions(*vars(self)["_parts"])

    @property
    def users(self) -> Ints:
        """The user of each interaction; all rows are read."""
        return self._rows.users

    @property
    def items(self) -> Ints:
        """The item of each interaction; all rows are read."""
        return self._rows.items

    @property
    def times(self) -> npt.NDArray[np.int64] | None:
        """The time of each interaction; all rows are read."""
        return self._rows.times

    def of_known_users(self) -> Interactions:
        """Return the interactions whose user and item are in the user and item tables."""
        return self._rows.of_known_users()

    def item_counts(self) -> npt.NDArray[np.int64]:
        """Return each item's number of interactions; the rows are read in blocks."""
        return self._totals[0]

    def last_time(self) -> int | None:
        """Return the time of the last interaction; the rows are read in blocks."""
        return self._totals[1]

    @cached_property
    def _totals(self) -> tuple[npt.NDArray[np.int64], int | None]:
        """The number of interactions of each item, and the time of the last interaction."""
        prepared: Prepared = vars(self)["_prepared"]
        counts, lasts = np.zeros(self.n_items, np.int64), []
        for rows in prepared.in_blocks(*vars(self)["_parts"]):
            counts += rows.item_counts()
            lasts.append(rows.last_time())
        return counts, max((last for last in lasts if last is not None), default=None)
