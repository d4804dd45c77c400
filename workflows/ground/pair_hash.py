"""Hash pairs of a user and an item, to put interactions into a random but reproducible order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Constants of splitmix64 (Steele, Lea and Flood 2014, figure 2).
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def pair_hash(
    users: npt.NDArray[np.integer], items: npt.NDArray[np.integer], *, seed: int
) -> npt.NDArray[np.int64]:
    """Return a pseudo-random number for each pair of a user and an item.

    Equal pairs have equal numbers. Rows that are sorted by these numbers are in random order, so
    the last n rows of a user are a random sample of the user's rows.

    Args:
        users: row number of each interaction's user, int [n]; unknown users have numbers below 0.
        items: row number of each interaction's item, int [n]; -1 for an unknown item.
        seed: seed of the hash; different seeds give different numbers for the same pairs.

    Returns:
        The number of each pair, int64 [n], at least 0.
    """
    mixed = _mix(np.full(1, seed, np.uint64))
    for column in (users, items):
        mixed = _mix(mixed ^ column.astype(np.int64).view(np.uint64))
    return (mixed >> np.uint64(1)).astype(np.int64)


def _mix(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    mixed = numbers + np.uint64(_STEP)  # overflow is intended
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_FIRST)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_SECOND)
    return mixed ^ (mixed >> np.uint64(31))
