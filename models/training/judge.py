"""What judges a model after each epoch of its fit, on the validation part.

A judge measures what evaluation would report: what Merlin prints as `val_recall_at_10` ranks within
a batch; it changes with the batch size and is no retrieval metric (issue models#673).
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
    """Measures models of one kind."""

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the metrics; a fit may keep the best epoch of any of them."""

    def measure(self, model: tf.keras.Model) -> dict[str, float]:
        """Return the metrics of a model.

        Raises:
            BrokenModel: its scores are no numbers.
        """


@dataclass(frozen=True)
class CatalogueJudge:
    """Ranks the whole catalogue for the users of the validation part.

    Attributes:
        evaluation_set: the validation part.
        users: inputs of the query tower, one row a user, the last for unknown users.
        items: inputs of the item tower, one row an item.
        ks: list lengths.
    """

    evaluation_set: EvaluationSet
    users: Columns
    items: Columns
    ks: Sequence[int]

    @property
    def names(self) -> list[str]:
        """Return the names of the metrics, `val_recall@10` and the like."""
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
