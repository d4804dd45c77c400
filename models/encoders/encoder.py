"""The protocol of history encoders, and the function that builds the encoder of a recipe."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple, Protocol

import tensorflow as tf

from models.core.retriever import Floats
from models.encoders.config import EncoderConfig


class Steps(NamedTuple):
    """The users' histories of a batch; each step is an item, from the oldest to the latest.

    An encoder that needs matrices takes `vectors.to_tensor()` [B, L, dim] and the mask
    `tf.sequence_mask(vectors.row_lengths())`.

    Attributes:
        vectors: the embedding of each item, ragged float32 [B, None, dim].
        ages: the seconds from each step to a common time of its history, ragged float32 [B, None];
            NaN or None for unknown times.
    """

    vectors: tf.RaggedTensor
    ages: tf.RaggedTensor | None = None


class HistoryEncoder(Protocol):
    """The protocol of history encoders: Keras layers, so that their weights belong to the tower.

    Attributes:
        n_scores: number of attention scores that `encode` keeps in memory for the longest history;
            1 for an encoder without attention.
    """

    n_scores: int

    def encode(self, steps: Steps, *, training: bool) -> tf.Tensor:
        """Return one vector per history, float32 [B, dim]; an empty history gives zeros."""
        ...

    def encode_each(self, steps: Steps, *, training: bool) -> tf.RaggedTensor:
        """Return one vector per step of each history, ragged float32 [B, None, dim].

        The vector at a step depends on that step and the steps before it.
        """
        ...

    def weights_by_position(self) -> Floats | None:
        """Return the learnt weight of each position, newest first; None if there are none."""
        ...


class Shape(NamedTuple):
    """The sizes of the inputs of a history encoder, and the seed of its weights.

    Attributes:
        max_len: number of items of the longest history; older items are left out.
        dim: width of the item embeddings.
        seed: seed of the initial weights and of the dropout.
        ages: whether the times between the steps are known.
    """

    max_len: int
    dim: int
    seed: int
    ages: bool = False


def build_encoder(config: EncoderConfig, shape: Shape) -> HistoryEncoder:
    """Build the history encoder of a configuration.

    Args:
        config: settings of the history encoder; its `kind` is the name of its module.
        shape: the sizes of the encoder's inputs, and the seed of its weights.
    """
    module = import_module(f"models.encoders.{config.__struct_config__.tag}")
    found: HistoryEncoder = module.build(config, shape)
    return found
