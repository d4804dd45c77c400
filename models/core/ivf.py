"""Builds inverted files of FAISS: cells of similar items, whose vectors are whole or quantised.

An inverted file (Jégou et al. 2011) searches only the cells whose centres are nearest to a query.
Its cells hold the vectors as they are (`ivf`), with one byte for each dimension (`ivf_sq`, scalar
quantisation), or with one byte for several dimensions (`ivf_pq`, product quantisation). Scores of
quantised vectors are not exact, so an index with them proposes more items, of which the best are
found by their exact scores.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from models.core.retriever import Floats

#: The kinds of inverted files.
IvfKind = Literal["ivf", "ivf_sq", "ivf_pq"]
IVF_KINDS: tuple[IvfKind, ...] = get_args(IvfKind)
#: How many times as many items as a list needs are proposed, because scores are not exact.
PROPOSED: dict[str, int] = {"ivf_sq": 2, "ivf_pq": 8}
#: The smallest number of items from which the codes of `ivf_pq` can be learnt, and the number from
#: which they are learnt at least if there are so many items.
LEAST_FOR_PQ, _WANTED_FOR_PQ = 256, 40 * 256

#: The number of cells is this many times the square root of the number of items.
_CELLS_PER_ROOT = 4
#: Number of vectors for each cell from which the centres of cells are learnt; FAISS requires at
#: least 39.
_MAX_VECTORS_PER_CELL, _MIN_VECTORS_PER_CELL = 40, 39
#: FAISS gets a sample of more items than this to learn from, and draws among fewer itself.
_MANY = 1 << 20


class TooFewItems(ValueError):
    """There are too few items to learn the codes of a quantised index from."""


def empty_index(faiss: Any, items: Floats, kind: IvfKind, seed: int) -> Any:
    """Return an inverted file without items; its cells and codes are learnt from some of the items.

    Args:
        faiss: the module of FAISS.
        items: the embedding of each item of the catalogue, float32 [n_items, d].
        kind: the kind of the inverted file.
        seed: seed of the random choice of the cell centres.

    Raises:
        TooFewItems: the kind is `ivf_pq`, and there are less than `LEAST_FOR_PQ` items.
    """
    if kind == "ivf_pq" and len(items) < LEAST_FOR_PQ:
        raise TooFewItems(
            f"An index of kind ivf_pq needs at least {LEAST_FOR_PQ:,} items. "
            f"Received: {len(items):,}."
        )
    n_cells = int(_CELLS_PER_ROOT * len(items) ** 0.5)
    n_cells = max(1, min(n_cells, len(items) // _MIN_VECTORS_PER_CELL))
    index = _untrained(faiss, items.shape[1], kind, n_cells)
    index.cp.seed = seed
    index.cp.max_points_per_centroid = _MAX_VECTORS_PER_CELL
    wanted = max(_MAX_VECTORS_PER_CELL * n_cells, _WANTED_FOR_PQ)
    if len(items) > max(_MANY, wanted):
        rng = np.random.default_rng(seed)
        items = items[np.sort(rng.choice(len(items), wanted, replace=False))]
    index.train(items)
    return index


def _untrained(faiss: Any, width: int, kind: IvfKind, n_cells: int) -> Any:
    centres, product = faiss.IndexFlatIP(width), faiss.METRIC_INNER_PRODUCT
    if kind == "ivf":
        return faiss.IndexIVFFlat(centres, width, n_cells, product)
    if kind == "ivf_sq":
        return faiss.IndexIVFScalarQuantizer(
            centres, width, n_cells, faiss.ScalarQuantizer.QT_8bit, product
        )
    index = faiss.IndexIVFPQ(centres, width, n_cells, pq_codes(width), 8, product)
    index.pq.cp.min_points_per_centroid = 1  # FAISS would warn; the recall is measured
    return index


def pq_codes(width: int) -> int:
    """Return the number of bytes of a vector's code in `ivf_pq`.

    It is the largest divisor of the number of dimensions up to half of it, since each byte is the
    code of equally many dimensions.
    """
    return max(n for n in range(1, max(2, width // 2 + 1)) if width % n == 0)
