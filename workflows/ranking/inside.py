"""Analyses the evaluated model for the report: history weights, norms, biases, neighbours, users.

Each part of the analysis helps to check a model: recent events should weigh more than old ones,
popular items have other norms and biases than rare ones, and nearest neighbours should be items of
a similar kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.stats

from models.core.evaluation_set import EvaluationSet
from models.core.exact import search
from models.core.retriever import Floats, Ints, Ragged
from models.losses.sampled_loss import SampledLoss
from models.towers.layers import History
from models.training.two_tower import Model, TwoTower
from workflows.ground.column_names import TRAIN_COUNT
from workflows.recipe import Recipe
from workflows.stages.etl import Prepared
from workflows.stages.evaluate import Cloud, Example, Inside, Neighbours

#: Number of items in a scatter plot: enough to see the form of the cloud.
MAX_POINTS = 2000
N_POPULAR, N_NEIGHBOURS = 8, 5
N_USERS, N_LATEST, N_RECOMMENDED = 20, 10, 10


def analyse(
    recipe: Recipe, prepared: Prepared, evaluation_set: EvaluationSet, model: Model, tower: TwoTower
) -> Inside:
    """Analyse the evaluated model: history weights, embedding norms, biases, neighbours, examples.

    Args:
        recipe: the recipe of the run.
        prepared: the content of the run's etl stage.
        evaluation_set: the queries and target items of the test part.
        model: the trained model.
        tower: the trained model as a retriever.
    """
    items = _Items(recipe, prepared.item_counts, tower.vectors)
    return Inside(
        query_inputs=list(model.query_encoder.schema.column_names),
        item_inputs=list(model.candidate_encoder.schema.column_names),
        n_weights=sum(int(weight.shape.num_elements()) for weight in model.trainable_weights),
        loss=next(b.kind for b in model.submodules if isinstance(b, SampledLoss)),
        decays=_decays(model, prepared),
        norms=items.norms(),
        biases=items.biases(),
        neighbours=items.neighbours(),
        examples=_examples(evaluation_set, tower, seed=recipe.evaluate.seed),
    )


def _decays(model: Model, prepared: Prepared) -> dict[str, list[float]]:
    """Return, for each history input, the weights of the positions of a full history, newest first.

    The weights of all positions sum to 1. Positions beyond the longest training history keep their
    initial weight and are left out. History inputs without a decay are left out, too.
    """
    lengths = prepared.raw_users[TRAIN_COUNT].to_numpy()[:-1]  # the last row is the unknown user
    reached = int(lengths.max()) - 1  # a row's history ends before the row
    by_age = {
        block.column: block.encoder.weights_by_position()
        for block in model.query_encoder.submodules
        if isinstance(block, History)
    }
    weights = {name: w[:reached] for name, w in by_age.items() if w is not None}
    return {name: _rounded(w / w.sum()) for name, w in sorted(weights.items()) if len(w)}


@dataclass(frozen=True)
class _Items:
    """The item embeddings of the analysed model, with the popularity of the items.

    Attributes:
        recipe: the recipe of the run.
        counts: number of training interactions of each item, int64 [n_items].
        vectors: item embeddings, float32 [n_items, dim].
    """

    recipe: Recipe
    counts: Ints
    vectors: Floats

    @property
    def in_training(self) -> Ints:
        """Row numbers, in the item table, of the items that occur in training."""
        return np.flatnonzero(self.counts > 0)

    @property
    def vectors_without_bias(self) -> Floats:
        """The item embeddings without the dimension that holds the item bias."""
        return self.vectors[:, :-1] if self.recipe.towers.item_bias else self.vectors

    def norms(self) -> Cloud | None:
        """Return the norms of the item embeddings; None if they are normalised to 1."""
        if self.recipe.towers.normalize:
            return None
        return self._cloud(np.linalg.norm(self.vectors_without_bias, axis=1))

    def biases(self) -> Cloud | None:
        """Return the item biases, including a popularity prior; None if the model has none."""
        return self._cloud(self.vectors[:, -1]) if self.recipe.towers.item_bias else None

    def _cloud(self, values: Floats) -> Cloud:
        counts, values = self.counts[self.in_training], values[self.in_training]
        correlation = None
        if np.ptp(counts) > 0 and np.ptp(values) > 0:
            correlation = float(scipy.stats.spearmanr(counts, values)[0])
        some = np.arange(len(counts))
        if len(some) > MAX_POINTS:
            rng = np.random.default_rng(self.recipe.evaluate.seed)
            some = np.sort(rng.choice(len(counts), MAX_POINTS, replace=False))
        return Cloud(counts[some].tolist(), _rounded(values[some]), correlation)

    def neighbours(self) -> list[Neighbours]:
        """Return the nearest neighbours of the most popular items, among items seen in training."""
        known = self.in_training
        popular = known[np.argsort(-self.counts[known], kind="stable")[:N_POPULAR]]
        lengths = np.linalg.norm(self.vectors_without_bias, axis=1, keepdims=True)
        lengths[lengths == 0] = 1  # a zero vector is like no other
        units = (self.vectors_without_bias / lengths).astype(np.float32)
        themselves = Ragged(popular, np.arange(len(popular) + 1))
        top = search(
            units[popular], units, N_NEIGHBOURS, exclude=themselves, candidates=self.counts > 0
        )
        found = [
            Neighbours(int(item), items[items >= 0].tolist(), _rounded(cosines[items >= 0]))
            for item, items, cosines in zip(popular, top.items, top.scores, strict=True)
        ]
        return [near for near in found if near.items]


def _examples(evaluation_set: EvaluationSet, tower: TwoTower, *, seed: int) -> list[Example]:
    """Return example users: a random one from each of `N_USERS` groups by history length."""
    known = np.flatnonzero(evaluation_set.queries.users >= 0)
    lengths = evaluation_set.queries.histories.lengths
    in_order = known[np.argsort(lengths[known], kind="stable")]
    rng = np.random.default_rng(seed)
    bands = [band for band in np.array_split(in_order, N_USERS) if len(band)]
    chosen = evaluation_set.take(np.array([rng.choice(band) for band in bands], np.int64))
    lists = chosen.top_k(tower, N_RECOMMENDED).items
    return [
        Example(
            user=int(chosen.queries.users[i]),
            n_earlier=len(chosen.queries.histories[i]),
            latest=chosen.queries.histories[i][::-1][:N_LATEST].tolist(),
            recommended=lists[i][lists[i] >= 0].tolist(),
            withheld=chosen.targets[i].tolist(),
        )
        for i in range(len(chosen.queries))
    ]


def _rounded(values: Floats) -> list[float]:
    """Return numbers rounded to the precision of float32, which shortens the JSON file."""
    return [float(f"{value:.6g}") for value in values]
