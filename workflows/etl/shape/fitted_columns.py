"""Fit derived columns on the training rows: price clusters and frequent values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.core.retriever import Floats
from workflows.derive.cells import narrow
from workflows.derive.fitted import Centres, Frequent, State, States, middles
from workflows.etl.shape.filters import most_frequent
from workflows.recipe import PriceCluster, Recipe, TopValues

#: Largest number of rounds of Lloyd's algorithm.
_ROUNDS = 300


def fit(recipe: Recipe, train: pa.Table, *, older: States) -> States:
    """Fit the recipe's derive steps that learn from data (clusters, frequent values) on train.

    Args:
        recipe: recipe with the derive steps.
        train: training rows with the columns that the steps read, in any order.
        older: fitted states of an earlier run, which are kept unchanged.

    Returns:
        Derived column → its fitted state (clusters or frequent values).
    """
    states: States = {}
    for step in recipe.derive:
        if isinstance(step, PriceCluster | TopValues):
            column = narrow(recipe, step, train[step.of])
            states[step.to] = older.get(step.to) or _fit_step(column, step)
    return states


def _fit_step(column: pa.ChunkedArray, step: PriceCluster | TopValues) -> State:
    if isinstance(step, TopValues):
        return Frequent(most_frequent(column, step.n).to_pylist(), step.other)
    values = np.sort(column.drop_null().cast(pa.float64()).to_numpy())
    rng = np.random.default_rng(step.seed)
    if len(values) > step.sample:
        values = rng.choice(values, step.sample, replace=False)
    return Centres(k_means(values, step.k, rng).tolist(), step.digits)


def k_means(values: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Cluster numbers by k-means++ (Arthur and Vassilvitskii 2007) and Lloyd's algorithm.

    The numbers are sorted, so that a round of Lloyd's algorithm is cheap: a cluster is a range of
        sorted numbers, and its mean is computed from two cumulative sums.

    Args:
        values: the numbers to cluster, float64 [n].
        k: largest number of centres; if there are fewer distinct values, these are the centres.
        rng: random generator that draws the first centres.

    Returns:
        The centres of the clusters in rising order, float64 [at most k].
    """
    points, weights = np.unique(values, return_counts=True)
    if len(points) <= k:
        return points
    shift = points.mean()  # cumulative sums of small numbers are more exact
    points = points - shift
    mass = np.concatenate([[0], np.cumsum(weights)])
    moment = np.concatenate([[0], np.cumsum(weights * points)])
    centres = _spread(points, weights, k, rng)
    bounds = np.array([-1])
    for _ in range(_ROUNDS):
        new = np.searchsorted(points, middles(centres), side="right")
        if np.array_equal(new, bounds):
            break
        bounds = new
        edges = np.concatenate([[0], bounds, [len(points)]])
        size = np.diff(mass[edges])
        means = np.diff(moment[edges]) / np.maximum(size, 1)
        centres = np.sort(np.where(size > 0, means, centres))
    return centres + shift


def _spread(
    points: Floats, weights: npt.NDArray[np.int64], k: int, rng: np.random.Generator
) -> Floats:
    """Draw the first k centres of k-means++, by squared distances from the centres drawn before."""
    chosen = [rng.choice(points, p=weights / weights.sum())]
    distance = (points - chosen[0]) ** 2
    while len(chosen) < k:
        chance = weights * distance
        chosen.append(rng.choice(points, p=chance / chance.sum()))
        distance = np.minimum(distance, (points - chosen[-1]) ** 2)
    return np.sort(np.array(chosen))
