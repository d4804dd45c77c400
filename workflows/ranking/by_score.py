"""Top-k accuracy as TensorFlow Recommenders 0.6 counts it, reported beside the other metrics.

The metric FactorizedTopK of TensorFlow Recommenders puts the score of a row's target before the
scores of the k best candidates, and checks whether the target is among the first k. So a held-out
row is a hit if its target scores at least as high as the k-th candidate, even if the target is not
a candidate. Items that the user has seen are not excluded.
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
    """For each user, count the held-out rows whose target scores at least as high as the k-th item.

    Args:
        tower: the two-tower model as a retriever.
        evaluation_set: the evaluation set of the held-out rows, with seen items kept.
        rows: the encoded held-out interactions, with the row numbers of their users and items.
        ks: lengths of the recommendation lists.
        embed_items: function that embeds items that are not in the item table, by their columns.

    Returns:
        Name of the metric, such as "accuracy@10" → number of hits of each user, float64 [n_users],
        in the order of the queries.
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
