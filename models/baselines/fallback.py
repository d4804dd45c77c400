"""What is popular, for those who have no history to go by.

Without it every item ties at 0 for a model that only knows histories, and it would be beaten on new
users by any model that guesses well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.baselines.popularity import Popularity
from models.retriever import NO_ITEM, Bools, Queries, Ragged, Retriever, TopK


@dataclass(frozen=True)
class Fallback:
    """A model by history, and popularity for queries whose history holds no known item.

    Attributes:
        model: fitted.
        popular: fitted.
    """

    model: Retriever
    popular: Popularity

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Rank by one of the two, query by query."""
        histories = queries.histories
        met = np.bincount(histories.owners(), histories.values >= 0, len(histories)) > 0
        top = TopK(
            np.full((len(queries), k), NO_ITEM, np.int64),
            np.full((len(queries), k), -np.inf, np.float32),
        )
        for model, rows in (
            (self.model, np.flatnonzero(met)),
            (self.popular, np.flatnonzero(~met)),
        ):
            if len(rows):
                some = Queries(queries.users[rows], histories.take(rows))
                out = None if exclude is None else exclude.take(rows)
                answer = model.top_k(some, k, exclude=out, candidates=candidates)
                top.items[rows], top.scores[rows] = answer
        return top
