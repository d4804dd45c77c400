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
    """

    vectors: tf.RaggedTensor


class HistoryEncoder(Protocol):
    """The protocol of history encoders: Keras layers, so that their weights belong to the tower."""

    def encode(self, steps: Steps, *, training: bool) -> tf.Tensor:
        """Return one vector per history, float32 [B, dim]; an empty history gives zeros."""
        ...

    def encode_each(self, steps: Steps, *, training: bool) -> tf.Tensor:
        """Return one vector per step of each history, float32 [B, L, dim].

        The vector at a step is that of the history up to this step. L is the length of the
        longest history; in the rows of shorter histories, the vectors after the last step have no
        meaning.
        """
        ...

    def weights_by_age(self) -> Floats | None:
        """Return the weight of each position, newest first; None if weights depend on the items."""
        ...


def build_encoder(config: EncoderConfig, max_len: int) -> HistoryEncoder:
    """Build the history encoder of a configuration.

    Args:
        config: settings of the history encoder; its `kind` is the name of its module.
        max_len: number of items of the longest history; older items are left out.
    """
    module = import_module(f"models.encoders.{config.__struct_config__.tag}")
    found: HistoryEncoder = module.build(config, max_len)
    return found
