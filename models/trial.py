"""One protocol for every figure: who asks, what counts as a hit, and what may not be returned.

Training validates, and evaluate compares, by the same trial, so that a figure printed while fitting
is the figure of the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import metrics
from models.config import EvaluateConfig
from models.retriever import Interactions, Ints, Queries, Ragged, Retriever, TopK

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trial:
    """Queries of the users of a held-out part, with their targets.

    Attributes:
        queries: one a user; histories are what he did before the part.
        targets: item rows of the part, one list a query; -1 is an item of no table: always a miss.
        exclude: item rows that may not be returned; None where seen items may.
        candidates: item rows that may be returned, bool [n_items].
        warm: which queries' users have training interactions, bool [n_queries].
    """

    queries: Queries
    targets: Ragged
    exclude: Ragged | None
    candidates: Bools
    warm: Bools

    def ask(self, retriever: Retriever, k: int) -> TopK:
        """Return a retriever's lists of length k under this trial's rules."""
        return retriever.top_k(self.queries, k, exclude=self.exclude, candidates=self.candidates)

    def per_user(self, retriever: Retriever, ks: Sequence[int]) -> dict[str, npt.NDArray]:
        """Return every metric of every user, float64 [n_queries] by name."""
        return metrics.per_user(self.ask(retriever, max(ks)).items, self.targets, ks)


def trial(
    users: Ints,
    items: Ints,
    *,
    history: Interactions,
    item_counts: npt.NDArray[np.integer],
    config: EvaluateConfig,
) -> Trial:
    """Gather the rows of a held-out part into one query a user.

    Args:
        users: user row of each held-out interaction, int [n]; negative: of no table, equal numbers
            being the same person.
        items: item row of each, int [n]; -1: of no table.
        history: all interactions before the part; its user rows may be negative in the same way.
        item_counts: training interactions of each item, int [n_items].
        config: the protocol.
    """
    persons, which = np.unique(users, return_inverse=True)
    queries = Queries(np.maximum(persons, -1), _histories(history, persons))
    targets = Ragged.from_pairs(which, items, n_lists=len(persons))
    everything = np.ones(history.n_items, bool)
    return Trial(
        queries=queries,
        targets=targets,
        exclude=queries.histories if config.exclude_seen else None,
        candidates=item_counts > 0 if config.candidates == "train" else everything,
        warm=queries.histories.lengths > 0,
    )


def _histories(history: Interactions, persons: Ints) -> Ragged:
    """Return what each person did, oldest first; items of no table are left out."""
    place = np.searchsorted(persons, history.users)
    place = np.minimum(place, len(persons) - 1)
    mine = (persons[place] == history.users) & (history.items >= 0)
    return Ragged.from_pairs(place[mine], history.items[mine], n_lists=len(persons))
