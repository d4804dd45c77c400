"""A split by time from counts of spans cuts where one from all times cuts."""

from __future__ import annotations

import numpy as np
import pytest

from workflows.etl.shape import split
from workflows.etl.shape.split import SplitFacts
from workflows.etl.shape.time_counts import TimeCounts
from workflows.recipe import GlobalTime


def test_spans_hold_all_times() -> None:
    times = np.sort(np.random.default_rng(3).integers(-5_000, 5_000, 1000))
    found = TimeCounts.of(times, 20)
    assert len(found.starts) <= 20
    assert found.width > 1
    assert found.counts.sum() == 1000
    for start, count in zip(found.starts, found.counts, strict=True):
        assert count == (times // found.width == start // found.width).sum()
        assert start in times
    assert TimeCounts.of(times[:0], 20).counts.sum() == 0


@pytest.mark.parametrize("seed", range(5))
def test_cuts_from_spans_are_those_from_all_times(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.sort((rng.beta(2, 1, 3000) * 1e6).astype(np.int64))
    rule = GlobalTime(valid=0.15, test=0.1)
    none = np.zeros(0, np.int32)
    whole = split.plan(rule, [SplitFacts.of(rule, users=none, times=times)])
    partitions = [np.sort(part) for part in np.array_split(rng.permutation(times), 4)]
    facts = [SplitFacts.of(rule, users=none, times=part, most=50) for part in partitions]
    vague = split.plan(rule, facts)
    assert vague.vague
    finer = [TimeCounts.of(part).within(vague.vague) for part in partitions]
    assert split.plan(rule, facts, finer=finer).cuts == whole.cuts
    assert None not in whole.cuts
