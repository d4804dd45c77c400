"""Finds the least search effort with which an approximate index reaches a target recall."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from models.core.ann import Index
from models.core.exact import search
from models.core.ivf import IVF_KINDS
from models.core.retriever import Floats, Ragged, TopK


def tune_effort(index: Index, vectors: Floats, *, at: int, recall: float) -> Index:
    """Return the index with the least search effort that reaches a target recall.

    The recall must exceed the target by two standard errors, so that the target is probably reached
    on other queries, too. If the largest effort misses the target, the index with the largest
    effort is returned.

    Args:
        index: the index to tune; its present effort does not matter.
        vectors: the embedding of each query, float32 [n_queries, d].
        at: number of items per query at which the recall is measured.
        recall: target recall against exact search, in (0, 1].
    """
    if index.kind == "flat":
        return replace(index, at=at)
    truth = search(vectors, index.items, at)
    no_exclusions = Ragged.empty(len(vectors))

    def is_enough(effort: int) -> bool:
        # without the exact search of lists that the proposals do not fill: it is slow
        tried = replace(index, effort=effort, at=at)
        found = recalls(tried.search_proposals(vectors, at, exclude=no_exclusions)[0], truth)
        return bool(found.mean() - 2 * found.std() / np.sqrt(len(found)) >= recall)

    # a graph with more candidates than a sixteenth of the items is slower than exact search
    low, high, most = 0, 1, index.faiss.nlist if index.kind in IVF_KINDS else 0
    if index.kind == "hnsw":
        high, most = at, max(at, len(index.items) // 16)
    while high < most and not is_enough(high):
        low, high = high, min(2 * high, most)
    while high - low > max(1, high // 16):  # to a sixteenth is precise enough
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return replace(index, effort=high, at=at)


def recalls(found: TopK, truth: TopK) -> npt.NDArray[np.float64]:
    """Return, for each query, the share of its exact top k that an index found, float64.

    Args:
        found: the top-k lists that the approximate index returned.
        truth: the top-k lists of exact search for the same queries.
    """
    offsets = np.arange(len(truth.items))[:, None] * (truth.items.max(initial=0) + 2)
    among = found.items <= truth.items.max(initial=0)
    hits = np.isin(truth.items + offsets, (found.items + offsets)[among])
    there = truth.items >= 0
    return 1 - (there & ~hits).sum(axis=1) / np.maximum(1, there.sum(axis=1))
