"""Describes offers: for each attribute, a weighted list of the values of the offer's items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from models.core.retriever import Ints, Ragged


@dataclass(frozen=True)
class WeightedLists:
    """Weighted lists of an attribute's codes, one list per offer.

    Attributes:
        lists: the attribute codes of each offer.
        weights: weights of the codes, float32 [n_values]; the weights of a list sum to 1.
    """

    lists: Ragged
    weights: npt.NDArray[np.float32]


#: Descriptions of offers: attribute → its weighted values, one list per offer.
Offers: TypeAlias = Mapping[str, WeightedLists]


def items_as_offers(columns: Mapping[str, Ints]) -> dict[str, WeightedLists]:
    """Describe each item as an offer: a list of one value per attribute.

    Args:
        columns: attribute → codes, int [n_items].
    """
    return {
        name: WeightedLists(
            Ragged(codes, np.arange(len(codes) + 1)), np.ones(len(codes), np.float32)
        )
        for name, codes in columns.items()
    }


def offers_of(
    groups: Ints, columns: Mapping[str, Ints], *, n_offers: int, top: int
) -> dict[str, WeightedLists]:
    """Describe each offer by the most frequent attribute values of its events.

    Args:
        groups: the index of the offer of each event, int [n]; -1 for none.
        columns: attribute → its code in each event, int [n].
        n_offers: number of offers; an offer without events has empty lists.
        top: number of most frequent values to keep per attribute; ties are broken by code.
    """
    known = groups >= 0
    return {
        name: _most_frequent(groups[known], codes[known], n_offers, top)
        for name, codes in columns.items()
    }


def offers_by_value(
    task: str, values: Ints, columns: Mapping[str, Ints], *, top: int
) -> dict[str, WeightedLists]:
    """Describe each offer "attribute = value" by the most frequent attribute values of its events.

    Args:
        task: the attribute that defines the offers.
        values: codes of the attribute, distinct and ascending, int [n_offers]. The offer of a value
            without events has only this value.
        columns: attribute → its code in each event, int [n].
        top: number of most frequent values to keep per attribute.
    """
    groups = positions_in(columns[task], values)
    offers = offers_of(groups, columns, n_offers=len(values), top=top)
    return {**offers, **items_as_offers({task: values})}


def positions_in(codes: Ints, values: Ints) -> Ints:
    """Return the position of each code in a sorted array, int64 [n]; -1 if it is absent."""
    if not len(values):
        return np.full(len(codes), -1)
    place = np.minimum(np.searchsorted(values, codes), len(values) - 1)
    return np.where(values[place] == codes, place, -1)


def _most_frequent(groups: Ints, codes: Ints, n_offers: int, top: int) -> WeightedLists:
    width = int(codes.max(initial=0)) + 1
    keys, counts = np.unique(groups.astype(np.int64) * width + codes, return_counts=True)
    owners, values = np.divmod(keys, width)
    order = np.lexsort((values, -counts, owners))
    owners, values, counts = owners[order], values[order], counts[order]
    kept = np.arange(len(owners)) - np.searchsorted(owners, owners) < top
    owners, values, counts = owners[kept], values[kept], counts[kept]
    totals = np.bincount(owners, counts, minlength=n_offers)
    lists = Ragged.from_pairs(owners, values, n_lists=n_offers)
    return WeightedLists(lists, (counts / totals[owners]).astype(np.float32))
