from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from models.core import intervals
from models.core.intervals import Interval


def bootstrap(values: np.ndarray, **options: Any) -> Interval:
    """Return the interval of one column."""
    (interval,) = intervals.bootstrap(values[:, None], **options)
    return interval


Z95 = 1.959964  # the normal's 97.5 % point


def test_mean_and_standard_error_are_those_of_the_values():
    got = bootstrap(np.array([1.0, 2.0, 3.0, 6.0]), seed=0)
    assert got.mean == 3.0
    # deviations -2, -1, 0, 3: 14 over n - 1 = 3, over n = 4
    assert got.standard_error == pytest.approx(math.sqrt(14 / 3 / 4))
    assert got.low <= got.mean <= got.high


def test_the_interval_is_the_normal_one_for_many_users():
    values = np.random.default_rng(0).exponential(size=2000)
    got = bootstrap(values, seed=1, n_resamples=4000)
    assert got.low == pytest.approx(got.mean - Z95 * got.standard_error, abs=0.004)
    assert got.high == pytest.approx(got.mean + Z95 * got.standard_error, abs=0.004)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_the_interval_covers_the_truth_as_often_as_it_says(level):
    draw = np.random.default_rng(7)
    trials = 400
    covered = 0
    for seed in range(trials):
        got = bootstrap(draw.normal(2.0, 1.0, size=100), seed=seed, n_resamples=300, level=level)
        covered += got.low <= 2.0 <= got.high
    # three standard errors of the share of 400 trials, and .01 for the percentile interval's own
    # narrowness at n = 100
    assert covered / trials == pytest.approx(
        level, abs=3 * math.sqrt(level * (1 - level) / trials) + 0.01
    )


def test_as_many_users_are_drawn_as_there_are():
    # two draws of 0 or 1 have the mean 1/2 half of the time; a single draw never has
    got = bootstrap(np.array([0.0, 1.0]), seed=0, level=0.4)
    assert (got.low, got.high) == (0.5, 0.5)


def test_a_higher_level_is_wider_and_more_users_are_narrower():
    values = np.random.default_rng(0).normal(size=400)
    narrow, wide = (bootstrap(values, seed=0, level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    few = bootstrap(values[:100], seed=0)
    many = bootstrap(values, seed=0)
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(
        2, abs=0.4
    )  # sqrt(400 / 100)


def test_the_seed_decides_alone(monkeypatch):
    values = np.random.default_rng(0).random(50)
    first = bootstrap(values, seed=5)
    np.random.default_rng(1).random(1000)
    assert bootstrap(values, seed=5) == first
    assert bootstrap(values, seed=6) != first
    for draws in (1, 51, 50 * 7):  # one resample at a time, and a last block that is not full
        monkeypatch.setattr(intervals, "BLOCK_DRAWS", draws)
        assert bootstrap(values, seed=5) == first


def test_columns_have_the_same_draws_as_a_single_column():
    values = np.random.default_rng(3).random((70, 3)) ** [1, 2, 5]
    together = intervals.bootstrap(values, seed=4, n_resamples=300, level=0.9)
    for column, got in zip(values.T, together, strict=True):
        alone = bootstrap(column, seed=4, n_resamples=300, level=0.9)
        assert (got.mean, got.low, got.high) == pytest.approx((alone.mean, alone.low, alone.high))
        # against the definition: users drawn again, the mean taken again
        draw = np.random.default_rng(4).integers(0, 70, size=(300, 70))
        low, high = np.quantile(column[draw].mean(axis=1), [0.05, 0.95])
        assert (got.low, got.high) == pytest.approx((low, high))


def test_values_that_are_all_equal_leave_no_doubt():
    assert bootstrap(np.full(10, 0.25), seed=0) == Interval(0.25, 0.0, 0.25, 0.25)


def test_pairs_see_a_difference_that_two_intervals_hide():
    draw = np.random.default_rng(0)
    users = draw.normal(0, 1, size=300)  # users differ much, the models little
    a, b = users + draw.normal(0.05, 0.1, size=300), users + draw.normal(0, 0.1, size=300)
    of_a, of_b = bootstrap(a, seed=0), bootstrap(b, seed=0)
    assert of_a.low < of_b.high  # the separate intervals overlap
    got = bootstrap(a - b, seed=0)
    assert 0 < got.low < got.mean == pytest.approx(of_a.mean - of_b.mean)


def test_no_difference_is_not_found():
    draw = np.random.default_rng(1)
    users = draw.normal(size=300)
    a, b = users + draw.normal(0, 0.1, 300), users + draw.normal(0, 0.1, 300)
    got = bootstrap(a - b, seed=0)
    assert got.low < 0 < got.high


def test_metrics_of_hits_may_be_given_as_booleans_or_integers():
    assert bootstrap(np.array([True, False, True]), seed=0) == bootstrap(
        np.array([1.0, 0, 1]), seed=0
    )


@pytest.mark.parametrize("values", [[], [0.5], [[0.5, 0.5]]])
def test_fewer_than_two_users_are_refused(values):
    with pytest.raises(ValueError, match="one value per user, and at least two users"):
        bootstrap(np.array(values), seed=0)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="2 of 3 values are NaN or infinite"):
        bootstrap(np.array([0.5, np.nan, np.inf]), seed=0)


@pytest.mark.parametrize(("n_resamples", "level"), [(0, 0.95), (10, 0.0), (10, 1.0), (10, 95.0)])
def test_options_out_of_range_are_refused(n_resamples, level):
    with pytest.raises(ValueError, match=f"n_resamples = {n_resamples}, level = {level}"):
        bootstrap(np.array([0.0, 1.0]), seed=0, n_resamples=n_resamples, level=level)
