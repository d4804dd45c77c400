"""Cosine similarity of offers, and an order of offers that places similar ones together."""

from __future__ import annotations

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial import distance

from models.core.retriever import Floats, Ints


def unit_vectors(vectors: Floats) -> Floats:
    """Return one unit vector per offer: its m vectors, scaled to equal length, one after the other.

    Args:
        vectors: embeddings of offers, [n, m, d] or [n, d].

    Returns:
        float64 [n, m · d]; zeros for an offer whose embedding is zero.
    """
    rows = _unit(np.asarray(vectors, np.float64))
    return _unit(rows.reshape(len(rows), -1))


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def cosines(vectors: Floats) -> Floats:
    """Return the cosine similarity of all pairs of offers, float64 [n, n]; the diagonal is 1."""
    unit = unit_vectors(vectors)
    matrix = unit @ unit.T
    matrix = (matrix + matrix.T) / 2  # a product of matrices need not be symmetric to the last bit
    np.fill_diagonal(matrix, 1.0)
    return np.clip(matrix, -1.0, 1.0)


def ward_order(matrix: Floats) -> Ints:
    """Return the leaf order of Ward's clustering (1963), in which similar offers are neighbours.

    Branches are flipped to minimise the sum of distances between neighbouring leaves (Bar-Joseph,
    Gifford and Jaakkola 2001, "Fast optimal leaf ordering for hierarchical clustering").

    Args:
        matrix: cosines [n, n], n at least 2; the clustering uses the distances sqrt(2 - 2 cos).
    """
    gaps = distance.squareform(np.sqrt(np.maximum(2 - 2 * matrix, 0.0)), checks=False)
    return hierarchy.leaves_list(hierarchy.linkage(gaps, "ward", optimal_ordering=True))
