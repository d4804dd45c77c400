"""Judges compute the metrics of a model on the validation part after each training epoch.

A judge's metrics have the same definitions as those of the evaluation report. Merlin's own
`val_recall_at_10` ranks only the items of a batch, depends on the batch size, and is therefore not
a retrieval metric (issue 673 of NVIDIA-Merlin/models).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from models.core.collectives import ALONE, Collectives
from models.core.columns import Columns
from models.core.evaluation_set import SELECTION_KS, EvaluationSet, selection_score
from models.core.metrics import METRICS
from models.core.retriever import Floats
from models.training.epoch import VAL_MEAN
from models.training.two_tower import TwoTower


class Judge(Protocol):
    """The protocol of judges, which compute a model's metrics on the validation part."""

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the validation metrics, any of which may choose the best epoch."""

    def measure(self, model: tf.keras.Model) -> dict[str, float]:
        """Return the validation metrics of a model by their names.

        Raises:
            BrokenModel: the model gives scores that are NaN.
        """


@dataclass(frozen=True)
class CatalogueJudge:
    """Measures a two-tower model by ranking the whole catalogue for each validation user.

    Attributes:
        evaluation_set: the queries and target items of the validation part.
        users: input columns of the query tower, one row per user; the last row is for unknown
            users.
        items: input columns of the item tower, one row per item of the catalogue.
        ks: the lengths k of the top-k lists that are measured.
        collectives: the exchange between the processes of the training, each of which ranks items
            for a part of the users.
    """

    evaluation_set: EvaluationSet
    users: Columns
    items: Columns
    ks: Sequence[int]
    collectives: Collectives = ALONE

    @property
    def names(self) -> list[str]:
        """Return the names of the validation metrics, for example `val_recall@10`."""
        return [VAL_MEAN, *(f"val_{name}@{k}" for k in self.ks for name in METRICS)]

    def measure(self, model: tf.keras.Model) -> dict[str, float]:
        """Return each ranking metric's mean over users, and the mean of `SELECTION_METRICS`."""
        retriever = TwoTower.of(model, self.users, self.items)
        found = self._per_user(retriever, sorted({*self.ks, *SELECTION_KS}))
        means = {name: float(values.mean()) for name, values in found.items()}
        return {
            **{f"val_{name}": mean for name, mean in means.items()},
            VAL_MEAN: selection_score(means),
        }

    def _per_user(self, retriever: TwoTower, ks: Sequence[int]) -> dict[str, Floats]:
        """Return each metric's values for all users; each process computes those of its part.

        The processes exchange the values of users, not sums, so that means are exactly those of a
        training by one process.
        """
        share, n = self.collectives.share, len(self.evaluation_set.queries)
        if n < share.size or share.size == 1:
            return self.evaluation_set.per_user(retriever, ks)
        mine = self.evaluation_set.take(np.arange(n)[share.of(n)])
        found = mine.per_user(retriever, ks)
        values = self.collectives.collect(np.stack(list(found.values()), axis=1))
        columns = np.ascontiguousarray(values.T)
        return dict(zip(found, columns, strict=True))
