"""Reads the metrics of an evaluation of offer models, without TensorFlow."""

from __future__ import annotations

import msgspec

#: The band of all offers with a positive.
ALL = "all"


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """The AUC of one model for the offers of one attribute and popularity band.

    Attributes:
        model, task: the name of the model, and the attribute whose values are the offers.
        band: the name of the band, a group of offers by their number of positives.
        low: the offers of the band have more than this number of positives.
        high: the offers of the band have at most this number of positives; None for no bound.
        wauc: mean AUC of the offers in the band, weighted by their positives; None without offers.
        offers: number of offers whose AUC is averaged.
        positives: number of positive events of all offers in the band.
        one_class: number of offers that are left out, because they have no positive or no negative
            pair.
    """

    model: str
    task: str
    band: str
    low: int
    high: int | None
    wauc: float | None
    offers: int
    positives: int
    one_class: int


class OffersReport(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics that evaluate computes for offer models, and the counts of what was scored.

    Attributes:
        pairs: number of pairs of a user and an offer that were scored in each task.
        events: number of held-out events that were evaluated.
        without_history: share of events whose users have only empty history lists.
        negatives: number of negative offers for each user.
        source: the part of the split whose events define the content of an offer.
        top: number of values that describe an attribute of an offer.
        scores: the AUC values of all models, tasks and popularity bands.
        seconds: model → seconds that scoring all tasks took.
    """

    pairs: int
    events: int
    without_history: float
    negatives: int
    source: str
    top: int
    scores: list[Score]
    seconds: dict[str, float]
