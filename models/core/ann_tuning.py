"""The least effort with which an approximate index finds enough, chosen on queries of its users."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from models.core.ann import Index
from models.core.exact import search
from models.core.retriever import Floats, Ragged, TopK


def tuned(index: Index, vectors: Floats, *, at: int, recall: float) -> Index:
    """Return the index with the least effort that finds enough of the `at` best items.

    Enough is the target with two standard errors to spare, so that other queries reach it too; if
    no effort is enough, the largest is taken.

    Args:
        index: the index of any effort.
        vectors: the vectors of queries, float32 [n_queries, d].
        at: list length.
        recall: the target, in (0, 1].
    """
    if index.kind == "flat":
        return replace(index, at=at)
    truth = search(vectors, index.items, at)
    nothing = Ragged.empty(len(vectors))

    def enough(effort: int) -> bool:
        # without the exact search that stands in where too little is proposed: it is slow
        tried = replace(index, effort=effort, at=at)
        found = recalls(tried.proposed(vectors, at, exclude=nothing)[0], truth)
        return bool(found.mean() - 2 * found.std() / np.sqrt(len(found)) >= recall)

    # beyond a sixteenth of the items a graph is slower than the exact search
    low, high, most = 0, 1, index.faiss.nlist if index.kind == "ivf" else 0
    if index.kind == "hnsw":
        high, most = at, max(at, len(index.items) // 16)
    while high < most and not enough(high):
        low, high = high, min(2 * high, most)
    while high - low > max(1, high // 16):  # a sixteenth more effort than needed does not matter
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return replace(index, effort=high, at=at)


def recalls(found: TopK, truth: TopK) -> npt.NDArray[np.float64]:
    """Return the share of each query's best items that were found, [n_queries].

    Args:
        found: by an index.
        truth: what an exact search finds.
    """
    offsets = np.arange(len(truth.items))[:, None] * (truth.items.max(initial=0) + 2)
    among = found.items <= truth.items.max(initial=0)
    hits = np.isin(truth.items + offsets, (found.items + offsets)[among])
    there = truth.items >= 0
    return 1 - (there & ~hits).sum(axis=1) / np.maximum(1, there.sum(axis=1))
