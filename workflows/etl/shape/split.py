"""Split interactions into the parts train, valid and test."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

import numpy as np
import numpy.typing as npt

from workflows.etl.shape.time_counts import TimeCounts
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


@dataclass(frozen=True)
class SplitFacts:
    """What the split of all interactions needs to know of the interactions of one partition.

    Attributes:
        rows: number of interactions.
        users: number of users.
        times: how many interactions have each time, for a split by time.
    """

    rows: int
    users: int = 0
    times: TimeCounts | None = None

    @classmethod
    def of(
        cls,
        split: Split,
        *,
        users: npt.NDArray[np.integer],
        times: npt.NDArray[np.int64] | None,
        most: int | None = None,
    ) -> SplitFacts:
        """Return the facts of the interactions of one partition.

        Args:
            split: the rule of the recipe by which interactions are split.
            users: index of each interaction's user, int [n].
            times: time of each interaction in seconds, int64 [n], rising; None if the data has no
                time.
            most: greatest number of different times to keep apart; None for all.
        """
        if isinstance(split, GivenFiles):
            raise TypeError("files of kind given are split already")
        if isinstance(split, GlobalTime):
            assert times is not None, "the recipe requires a time for this split"
            return cls(len(times), times=TimeCounts.of(times, most))
        is_by_user = isinstance(split, ByUser)
        return cls(len(users), len(np.unique(users)) if is_by_user else 0)


@dataclass(frozen=True)
class SplitPlan:
    """How the interactions of each partition are split, so that all together have their shares.

    Attributes:
        split: the rule of the recipe.
        held: number of rows, or of users, of each partition that go to valid and to test.
        cuts: times at which valid and test begin; None for a part without rows.
        vague: spans of time, first second and the second after the last, in which the interactions
            have to be counted again, each time for itself, before the cuts are known.
        why: a sentence about what the rule asks for, for messages.
    """

    split: Split
    held: tuple[tuple[int, int], ...] = ()
    cuts: tuple[int | None, int | None] = (None, None)
    vague: tuple[tuple[int, int], ...] = ()
    why: str = ""

    @property
    def wanted(self) -> list[Part]:
        """The parts that must have interactions."""
        return [p for p in PARTS if p == "train" or getattr(self.split, p) > 0]

    def labels(
        self,
        partition: int,
        *,
        users: npt.NDArray[np.integer],
        times: npt.NDArray[np.int64] | None,
    ) -> Labels:
        """Assign each interaction of a partition to train, valid or test.

        Args:
            partition: number of the partition.
            users: index of each interaction's user, int [n], numbered by first appearance.
                Interactions are in order of time; those of equal times are in the order of the
                file.
            times: time of each interaction in seconds, int64 [n], rising; None if the data has no
                time.

        Returns:
            TRAIN, VALID or TEST for each interaction, int8 [n].
        """
        if isinstance(self.split, GlobalTime):
            assert times is not None
            labels = np.zeros(len(times), np.int8)
            for label, cut in zip((VALID, TEST), self.cuts, strict=True):
                if cut is not None:
                    labels[np.searchsorted(times, cut) :] = label
            return labels
        assert isinstance(self.split, RandomRows | ByUser)
        seed = self.split.seed
        # a partition has numbers of its own; those of a log of one partition never changed
        rng = np.random.default_rng(seed if len(self.held) == 1 else [seed, partition])
        if isinstance(self.split, RandomRows):
            return _hold_out(len(users), self.held[partition], rng)
        names, which = np.unique(users, return_inverse=True)
        return _hold_out(len(names), self.held[partition], rng)[which]


def plan(
    split: Split,
    facts: Sequence[SplitFacts],
    *,
    finer: Sequence[TimeCounts] = (),
) -> SplitPlan:
    """Plan the split of all interactions, from the facts of their partitions.

    Args:
        split: the rule of the recipe, of any kind but given and leave_last.
        facts: the facts of each partition.
        finer: of each partition, the times of the spans that a first plan found `vague`.

    Raises:
        DataError: the interactions have too few times for a split by time.
    """
    assert isinstance(split, GlobalTime | RandomRows | ByUser)
    wanted = [p for p in PARTS if p == "train" or getattr(split, p) > 0]
    if isinstance(split, GlobalTime):
        counts = TimeCounts.merge([of.times for of in facts if of.times is not None])
        return _plan_times(split, counts, TimeCounts.merge(finer) if finer else None, wanted)
    sizes = [of.users if isinstance(split, ByUser) else of.rows for of in facts]
    n = sum(sizes)
    tests = split.test if isinstance(split.test, int) else round(n * split.test)
    n_valid = split.valid if isinstance(split.valid, int) else round(n * split.valid)
    n_test = min(n, tests)
    n_valid = min(n - n_test, n_valid)
    held = zip(_share_out(n_valid, sizes), _share_out(n_test, sizes), strict=True)
    what = "users" if isinstance(split, ByUser) else "rows"
    asked = " and ".join(f"{p} {getattr(split, p):g}" for p in wanted if p != "train")
    return SplitPlan(split, tuple(held), why=f"The split asks for {asked} of {n:,} {what}.")


def _share_out(total: int, sizes: Sequence[int]) -> list[int]:
    """Share out a number of rows among partitions, in proportion to their sizes."""
    ends = np.cumsum(sizes, dtype=object)
    shares, before = [], 0
    for end in ends:
        until = total * int(end) // max(1, int(ends[-1]))
        shares.append(until - before)
        before = until
    return shares


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


@dataclass(frozen=True)
class LastFacts:
    """What a split of kind leave_last found in one partition.

    Attributes:
        users: number of users.
        most: greatest number of interactions of a user.
        cuts: number of pairs of consecutive interactions of a user in different parts.
        ties: number of these pairs whose times are equal.
    """

    users: int
    most: int
    cuts: int
    ties: int


def leave_last(
    split: LeaveLast, users: npt.NDArray[np.integer], times: npt.NDArray[np.int64] | None
) -> tuple[Labels, LastFacts]:
    """Hold out the last interactions of each user, except of users with few interactions.

    Args:
        split: the rule of the recipe.
        users: index of each interaction's user, int [n]. Interactions are in order of time; those
            of equal times are in the order of the file.
        times: time of each interaction in seconds, int64 [n], rising; None if the data has no time.

    Returns:
        TRAIN, VALID or TEST for each interaction, int8 [n]; and what was found.
    """
    order = np.argsort(users, kind="stable")
    _, start, count = np.unique(users[order], return_index=True, return_counts=True)
    from_end = np.repeat(start + count, count) - np.arange(len(users))  # 1 = the user's last row
    held = np.repeat(count > split.valid + split.test, count)
    labels = np.zeros(len(users), np.int8)
    labels[order[held & (from_end <= split.valid + split.test)]] = VALID
    labels[order[held & (from_end <= split.test)]] = TEST
    cuts = ties = 0
    if times is not None:
        is_cut = (users[order][1:] == users[order][:-1]) & (labels[order][1:] > labels[order][:-1])
        is_tie = times[order][1:] == times[order][:-1]
        cuts, ties = int(is_cut.sum()), int((is_cut & is_tie).sum())
    return labels, LastFacts(len(count), int(count.max(initial=0)), cuts, ties)


def check_last(split: LeaveLast, facts: Sequence[LastFacts], rows: int, dropped: str) -> None:
    """Refuse a split of kind leave_last that holds nothing out, and warn if ties decide it.

    If most users' last interactions have equal times, the order of the file decides.

    Args:
        split: the rule of the recipe.
        facts: what was found in each partition.
        rows: number of interactions.
        dropped: a sentence about the rows that were dropped before, for messages.

    Raises:
        DataError: no user has enough interactions.
    """
    most = max(of.most for of in facts)
    if most <= split.valid + split.test:
        n = sum(of.users for of in facts)
        refuse_empty(
            {"train": rows, "valid": 0, "test": 0},
            f"Split leave_last holds {split.valid} + {split.test} rows out of each user who has "
            f"more, and none of {n:,} users has more than {most}; a row is one event of one user. "
            "Splits of kind random and by_user take fewer.",
            dropped,
        )
    cuts, ties = sum(of.cuts for of in facts), sum(of.ties for of in facts)
    if cuts and ties >= _TIED * cuts:
        log.warning(
            "split leave_last: %.0f %% of the rows that are held out first have the time of the "
            "row before them, so that the order of the file decides which come last. Use a column "
            "with finer times, or a split of kind random.",
            100 * ties / cuts,
        )


def _plan_times(
    split: GlobalTime, counts: TimeCounts, finer: TimeCounts | None, wanted: Sequence[Part]
) -> SplitPlan:
    """Plan a split at two times, as near as possible to the shares in the recipe."""
    if finer is not None:
        counts = counts.refine(finer)
    n = int(counts.counts.sum())
    starts = np.cumsum(counts.counts)[:-1]  # rows at which a cut is possible
    ideal = [n * (1 - split.valid - split.test), n * (1 - split.test)]
    if counts.width > 1 and finer is None:
        return SplitPlan(split, vague=_vague(counts, starts, ideal))
    if len(starts) + 1 < len(wanted):
        _refuse_few_times(counts.starts, n, wanted)
    first, second = _cuts(starts, n, ideal, wanted)
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
    valid, test = (
        int(counts.starts[np.searchsorted(starts, row) + 1]) if row < end else None
        for row, end in ((first, second), (second, n))
    )
    return SplitPlan(split, cuts=(valid, test))


def _vague(
    counts: TimeCounts, starts: npt.NDArray[np.int64], ideal: Sequence[float]
) -> tuple[tuple[int, int], ...]:
    """Return the spans of time around the best cuts: those of the rows, and their neighbours."""
    spans = dict[int, None]()
    for row in ideal:
        at = int(np.searchsorted(starts, row))
        spans |= dict.fromkeys(range(max(0, at - 1), min(len(counts.counts), at + 2)))
    numbers = counts.starts // counts.width
    return tuple(
        (int(numbers[at] * counts.width), int((numbers[at] + 1) * counts.width))
        for at in sorted(spans)
    )


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


def _refuse_few_times(different: npt.NDArray[np.int64], n: int, wanted: Sequence[Part]) -> None:
    shown = [f"{datetime.fromtimestamp(int(t), timezone.utc):%F %T} UTC" for t in different]
    if len(different) == 1:
        what = f"All {n:,} rows have the same time, {shown[0]}"
    else:
        what = f"The {n:,} rows have only {len(shown)} times, {' and '.join(shown)}"
    raise DataError(
        f"{what}, so that a split of kind time cannot cut them into {', '.join(wanted)}. Use a "
        "split of kind random (rows), by_user (users) or given (files), or a column with finer "
        "times."
    )


def _hold_out(n: int, held: tuple[int, int], rng: np.random.Generator) -> Labels:
    """Hold out random rows (or users): numbers for valid and for test of n."""
    n_valid, n_test = held
    order = rng.permutation(n)
    labels = np.zeros(n, np.int8)
    labels[order[:n_test]] = TEST
    labels[order[n_test : n_test + n_valid]] = VALID
    return labels
