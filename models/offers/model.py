"""Builds an offer model as Merlin's RetrievalModelV2, and the same model for inference.

Training scores users with groups of items that other users bought. At inference, the same weights
score any offer that is given as weighted lists of attribute values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import merlin.models.tf as mm
import numpy as np
import tensorflow as tf
from merlin.schema import Schema, Tags

from models.core.columns import USER_ROW, Columns, n_rows, take
from models.core.retriever import Floats
from models.offers.config import OfferModel, OffersConfig
from models.offers.interaction import Bilinear, Dot
from models.offers.negatives import OFFER, USER, MiniBatchNegatives
from models.offers.offers import Offers
from models.offers.towers import OfferTower, UserTower
from models.offers.weighted_embedding import Lists

#: The class of retrieval models of Merlin Models.
Model: TypeAlias = mm.RetrievalModelV2
#: Number of users that are embedded at a time.
_BLOCK = 8192


def build(
    schema: Schema, config: OffersConfig, blocks: OfferModel, attributes: list[str], *, seed: int
) -> Model:
    """Build an offer model from its configuration, and create all its weights.

    Args:
        schema: the schema of the training rows from the etl stage, with item attributes and user
            histories.
        config: hyper-parameters of all offer models.
        blocks: which building blocks (grouping, mask, bilinear interaction) this model has.
        attributes: the attributes of an offer, whose order determines the order of the weights.
        seed: the seed of dropout and groups; initial weights depend on Keras' global seed.

    Raises:
        ValueError: the model names an unknown attribute.
    """
    strange = [name for name in blocks.attributes if name not in attributes]
    if strange:
        raise ValueError(f"attribute {strange[0]!r} is none of {', '.join(attributes)}")
    sizes = {name: schema[name].int_domain.max + 1 for name in attributes}
    lists = schema.select_by_tag(Tags.SEQUENCE)
    domains = {column.name: column.int_domain.name for column in lists}
    own = {name: sizes[name] for name in blocks.attributes or attributes}
    offers = OfferTower(own, config, blocks, seed=seed, name="offer_tower")
    users = UserTower(
        domains,
        sizes,
        config,
        blocks,
        seed=seed,
        shared=offers if config.share_tables else None,
        name="user_tower",
    )
    meet: tf.keras.layers.Layer = Dot()
    if blocks.bilinear:
        rows = config.offer_meta if blocks.mask_net else len(own)
        shape = (config.user_meta, rows, config.dim, config.dim)
        meet = Bilinear(shape, config.layers, dropout=config.dropout, l1=config.l1, seed=seed + 60)
    model = mm.RetrievalModelV2(
        query=users,
        candidate=offers,
        output=MiniBatchNegatives(meet, config.negatives),
        schema=schema.select_by_name([*domains, *own, USER_ROW]),
    )
    model(_zeros(domains, own, config.negatives + 1))
    return model


def _zeros(
    domains: Mapping[str, str], attributes: Mapping[str, int], n: int
) -> dict[str, tf.Tensor]:
    """Return a batch of zeros, whose forward pass creates the weights of an offer model."""
    batch = {name: tf.zeros([n], tf.int32) for name in (*attributes, USER_ROW)}
    for name in domains:
        batch[f"{name}__values"] = tf.zeros([n], tf.int32)
        batch[f"{name}__offsets"] = tf.range(n + 1)
    return batch


@dataclass(frozen=True)
class InferenceModel:
    """A trained offer model for inference on numpy arrays, without dropout and random groups.

    Attributes:
        model: an offer model with trained weights.
    """

    model: Model

    @property
    def towers(self) -> tuple[UserTower, OfferTower]:
        """The user tower and the offer tower of the offer model."""
        # not `candidate_encoder`: that is for encoders of Merlin's own class
        both = self.model.encoder.parallel_dict
        return both[USER], both[OFFER]

    @property
    def columns(self) -> list[str]:
        """The user columns that the model reads."""
        return list(self.towers[0].columns)

    @property
    def attributes(self) -> list[str]:
        """The offer attributes that the model reads."""
        return list(self.towers[1].attributes)

    def users(self, columns: Columns) -> Floats:
        """Return the embeddings of users, given their history lists.

        The shape is [n, k, d] if the model compresses users to k vectors, and [n, d] if it has a
        dense tower.

        Args:
            columns: name of a history column → the lists of the n users.
        """
        columns = {name: columns[name] for name in self.columns}
        count = n_rows(columns)
        blocks = np.array_split(np.arange(count), max(1, -(-count // _BLOCK)))
        return np.concatenate([self._users(take(columns, rows)).numpy() for rows in blocks])

    def offers(self, offers: Offers) -> Floats:
        """Return the embeddings of offers, given as weighted lists of attribute values.

        The shape is [n, m, d] with a compressor to m vectors, [n, o, d] with the vectors of o
        attributes, and [n, d] with a dense tower.
        """
        inputs: dict[str, np.ndarray] = {}
        for name in self.attributes:
            inputs[f"{name}__values"] = offers[name].lists.values.astype(np.int32)
            inputs[f"{name}__offsets"] = offers[name].lists.offsets.astype(np.int32)
            inputs[f"{name}__weights"] = offers[name].weights
        return self._offers(inputs).numpy()

    def score(self, users: Floats, offers: Floats) -> Floats:
        """Score each user of a group with each offer of the same group, float32 [G, I, J].

        Args:
            users: embeddings of users, [G, I, …].
            offers: embeddings of offers, [G, J, …].
        """
        return self._scores(users, offers).numpy()

    def embed_users(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Embed users, given as columns `<list>__values` and `<list>__offsets` of history lists."""
        return self.towers[0](inputs, training=False)

    def embed_offers(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Embed offers, given as lists of codes and weights of each attribute, as in `specs`."""
        parts = ("values", "offsets", "weights")
        lists = {
            name: Lists(*(inputs[f"{name}__{part}"] for part in parts)) for name in self.attributes
        }
        return self.towers[1].embed(lists)

    def score_pairs(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Score each user embedding with each offer embedding, [n_users, n_offers]."""
        return self._score_groups(inputs["users"][None], inputs["offers"][None])[0]

    def _score_groups(self, users: tf.Tensor, offers: tf.Tensor) -> tf.Tensor:
        return self.model.last.to_call(users, offers[None], training=False)[..., 0]

    def specs(self) -> tuple[Specs, Specs, Specs]:
        """Return the input specs of `embed_users`, `embed_offers` and `score_pairs`, by name."""
        users, offers = self.towers
        lists = {"__values": tf.int32, "__offsets": tf.int32}
        weighted = {**lists, "__weights": tf.float32}
        return (
            _specs({f"{c}{end}": kind for c in self.columns for end, kind in lists.items()}),
            _specs({f"{a}{end}": kind for a in self.attributes for end, kind in weighted.items()}),
            {
                "users": tf.TensorSpec([None, *users.shape_out], name="users"),
                "offers": tf.TensorSpec([None, *offers.shape_out], name="offers"),
            },
        )

    # traced once, for any number of rows; without autograph: nothing branches on a tensor

    @cached_property
    def _users(self) -> Any:
        return tf.function(self.embed_users, input_signature=[self.specs()[0]], autograph=False)

    @cached_property
    def _offers(self) -> Any:
        return tf.function(self.embed_offers, input_signature=[self.specs()[1]], autograph=False)

    @cached_property
    def _scores(self) -> Any:
        sides = (tower.shape_out for tower in self.towers)
        specs = [tf.TensorSpec([None, None, *side]) for side in sides]
        return tf.function(self._score_groups, input_signature=specs, autograph=False)


Specs: TypeAlias = dict[str, tf.TensorSpec]


def _specs(kinds: Mapping[str, tf.DType]) -> Specs:
    return {name: tf.TensorSpec([None], kind, name=name) for name, kind in kinds.items()}
