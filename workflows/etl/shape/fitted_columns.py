"""Fit derived columns on the training rows: price clusters and frequent values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.core.retriever import Floats
from workflows.derive.cells import narrow
from workflows.derive.fitted import Centres, Frequent, State, States, middles
from workflows.etl.shape.filters import count_values, first_values
from workflows.recipe import PriceCluster, Recipe, TopValues

#: Largest number of rounds of Lloyd's algorithm.
_ROUNDS = 300


@dataclass(frozen=True)
class Numbers:
    """The numbers of a training column of one partition, or a sample of them.

    Attributes:
        total: number of training rows with a number.
        sample: the numbers, or a random sample of them in random order, float64 [n].
    """

    total: int
    sample: Floats


#: What a step learns from in one partition: numbers, or texts with their counts.
Facts = Any


def look(recipe: Recipe, train: pa.Table, *, partition: int | None) -> dict[str, Facts]:
    """Return derived column → what its step learns from in the training rows of one partition.

    Args:
        recipe: recipe with the derive steps.
        train: training rows with the columns that the steps read, in any order.
        partition: number of the partition; None if it has all rows, which are not sampled.
    """
    found: dict[str, Facts] = {}
    for step in recipe.derive:
        if isinstance(step, PriceCluster | TopValues):
            column = narrow(recipe, step, train[step.of])
            if isinstance(step, TopValues):
                found[step.to] = count_values(column)
                continue
            values = column.drop_null().cast(pa.float64()).to_numpy()
            sample = values
            if partition is not None:
                rng = np.random.default_rng([step.seed, partition])
                sample = rng.permutation(np.sort(values))[: step.sample]
            found[step.to] = Numbers(len(values), sample)
    return found


def fit(recipe: Recipe, facts: Sequence[Mapping[str, Facts]], *, older: States) -> States:
    """Fit the recipe's derive steps that learn from data (clusters, frequent values) on train.

    Args:
        recipe: recipe with the derive steps.
        facts: what `look` found in each partition.
        older: fitted states of an earlier run, which are kept unchanged.

    Returns:
        Derived column → its fitted state (clusters or frequent values).
    """
    states: States = {}
    for step in recipe.derive:
        if isinstance(step, PriceCluster | TopValues):
            found = [of[step.to] for of in facts]
            states[step.to] = older.get(step.to) or _fit_step(found, step)
    return states


def _fit_step(facts: Sequence[Facts], step: PriceCluster | TopValues) -> State:
    if isinstance(step, TopValues):
        counts = pa.concat_tables(facts)
        if len(facts) > 1:
            counts = counts.group_by("value").aggregate([("n", "sum")])
            counts = pa.table({"value": counts["value"], "n": counts["n_sum"]})
        return Frequent(first_values(counts, step.n).to_pylist(), step.other)
    rng = np.random.default_rng(step.seed)
    samples = [of for of in facts if isinstance(of, Numbers)]
    total = sum(of.total for of in samples)
    if len(samples) > 1 and total > step.sample:  # each partition gives its share
        values = np.concatenate([of.sample[: step.sample * of.total // total] for of in samples])
    else:
        values = np.sort(np.concatenate([of.sample for of in samples]))
        if total > step.sample:
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
