"""AUC per offer, which measures how well users are ranked for an offer, and its weighted mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.core.retriever import Bools, Floats, Ints


@dataclass(frozen=True)
class GroupedAuc:
    """AUC of each group (offer): the probability that a positive user outscores a negative one.

    Attributes:
        auc: AUC of each group, in which ties count half, float64 [n_groups]; NaN for a group that
            has only positives or only negatives.
        positives: number of positive pairs of each group, int64 [n_groups].
        negatives: number of negative pairs of each group, int64 [n_groups].
    """

    auc: npt.NDArray[np.float64]
    positives: npt.NDArray[np.int64]
    negatives: npt.NDArray[np.int64]

    def mean(self, *, low: int = 0, high: int | None = None) -> WeightedAuc:
        """Return the mean AUC, weighted by positives, of groups with low < positives <= high."""
        chosen = self.positives > low
        if high is not None:
            chosen &= self.positives <= high
        one_class = chosen & np.isnan(self.auc)
        chosen &= ~one_class
        n = self.positives[chosen]
        mean = float(np.average(self.auc[chosen], weights=n)) if len(n) else float("nan")
        return WeightedAuc(mean, len(n), int(n.sum()), int(one_class.sum()))


@dataclass(frozen=True)
class WeightedAuc:
    """The mean AUC, weighted by positives, of groups whose number of positives is in a range.

    Attributes:
        mean: the weighted mean AUC; NaN if no group has an AUC.
        groups: number of groups over which the mean AUC is taken.
        positives: number of positive pairs in the groups with an AUC.
        one_class: number of groups in the range without an AUC, because they lack positives or
            negatives.
    """

    mean: float
    groups: int
    positives: int
    one_class: int


def grouped_auc(groups: Ints, scores: Floats, positive: Bools, *, n_groups: int) -> GroupedAuc:
    """Return the AUC of each group of scored pairs, computed by one sort of all pairs.

    Args:
        groups: the index, in [0, n_groups), of the group of each pair, int [n].
        scores: the model's score of each user-offer pair, float [n].
        positive: whether each pair is a positive, bool [n].
        n_groups: number of groups (offers).
    """
    order = np.lexsort((scores, groups))
    groups, scores, positive = groups[order], scores[order], positive[order]
    n_positive = np.bincount(groups, positive, minlength=n_groups).astype(np.int64)
    n_negative = np.bincount(groups, minlength=n_groups) - n_positive
    # negatives before each run of equal scores, and within it
    new = np.ones(len(groups), bool)
    new[1:] = (groups[1:] != groups[:-1]) | (scores[1:] != scores[:-1])
    run = np.cumsum(new) - 1
    within = np.bincount(run, ~positive)
    group_of_run = groups[new]
    before = np.cumsum(within) - within
    before -= (np.cumsum(n_negative) - n_negative)[group_of_run]
    won = np.bincount(run, positive) * (before + within / 2)
    wins = np.bincount(group_of_run, won, minlength=n_groups)
    pairs = (n_positive * n_negative).astype(np.float64)
    auc = np.divide(wins, pairs, out=np.full(n_groups, np.nan), where=pairs > 0)
    return GroupedAuc(auc, n_positive, n_negative)
