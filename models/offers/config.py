"""Hyper-parameters of the offer models, and of the tasks that compare them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from models.core.fields import (
    Name,
    NonNegative,
    NonNegativeFloat,
    Part,
    Positive,
    PositiveFloat,
    Share,
    Wide,
)

#: A number of parts that each take memory of their own, such as groupings of a training step.
Few = Annotated[int, Meta(ge=1, le=1_000)]

#: More than `low` positives, and at most `high`; null for no upper bound.
Band = tuple[NonNegative, Positive | None]


class OfferModel(Part, frozen=True):
    """The building blocks (grouping, mask, bilinear interaction) of an offer model.

    Attributes:
        attributes: the attributes of an offer that the model uses; empty for all. A model with one
            attribute is for offers of this attribute only; all models use the same user features.
        group_by: whether to train on groups of items that share attribute values, drawn in each
            step, instead of on single items.
        mask_net: whether to compress offers, and to multiply them by a mask computed from mean and
            variance of their items.
        bilinear: whether to score by a bilinear interaction and a head; otherwise the score is the
            dot product of two towers.
    """

    attributes: tuple[str, ...] = ()
    group_by: bool = True
    mask_net: bool = True
    bilinear: bool = True

    def __post_init__(self) -> None:
        if self.mask_net and not self.group_by:
            raise ValueError(
                "mask_net needs group_by: a single item has no variance to feed it. Set both, or "
                "mask_net: false"
            )


class OffersConfig(Part, frozen=True, tag_field="kind", tag="offers"):
    """Hyper-parameters of models that predict the audience of offers, defined by item attributes.

    Attributes:
        models: name of a model → its building blocks. All models are trained and compared; the
            first is exported.
        dim: number of dimensions of an embedding.
        user_meta, offer_meta: number of vectors to which a user or an offer is compressed.
        layers: widths of the layers of a tower, or of the head on a bilinear interaction.
        dropout: dropout rate of inner layers and of the bilinear kernel.
        l1: factor of the L1 penalty on tables, dense layers and the bilinear kernel.
        share_tables: whether histories use the embedding tables of offers; otherwise histories have
            tables of their own.
        negatives: number of negative offers of each user: the offers of neighbouring rows in the
            batch, which is sorted by date.
        augmentations: number of random groupings of the batch in a training step.
        mean_attributes: mean number of attributes that are drawn to define a group. The mean
            includes draws of no attribute, although these are dropped.
        or_share: share of groupings whose groups are split at random and merged at random.
        max_per_day: largest number of training rows of a user and day in an epoch.
        resample: whether each epoch draws training rows anew; otherwise all epochs have the same
            rows in different orders.
    """

    models: Annotated[dict[Name, OfferModel], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: {
            "augmented": OfferModel(),
            "bilinear": OfferModel(group_by=False, mask_net=False),
            "simple": OfferModel(group_by=False, mask_net=False, bilinear=False),
        }
    )
    dim: Annotated[int, Meta(ge=1, le=4_096)] = 100
    user_meta: Few = 5
    offer_meta: Few = 3
    layers: Annotated[tuple[Wide, ...], Meta(min_length=1, max_length=32)] = (100, 50)
    dropout: Share = 0.1
    l1: NonNegativeFloat = 3e-7
    share_tables: bool = False
    negatives: Few = 4
    augmentations: Few = 3
    mean_attributes: PositiveFloat = 2.0
    or_share: Annotated[float, Meta(ge=0, le=1)] = 0.4
    max_per_day: Positive = 8
    resample: bool = True


class TasksConfig(Part, frozen=True):
    """The tasks that compare offer models: one task per attribute, whose values are the offers.

    Attributes:
        attributes: the attributes that are tasks; empty for all attributes.
        top: number of most frequent values of another attribute that describe an offer.
        source: the part of the split whose events describe an offer. `test` reproduces the
            published tables, but describes offers by the events that are to be predicted.
        bands: name of a band of offers → the range of the number of positives that its offers have.
        similar: number of offers, the most frequent ones, in the heat map of similarities.
    """

    attributes: tuple[str, ...] = ()
    top: Annotated[int, Meta(ge=1, le=100_000)] = 250
    source: Literal["train", "valid", "test"] = "train"
    bands: dict[str, Band] = msgspec.field(
        default_factory=lambda: {"popular": (200, None), "cold": (10, 200)}
    )
    similar: Few = 40

    def __post_init__(self) -> None:
        for name, (low, high) in self.bands.items():
            if high is not None and high <= low:
                raise ValueError(f"bands.{name} goes up, got {low}, {high}")
