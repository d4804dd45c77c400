"""Draws a random sample of users, on whom models are measured where all users would take too long.

The evaluation on the test part (`evaluate.max_users`) and the validation of a fit draw their users
with the same function, so that the same seed and the same users give the same sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # recipes import this module, and need no SciPy
    from models.core.retriever import Ints


class SampledRows(NamedTuple):
    """The interactions of the users who are in a random sample.

    Attributes:
        rows: row numbers of the interactions of the drawn users, rising, int64.
        sampled_from: number of distinct users among whom the sample was drawn; None if all of them
            are in the sample.
    """

    rows: npt.NDArray[np.int64]
    sampled_from: int | None


@dataclass(frozen=True)
class UserSample:
    """A random sample of users without replacement; all users have the same chance.

    Attributes:
        max_users: the largest number of users of the sample; None for all users.
        seed: seed of the random draw.
    """

    max_users: int | None = None
    seed: int = 1

    def draw(self, n_users: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the drawn users among `n_users` users, rising, int64."""
        if self.max_users is None or n_users <= self.max_users:
            return np.arange(n_users)
        rng = np.random.default_rng(self.seed)
        return np.sort(rng.choice(n_users, self.max_users, replace=False))

    def rows_of(self, users: Ints) -> SampledRows:
        """Draw some of the users of interactions, and return the interactions of the drawn users.

        Args:
            users: the user of each interaction, int [n]; equal numbers are the same user, and a
                negative number is a user, too.
        """
        if self.max_users is None:
            return SampledRows(np.arange(len(users)), None)
        distinct, which = np.unique(users, return_inverse=True)
        if len(distinct) <= self.max_users:
            return SampledRows(np.arange(len(users)), None)
        is_drawn = np.zeros(len(distinct), bool)
        is_drawn[self.draw(len(distinct))] = True
        return SampledRows(np.flatnonzero(is_drawn[which]), len(distinct))


#: The sample that holds all users.
ALL_USERS = UserSample()
