"""Hyper-parameters of the offer models, and of the tasks by which they are compared."""

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
    """Which blocks a model has.

    Attributes:
        attributes: of an offer, that the model looks at; empty for all. One alone makes a model
            for offers of that attribute. What it knows of users stays the same.
        group_by: train on groups of offers that share attribute values, drawn anew in each step,
            instead of single items.
        mask_net: compress offers, and weigh what is left by mean and variance of their group.
        bilinear: score by a bilinear interaction and a head; without it by two towers' dot product.
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
    """Models that predict the audience of an offer, defined by any of its attributes.

    Attributes:
        models: name → blocks; all are trained and compared, the first is exported.
        dim: width of an embedding.
        user_meta, offer_meta: rows that a compressor leaves of a user's and an offer's attributes.
        layers: widths of a tower, or of the head on a bilinear interaction.
        dropout: share left out in a training step, of inner layers and of the bilinear kernel.
        l1: factor of the sum of absolute weights: of tables, dense layers and the bilinear kernel.
        share_tables: histories look up the tables of offers, not tables of their own.
        negatives: other offers that each user is paired with: those of the rows beside their own in
            the batch, which is sorted by date.
        augmentations: groupings of a training step.
        mean_attributes: how many attributes define a group, on average, before empty draws go.
        or_share: share of groupings whose groups are split at random, and thrown together again.
        max_per_day: rows of one user and day in an epoch.
        resample: draw these anew in each epoch.
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
    """How offer models are compared: one task an attribute, whose values define the offers.

    Attributes:
        attributes: the tasks; empty for all attributes.
        top: values of another attribute that describe an offer, the most frequent ones.
        source: the part whose purchases say what belongs to an offer. `test` is what the published
            tables did; it looks at what is to be predicted.
        bands: name → numbers of positives of the offers that count.
        similar: offers of a heat map, the most frequent ones.
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
