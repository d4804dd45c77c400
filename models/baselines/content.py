"""Ranks items, also new ones, by the attributes that they share with the user's history.

The content-based baseline of Lops, de Gemmis and Semeraro 2011, section 3.3, with frozen vectors:
a user is the mean of their items' attribute vectors, and the score is a dot product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from models.baselines.errors import CannotFit
from models.baselines.search import Facts, Grid
from models.core.columns import Column
from models.core.retriever import (
    NO_ITEM,
    Bools,
    Floats,
    Interactions,
    Ints,
    Queries,
    Ragged,
    TopK,
    require_fitted,
    top_k_by_scores,
)


def multi_hot(columns: Sequence[Column], first_codes: Sequence[int]) -> sp.csr_matrix:
    """Return the items' categorical attributes as one matrix of one-hot and multi-hot vectors.

    Args:
        columns: at least one column with the codes of each item, int [n_items] or lists of codes.
        first_codes: for each column, the code of its first real value; lower codes (missing,
            unseen) are left out, because items that share them have nothing in common.

    Returns:
        float32 [n_items, n_values].
    """
    parts = []
    for column, first in zip(columns, first_codes, strict=True):
        ones = np.arange(len(column) + 1)  # a list of one for each item
        codes = column if isinstance(column, Ragged) else Ragged(column.astype(np.int64), ones)
        values = np.maximum(codes.values - first, NO_ITEM)
        parts.append(Ragged(values, codes.offsets).to_csr(int(values.max(initial=NO_ITEM)) + 1))
    return sp.hstack(parts, format="csr", dtype=np.float32)


def grid(facts: Facts) -> Grid:
    """Return the search space of the content baseline: one point, without hyper-parameters.

    Raises:
        CannotFit: the items have no categorical attributes.
    """
    attributes = facts.attributes
    if not attributes.shape[1]:
        raise CannotFit("the items have no categories beside their id")
    return Grid(
        start=((),),
        fit=lambda _: Content(attributes=attributes).fit(facts.train),
        by_history=True,
    )


@dataclass(frozen=True, kw_only=True)
class Content:
    """Ranks items by the attributes that they share with the history, and ties by popularity.

    If items have few attributes, many scores are equal. The columns of the score matrix are sorted
    by popularity and then by item row, so that the tie rule ranks items with equal scores in this
    order.

    Attributes:
        attributes: the multi-hot attribute vector of each item, float32 [n_items, n_attributes].
        order: all row numbers of the item table, the most popular in training first, int64
            [n_items]; learnt by `fit`.
    """

    attributes: sp.csr_matrix = field(repr=False, compare=False)
    order: Ints | None = field(default=None, repr=False, compare=False)

    def fit(self, train: Interactions) -> Content:
        """Return a content model that orders equally scored items by their training popularity.

        Raises:
            ValueError: the catalogue and the attributes differ in size.
        """
        if self.attributes.shape[0] != train.n_items:
            raise ValueError(
                f"attributes has {self.attributes.shape[0]} rows for {train.n_items} items."
            )
        return replace(self, order=np.argsort(-train.item_counts(), kind="stable"))

    def top_k(
        self,
        queries: Queries,
        k: int,
        *,
        exclude: Ragged | None = None,
        candidates: Bools | None = None,
    ) -> TopK:
        """Rank items by shared attributes, then by popularity; without a history, by popularity."""
        order = require_fitted(self.order, self)
        top = top_k_by_scores(
            self._score_in_order,
            queries,
            k,
            n_items=len(order),
            exclude=self._to_positions(exclude),
            candidates=None if candidates is None else candidates[order],
        )
        return TopK(np.where(top.items >= 0, order[top.items], NO_ITEM), top.scores)

    def _score_in_order(self, queries: Queries) -> Floats:
        """Return the attribute score of every item; the columns are in order of popularity."""
        histories = queries.histories.to_csr(self.attributes.shape[0])
        # sums are whole numbers, so equal scores are equal to the last bit; the mean comes after
        sums = histories @ self.attributes
        scores = (sums @ self.attributes[require_fitted(self.order, self)].T).toarray()
        return scores / np.maximum(histories.getnnz(axis=1), 1)[:, None].astype(np.float32)

    def _to_positions(self, exclude: Ragged | None) -> Ragged | None:
        """Return the excluded items, given as item rows, as positions in the popularity order."""
        if exclude is None:
            return None
        order = require_fitted(self.order, self)
        columns = np.full(len(order) + 1, NO_ITEM)  # the last entry is for row -1
        columns[order] = np.arange(len(order))
        return Ragged(columns[exclude.values], exclude.offsets)
