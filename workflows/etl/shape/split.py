"""Split interactions into the parts train, valid and test."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Literal

import numpy as np
import numpy.typing as npt

from workflows.ground.errors import DataError
from workflows.recipe import ByUser, GivenFiles, GlobalTime, LeaveLast, RandomRows, Split

log = logging.getLogger(__name__)

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")
TRAIN, VALID, TEST = range(3)

Labels = npt.NDArray[np.int8]

#: A warning is logged if valid or test has fewer interactions, because its metrics are mostly
#: chance.
FEW = 20
#: If at least this share of the cuts lies between rows of equal times, a warning is logged.
_TIED = 0.5


def assign(
    split: Split,
    *,
    users: npt.NDArray[np.integer],
    times: npt.NDArray[np.int64] | None,
    dropped: str = "",
) -> Labels:
    """Assign each interaction to train, valid or test.

    Args:
        split: the rule of the recipe by which interactions are split.
        users: index of each interaction's user, int [n]. Interactions are in order of time; those
            of equal times are in the order of the file.
        times: time of each interaction in seconds, int64 [n], rising; None if the data has no time.
        dropped: a sentence about the rows that were dropped before, for messages.

    Returns:
        TRAIN, VALID or TEST for each interaction, int8 [n].

    Raises:
        DataError: train, valid or test would be empty although the rule asks for it.
    """
    if isinstance(split, GivenFiles):
        raise TypeError("files of kind given are split already")
    if isinstance(split, LeaveLast):
        labels = _leave_last(split, users, dropped)
        if times is not None:
            _warn_of_ties(labels, users, times)
        return labels
    wanted = [p for p in PARTS if p == "train" or getattr(split, p) > 0]
    if isinstance(split, GlobalTime):
        assert times is not None, "the recipe requires a time for this split"
        return _global_time(split, times, wanted)
    if isinstance(split, RandomRows):
        labels = _by_share(len(users), split.valid, split.test, split.seed)
    else:
        names, which = np.unique(users, return_inverse=True)
        labels = _by_share(len(names), split.valid, split.test, split.seed)[which]
    what = "users" if isinstance(split, ByUser) else "rows"
    n = len(np.unique(users)) if isinstance(split, ByUser) else len(users)
    rows = {p: int((labels == PARTS.index(p)).sum()) for p in wanted}
    asked = " and ".join(f"{p} {getattr(split, p):g}" for p in wanted if p != "train")
    refuse_empty(rows, f"The split asks for {asked} of {n:,} {what}.", dropped)
    return labels


def refuse_empty(rows: Mapping[Part, int], *why: str) -> None:
    """Raise DataError if train, valid or test has no interactions.

    Args:
        rows: train, valid, test → number of its interactions.
        why: sentences about the cause of the empty split.
    """
    for part, n in rows.items():
        if n == 0:
            counts = ", ".join(f"{p} {m:,}" for p, m in rows.items())
            fault = [f"The {part} split is empty ({counts} rows).", *filter(None, why)]
            remedy = "Use more data, or another `split:`."
            if not any(rows.values()) and any(why):
                remedy = (
                    "Correct the `filter:` or `on_missing: drop` that dropped them, or the data."
                )
            raise DataError(" ".join([*fault, remedy]))


def warn_of_few(rows: Mapping[Part, int]) -> None:
    """Warn if valid or test has too few interactions for meaningful metrics."""
    few = {part: n for part, n in rows.items() if part != "train" and 0 < n < FEW}
    if few:
        sizes = " and ".join(f"{part} has {n} row{'s' * (n > 1)}" for part, n in few.items())
        log.warning(
            "%s: with fewer than %s the figures of a part are mostly chance. Hold out more rows.",
            sizes,
            FEW,
        )


def _leave_last(split: LeaveLast, users: npt.NDArray[np.integer], dropped: str) -> Labels:
    """Hold out the last interactions of each user, except of users with few interactions."""
    order = np.argsort(users, kind="stable")
    _, start, count = np.unique(users[order], return_index=True, return_counts=True)
    from_end = np.repeat(start + count, count) - np.arange(len(users))  # 1 = the user's last row
    enough = count > split.valid + split.test
    if not enough.any():
        refuse_empty(
            {"train": len(users), "valid": 0, "test": 0},
            f"Split leave_last holds {split.valid} + {split.test} rows out of each user who has "
            f"more, and none of {len(count):,} users has more than {int(count.max(initial=0))}; a "
            "row is one event of one user. Splits of kind random and by_user take fewer.",
            dropped,
        )
    held = np.repeat(enough, count)
    labels = np.zeros(len(users), np.int8)
    labels[order[held & (from_end <= split.valid + split.test)]] = VALID
    labels[order[held & (from_end <= split.test)]] = TEST
    return labels


def _warn_of_ties(
    labels: Labels, users: npt.NDArray[np.integer], times: npt.NDArray[np.int64]
) -> None:
    """Warn if most users' last interactions have equal times, so that the file's order decides."""
    order = np.argsort(users, kind="stable")
    is_cut = (users[order][1:] == users[order][:-1]) & (labels[order][1:] > labels[order][:-1])
    is_tie = times[order][1:] == times[order][:-1]
    if is_cut.any() and is_tie[is_cut].mean() >= _TIED:
        log.warning(
            "split leave_last: %.0f %% of the rows that are held out first have the time of the "
            "row before them, so that the order of the file decides which come last. Use a column "
            "with finer times, or a split of kind random.",
            100 * is_tie[is_cut].mean(),
        )


def _global_time(split: GlobalTime, times: npt.NDArray[np.int64], wanted: Sequence[Part]) -> Labels:
    """Split interactions at two times, as near as possible to the shares in the recipe."""
    n = len(times)
    starts = np.flatnonzero(np.diff(times)) + 1  # rows at which a cut is possible
    if len(starts) + 1 < len(wanted):
        _refuse_few_times(times, wanted)
    ideal = [n * (1 - split.valid - split.test), n * (1 - split.test)]
    first, second = _cuts(starts, n, ideal, wanted)
    labels = np.zeros(n, np.int8)
    labels[first:] = VALID
    labels[second:] = TEST
    for part, size in (("valid", second - first), ("test", n - second)):
        share = getattr(split, part)
        if abs(size / n - share) > share / 2:
            log.warning(
                "split time: %s holds %.1f %% of the rows, although the recipe asks for %g %%, "
                "because many rows share a time, and rows of one time stay together",
                part,
                100 * size / n,
                100 * share,
            )
    return labels


def _cuts(
    starts: npt.NDArray[np.int64], n: int, ideal: Sequence[float], wanted: Sequence[Part]
) -> tuple[int, int]:
    """Return the row numbers at which valid and test begin in interactions sorted by time.

    Args:
        starts: row numbers at which valid or test can begin, in rising order.
        n: number of interactions.
        ideal: row numbers at which valid and test would begin by the shares in the recipe.
        wanted: the parts (train, valid, test) that must have rows; other parts get none.
    """
    if len(wanted) == 1:
        return n, n
    if len(wanted) == 2:  # one cut
        cut = int(starts[_nearest(starts, ideal[0])])
        return (cut, cut) if "test" in wanted else (cut, n)
    firsts = np.arange(len(starts) - 1)
    seconds = np.maximum(firsts + 1, _nearest(starts, ideal[1]))
    cost = np.abs(starts[firsts] - ideal[0]) + np.abs(starts[seconds] - ideal[1])
    best = np.flatnonzero(cost == cost.min())[-1]
    return int(starts[firsts[best]]), int(starts[seconds[best]])


def _nearest(starts: npt.NDArray[np.int64], wanted: float) -> int:
    """Return the position, in `starts`, of the number nearest to `wanted`; the later one of two."""
    distances = np.abs(starts - wanted)
    return int(np.flatnonzero(distances == distances.min())[-1])


def _refuse_few_times(times: npt.NDArray[np.int64], wanted: Sequence[Part]) -> None:
    different = np.unique(times)
    shown = [f"{datetime.fromtimestamp(int(t), timezone.utc):%F %T} UTC" for t in different]
    if len(different) == 1:
        what = f"All {len(times):,} rows have the same time, {shown[0]}"
    else:
        what = f"The {len(times):,} rows have only {len(shown)} times, {' and '.join(shown)}"
    raise DataError(
        f"{what}, so that a split of kind time cannot cut them into {', '.join(wanted)}. Use a "
        "split of kind random (rows), by_user (users) or given (files), or a column with finer "
        "times."
    )


def _by_share(n: int, valid: float, test: float, seed: int) -> Labels:
    n_test, n_valid = (a if isinstance(a, int) else round(n * a) for a in (test, valid))
    order = np.random.default_rng(seed).permutation(n)
    labels = np.zeros(n, np.int8)
    labels[order[:n_test]] = TEST
    labels[order[n_test : n_test + n_valid]] = VALID
    return labels
