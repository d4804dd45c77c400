"""Segments of the target items that are measured separately, by history length or popularity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from models.baselines.fallback import unknown_users
from models.core.evaluation_set import EvaluationSet
from models.core.retriever import Bools, Ints

#: First history length of each segment of users by history length.
HISTORY_BANDS = (1, 5, 10, 20, 50, 100, 200)
#: An item is in the head, or in the middle, if more popular items have less than this share of
#: all training interactions.
HEAD, MIDDLE = 1 / 3, 2 / 3


class Segment(NamedTuple):
    """A subset of the target items of an evaluation set, such as those of users without history.

    Attributes:
        name: the key of the segment in the report.
        what: a description of the target items in the segment.
        targets: whether each of the evaluation set's `targets.values` is in the segment, bool.
    """

    name: str
    what: str
    targets: Bools


def segments(evaluation_set: EvaluationSet, item_counts: Ints) -> Iterator[Segment]:
    """Yield every segment of the target items that is not empty.

    Args:
        evaluation_set: the evaluation set with the target items.
        item_counts: number of training interactions of each item, int [n_items].
    """
    for segment in (*_by_user(evaluation_set), *_by_item(evaluation_set, item_counts)):
        if segment.targets.any():
            yield segment


def _by_user(evaluation_set: EvaluationSet) -> Iterator[Segment]:
    owners = evaluation_set.targets.owners()
    lengths = evaluation_set.queries.histories.lengths[owners]
    yield Segment("users_cold", "users without a history", lengths == 0)
    unknown = unknown_users(evaluation_set.queries)[owners]
    yield Segment("users_unknown", "unknown users without a history", unknown)
    yield Segment("users_warm", "users with a history", lengths > 0)
    ends = (*HISTORY_BANDS[1:], None)
    for start, end in zip(HISTORY_BANDS, ends, strict=True):
        name = f"history_{start}+" if end is None else f"history_{start}-{end - 1}"
        what = f"users with {name.partition('_')[2]} earlier interactions"
        above = np.inf if end is None else end
        yield Segment(name, what, (lengths >= start) & (lengths < above))


def _by_item(evaluation_set: EvaluationSet, item_counts: Ints) -> Iterator[Segment]:
    items = evaluation_set.targets.values
    known = items >= 0
    band = np.where(known, bands(item_counts)[items], OUTSIDE)
    third = "a third of all training interactions"
    yield Segment("targets_head", f"targets that are the most popular items, {third}", band == 0)
    yield Segment("targets_middle", f"targets less popular than those, {third}", band == 1)
    yield Segment("targets_tail", "targets with fewer training interactions than those", band == 2)
    yield Segment("targets_cold", "targets without training interactions", band == 3)
    yield Segment("targets_outside", "targets that are not in the item table", band == OUTSIDE)


#: Popularity band of an item that is not in the item table.
OUTSIDE = 4


def bands(item_counts: Ints) -> Ints:
    """Return each item's popularity band: 0 head, 1 middle, 2 tail, 3 cold-start.

    Items with equal numbers of interactions are in the same band.

    Args:
        item_counts: number of training interactions of each item, int [n_items].
    """
    counts, which, many = np.unique(item_counts, return_inverse=True, return_counts=True)
    mass = counts * many
    above = mass.sum() - np.cumsum(mass)  # interactions of items with a higher count
    band = np.digitize(above / max(1, mass.sum()), [HEAD, MIDDLE])
    band[counts == 0] = 3
    return band[which]
