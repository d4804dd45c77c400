"""Which interactions are for training, validation and test."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from workflows.errors import DataError
from workflows.recipe import ByUser, GivenFiles, GlobalTime, LeaveLast, RandomRows, Split

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")
TRAIN, VALID, TEST = range(3)

Labels = npt.NDArray[np.int8]


def assign(
    split: Split,
    *,
    users: npt.NDArray[np.integer],
    times: npt.NDArray[np.int64] | None,
) -> Labels:
    """Say for each interaction which part it belongs to.

    Args:
        split: the rule.
        users: a number for each interaction's user, int [n], in order of time, ties as in the file.
        times: seconds, int64 [n], rising; None where the data has no time.

    Returns:
        int8 [n] of TRAIN, VALID, TEST.

    Raises:
        DataError: if a part that the rule asks for would be empty.
    """
    if isinstance(split, LeaveLast):
        labels = _leave_last(split, users)
        wanted = PARTS
    elif isinstance(split, GivenFiles):
        raise TypeError("given files are split already")
    else:
        if isinstance(split, GlobalTime):
            assert times is not None, "the recipe demands a time for this split"
            labels = _global_time(split, times)
        elif isinstance(split, RandomRows):
            labels = _by_share(len(users), split.valid, split.test, split.seed)
        elif isinstance(split, ByUser):
            names, which = np.unique(users, return_inverse=True)
            labels = _by_share(len(names), split.valid, split.test, split.seed)[which]
        wanted = tuple(p for p in PARTS if p == "train" or getattr(split, p) > 0)
    refuse_empty({p: int((labels == PARTS.index(p)).sum()) for p in wanted})
    return labels


def refuse_empty(rows: dict[str, int]) -> None:
    """Raise DataError if a part has no rows."""
    for part, n in rows.items():
        if n == 0:
            counts = ", ".join(f"{p} {m}" for p, m in rows.items())
            raise DataError(
                f"The {part} split is empty ({counts} rows after filtering). Use more data, "
                "another `split:`, or a weaker `filter:`."
            )


def _leave_last(split: LeaveLast, users: npt.NDArray[np.integer]) -> Labels:
    """The last rows of each user who keeps at least one row to train on; others train whole."""
    order = np.argsort(users, kind="stable")
    _, start, count = np.unique(users[order], return_index=True, return_counts=True)
    from_end = np.repeat(start + count, count) - np.arange(len(users))  # 1 = the user's last row
    held = np.repeat(count > split.valid + split.test, count)
    labels = np.zeros(len(users), np.int8)
    labels[order[held & (from_end <= split.valid + split.test)]] = VALID
    labels[order[held & (from_end <= split.test)]] = TEST
    return labels


def _global_time(split: GlobalTime, times: npt.NDArray[np.int64]) -> Labels:
    first, second = np.quantile(times, [1 - split.valid - split.test, 1 - split.test])
    return ((times > first).astype(np.int8) + (times > second)).astype(np.int8)


def _by_share(n: int, valid: float, test: float, seed: int) -> Labels:
    n_test, n_valid = (a if isinstance(a, int) else round(n * a) for a in (test, valid))
    order = np.random.default_rng(seed).permutation(n)
    labels = np.zeros(n, np.int8)
    labels[order[:n_test]] = TEST
    labels[order[n_test : n_test + n_valid]] = VALID
    return labels
