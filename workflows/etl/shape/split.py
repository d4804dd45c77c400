"""Which interactions are for training, validation and test."""

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

#: Rows of a held-out part below which its figures are mostly chance.
FEW = 20
#: A share of cuts between rows of one time from which on it is told.
_TIED = 0.5


def assign(
    split: Split,
    *,
    users: npt.NDArray[np.integer],
    times: npt.NDArray[np.int64] | None,
    dropped: str = "",
) -> Labels:
    """Say for each interaction which part it belongs to.

    Args:
        split: the rule.
        users: a number for each interaction's user, int [n], in order of time, ties as in the file.
        times: seconds, int64 [n], rising; None where the data has no time.
        dropped: a sentence on the rows that are not here any more, for messages.

    Returns:
        int8 [n] of TRAIN, VALID, TEST.

    Raises:
        DataError: a part that the rule asks for would be empty; it says why.
    """
    if isinstance(split, GivenFiles):
        raise TypeError("given files are split already")
    if isinstance(split, LeaveLast):
        labels = _leave_last(split, users, dropped)
        if times is not None:
            _tell_of_ties(labels, users, times)
        return labels
    wanted = [p for p in PARTS if p == "train" or getattr(split, p) > 0]
    if isinstance(split, GlobalTime):
        assert times is not None, "the recipe demands a time for this split"
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
    """Raise DataError if a part has no rows.

    Args:
        rows: part → how many it has.
        why: what is known of the cause, as sentences.
    """
    for part, n in rows.items():
        if n == 0:
            counts = ", ".join(f"{p} {m:,}" for p, m in rows.items())
            told = [f"The {part} split is empty ({counts} rows).", *filter(None, why)]
            cure = "Use more data, or another `split:`."
            if not any(rows.values()) and any(why):
                cure = (
                    "Correct what dropped them: a `filter:` or `on_missing: drop`, or the columns."
                )
            raise DataError(" ".join([*told, cure]))


def warn_of_few(rows: Mapping[Part, int]) -> None:
    """Warn of held-out parts whose figures would say little."""
    few = {part: n for part, n in rows.items() if part != "train" and 0 < n < FEW}
    if few:
        told = " and ".join(f"{part} has {n} row{'s' * (n > 1)}" for part, n in few.items())
        log.warning(
            "%s: with fewer than %s the figures of a part are mostly chance. Hold out more rows.",
            told,
            FEW,
        )


def _leave_last(split: LeaveLast, users: npt.NDArray[np.integer], dropped: str) -> Labels:
    """The last rows of each user who keeps at least one row to train on; others train whole."""
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


def _tell_of_ties(
    labels: Labels, users: npt.NDArray[np.integer], times: npt.NDArray[np.int64]
) -> None:
    """Warn where the order of the file, not the time, says which rows of most users come last."""
    order = np.argsort(users, kind="stable")
    is_cut = (users[order][1:] == users[order][:-1]) & (labels[order][1:] > labels[order][:-1])
    is_tie = times[order][1:] == times[order][:-1]
    if is_cut.any() and is_tie[is_cut].mean() >= _TIED:
        log.warning(
            "split leave_last: %.0f %% of the rows that are held out first have the time of the "
            "row before them, so that the order of the file decides which come last. Take a column "
            "that tells times apart, or a split of kind random.",
            100 * is_tie[is_cut].mean(),
        )


def _global_time(split: GlobalTime, times: npt.NDArray[np.int64], wanted: Sequence[Part]) -> Labels:
    """Cut between different times, as near to the asked shares as the times allow."""
    n = len(times)
    starts = np.flatnonzero(np.diff(times)) + 1  # where a later time begins: a cut may lie there
    if len(starts) + 1 < len(wanted):
        _refuse_few_times(times, wanted)
    asked = [n * (1 - split.valid - split.test), n * (1 - split.test)]
    first, second = _cuts(starts, n, asked, wanted)
    labels = np.zeros(n, np.int8)
    labels[first:] = VALID
    labels[second:] = TEST
    for part, size in (("valid", second - first), ("test", n - second)):
        share = getattr(split, part)
        if abs(size / n - share) > share / 2:
            log.warning(
                "split time: %s holds %.1f %% of the rows where %g %% are asked for, because many "
                "rows share a time, and rows of one time stay together",
                part,
                100 * size / n,
                100 * share,
            )
    return labels


def _cuts(
    starts: npt.NDArray[np.int64], n: int, asked: Sequence[float], wanted: Sequence[Part]
) -> tuple[int, int]:
    """Return the first row of valid and that of test: of the best pairs the latest.

    Args:
        starts: rows at which a part may begin, rising.
        n: rows in all.
        asked: where the two would begin if any row might.
        wanted: the parts that must have a row; the others have none.
    """
    if len(wanted) == 1:
        return n, n
    if len(wanted) == 2:  # one cut
        cut = int(starts[_nearest(starts, asked[0])])
        return (cut, cut) if "test" in wanted else (cut, n)
    firsts = np.arange(len(starts) - 1)
    seconds = np.maximum(firsts + 1, _nearest(starts, asked[1]))
    cost = np.abs(starts[firsts] - asked[0]) + np.abs(starts[seconds] - asked[1])
    best = np.flatnonzero(cost == cost.min())[-1]
    return int(starts[firsts[best]]), int(starts[seconds[best]])


def _nearest(starts: npt.NDArray[np.int64], wanted: float) -> int:
    """Return the place of the value nearest to a wanted one, of two the later."""
    distances = np.abs(starts - wanted)
    return int(np.flatnonzero(distances == distances.min())[-1])


def _refuse_few_times(times: npt.NDArray[np.int64], wanted: Sequence[Part]) -> None:
    different = np.unique(times)
    told = [f"{datetime.fromtimestamp(int(t), timezone.utc):%F %T} UTC" for t in different]
    if len(different) == 1:
        what = f"All {len(times):,} rows have the same time, {told[0]}"
    else:
        what = f"The {len(times):,} rows have only {len(told)} times, {' and '.join(told)}"
    raise DataError(
        f"{what}, so that a split of kind time cannot cut them into {', '.join(wanted)}. Take a "
        "split of kind random (rows), by_user (users) or given (files), or a column that tells "
        "times apart."
    )


def _by_share(n: int, valid: float, test: float, seed: int) -> Labels:
    n_test, n_valid = (a if isinstance(a, int) else round(n * a) for a in (test, valid))
    order = np.random.default_rng(seed).permutation(n)
    labels = np.zeros(n, np.int8)
    labels[order[:n_test]] = TEST
    labels[order[n_test : n_test + n_valid]] = VALID
    return labels
