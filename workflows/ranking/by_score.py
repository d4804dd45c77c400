"""Top-k accuracy as TensorFlow Recommenders 0.6 counts it: beside the headline, never in its place.

Its FactorizedTopK puts the score of a row's own item before the k best candidates' scores and asks
whether it is among the first k. So a row counts as a hit when its item scores at least as much as
the k-th candidate, even if the item is no candidate and nobody can be shown it. Seen items stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.core.columns import ITEM_ROW, USER_ROW, Columns, as_array, take_rows
from models.core.evaluation_set import EvaluationSet, group_by_query
from models.core.retriever import Floats
from models.training.two_tower import TwoTower


def hits_by_score(
    tower: TwoTower,
    evaluation_set: EvaluationSet,
    rows: Columns,
    ks: Sequence[int],
    *,
    embed_items: Callable[[Columns], Floats],
) -> dict[str, Floats]:
    """Return how many rows of each user are hits by their score.

    Args:
        tower: the model.
        evaluation_set: the evaluation set of these rows, with seen items kept.
        rows: the held-out rows as encoded, one item each, with their user and item rows.
        ks: list lengths.
        embed_items: gives the model's embeddings of items that are in no table, from their columns.

    Returns:
        "accuracy@10" and so on: float64 [n_users], in the order of the evaluation set's queries.
    """
    items = as_array(rows[ITEM_ROW])
    contexts = {name: rows[name] for name in evaluation_set.queries.contexts}
    _, users = group_by_query(as_array(rows[USER_ROW]), contexts)
    vectors = tower.vectors[items]
    outside = np.flatnonzero(items < 0)
    if len(outside):
        vectors[outside] = embed_items({n: take_rows(c, outside) for n, c in rows.items()})
    queries = tower.embed(evaluation_set.queries)
    # as models.core.exact: summed in float64, then rounded, so that an item ties with itself
    scores = np.einsum("rd,rd->r", queries[users], vectors, dtype=np.float64).astype(np.float32)
    best = evaluation_set.top_k(tower, max(ks)).scores[users]
    return {
        f"accuracy@{k}": np.bincount(users, scores >= best[:, k - 1]).astype(np.float64) for k in ks
    }
