"""The two towers of an offer model: they embed users' histories and offers' attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from models.offers.compressors import MaskNet, OfferCompressor, UserCompressor
from models.offers.config import OfferModel, OffersConfig
from models.offers.group_by import group_moments
from models.offers.interaction import Stack
from models.offers.keys import KeyGenerator
from models.offers.weighted_embedding import Lists, WeightedEmbedding
from models.towers.layers import layer_name


class OfferTower(tf.keras.layers.Layer):
    """Embeds an offer: as [m, d] with a compressor, [o, d] without, or [d] by a dense tower.

    m is the number of compressed vectors, o the number of attributes, d the number of dimensions.

    Args:
        sizes: attribute → number of codes, in the order of the embedding's rows.
        config: hyper-parameters of all offer models.
        blocks: which building blocks (grouping, mask, bilinear interaction) this model has.
        seed: the seed of dropout and groups.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        config: OffersConfig,
        blocks: OfferModel,
        *,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.attributes = list(sizes)
        self.tables = [
            WeightedEmbedding(n, config.dim, l1=config.l1, name=f"offer_{layer_name(name)}")
            for name, n in sizes.items()
        ]
        self.versions = config.augmentations if blocks.group_by else 1
        self.keys = self.compressor = self.mask = self.stack = None
        if blocks.group_by:
            self.keys = KeyGenerator(
                list(sizes.values()),
                mean_attributes=min(config.mean_attributes, len(sizes)),
                or_share=config.or_share,
                seed=seed,
            )
        if blocks.mask_net:
            rows, dropout = config.offer_meta, config.dropout
            self.compressor = OfferCompressor(rows, dropout=dropout, seed=seed + 10)
            self.mask = MaskNet(rows, dropout=dropout, seed=seed + 20)
        rows = config.offer_meta if blocks.mask_net else len(sizes)
        self.shape_out = [rows, config.dim]
        if not blocks.bilinear:
            self.stack = _tower(config, seed + 30)
            self.shape_out = [config.layers[-1]]

    def call(self, inputs: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Embed the items of a batch as offers, float32 [B, …].

        In training with groups, the result has the offers of A = `versions` groupings: [A · B, …].
        """
        codes = [tf.reshape(inputs[name], [-1]) for name in self.attributes]
        vectors = tf.stack(
            [table.one(code) for table, code in zip(self.tables, codes, strict=True)], axis=1
        )
        if not (training and self.keys):
            return self.compress(vectors, tf.zeros_like(vectors), training=training)
        stacked = tf.stack(codes, axis=1)
        drawn = tf.stack([self.keys(stacked, training=True) for _ in range(self.versions)])
        return self.compress(*group_moments(vectors, drawn), training=training)

    def embed(self, offers: Mapping[str, Lists]) -> tf.Tensor:
        """Return the embeddings of offers given as weighted lists of attribute values."""
        both = [
            table.moments(offers[name])
            for name, table in zip(self.attributes, self.tables, strict=True)
        ]
        means, variances = (tf.stack(parts, axis=1) for parts in zip(*both, strict=True))
        return self.compress(means, variances)

    def compress(
        self,
        mean: tf.Tensor,
        variance: tf.Tensor,
        of_rows: tf.Tensor | None = None,
        *,
        training: bool = False,
    ) -> tf.Tensor:
        """Return the final offer embeddings, compressed and masked, for the interaction with users.

        Args:
            mean, variance: mean and variance of the offers' embeddings, [n, o, d].
            of_rows: the index of the offer of each batch row; None if each row is its own offer.
                Batch rows of the same offer share one compressed offer and one dropout mask.
            training: whether to apply dropout.
        """
        offers = mean
        if self.compressor is not None and self.mask is not None:
            both = (mean, variance)
            offers = self.compressor(both, training=training) * self.mask(both, training=training)
        if of_rows is not None:
            offers = tf.gather(offers, of_rows)
        return offers if self.stack is None else self.stack(offers, training=training)

    def compute_output_shape(self, input_shape: Any) -> tf.TensorShape:
        """Return the shape of the offer embeddings, with an unknown number of rows."""
        return tf.TensorShape([None, *self.shape_out])


class UserTower(tf.keras.layers.Layer):
    """Embeds a user's history lists: as [k, d] with a compressor, or as [d] by a dense tower.

    k is the number of compressed vectors, and d the number of dimensions.

    Args:
        domains: history column → attribute whose codes the column has, in the order of the
            embedding's rows.
        sizes: attribute → number of codes.
        config: hyper-parameters of all offer models.
        blocks: which building blocks (grouping, mask, bilinear interaction) this model has.
        seed: the seed of the dropout.
        shared: the offer tower whose embedding tables are shared; None for separate tables.
    """

    def __init__(
        self,
        domains: Mapping[str, str],
        sizes: Mapping[str, int],
        config: OffersConfig,
        blocks: OfferModel,
        *,
        seed: int,
        shared: OfferTower | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.columns = list(domains)
        known = dict(zip(shared.attributes, shared.tables, strict=True)) if shared else {}
        self.tables = [
            known.get(of)
            or WeightedEmbedding(sizes[of], config.dim, l1=config.l1, name=layer_name(column))
            for column, of in domains.items()
        ]
        self.last: tf.keras.layers.Layer = _tower(config, seed + 50)
        self.shape_out = [config.layers[-1]]
        if blocks.bilinear:
            self.shape_out = [config.user_meta, config.dim]
            self.last = UserCompressor(config.user_meta, dropout=config.dropout, seed=seed + 40)

    def call(self, inputs: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Embed users by history lists in the format of Merlin's loader, float32 [B, …]."""
        met = []
        for name, table in zip(self.columns, self.tables, strict=True):
            codes, offsets = (
                tf.reshape(inputs[f"{name}__{part}"], [-1]) for part in ("values", "offsets")
            )
            met.append(table.mean(Lists(codes, offsets)))
        users = tf.stack(met, axis=1)
        return self.last(users, training=training)

    def compute_output_shape(self, input_shape: Any) -> tf.TensorShape:
        """Return the shape of the user embeddings, with an unknown number of rows."""
        return tf.TensorShape([None, *self.shape_out])


def _tower(config: OffersConfig, seed: int) -> Stack:
    return Stack(config.layers, dropout=config.dropout, l1=config.l1, seed=seed)
