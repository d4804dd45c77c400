"""Which offers are alike: cosines of their vectors, in an order that puts like beside like."""

from __future__ import annotations

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial import distance

from models.core.retriever import Floats, Ints


def directions(vectors: Floats) -> Floats:
    """Return unit vectors in which each of an offer's rows counts the same.

    Args:
        vectors: [n, m, d] or [n, d].

    Returns:
        float64 [n, m · d]; zero for an offer that is all zero.
    """
    rows = _unit(np.asarray(vectors, np.float64))
    return _unit(rows.reshape(len(rows), -1))


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def cosines(vectors: Floats) -> Floats:
    """Return the cosine of each pair of offers, float64 [n, n]; the diagonal is 1."""
    unit = directions(vectors)
    matrix = unit @ unit.T
    matrix = (matrix + matrix.T) / 2  # a product of matrices need not be symmetric to the last bit
    np.fill_diagonal(matrix, 1.0)
    return np.clip(matrix, -1.0, 1.0)


def ward_order(matrix: Floats) -> Ints:
    """Return the order of leaves of Ward's tree (1963) that puts like beside like.

    Leaves are turned so that the sum of distances of neighbours is least (Bar-Joseph, Gifford and
    Jaakkola 2001, "Fast optimal leaf ordering for hierarchical clustering").

    Args:
        matrix: cosines [n, n], n at least 2. The distance of unit vectors is sqrt(2 - 2 cos).
    """
    gaps = distance.squareform(np.sqrt(np.maximum(2 - 2 * matrix, 0.0)), checks=False)
    return hierarchy.leaves_list(hierarchy.linkage(gaps, "ward", optimal_ordering=True))
