"""Judges measure a model on the validation part after each epoch.

A judge computes the metrics of the evaluation. Merlin's own `val_recall_at_10` ranks only the items
of a batch; it depends on the batch size and is not a retrieval metric (issue models#673).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf

from models.core.columns import Columns
from models.core.evaluation_set import SELECTION_KS, EvaluationSet, selection_score
from models.training.epoch import VAL_MEAN
from models.training.two_tower import TwoTower


class Judge(Protocol):
    """Measures models of one kind on the validation part."""

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the metrics; a fit can keep the best epoch by any of them."""

    def measure(self, model: tf.keras.Model) -> dict[str, float]:
        """Return the metrics of a model.

        Raises:
            BrokenModel: its scores are NaN.
        """


@dataclass(frozen=True)
class CatalogueJudge:
    """Measures a two-tower model by ranking the whole catalogue for each validation user.

    Attributes:
        evaluation_set: the validation part.
        users: inputs of the query tower, one row per user; the last is for unknown users.
        items: inputs of the item tower, one row per item.
        ks: list lengths.
    """

    evaluation_set: EvaluationSet
    users: Columns
    items: Columns
    ks: Sequence[int]

    @property
    def names(self) -> list[str]:
        """Return the names of the metrics, for example `val_recall@10`."""
        kinds = ("recall", "ndcg", "mrr", "map", "hit_rate", "precision")
        return [VAL_MEAN, *(f"val_{kind}@{k}" for k in self.ks for kind in kinds)]

    def measure(self, model: tf.keras.Model) -> dict[str, float]:
        """Return the mean over users of each metric, and the mean of `SELECTION_METRICS`."""
        retriever = TwoTower.of(model, self.users, self.items)
        found = self.evaluation_set.per_user(retriever, sorted({*self.ks, *SELECTION_KS}))
        means = {name: float(values.mean()) for name, values in found.items()}
        return {
            **{f"val_{name}": mean for name, mean in means.items()},
            VAL_MEAN: selection_score(means),
        }
