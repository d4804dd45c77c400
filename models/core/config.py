"""Hyper-parameters: which items an evaluation may recommend, and the popularity prior."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from models.core.fields import Part, PositiveFloat


class ListRules(Part, frozen=True):
    """The rules that say which items the evaluation may recommend.

    Attributes:
        candidates: `catalogue` (all rows of the item table), `train` (items with training
            interactions) or `cold` (items without: only held-out interactions with such items are
            then measured).
        exclude_seen: whether items that the user had seen before the cut are left out.
    """

    candidates: Literal["catalogue", "train", "cold"] = "catalogue"
    exclude_seen: bool = True


class PriorConfig(Part, frozen=True):
    """A prior for recent popularity, which is added to the scores of items.

    The decay and the factor of the prior are chosen on the validation part.

    Attributes:
        days: decays to try; a decay is the age, in days, at which an interaction weighs 1/e.
        weights: factors of the prior to try; the model without a prior is tried as well.
    """

    days: Annotated[tuple[PositiveFloat, ...], Meta(min_length=1, max_length=100)] = (
        3.0,
        7.0,
        14.0,
    )
    weights: Annotated[tuple[PositiveFloat, ...], Meta(min_length=1, max_length=100)] = (
        *(0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    )
