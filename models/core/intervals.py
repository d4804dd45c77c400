"""How sure a mean over users is: bootstrap intervals of per-user metrics and of their differences.

Users are drawn with replacement and the mean is taken again, many times; the interval spans the
middle share of those means (the percentile bootstrap: Efron and Tibshirani 1993, section 13.3).
Two models asked by the same users are compared user by user, which takes the spread between users
out of the comparison (Sakai 2006).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

#: Draws of users held at once; with their values they take about 64 MB.
BLOCK_DRAWS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean over users and the interval that its bootstrap means lie in.

    Attributes:
        mean: the mean of the values themselves, not of the resamples.
        standard_error: s / sqrt(n), s with n - 1 degrees of freedom.
        low: lower end.
        high: upper end.
    """

    mean: float
    standard_error: float
    low: float
    high: float


def bootstrap(
    values: Floats, *, seed: int, n_resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Return the mean of per-user values with its percentile bootstrap interval.

    Args:
        values: one value a user, float [n_users], n_users at least 2.
        seed: the seed of the resamples; the same seed gives the same interval.
        n_resamples: how many times the users are drawn again.
        level: the share of bootstrap means inside the interval, between 0 and 1.

    Raises:
        ValueError: for fewer than two users, values that are not finite, or options out of range.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise ValueError(
            f"An interval needs one value a user and two users. Received: shape {values.shape}."
        )
    return bootstrap_columns(values[:, None], seed=seed, n_resamples=n_resamples, level=level)[0]


def bootstrap_columns(
    values: Floats, *, seed: int, n_resamples: int = 1000, level: float = 0.95
) -> list[Interval]:
    """Return `bootstrap` of each column, all with the same draws: much faster than one by one.

    Args:
        values: float [n_users, n_columns], n_users at least 2.
        seed: the seed of the resamples.
        n_resamples: how many times the users are drawn again.
        level: the share of bootstrap means inside the interval.

    Raises:
        ValueError: as in `bootstrap`.
    """
    values = np.asarray(values, np.float64)
    n_users = len(values)
    if n_users < 2:
        raise ValueError(
            f"An interval needs one value a user and two users. Received: shape {values.shape}."
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
    # around the mean, so that values that are all equal leave nothing to round
    means = values.mean(axis=0)
    off = _resampled_means(values - means, seed, n_resamples)
    low, high = means + np.quantile(off, [(1 - level) / 2, (1 + level) / 2], axis=0)
    errors = values.std(axis=0, ddof=1) / np.sqrt(n_users)
    columns = zip(means, errors, low, high, strict=True)
    return [Interval(*map(float, column)) for column in columns]


def paired_difference(
    a: Floats, b: Floats, *, seed: int, n_resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Return the mean of a - b with its interval, each user drawn with both values.

    An interval above 0 says that `a` is better (for a metric where more is better).

    Args:
        a: one value a user, float [n_users].
        b: the other model's values of the same users in the same order, float [n_users].
        seed: the seed of the resamples.
        n_resamples: how many times the users are drawn again.
        level: the share of bootstrap means inside the interval.

    Raises:
        ValueError: when the shapes differ, and as in `bootstrap`.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"Pairs need the same users. Received: shapes {a.shape} and {b.shape}.")
    return bootstrap(a - b, seed=seed, n_resamples=n_resamples, level=level)


def _resampled_means(values: Floats, seed: int, n_resamples: int) -> Floats:
    """Return the means of users drawn with replacement, float64 [n_resamples, n_columns]."""
    draw = np.random.default_rng(seed)
    n_users = len(values)
    step = max(1, BLOCK_DRAWS // n_users)
    means = np.empty((n_resamples, values.shape[1]))
    for start in range(0, n_resamples, step):
        rows = min(step, n_resamples - start)
        users = draw.integers(0, n_users, size=(rows, n_users))
        cells = (users + np.arange(rows)[:, None] * n_users).ravel()
        times = np.bincount(cells, minlength=rows * n_users).reshape(rows, n_users)
        means[start : start + rows] = times @ values / n_users
    return means
