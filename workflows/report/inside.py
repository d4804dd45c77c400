"""A look into the trained model: weights of the history, norms, biases, who stands near whom.

Wherever one looks, a working model shows some order: late events weigh more, popular items have
other norms and biases than rare ones, and neighbours are alike in the eyes of those who know them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.stats

from models.core.retriever import Floats, Ints
from models.towers.layers import History
from workflows.report.finished import Finished

#: Points of a cloud: enough to see its form.
MAX_POINTS = 2000
N_KNOWN, N_NEIGHBOURS = 8, 5


@dataclass(frozen=True)
class Neighbours:
    """The items nearest to an item.

    Attributes:
        item: its row.
        items: rows of its neighbours, the nearest first.
        cosines: between their embeddings and its, float [n_neighbours].
    """

    item: int
    items: Ints
    cosines: Floats


@dataclass(frozen=True)
class Cloud:
    """A number of each item beside its popularity.

    Attributes:
        counts: training interactions of some items, int [n].
        values: float [n].
        correlation: Spearman's, over all items met in training; None where one side is constant.
    """

    counts: Ints
    values: Floats
    correlation: float | None


def decays(finished: Finished) -> dict[str, Floats]:
    """Return what each place of a full history weighs, the latest first: input → shares [n].

    Places that no training history was long enough to reach keep their first weight and are left
    out, and so are inputs whose places all weigh the same by the recipe.
    """
    reached = int(finished.user_counts.max()) - 1  # a row's history ends before the row
    by_age = {
        block.column: block.encoder.weights_by_age()
        for block in finished.model.query_encoder.submodules
        if isinstance(block, History)
    }
    weights = {name: w[:reached] for name, w in by_age.items() if w is not None}
    return {name: w / w.sum() for name, w in sorted(weights.items()) if len(w)}


def norms(finished: Finished) -> Cloud | None:
    """Return the lengths of the items' embeddings; None where all are 1 by construction."""
    if finished.recipe.towers.normalize:
        return None
    return _cloud(finished, np.linalg.norm(_directions(finished), axis=1))


def biases(finished: Finished) -> Cloud | None:
    """Return the items' biases, a prior included; None where the model has none."""
    if not finished.recipe.towers.item_bias:
        return None
    return _cloud(finished, finished.tower.vectors[:, -1])


def neighbours(finished: Finished) -> list[Neighbours]:
    """Return the nearest items of the most popular ones, among the items met in training."""
    met = np.flatnonzero(finished.item_counts > 0)
    known = met[np.argsort(-finished.item_counts[met], kind="stable")[:N_KNOWN]]
    vectors = _directions(finished)
    lengths = np.linalg.norm(vectors, axis=1)
    lengths[lengths == 0] = 1  # a zero vector is like no other
    found = []
    for item in known:
        others = met[met != item]
        cosines = vectors[others] @ vectors[item] / (lengths[others] * lengths[item])
        nearest = np.argsort(-cosines, kind="stable")[:N_NEIGHBOURS]
        found.append(Neighbours(int(item), others[nearest], cosines[nearest]))
    return [near for near in found if len(near.items)]


def _directions(finished: Finished) -> Floats:
    """Return the items' embeddings without the dimension of the bias."""
    vectors = finished.tower.vectors
    return vectors[:, :-1] if finished.recipe.towers.item_bias else vectors


def _cloud(finished: Finished, values: Floats) -> Cloud:
    met = np.flatnonzero(finished.item_counts > 0)
    counts, values = finished.item_counts[met], values[met]
    correlation = None
    if np.ptp(counts) > 0 and np.ptp(values) > 0:
        correlation = float(scipy.stats.spearmanr(counts, values)[0])
    some = np.arange(len(met))
    if len(some) > MAX_POINTS:
        rng = np.random.default_rng(finished.recipe.evaluate.seed)
        some = np.sort(rng.choice(len(met), MAX_POINTS, replace=False))
    return Cloud(counts[some], values[some], correlation)
