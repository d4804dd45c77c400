"""The figures of an evaluation of offer models; reading them loads no TensorFlow."""

from __future__ import annotations

import msgspec

#: The band of all offers with a positive.
ALL = "all"


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of the table.

    Attributes:
        model, task: the model, and the attribute whose values are the offers.
        band: their name; `low` < positives <= `high`.
        wauc: mean AUC of these offers, weighted by their positives; None where there are none.
        offers: how many they are.
        positives: their events.
        one_class: offers of the band without a positive or without a negative pair, left out.
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
    """What evaluate found.

    Attributes:
        pairs: how many pairs of a user and an offer were scored in each task.
        events: held-out events.
        without_history: share of the events of users who have no list at all.
        negatives: other offers that each user is paired with.
        source: the part that says what belongs to an offer.
        top: values that describe an attribute of an offer.
        scores: the table's cells.
        seconds: model → to score all tasks.
    """

    pairs: int
    events: int
    without_history: float
    negatives: int
    source: str
    top: int
    scores: list[Score]
    seconds: dict[str, float]
