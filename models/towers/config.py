"""Hyper-parameters of the towers: learnt ones, and two kinds that learn nothing."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from models.core.fields import Part, PositiveFloat, Share, Wide, Width
from models.encoders.config import DecayPoolConfig, EncoderConfig


class TwoTowerConfig(Part, frozen=True, tag_field="kind", tag="two_tower"):
    """The towers.

    Attributes:
        dim: width of an embedding, and of the towers' output where a tower has no layers; `infer`
            takes Merlin's rule, 2 times the fourth root of the vocabulary's size, rounded up to a
            multiple of 8, for each column by itself.
        dims: widths of single categories, where they differ from `dim`: column → a width, `infer`,
            or `one_hot`, which learns nothing: a 1 in the place of the value (missing and unseen
            ones have places, too), for a list the mean of those. A history is as its column.
        combine: how a tower joins its inputs: `sum` (all of width `dim`) or `concat`.
        query_layers: widths of the query tower's MLP; empty for none. The last layer is linear.
        item_layers: the same for the item tower. Both towers must end in the same width.
        activation: the activation of the layers before the last.
        normalize: L2-normalise both outputs, so that the score is the cosine.
        encoder: how the query tower reads a history.
        init_stddev: standard deviation of freshly made embeddings.
        item_bias: one more dimension, 1 on the queries' side, that ranks items for everybody.
        dropout: share of the numbers of a tower's joined inputs left out in a training step.
        id_dropout: share of ids replaced by the unseen code in a training step, so that unknown
            users and new items meet a trained row.
    """

    dim: Width = 64
    dims: dict[str, Width | Literal["one_hot"]] = msgspec.field(default_factory=dict)
    combine: Literal["sum", "concat"] = "sum"
    query_layers: Annotated[tuple[Wide, ...], Meta(max_length=32)] = ()
    item_layers: Annotated[tuple[Wide, ...], Meta(max_length=32)] = ()
    activation: Literal["relu", "gelu", "selu", "tanh"] = "relu"
    normalize: bool = False
    encoder: EncoderConfig = DecayPoolConfig()
    init_stddev: PositiveFloat = 0.05
    item_bias: bool = True
    dropout: Share = 0.2
    id_dropout: Share = 0.0

    def __post_init__(self) -> None:
        layers = self.query_layers and self.item_layers
        if self.dim == "infer" and not (self.combine == "concat" and layers):
            raise ValueError(
                "dim infer gives each column a width of its own: it needs combine concat, and "
                "query_layers and item_layers that end in one width"
            )
        if self.dims and self.combine == "sum":
            raise ValueError("dims gives columns widths of their own: it needs combine concat")


class PopularityConfig(Part, frozen=True, tag_field="kind", tag="popularity"):
    """The same items for everybody: most rows first. Nothing is learnt.

    Attributes:
        days: the age at which a row weighs 1/e; null lets all weigh the same.
    """

    #: What other kinds of model may choose.
    item_bias: ClassVar[bool] = True
    normalize: ClassVar[bool] = False

    days: PositiveFloat | None = None


class ContentConfig(Part, frozen=True, tag_field="kind", tag="content"):
    """Items with the categories of the history: their one-hots side by side. Nothing is learnt.

    A user is the mean of what `history` lists of him; so the score is, for each category, the share
    of the history that has the item's value, added up over the categories.
    """

    item_bias: ClassVar[bool] = False
    normalize: ClassVar[bool] = False


ModelConfig = TwoTowerConfig | PopularityConfig | ContentConfig
