"""Bootstrap intervals of means of per-user metrics, and of differences between two models.

The percentile bootstrap (Efron and Tibshirani 1993, section 13.3) draws users with replacement many
times and computes each time the mean over the drawn users; the interval holds the middle 95 % (or
another share) of these means. Two models are compared by the differences of their metrics for the
same users, so that the spread between users does not widen the interval (Sakai 2006).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.core.retriever import Floats

#: Number of drawn users in memory at a time; with their values they take about 64 MB.
BLOCK_DRAWS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean over users, with its bootstrap interval.

    Attributes:
        mean: mean of the values, not of the resampled means.
        standard_error: the standard error of the mean, s / sqrt(n), where s is the standard
            deviation with n - 1 degrees of freedom.
        low: lower end of the bootstrap interval of the mean.
        high: upper end of the bootstrap interval of the mean.
    """

    mean: float
    standard_error: float
    low: float
    high: float


def bootstrap(
    values: Floats, *, seed: int, n_resamples: int = 1000, level: float = 0.95
) -> list[Interval]:
    """Return the mean of each column of per-user values with its percentile bootstrap interval.

    All columns use the same random draws of users. To compare two models, pass the differences of
    their values user by user: if the interval lies above 0, the first model has the larger mean.

    Args:
        values: one row per user, float [n_users, n_columns], n_users at least 2.
        seed: seed of the random draws; the same seed gives the same intervals.
        n_resamples: number of times that the users are drawn.
        level: share of the resampled means within the interval, between 0 and 1.

    Raises:
        ValueError: there are fewer than two users, a value is not finite, or an option is out of
            range.
    """
    values = np.asarray(values, np.float64)
    n_users = len(values)
    if n_users < 2:
        raise ValueError(
            "An interval needs one value per user, and at least two users. "
            f"Received: shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"{int((~np.isfinite(values)).sum())} of {values.size} values are NaN or infinite."
        )
    if n_resamples < 1 or not 0 < level < 1:
        raise ValueError(
            "n_resamples must be at least 1 and level between 0 and 1. "
            f"Received: n_resamples = {n_resamples}, level = {level}."
        )
    # means of differences from the mean: values that are all equal then give no rounding errors
    means = values.mean(axis=0)
    differences = _resampled_means(values - means, seed, n_resamples)
    low, high = means + np.quantile(differences, [(1 - level) / 2, (1 + level) / 2], axis=0)
    errors = values.std(axis=0, ddof=1) / np.sqrt(n_users)
    columns = zip(means, errors, low, high, strict=True)
    return [Interval(*map(float, column)) for column in columns]


def _resampled_means(values: Floats, seed: int, n_resamples: int) -> Floats:
    """Return means over users drawn with replacement, float64 [n_resamples, n_columns]."""
    rng = np.random.default_rng(seed)
    n_users = len(values)
    step = max(1, BLOCK_DRAWS // n_users)
    means = np.empty((n_resamples, values.shape[1]))
    for start in range(0, n_resamples, step):
        rows = min(step, n_resamples - start)
        users = rng.integers(0, n_users, size=(rows, n_users))
        cells = (users + np.arange(rows)[:, None] * n_users).ravel()
        counts = np.bincount(cells, minlength=rows * n_users).reshape(rows, n_users)
        means[start : start + rows] = counts @ values / n_users
    return means
