"""Offers as weighted lists of the values that their items have, attribute by attribute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from models.core.retriever import Ints, Ragged


@dataclass(frozen=True)
class WeightedLists:
    """Codes and their weights, one list an offer.

    Attributes:
        lists: codes.
        weights: float32 [n_values]; those of a list sum to 1.
    """

    lists: Ragged
    weights: npt.NDArray[np.float32]


#: Attribute → its values, one list an offer.
Offers: TypeAlias = Mapping[str, WeightedLists]


def items_as_offers(columns: Mapping[str, Ints]) -> dict[str, WeightedLists]:
    """Return each item as an offer of its own: lists of one value.

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
    """Describe offers by the events that belong to them.

    Args:
        groups: the offer of each event, int [n], -1 for none.
        columns: attribute → its code in each event, int [n].
        n_offers: how many there are; one without events has empty lists.
        top: values to keep of an attribute, the most frequent ones, ties by code.
    """
    known = groups >= 0
    return {
        name: _most_frequent(groups[known], codes[known], n_offers, top)
        for name, codes in columns.items()
    }


def offers_by_value(
    task: str, values: Ints, columns: Mapping[str, Ints], *, top: int
) -> dict[str, WeightedLists]:
    """Describe the offers "task = value".

    Args:
        task: the attribute that defines them.
        values: its codes, distinct and rising, int [n_offers]. One that no event has is described
            by itself alone.
        columns: attribute → its code in each event, int [n].
        top: see `offers_of`.
    """
    groups = places(columns[task], values)
    offers = offers_of(groups, columns, n_offers=len(values), top=top)
    return {**offers, **items_as_offers({task: values})}


def places(codes: Ints, values: Ints) -> Ints:
    """Return where each code stands among rising values, int64 [n]; -1 where it does not."""
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
