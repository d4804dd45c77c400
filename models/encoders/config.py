"""Hyper-parameters of the history encoders, one class per kind.

To add an encoder, write a class here, add it to the union `EncoderConfig`, and write a file in this
folder with the name of its `kind` and a function `build(config, max_len)`.
"""

from __future__ import annotations

from typing import TypeAlias

from models.core.fields import Part, PositiveFloat


class DecayPoolConfig(Part, frozen=True, tag_field="kind", tag="decay_pool"):
    """A history encoder that takes the mean of the item embeddings, weighted by position alone.

    Attributes:
        decay: the initial weight of an item at position k of the history, where 0 is the latest, is
            exp(-k / decay); the weights are learnt. Null gives all positions the same weight, which
            is not learnt, and is the default of a recipe without times.
    """

    decay: PositiveFloat | None = 10.0


EncoderConfig: TypeAlias = DecayPoolConfig
