"""Hyper-parameters of the towers: a two-tower model, and two models without trainable weights."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from models.core.fields import Part, PositiveFloat, Share, Wide, Width
from models.encoders.config import DecayPoolConfig, EncoderConfig

#: The default of `id_dropout` for item tables in which at least the share `MANY_COLD` of the items
#: has no training interactions.
ID_DROPOUT, MANY_COLD = 0.05, 0.05


class TwoTowerConfig(Part, frozen=True, tag_field="kind", tag="two_tower"):
    """Hyper-parameters of a two-tower model.

    Attributes:
        dim: width of an embedding, and of the output of a tower without layers; `infer` uses
            Merlin's rule, 2 times the fourth root of the vocabulary's size, rounded up to a
            multiple of 8, for each column separately.
        dims: column of categories → embedding width if it differs from `dim`: a number, `infer` or
            `one_hot`. With `one_hot`, a value is a vector without learnt weights that is 1 at the
            position of the value; missing and unseen values have positions, too. A list is the mean
            of the one-hots of its values. A history column is encoded like the item column whose
            values it lists.
        combine: how a tower combines its inputs: `sum` (all inputs of width `dim`) or `concat`.
        query_layers: widths of the query tower's MLP; empty for none. The last layer is linear.
        item_layers: widths of the item tower's MLP. Both towers must end in the same width.
        activation: the activation function of the MLP layers before the last.
        normalize: whether both outputs are L2-normalised, so that the score is the cosine.
        encoder: the history encoder of the query tower.
        init_stddev: standard deviation of the random initial embeddings.
        item_bias: whether a learnt number is added to the score of each item, as one more dimension
            of both towers, which is 1 in the query tower.
        dropout: share of the numbers of a tower's combined inputs that a training step sets to 0.
        item_dropout: the dropout of the item tower, if it differs from that of the query tower;
            null means `dropout`.
        id_dropout: share of ids that a training step replaces by the unseen code, so that unknown
            users and new items have a trained embedding. Null, the default, means 0.05 for the
            items if the item tower has other inputs than the id and at least 5 % of the item table
            has no training interactions, else 0.
        history_content: whether the query tower gets the categories and the vectors of the items in
            a history, too: the item tower's embeddings of these categories and projections of these
            vectors are added to the embeddings of the item ids. With combine concat, nothing is
            added. This option improves the metrics where items have few interactions, as on Amazon
            Beauty.
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
    item_dropout: Share | None = None
    id_dropout: Share | None = None
    history_content: bool = False

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
    """Popularity: all users get the items with the most interactions. No weights are trained.

    Attributes:
        days: the age, in days, at which an interaction weighs 1/e; null gives all interactions the
            same weight.
    """

    #: Fields of TwoTowerConfig that are fixed for this kind.
    item_bias: ClassVar[bool] = True
    normalize: ClassVar[bool] = False

    days: PositiveFloat | None = None


class ContentConfig(Part, frozen=True, tag_field="kind", tag="content"):
    """Content: ranks items by how often the history has their categories. No weights are trained.

    A user is the mean of the one-hot categories of the items in the user's history. So the score of
    an item is a sum over the categories, such as the brand, of the share of the history that has
    the item's value.
    """

    item_bias: ClassVar[bool] = False
    normalize: ClassVar[bool] = False


ModelConfig = TwoTowerConfig | PopularityConfig | ContentConfig
