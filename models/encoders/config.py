"""Hyper-parameters of the history encoders, one class per kind.

To add an encoder, write a class here, add it to the union `EncoderConfig`, and write a file in this
folder with the name of its `kind` and a function `build(config, shape)`.
"""

from __future__ import annotations

from typing import TypeAlias

from models.core.fields import Part, Positive, PositiveFloat, Share


class DecayPoolConfig(Part, frozen=True, tag_field="kind", tag="decay_pool"):
    """A history encoder that takes the mean of the items, weighted by position and time.

    Attributes:
        decay: the initial weight of an item at position k of the history, where 0 is the latest, is
            exp(-k / decay); the weights are learnt. Null gives all positions the same fixed weight;
            it is the default of a recipe without times.
    """

    decay: PositiveFloat | None = 10.0


class AttentionConfig(Part, frozen=True, tag_field="kind", tag="attention"):
    """A history encoder that adds causal self-attention over the items to their weighted mean.

    Attributes:
        decay: the decay, in positions, of the initial weights in the mean; null leaves the mean
            out.
        blocks: number of blocks of attention and feed-forward layer.
        heads: number of attention heads. This number should divide the width of the embeddings; if
            it does not, the greatest common divisor of both is taken.
        feed_forward: width of the hidden feed-forward layer, in multiples of the embeddings' width.
        dropout: share of the numbers that a training step sets to 0, in the inputs and in the
            outputs of the layers.
        gain: the initial value of the learnt factor of the attention's output in the sum with the
            weighted mean.
    """

    decay: PositiveFloat | None = 10.0
    blocks: Positive = 1
    heads: Positive = 2
    feed_forward: Positive = 4
    dropout: Share = 0.3
    gain: PositiveFloat = 0.1


EncoderConfig: TypeAlias = DecayPoolConfig | AttentionConfig
