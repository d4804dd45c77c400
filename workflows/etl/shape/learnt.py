"""Columns that need the training rows before they can be made: price clusters, frequent values.

What they learn is kept in the stage as JSON, and is all that is needed to make them again.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workflows.etl.shape.filters import most_frequent
from workflows.ground.stage_content import read_json
from workflows.raw import dictionaries
from workflows.recipe import PriceCluster, Recipe, TopValues

FILE = "derived.json"
_ROUNDS = 300

Floats = npt.NDArray[np.float64]


class Centres(msgspec.Struct, frozen=True, tag_field="kind", tag="price_cluster"):
    """The centres of clusters of numbers, rising, and the decimals of their labels."""

    centres: list[float]
    digits: int


class Frequent(msgspec.Struct, frozen=True, tag_field="kind", tag="top_values"):
    """The values that are kept, most frequent first, and the name of all others."""

    values: list[str]
    other: str


State = Centres | Frequent
States = dict[str, State]


def fit(recipe: Recipe, train: pa.Table, *, older: States) -> States:
    """Learn what the recipe's steps need from the training rows.

    Args:
        recipe: its steps.
        train: has the columns that they read; the order of its rows does not matter.
        older: states that are kept as they are.

    Returns:
        Column → its state.
    """
    states: States = {}
    for step in recipe.derive:
        if isinstance(step, PriceCluster):
            states[step.to] = _clusters(train[step.of], step)
        elif isinstance(step, TopValues):
            states[step.to] = _frequent(train[step.of], step)
    return {name: older.get(name, state) for name, state in states.items()}


def made(column: pa.ChunkedArray, state: State) -> pa.ChunkedArray:
    """Return the column that a state makes of another, as text; each cell of one cell."""
    if isinstance(state, Frequent):
        return dictionaries.map_distinct(column, lambda texts: _named(texts, state))
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


def _named(texts: pa.ChunkedArray, state: Frequent) -> pa.ChunkedArray:
    known = pc.is_in(texts, value_set=pa.array(state.values, pa.string()))
    named = pc.if_else(known, texts, pa.scalar(state.other))
    return pc.if_else(pc.is_valid(texts), named, pa.scalar(None, pa.string()))


def write(states: States, folder: Path) -> None:
    """Write derived.json, if there is anything to write."""
    if states:
        text = msgspec.json.format(msgspec.json.encode(states), indent=2)
        (folder / FILE).write_bytes(text)


def read(folder: Path) -> States:
    """Read what `write` wrote.

    Raises:
        ArtifactError: the file holds something else.
    """
    path = folder / FILE
    return read_json(path, States, "etl") if path.exists() else {}


def _frequent(column: pa.ChunkedArray, step: TopValues) -> Frequent:
    return Frequent(most_frequent(column, step.n).to_pylist(), step.other)


def _clusters(column: pa.ChunkedArray, step: PriceCluster) -> Centres:
    values = np.sort(column.drop_null().cast(pa.float64()).to_numpy())
    dice = np.random.default_rng(step.seed)
    if len(values) > step.sample:
        values = dice.choice(values, step.sample, replace=False)
    return Centres(k_means(values, step.k, dice).tolist(), step.digits)


def k_means(values: Floats, k: int, dice: np.random.Generator) -> Floats:
    """Cluster numbers: k-means++ (Arthur and Vassilvitskii 2007), then Lloyd's rounds.

    Sorted numbers make a round cheap: a cluster is a run of them, its mean a difference of two
    running sums.

    Args:
        values: float64 [n].
        k: at most so many centres; fewer distinct values are their own centres.
        dice: draws the first centres.

    Returns:
        The centres, rising, float64 [at most k].
    """
    points, weights = np.unique(values, return_counts=True)
    if len(points) <= k:
        return points
    shift = points.mean()  # running sums of small numbers lose fewer digits
    points = points - shift
    mass = np.concatenate([[0], np.cumsum(weights)])
    moment = np.concatenate([[0], np.cumsum(weights * points)])
    centres = _spread(points, weights, k, dice)
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
    points: Floats, weights: npt.NDArray[np.int64], k: int, dice: np.random.Generator
) -> Floats:
    """Draw k points one after the other, each by its squared distance from those before."""
    chosen = [dice.choice(points, p=weights / weights.sum())]
    distance = (points - chosen[0]) ** 2
    while len(chosen) < k:
        chance = weights * distance
        chosen.append(dice.choice(points, p=chance / chance.sum()))
        distance = np.minimum(distance, (points - chosen[-1]) ** 2)
    return np.sort(np.array(chosen))


def _middles(centres: Floats) -> Floats:
    return (centres[1:] + centres[:-1]) / 2
