"""Fit derived columns on the training rows, and apply them: price clusters and frequent values.

The fitted cluster centres and frequent values are written to the etl stage as JSON, from which the
columns can be derived again.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.core.retriever import Floats
from workflows.etl.shape.filters import most_frequent
from workflows.ground.stage_content import read_json
from workflows.raw import dictionaries
from workflows.recipe import PriceCluster, Recipe, TopValues

#: Name of the file in the etl stage that holds the fitted states of derived columns.
FILE = "derived.json"
#: Largest number of rounds of Lloyd's algorithm.
_ROUNDS = 300


class Centres(msgspec.Struct, frozen=True, tag_field="kind", tag="price_cluster"):
    """The fitted clusters of a number column, such as prices: their centres in rising order."""

    centres: list[float]
    digits: int


class Frequent(msgspec.Struct, frozen=True, tag_field="kind", tag="top_values"):
    """The frequent values of a text column, and the text that replaces all other values."""

    values: list[str]
    other: str


State = Centres | Frequent
States = dict[str, State]


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
            states[step.to] = older.get(step.to) or _fit_step(train[step.of], step)
    return states


def apply(column: pa.ChunkedArray, state: State) -> pa.ChunkedArray:
    """Derive a text column by a fitted state: clusters of numbers, or frequent values."""
    if isinstance(state, Frequent):
        return dictionaries.map_distinct(column, lambda texts: _replace_rare(texts, state))
    middles = _middles(np.array(state.centres))
    labels = pa.array(
        [f"{round(c, state.digits) + 0.0:.{state.digits}f}" for c in state.centres], pa.string()
    )
    cells = dictionaries.combine(column)
    places = np.empty(len(cells), np.int32)
    for rows in dictionaries.blocks(len(cells)):
        places[rows] = np.searchsorted(middles, cells[rows].cast(pa.float64()).to_numpy(False))
    empty = np.asarray(cells.is_null()) | (len(labels) == 0)
    return pa.chunked_array([dictionaries.take(labels, pa.array(places, mask=empty))])


def _replace_rare(texts: pa.ChunkedArray, state: Frequent) -> pa.ChunkedArray:
    known = pc.is_in(texts, value_set=pa.array(state.values, pa.string()))
    named = pc.if_else(known, texts, pa.scalar(state.other))
    return pc.if_else(pc.is_valid(texts), named, pa.scalar(None, pa.string()))


def write(states: States, folder: Path) -> None:
    """Write the fitted states of derived columns to derived.json, unless there are none."""
    if states:
        text = msgspec.json.format(msgspec.json.encode(states), indent=2)
        (folder / FILE).write_bytes(text)


def read(folder: Path) -> States:
    """Read the fitted states of derived columns from derived.json; {} if there is no such file.

    Raises:
        ArtifactError: the content of the file is not valid.
    """
    path = folder / FILE
    return read_json(path, States, "etl") if path.exists() else {}


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
        new = np.searchsorted(points, _middles(centres), side="right")
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


def _middles(centres: Floats) -> Floats:
    return (centres[1:] + centres[:-1]) / 2
